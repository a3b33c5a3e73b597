/* cli/bench/ep_rank_meet.c - what ranks of the measurement say to each other, all of it by puts and
 * signals. */
#include <string.h>

#include "cli/bench/ep_rank_internal.h"

/* Behind the exchange's windows: a word to meet at, one to part at, and for each rank a report. */
static size_t word_offset(const cmi_ep_layout *l)
{
    return CMI_ROUND_UP(l->region_bytes, (size_t)CMI_CACHE_LINE);
}

static size_t parting_offset(const cmi_ep_layout *l)
{
    return word_offset(l) + sizeof(uint64_t);
}

size_t cmi_bench_ep_report_offset(const cmi_ep_layout *l, uint32_t rank)
{
    return word_offset(l) + CMI_CACHE_LINE + rank * sizeof(rank_report);
}

cmi_status cmi_bench_ep_put(bench_rank *r, uint32_t rank, const void *from, size_t offset, size_t n)
{
    const cmi_ep_peer *peer = &r->place->peers[rank];
    const cmi_remote to = {peer->region, offset};
    cmi_status st;
    while ((st = cmi_endpoint_put(r->place->fabric, peer->endpoint, from, to, n, NULL)) ==
           CMI_ERR_NO_CAPACITY) {
        (void)cmi_fabric_progress(r->place->fabric);
    }
    return st;
}

cmi_status cmi_bench_ep_flush(bench_rank *r)
{
    const uint64_t until_ns = cmi_fabric_after_ns(r->place->fabric, CMI_BENCH_EP_PATIENCE_NS);
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < r->place->n_ranks; i++) {
        if (i != r->place->rank) {
            st = cmi_endpoint_flush_wait(r->place->fabric, r->place->peers[i].endpoint, until_ns);
        }
    }
    return st;
}

static cmi_status add_to_word(bench_rank *r, uint32_t rank, size_t offset)
{
    const cmi_ep_peer *peer = &r->place->peers[rank];
    const cmi_remote word = {peer->region, offset};
    cmi_status st;
    while ((st = cmi_endpoint_signal(r->place->fabric, peer->endpoint, word, CMI_SIGNAL_ADD, 1,
                                     NULL)) == CMI_ERR_NO_CAPACITY) {
        (void)cmi_fabric_progress(r->place->fabric);
    }
    return st;
}

/* from: the rank whose loss ends it. */
static cmi_status await_word(bench_rank *r, size_t offset, uint64_t at_least, uint32_t from)
{
    const cmi_wait wait = {.word = (const _Atomic uint64_t *)(void *)(r->region + offset),
                           .at_least = at_least,
                           .deadline_ns =
                               cmi_fabric_after_ns(r->place->fabric, CMI_BENCH_EP_PATIENCE_NS),
                           .from = r->place->peers[from].endpoint};
    return cmi_fabric_wait(r->place->fabric, &wait);
}

cmi_status cmi_bench_ep_meet(bench_rank *r)
{
    const uint32_t n_ranks = r->place->n_ranks;
    cmi_status st = CMI_OK;
    r->n_met++;
    for (uint32_t i = 0; st == CMI_OK && i < n_ranks; i++) {
        st = i != r->place->rank ? add_to_word(r, i, word_offset(&r->layout)) : CMI_OK;
    }
    /* a rank that fails closes all its endpoints, and then everybody else does: any will do */
    return st == CMI_OK ? await_word(r, word_offset(&r->layout), r->n_met * (n_ranks - 1),
                                     (r->place->rank + 1) % n_ranks)
                        : st;
}

cmi_status cmi_bench_ep_start_together(bench_rank *r)
{
    cmi_status st = cmi_bench_ep_meet(r);
    return st == CMI_OK ? cmi_bench_ep_meet(r) : st;
}

/* ---- the end ---- */

/* Rank 0 gets everybody's report and then sends all away, so that nobody leaves, and closes what
 * others wait on, while somebody needs it. */
static cmi_status collect_reports(bench_rank *r)
{
    const size_t word = parting_offset(&r->layout);
    const uint32_t n_ranks = r->place->n_ranks;
    memcpy(r->region + cmi_bench_ep_report_offset(&r->layout, 0), &r->report, sizeof r->report);
    cmi_status st = await_word(r, word, n_ranks - 1, 1 % n_ranks);
    for (uint32_t i = 1; st == CMI_OK && i < n_ranks; i++) {
        st = add_to_word(r, i, word);
    }
    for (uint32_t i = 1; st == CMI_OK && i < n_ranks; i++) {
        const uint64_t until_ns = cmi_fabric_after_ns(r->place->fabric, CMI_BENCH_EP_PATIENCE_NS);
        cmi_status gone =
            cmi_endpoint_flush_wait(r->place->fabric, r->place->peers[i].endpoint, until_ns);
        (void)gone; /* who has the word may have left before it has confirmed it */
    }
    return st;
}

static cmi_status hand_in_report(bench_rank *r)
{
    const size_t offset = cmi_bench_ep_report_offset(&r->layout, r->place->rank);
    const size_t word = parting_offset(&r->layout);
    cmi_status st = cmi_bench_ep_put(r, 0, &r->report, offset, sizeof r->report);
    st = st == CMI_OK ? add_to_word(r, 0, word) : st;
    return st == CMI_OK ? await_word(r, word, 1, 0) : st;
}

cmi_status cmi_bench_ep_part(bench_rank *r)
{
    cmi_status st = cmi_bench_ep_meet(r);
    if (st == CMI_OK) {
        st = r->place->rank == 0 ? collect_reports(r) : hand_in_report(r);
    }
    return st;
}
