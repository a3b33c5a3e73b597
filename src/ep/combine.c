/* ep/combine.c - results go back to the ranks of their rows. See ep.h. */
#include "ep/ep_internal.h"

#include <string.h>

/* A task is a result for a rank whose memory is here. */
static void copy_result(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_ep *ep = arg;
    const cmi_ep_arrival *a = &ep->arrivals[task];
    const size_t n_bytes = ep->layout.shape.result_bytes;
    uint8_t *memory = ep->targets[a->source].memory;
    if (memory != NULL) {
        memcpy(memory + cmi_ep_result(&ep->layout, a->pair_idx), ep->results + task * n_bytes,
               n_bytes);
    }
}

static bool has_sent(const cmi_ep *ep, uint32_t source)
{
    const uint8_t *window = ep->region + cmi_ep_window(&ep->layout, ep->sequence, source);
    return ((const cmi_ep_head *)(const void *)window)->n_pairs > 0;
}

cmi_status cmi_ep_send_back(cmi_exchange *exchange, const void *results)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    const uint32_t n_ranks = ep->layout.shape.n_ranks;
    const size_t n_bytes = ep->layout.shape.result_bytes;
    cmi_status st = CMI_OK;
    ep->results = results;
    ep->deadline_ns = cmi_fabric_after_ns(ep->opt.fabric, ep->opt.patience_ns);
    cmi_team_run(ep->opt.team, copy_result, ep, ep->n_arrivals);
    for (uint32_t i = 0; st == CMI_OK && ep->has_puts && i < ep->n_arrivals; i++) {
        const cmi_ep_arrival *a = &ep->arrivals[i];
        if (ep->targets[a->source].memory == NULL) {
            st = cmi_ep_put(ep, a->source, ep->results + i * n_bytes,
                            cmi_ep_result(&ep->layout, a->pair_idx), n_bytes);
        }
    }
    for (uint32_t i = 1; st == CMI_OK && i <= n_ranks; i++) {
        const uint32_t rank = (ep->opt.rank + i) % n_ranks;
        if (cmi_ep_is_there(ep, rank) && has_sent(ep, rank)) {
            st = cmi_ep_raise(ep, rank, cmi_ep_combine_flag(&ep->layout, ep->opt.rank));
        }
    }
    return st;
}

cmi_status cmi_ep_receive_back(cmi_exchange *exchange, const void **results_out, size_t *stride_out)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    cmi_status st = CMI_OK;
    ep->deadline_ns = cmi_fabric_after_ns(ep->opt.fabric, ep->opt.patience_ns);
    for (uint32_t i = 0; st == CMI_OK && i < ep->layout.shape.n_ranks; i++) {
        if (ep->targets[i].n_pairs > 0) {
            st = cmi_ep_await(ep, i, cmi_ep_combine_flag(&ep->layout, i));
        }
    }
    *results_out = ep->region + ep->layout.combine;
    *stride_out = ep->layout.result_stride;
    return st;
}
