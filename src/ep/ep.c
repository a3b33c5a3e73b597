/* Creation, and what dispatch and combine say to the fabric. */
#include "ep/ep_internal.h"

#include <assert.h>

#include "base/alloc.h"

enum {
    LOOK_AROUND_NS = 10000000, /* between looks at the other ranks in a long wait */
    MAX_STEPS = 64,            /* of a fabric, in one call of progress */
};

static const cmi_exchange_calls calls = {cmi_ep_send, cmi_ep_receive, cmi_ep_send_back,
                                         cmi_ep_receive_back, cmi_ep_progress};

static void make_targets(cmi_ep *ep)
{
    const cmi_ep_layout *l = &ep->layout;
    ep->targets = cmi_alloc(l->shape.n_ranks, sizeof *ep->targets);
    for (uint32_t i = 0; i < l->shape.n_ranks; i++) {
        ep->targets[i].rows = cmi_alloc(l->shape.max_rows, sizeof *ep->targets[i].rows);
        ep->targets[i].heads = cmi_alloc_aligned(CMI_EP_WINDOWS * l->messages, CMI_CACHE_LINE);
    }
}

void cmi_ep_restart(cmi_exchange *exchange, const cmi_ep_peer *peers, uint64_t sequence)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    assert(sequence >= ep->sequence);
    ep->sequence = sequence;
    ep->culprit = ep->layout.shape.n_ranks;
    ep->has_puts = false;
    for (uint32_t i = 0; i < ep->layout.shape.n_ranks; i++) {
        cmi_ep_target *t = &ep->targets[i];
        t->peer = peers[i];
        t->n_rows = t->n_pairs = 0;
        t->memory = NULL;
        if (i == ep->opt.rank) {
            t->memory = ep->region;
        } else if (!peers[i].is_away) {
            t->memory = cmi_remote_memory(ep->opt.fabric, peers[i].endpoint, peers[i].region);
            ep->has_puts |= t->memory == NULL;
        }
    }
}

cmi_status cmi_ep_create(cmi_exchange **exchange_out, const cmi_ep_options *opt, cmi_error *err)
{
    const cmi_ep_layout *l = &opt->layout;
    uint8_t *region = cmi_region_memory(opt->fabric, opt->region);
    const uint64_t max_arrivals = (uint64_t)l->shape.n_ranks * l->max_pairs;
    if (region == NULL || opt->rank >= l->shape.n_ranks || max_arrivals > UINT32_MAX / 2) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "rank %u of %u with %u rows cannot exchange rows", opt->rank,
                             l->shape.n_ranks, l->shape.max_rows);
    }
    cmi_ep *ep = cmi_alloc(1, sizeof *ep);
    *ep = (cmi_ep){.base = {&calls, l->shape.max_rows, (uint32_t)max_arrivals},
                   .layout = *l,
                   .opt = *opt,
                   .region = region,
                   .culprit = l->shape.n_ranks};
    make_targets(ep);
    cmi_ep_restart(&ep->base, opt->peers, 0);
    ep->opt.peers = NULL;
    ep->first_copy = cmi_alloc(l->shape.n_ranks + 1, sizeof *ep->first_copy);
    ep->messages = cmi_alloc_aligned(l->shape.max_rows * l->message_bytes, CMI_CACHE_LINE);
    ep->packed = cmi_alloc(l->shape.max_rows, sizeof *ep->packed);
    ep->arrivals = cmi_alloc(max_arrivals, sizeof *ep->arrivals);
    *exchange_out = &ep->base;
    return CMI_OK;
}

void cmi_ep_destroy(cmi_exchange *exchange)
{
    if (exchange == NULL) {
        return;
    }
    cmi_ep *ep = cmi_ep_of(exchange);
    for (uint32_t i = 0; i < ep->layout.shape.n_ranks; i++) {
        cmi_free(ep->targets[i].rows);
        cmi_free(ep->targets[i].heads);
    }
    cmi_free(ep->targets);
    cmi_free(ep->first_copy);
    cmi_free(ep->messages);
    cmi_free(ep->packed);
    cmi_free(ep->arrivals);
    cmi_free(ep);
}

/* Puts of other exchanges on the same endpoints count, too. A peer that is lost does not end it:
 * what is on its way to the others still reads this rank's memory. */
static cmi_status settle(cmi_ep *ep, uint64_t deadline_ns)
{
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; ep->has_puts && i < ep->layout.shape.n_ranks; i++) {
        if (ep->targets[i].memory != NULL || !cmi_ep_is_there(ep, i)) {
            continue;
        }
        const cmi_status of_peer =
            cmi_endpoint_flush_wait(ep->opt.fabric, ep->targets[i].peer.endpoint, deadline_ns);
        if (of_peer != CMI_OK && (st == CMI_OK || st == CMI_ERR_TIMEOUT)) {
            st = cmi_ep_blame(ep, i, of_peer);
        }
    }
    return st;
}

cmi_status cmi_ep_drain(cmi_exchange *exchange)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    return settle(ep, cmi_fabric_after_ns(ep->opt.fabric, ep->opt.patience_ns));
}

cmi_status cmi_ep_check(cmi_ep *ep)
{
    cmi_status st = settle(ep, 0);
    return st == CMI_ERR_TIMEOUT ? CMI_OK : st;
}

/* A fabric's promise of more to do is kept for as long as a burst of puts takes, no longer. */
void cmi_ep_progress(cmi_exchange *exchange)
{
    cmi_ep *ep = cmi_ep_of(exchange);
    for (uint32_t i = 0; i < MAX_STEPS && cmi_fabric_progress(ep->opt.fabric); i++) {
    }
}

uint64_t cmi_ep_arrived_ns(const cmi_exchange *exchange)
{
    return ((const cmi_ep *)exchange)->arrived_ns;
}

void cmi_ep_get_counters(const cmi_exchange *exchange, cmi_ep_counters *counters_out)
{
    *counters_out = ((const cmi_ep *)exchange)->counters;
}

uint32_t cmi_ep_culprit(const cmi_exchange *exchange)
{
    return ((const cmi_ep *)exchange)->culprit;
}

uint64_t cmi_ep_next_sequence(const cmi_exchange *exchange)
{
    return ((const cmi_ep *)exchange)->sequence + 1;
}

/* ---- the fabric --------------------------------------------------------------------------------
 */

cmi_status cmi_ep_blame(cmi_ep *ep, uint32_t rank, cmi_status st)
{
    if (st != CMI_OK) {
        ep->culprit = rank;
    }
    return st;
}

/* Whether to try again what found no room. */
static bool make_room(cmi_ep *ep, cmi_status *st_inout)
{
    if (*st_inout != CMI_ERR_NO_CAPACITY) {
        return false;
    }
    (void)cmi_fabric_progress(ep->opt.fabric);
    if (cmi_fabric_now_ns(ep->opt.fabric) < ep->deadline_ns) {
        return true;
    }
    *st_inout = CMI_ERR_TIMEOUT;
    return false;
}

cmi_status cmi_ep_put(cmi_ep *ep, uint32_t rank, const void *local, size_t offset, size_t n_bytes)
{
    const cmi_ep_peer *peer = &ep->targets[rank].peer;
    const cmi_remote to = {peer->region, offset};
    cmi_status st;
    do {
        st = cmi_endpoint_put(ep->opt.fabric, peer->endpoint, local, to, n_bytes, NULL);
    } while (make_room(ep, &st));
    return cmi_ep_blame(ep, rank, st);
}

cmi_status cmi_ep_raise(cmi_ep *ep, uint32_t rank, size_t offset)
{
    if (rank == ep->opt.rank) {
        _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(ep->region + offset);
        atomic_store_explicit(word, ep->sequence, memory_order_release);
        return CMI_OK;
    }
    const cmi_ep_peer *peer = &ep->targets[rank].peer;
    const cmi_remote word = {peer->region, offset};
    cmi_status st;
    do {
        st = cmi_endpoint_signal(ep->opt.fabric, peer->endpoint, word, CMI_SIGNAL_MAX, ep->sequence,
                                 NULL);
    } while (make_room(ep, &st));
    return cmi_ep_blame(ep, rank, st);
}

/* Any rank that is lost ends the exchange: one that waits for it will not answer either. And its
 * memory may be out of reach since the look. */
cmi_status cmi_ep_look_around(cmi_ep *ep)
{
    const cmi_status seen = ep->opt.look != NULL ? ep->opt.look(ep->opt.look_arg) : CMI_OK;
    if (seen != CMI_OK) {
        return seen;
    }
    for (uint32_t i = 0; i < ep->layout.shape.n_ranks; i++) {
        cmi_endpoint_info info;
        cmi_status st = CMI_OK;
        if (i != ep->opt.rank && cmi_ep_is_there(ep, i)) {
            st = cmi_endpoint_get_info(ep->opt.fabric, ep->targets[i].peer.endpoint, &info);
            st = st == CMI_OK ? info.status : st;
        }
        if (st != CMI_OK) {
            return cmi_ep_blame(ep, i, st);
        }
    }
    return CMI_OK;
}

cmi_status cmi_ep_await(cmi_ep *ep, uint32_t source, size_t offset)
{
    cmi_wait wait = {.word = (const _Atomic uint64_t *)(void *)(ep->region + offset),
                     .at_least = ep->sequence,
                     .from = ep->targets[source].peer.endpoint};
    if (cmi_word_load(wait.word) >= wait.at_least) {
        return CMI_OK;
    }
    const uint64_t begin_ns = cmi_fabric_now_ns(ep->opt.fabric);
    cmi_status st = CMI_ERR_TIMEOUT;
    for (bool is_last = false; st == CMI_ERR_TIMEOUT && !is_last;) {
        wait.deadline_ns = cmi_fabric_after_ns(ep->opt.fabric, LOOK_AROUND_NS);
        is_last = wait.deadline_ns >= ep->deadline_ns;
        wait.deadline_ns = CMI_MIN(wait.deadline_ns, ep->deadline_ns);
        st = cmi_fabric_wait(ep->opt.fabric, &wait);
        if (st == CMI_ERR_TIMEOUT) {
            cmi_status lost = cmi_ep_look_around(ep);
            if (lost != CMI_OK) {
                return lost;
            }
        }
    }
    ep->counters.waited_ns += cmi_fabric_now_ns(ep->opt.fabric) - begin_ns;
    return cmi_ep_blame(ep, source, st);
}
