#include "policy/routing.h"

uint32_t cmi_route_prefill(const cmi_prefill_load *loads, uint32_t n)
{
    uint32_t best = CMI_ROUTE_NONE;
    for (uint32_t i = 0; i < n; i++) {
        if (loads[i].is_open &&
            (best == CMI_ROUTE_NONE || loads[i].n_tokens < loads[best].n_tokens)) {
            best = i;
        }
    }
    return best;
}

static bool has_room(const cmi_rank_load *load, uint32_t n_pages)
{
    return load->n_requests < load->n_seats && load->n_pages_used <= load->n_pages &&
           load->n_pages - load->n_pages_used >= n_pages;
}

static uint32_t free_pages(const cmi_rank_load *load)
{
    return load->n_pages > load->n_pages_used ? load->n_pages - load->n_pages_used : 0;
}

static bool is_better(const cmi_rank_load *a, const cmi_rank_load *b, uint32_t n_pages)
{
    const bool a_room = has_room(a, n_pages), b_room = has_room(b, n_pages);
    if (a_room != b_room) {
        return a_room;
    }
    if (a->n_tokens != b->n_tokens) {
        return a->n_tokens < b->n_tokens;
    }
    if (a->n_requests != b->n_requests) {
        return a->n_requests < b->n_requests;
    }
    return free_pages(a) > free_pages(b);
}

uint32_t cmi_route_rank(const cmi_rank_load *loads, uint32_t n, uint32_t n_pages, uint32_t turn)
{
    uint32_t best = CMI_ROUTE_NONE;
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t i = (uint32_t)(((uint64_t)turn + k) % n);
        if (loads[i].is_open &&
            (best == CMI_ROUTE_NONE || is_better(&loads[i], &loads[best], n_pages))) {
            best = i;
        }
    }
    return best;
}
