#include "cli/bench/ep_rank.h"

#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/rig.h"

static const uint64_t patience_ns = 60000000000u;

/* The dispatch until all rows are here; sorting them to their experts; the results' way back; and
 * as many bytes in few puts, and in few copies. */
enum { DISPATCH, SORT, COMBINE, DISPATCH_PUT, COMBINE_PUT, DISPATCH_COPY, COMBINE_COPY, N_TIMES };

typedef struct rank_report { /* written into rank 0's region */
    uint64_t dispatch_bytes, combine_bytes;
    double times[N_TIMES][CMI_BENCH_EP_MAX_ROUNDS];
} rank_report;

typedef struct bench_rank {
    const cmi_bench_ep_options *opt;
    const cmi_bench_ep_place *place;
    cmi_ep_layout layout;
    cmi_team *team;
    cmi_exchange *exchange;
    uint8_t *region;
    uint16_t *rank_of; /* [n_experts] */
    uint8_t *values;   /* [n_rows][message_bytes]: rows, and more behind them for plain copies */
    float *scales;
    uint32_t *expert_ids;
    uint8_t *arrived, *results;
    float *arrived_scales;
    uint32_t *expert_begin;
    rank_report report;
    uint64_t n_met;
} bench_rank;

/* ---- memory ---- */

/* Behind the exchange's windows: a word to meet at, and for each rank a report. */
static size_t word_offset(const cmi_ep_layout *l)
{
    return CMI_ROUND_UP(l->region_bytes, (size_t)CMI_CACHE_LINE);
}

static size_t report_offset(const cmi_ep_layout *l, uint32_t rank)
{
    return word_offset(l) + CMI_CACHE_LINE + rank * sizeof(rank_report);
}

static cmi_status make_layout(cmi_ep_layout *layout, uint32_t n_ranks,
                              const cmi_bench_ep_options *opt, cmi_error *err)
{
    const cmi_ep_shape shape = {.n_ranks = n_ranks,
                                .max_rows = opt->n_rows,
                                .top_k = opt->top_k,
                                .max_local_experts = CMI_DIV_UP(opt->n_experts, n_ranks),
                                .row_bytes = opt->hidden,
                                .result_bytes = 2 * (size_t)opt->hidden};
    return cmi_ep_layout_make(layout, &shape, err);
}

cmi_status cmi_bench_ep_region_bytes(size_t *n_bytes_out, uint32_t n_ranks,
                                     const cmi_bench_ep_options *opt, cmi_error *err)
{
    cmi_ep_layout layout;
    cmi_status st = make_layout(&layout, n_ranks, opt, err);
    *n_bytes_out = st == CMI_OK ? report_offset(&layout, n_ranks) : 0;
    return st;
}

/* Distinct experts, drawn uniformly; and the bytes that they mean. */
static void draw_rows(bench_rank *r)
{
    const cmi_bench_ep_options *opt = r->opt;
    for (uint32_t row = 0; row < opt->n_rows; row++) {
        uint32_t *experts = r->expert_ids + (size_t)row * opt->top_k;
        uint64_t ranks = 0;
        for (uint32_t k = 0, tries = 0; k < opt->top_k; tries++) {
            uint32_t words[4];
            cmi_philox4x32(r->place->rank, row, tries, words);
            experts[k] = words[0] % opt->n_experts;
            bool is_new = true;
            for (uint32_t i = 0; i < k; i++) {
                is_new &= experts[i] != experts[k];
            }
            if (is_new) {
                ranks |= UINT64_C(1) << r->rank_of[experts[k++]];
            }
        }
        r->report.dispatch_bytes += (uint64_t)__builtin_popcountll(ranks) * r->layout.message_bytes;
        r->report.combine_bytes += (uint64_t)opt->top_k * r->layout.shape.result_bytes;
    }
}

static void make_rows(bench_rank *r)
{
    const cmi_bench_ep_options *opt = r->opt;
    const size_t n_arrivals = r->exchange->max_arrivals;
    const size_t result_bytes = r->layout.shape.result_bytes;
    r->values = cmi_alloc((size_t)opt->n_rows, r->layout.message_bytes);
    r->scales = cmi_alloc(opt->n_rows, sizeof *r->scales);
    r->expert_ids = cmi_alloc((size_t)opt->n_rows * opt->top_k, sizeof *r->expert_ids);
    r->arrived = cmi_alloc(n_arrivals, opt->hidden);
    r->arrived_scales = cmi_alloc(n_arrivals, sizeof *r->arrived_scales);
    r->results = cmi_alloc(n_arrivals, result_bytes);
    r->expert_begin = cmi_alloc(opt->n_experts + 1, sizeof *r->expert_begin);
    cmi_bench_fill(r->values, (size_t)opt->n_rows * opt->hidden, r->place->rank);
    cmi_bench_fill(r->results, n_arrivals * result_bytes, r->place->rank);
    memset(r->arrived, 0, n_arrivals * opt->hidden);
    draw_rows(r);
}

static cmi_status make_rank(bench_rank *r, cmi_error *err)
{
    const cmi_bench_ep_place *place = r->place;
    cmi_status st = make_layout(&r->layout, place->n_ranks, r->opt, err);
    st = st == CMI_OK ? cmi_team_create(&r->team, 1, err) : st;
    if (st != CMI_OK) {
        return st;
    }
    r->region = cmi_region_memory(place->fabric, place->region);
    r->rank_of = cmi_alloc(r->opt->n_experts, sizeof *r->rank_of);
    for (uint32_t e = 0; e < r->opt->n_experts; e++) {
        r->rank_of[e] = (uint16_t)(e % place->n_ranks);
    }
    const cmi_ep_options options = {.layout = r->layout,
                                    .rank = place->rank,
                                    .team = r->team,
                                    .fabric = place->fabric,
                                    .region = place->region,
                                    .peers = place->peers,
                                    .n_layers = 1,
                                    .n_experts = r->opt->n_experts,
                                    .rank_of = r->rank_of,
                                    .patience_ns = patience_ns};
    st = cmi_ep_create(&r->exchange, &options, err);
    if (st == CMI_OK) {
        make_rows(r);
    }
    return st;
}

static void free_rank(bench_rank *r)
{
    cmi_ep_destroy(r->exchange);
    cmi_team_destroy(r->team);
    cmi_free(r->rank_of);
    cmi_free(r->values);
    cmi_free(r->scales);
    cmi_free(r->expert_ids);
    cmi_free(r->arrived);
    cmi_free(r->arrived_scales);
    cmi_free(r->results);
    cmi_free(r->expert_begin);
    cmi_free(r);
}

/* ---- what ranks say to each other ---- */

static double now_s(const bench_rank *r)
{
    return (double)cmi_fabric_now_ns(r->place->fabric) * 1e-9;
}

static cmi_status put(bench_rank *r, uint32_t rank, const void *from, size_t offset, size_t n)
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

static cmi_status flush(bench_rank *r)
{
    const uint64_t until_ns = cmi_fabric_after_ns(r->place->fabric, patience_ns);
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < r->place->n_ranks; i++) {
        if (i != r->place->rank) {
            st = cmi_endpoint_flush_wait(r->place->fabric, r->place->peers[i].endpoint, until_ns);
        }
    }
    return st;
}

/* All ranks are here, and what each has put is there. */
static cmi_status meet(bench_rank *r)
{
    const cmi_bench_ep_place *place = r->place;
    cmi_status st = CMI_OK;
    r->n_met++;
    for (uint32_t i = 0; st == CMI_OK && i < place->n_ranks; i++) {
        const cmi_remote word = {place->peers[i].region, word_offset(&r->layout)};
        while (i != place->rank &&
               (st = cmi_endpoint_signal(place->fabric, place->peers[i].endpoint, word,
                                         CMI_SIGNAL_ADD, 1, NULL)) == CMI_ERR_NO_CAPACITY) {
            (void)cmi_fabric_progress(place->fabric);
        }
    }
    /* a rank that fails closes all its endpoints, and then everybody else does: any will do */
    const cmi_wait wait = {
        .word = (const _Atomic uint64_t *)(void *)(r->region + word_offset(&r->layout)),
        .at_least = r->n_met * (place->n_ranks - 1),
        .deadline_ns = cmi_fabric_after_ns(place->fabric, patience_ns),
        .from = place->peers[(place->rank + 1) % place->n_ranks].endpoint};
    return st == CMI_OK ? cmi_fabric_wait(place->fabric, &wait) : st;
}

/* A rank that slept comes late; the second time all are awake. */
static cmi_status start_together(bench_rank *r)
{
    cmi_status st = meet(r);
    return st == CMI_OK ? meet(r) : st;
}

/* ---- a round ---- */

static cmi_status exchange_rows(bench_rank *r, uint32_t round)
{
    const cmi_bench_ep_options *opt = r->opt;
    const cmi_exchange_calls *calls = r->exchange->calls;
    const cmi_exchange_rows rows = {.values = r->values,
                                    .scales = r->scales,
                                    .row_bytes = opt->hidden,
                                    .n_rows = opt->n_rows,
                                    .expert_ids = r->expert_ids};
    uint32_t unused;
    const cmi_exchange_arrivals arrivals = {r->arrived, r->arrived_scales, r->expert_begin,
                                            &unused};
    const void *back;
    size_t stride;
    const double begin = now_s(r);
    cmi_status st = calls->send(r->exchange, &rows);
    st = st == CMI_OK ? calls->receive(r->exchange, &arrivals) : st;
    const double sorted = now_s(r), arrived = (double)cmi_ep_arrived_ns(r->exchange) * 1e-9;
    r->report.times[DISPATCH][round] = arrived - begin;
    r->report.times[SORT][round] = sorted - arrived;
    st =
        st == CMI_OK ? start_together(r) : st; /* the slowest at sorting is not in combine's time */
    const double middle = now_s(r);
    st = st == CMI_OK ? calls->send_back(r->exchange, r->results) : st;
    st = st == CMI_OK ? calls->receive_back(r->exchange, &back, &stride) : st;
    r->report.times[COMBINE][round] = now_s(r) - middle;
    return st == CMI_OK ? cmi_ep_drain(r->exchange) : st;
}

/* As many bytes in as few puts, or plain copies, as there are ranks, from memory that a cache may
 * hold, as rows and results are. Lands where the next exchange writes anyway. */
typedef struct plain {
    uint64_t n_bytes; /* to all together */
    size_t offset, room;
    const uint8_t *from;
} plain;

static cmi_status put_plainly(bench_rank *r, const plain *p, double *seconds_out)
{
    const size_t n_each = CMI_MIN((size_t)(p->n_bytes / r->place->n_ranks), p->room);
    cmi_status st = start_together(r);
    const double begin = now_s(r);
    for (uint32_t i = 1; st == CMI_OK && i < r->place->n_ranks; i++) {
        st = put(r, (r->place->rank + i) % r->place->n_ranks, p->from, p->offset, n_each);
    }
    memcpy(r->region + p->offset, p->from, n_each);
    st = st == CMI_OK ? flush(r) : st;
    *seconds_out = now_s(r) - begin;
    return st;
}

static cmi_status copy_plainly(bench_rank *r, const plain *p, double *seconds_out)
{
    const size_t n_each = CMI_MIN((size_t)(p->n_bytes / r->place->n_ranks), p->room);
    if (r->place->memory == NULL) {
        return CMI_OK;
    }
    cmi_status st = start_together(r);
    const double begin = now_s(r);
    for (uint32_t i = 1; st == CMI_OK && i <= r->place->n_ranks; i++) {
        uint8_t *memory = r->place->memory[(r->place->rank + i) % r->place->n_ranks];
        memcpy(memory + p->offset, p->from, n_each);
    }
    *seconds_out = now_s(r) - begin;
    return st;
}

static cmi_status run_round(bench_rank *r, uint32_t round)
{
    const cmi_ep_layout *l = &r->layout;
    const size_t part = (l->region_bytes - l->combine) / r->place->n_ranks;
    const plain dispatch = {.n_bytes = r->report.dispatch_bytes,
                            .offset = cmi_ep_window(l, 0, r->place->rank) + l->messages,
                            .room = l->source_bytes - l->messages,
                            .from = r->values};
    const plain combine = {.n_bytes = r->report.combine_bytes,
                           .offset = l->combine + r->place->rank * part,
                           .room = part,
                           .from = r->results};
    cmi_status st = start_together(r);
    st = st == CMI_OK ? exchange_rows(r, round) : st;
    st = st == CMI_OK ? put_plainly(r, &dispatch, &r->report.times[DISPATCH_PUT][round]) : st;
    st = st == CMI_OK ? put_plainly(r, &combine, &r->report.times[COMBINE_PUT][round]) : st;
    st = st == CMI_OK ? copy_plainly(r, &dispatch, &r->report.times[DISPATCH_COPY][round]) : st;
    return st == CMI_OK ? copy_plainly(r, &combine, &r->report.times[COMBINE_COPY][round]) : st;
}

/* ---- what came of it ---- */

static cmi_status send_report(bench_rank *r)
{
    const size_t offset = report_offset(&r->layout, r->place->rank);
    if (r->place->rank == 0) {
        memcpy(r->region + offset, &r->report, sizeof r->report);
        return meet(r);
    }
    cmi_status st = put(r, 0, &r->report, offset, sizeof r->report);
    st = st == CMI_OK ? meet(r) : st;
    return st == CMI_OK ? flush(r) : st;
}

static double median_of_slowest(const bench_rank *r, int what)
{
    cmi_bench_samples samples = {.n = 0};
    for (uint32_t round = 0; round < r->opt->n_rounds; round++) {
        double slowest = 0;
        for (uint32_t i = 0; i < r->place->n_ranks; i++) {
            const rank_report *report =
                (const rank_report *)(const void *)(r->region + report_offset(&r->layout, i));
            slowest = CMI_MAX(slowest, report->times[what][round]);
        }
        cmi_bench_sample(&samples, slowest);
    }
    return cmi_bench_median(&samples);
}

static void gather(cmi_bench_ep_result *result, const bench_rank *r)
{
    *result = (cmi_bench_ep_result){.dispatch_s = median_of_slowest(r, DISPATCH),
                                    .sort_s = median_of_slowest(r, SORT),
                                    .combine_s = median_of_slowest(r, COMBINE),
                                    .dispatch_put_s = median_of_slowest(r, DISPATCH_PUT),
                                    .combine_put_s = median_of_slowest(r, COMBINE_PUT),
                                    .dispatch_copy_s = median_of_slowest(r, DISPATCH_COPY),
                                    .combine_copy_s = median_of_slowest(r, COMBINE_COPY),
                                    .message_bytes = (uint32_t)r->layout.message_bytes,
                                    .result_bytes = (uint32_t)r->layout.shape.result_bytes};
    for (uint32_t i = 0; i < r->place->n_ranks; i++) {
        const rank_report *report =
            (const rank_report *)(const void *)(r->region + report_offset(&r->layout, i));
        result->dispatch_bytes += (double)report->dispatch_bytes / r->place->n_ranks;
        result->combine_bytes += (double)report->combine_bytes / r->place->n_ranks;
    }
}

cmi_status cmi_bench_ep_rank_run(const cmi_bench_ep_place *place, const cmi_bench_ep_options *opt,
                                 cmi_bench_ep_result *result_out, cmi_error *err)
{
    bench_rank *r = cmi_alloc(1, sizeof *r);
    r->opt = opt;
    r->place = place;
    cmi_status st = make_rank(r, err);
    const bool is_made = st == CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < opt->n_rounds; i++) {
        st = run_round(r, i);
    }
    st = st == CMI_OK ? meet(r) : st;
    st = st == CMI_OK ? send_report(r) : st;
    if (st == CMI_OK && place->rank == 0) {
        gather(result_out, r);
    }
    st = st == CMI_OK ? meet(r) : st; /* nobody leaves while somebody needs it */
    if (st != CMI_OK) {
        if (is_made) {
            (void)cmi_error_set(err, st, "rank %u: %s", place->rank, cmi_status_text(st));
        }
        for (uint32_t i = 0; i < place->n_ranks; i++) {
            cmi_endpoint_close(place->fabric, place->peers[i].endpoint);
        }
    }
    free_rank(r);
    return st;
}
