#include "ep/stage.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "ep/ep_internal.h"

enum { COPY_BYTES = 1 << 16 /* of a task */ };

/* Of ep it uses what the fabric's calls need (ep_internal.h): peers and their memory, the own
 * region, the sequence number, which counts steps here, and the deadline. */
typedef struct ep_stage {
    cmi_stage_exchange base;
    cmi_ep ep;
    size_t window; /* offset in a region */
    uint64_t waited_ns;
} ep_stage;

typedef struct copying { /* to memory that is mapped */
    uint8_t *to;
    const uint8_t *from;
    size_t n_bytes;
} copying;

static ep_stage *stage_of(cmi_stage_exchange *exchange)
{
    return (ep_stage *)exchange; /* it begins with one */
}

static size_t flag_of(uint32_t source)
{
    return (size_t)source * CMI_CACHE_LINE;
}

/* ---- the calls ---- */

static void copy_part(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const copying *c = arg;
    const size_t at = (size_t)task * COPY_BYTES;
    memcpy(c->to + at, c->from + at, CMI_MIN(c->n_bytes - at, (size_t)COPY_BYTES));
}

static void begin_call(ep_stage *s)
{
    s->ep.deadline_ns = cmi_fabric_after_ns(s->ep.opt.fabric, s->ep.opt.patience_ns);
}

static cmi_status put(cmi_stage_exchange *exchange, uint32_t rank, size_t at, const void *from,
                      size_t n_bytes)
{
    ep_stage *s = stage_of(exchange);
    uint8_t *memory = s->ep.targets[rank].memory;
    if (memory == NULL) {
        begin_call(s);
        return cmi_ep_put(&s->ep, rank, from, s->window + at, n_bytes);
    }
    copying c = {memory + s->window + at, from, n_bytes};
    if (n_bytes <= COPY_BYTES) {
        memcpy(c.to, from, n_bytes);
    } else {
        cmi_team_run(s->ep.opt.team, copy_part, &c,
                     (uint32_t)CMI_DIV_UP(n_bytes, (size_t)COPY_BYTES));
    }
    return CMI_OK;
}

static cmi_status tell(cmi_stage_exchange *exchange)
{
    ep_stage *s = stage_of(exchange);
    const uint32_t n_ranks = exchange->shape.n_ranks;
    cmi_status st = cmi_ep_look_around(&s->ep);
    s->ep.sequence++;
    begin_call(s);
    for (uint32_t i = 1; st == CMI_OK && i < n_ranks; i++) {
        st = cmi_ep_raise(&s->ep, (exchange->rank + i) % n_ranks, flag_of(exchange->rank));
    }
    return st;
}

static cmi_status hear(cmi_stage_exchange *exchange)
{
    ep_stage *s = stage_of(exchange);
    const uint64_t begin_ns = cmi_fabric_now_ns(s->ep.opt.fabric);
    cmi_status st = CMI_OK;
    begin_call(s);
    for (uint32_t i = 0; st == CMI_OK && i < exchange->shape.n_ranks; i++) {
        if (i != exchange->rank) {
            st = cmi_ep_await(&s->ep, i, flag_of(i));
        }
    }
    s->waited_ns += cmi_fabric_now_ns(s->ep.opt.fabric) - begin_ns;
    return st;
}

static void progress(cmi_stage_exchange *exchange)
{
    cmi_ep_progress(&stage_of(exchange)->ep.base);
}

static cmi_status blame(cmi_stage_exchange *exchange, uint32_t rank)
{
    return cmi_ep_blame(&stage_of(exchange)->ep, rank, CMI_ERR_BAD_DATA);
}

static uint64_t next_step(const cmi_stage_exchange *exchange)
{
    return cmi_ep_stage_next_sequence(exchange);
}

static const cmi_stage_exchange_calls calls = {put, tell, hear, progress, blame, next_step};

/* ---- making ---- */

static size_t window_offset(uint32_t n_ranks)
{
    const size_t page = 4096;
    return CMI_ROUND_UP(flag_of(n_ranks), page);
}

size_t cmi_ep_stage_region_bytes(uint32_t n_ranks, size_t window_bytes)
{
    return window_offset(n_ranks) + window_bytes;
}

void cmi_ep_stage_restart(cmi_stage_exchange *exchange, const cmi_ep_peer *peers, uint64_t sequence)
{
    ep_stage *s = stage_of(exchange);
    s->ep.culprit = exchange->shape.n_ranks;
    assert(sequence >= s->ep.sequence);
    s->ep.sequence = sequence;
    for (uint32_t i = 0; i < exchange->shape.n_ranks; i++) {
        cmi_ep_target *t = &s->ep.targets[i];
        t->peer = peers[i];
        t->memory = i == exchange->rank ? s->ep.region : NULL;
        if (i != exchange->rank && !peers[i].is_away) {
            t->memory = cmi_remote_memory(s->ep.opt.fabric, peers[i].endpoint, peers[i].region);
        }
    }
}

cmi_status cmi_ep_stage_create(cmi_stage_exchange **exchange_out, const cmi_ep_stage_options *opt,
                               cmi_error *err)
{
    uint8_t *region = cmi_region_memory(opt->fabric, opt->region);
    const uint32_t n_ranks = opt->shape.n_ranks;
    if (region == NULL || n_ranks < 1 || n_ranks > CMI_EP_MAX_RANKS || opt->rank >= n_ranks) {
        return cmi_error_set(err, CMI_ERR_INVALID, "rank %u of %u cannot share prompts", opt->rank,
                             n_ranks);
    }
    ep_stage *s = cmi_alloc(1, sizeof *s);
    s->window = window_offset(n_ranks);
    s->base = (cmi_stage_exchange){&calls, opt->shape, opt->rank, region + s->window};
    s->ep.region = region;
    s->ep.layout.shape.n_ranks = n_ranks;
    s->ep.opt = (cmi_ep_options){.rank = opt->rank,
                                 .team = opt->team,
                                 .fabric = opt->fabric,
                                 .patience_ns = opt->patience_ns,
                                 .look = opt->look,
                                 .look_arg = opt->look_arg};
    s->ep.targets = cmi_alloc(n_ranks, sizeof *s->ep.targets);
    cmi_ep_stage_restart(&s->base, opt->peers, 0);
    *exchange_out = &s->base;
    return CMI_OK;
}

void cmi_ep_stage_destroy(cmi_stage_exchange *exchange)
{
    if (exchange != NULL) {
        cmi_free(stage_of(exchange)->ep.targets);
        cmi_free(exchange);
    }
}

uint32_t cmi_ep_stage_culprit(const cmi_stage_exchange *exchange)
{
    return ((const ep_stage *)exchange)->ep.culprit;
}

uint64_t cmi_ep_stage_waited_ns(const cmi_stage_exchange *exchange)
{
    return ((const ep_stage *)exchange)->waited_ns;
}

uint64_t cmi_ep_stage_next_sequence(const cmi_stage_exchange *exchange)
{
    return ((const ep_stage *)exchange)->ep.sequence + 1;
}
