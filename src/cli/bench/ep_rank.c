#include "cli/bench/ep_rank_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "cli/bench/rig.h"

/* ---- memory ---- */

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
    *n_bytes_out = st == CMI_OK ? cmi_bench_ep_report_offset(&layout, n_ranks) : 0;
    return st;
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
                                    .patience_ns = CMI_BENCH_EP_PATIENCE_NS};
    st = cmi_ep_create(&r->exchange, &options, err);
    if (st == CMI_OK) {
        cmi_bench_ep_make_rows(r);
    }
    return st;
}

static void free_rank(bench_rank *r)
{
    cmi_ep_destroy(r->exchange);
    cmi_team_destroy(r->team);
    cmi_free(r->rank_of);
    cmi_bench_ep_free_rows(r);
    cmi_free(r);
}

/* ---- a round ---- */

static double now_s(const bench_rank *r)
{
    return (double)cmi_fabric_now_ns(r->place->fabric) * 1e-9;
}

/* Sends rows, and gets them back as results, of which *back_out is the first. */
static cmi_status exchange_rows(bench_rank *r, uint32_t round, bool is_proof, const void **back_out,
                                size_t *stride_out)
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
    const double begin = now_s(r);
    cmi_status st = calls->send(r->exchange, &rows);
    st = st == CMI_OK ? calls->receive(r->exchange, &arrivals) : st;
    const double sorted = now_s(r), arrived = (double)cmi_ep_arrived_ns(r->exchange) * 1e-9;
    r->report.times[DISPATCH][round] = arrived - begin;
    r->report.times[SORT][round] = sorted - arrived;
    if (st == CMI_OK && is_proof) {
        cmi_bench_ep_answer_rows(r);
    }
    /* the slowest at sorting is not in combine's time */
    st = st == CMI_OK ? cmi_bench_ep_start_together(r) : st;
    const double middle = now_s(r);
    st = st == CMI_OK ? calls->send_back(r->exchange, r->results) : st;
    st = st == CMI_OK ? calls->receive_back(r->exchange, back_out, stride_out) : st;
    r->report.times[COMBINE][round] = now_s(r) - middle;
    return st == CMI_OK ? cmi_ep_drain(r->exchange) : st;
}

/* An exchange that is not timed: every row was where its expert is, if what comes back says so. */
static cmi_status prove(bench_rank *r)
{
    const void *back;
    size_t stride;
    cmi_status st = cmi_bench_ep_start_together(r);
    st = st == CMI_OK ? exchange_rows(r, 0, true, &back, &stride) : st;
    return st == CMI_OK && !cmi_bench_ep_are_answers(r, back, stride) ? CMI_ERR_BAD_DATA : st;
}

/* As many bytes in as few puts, or plain copies, as there are ranks, from memory that a cache may
 * hold, as rows and results are. Lands where the next exchange writes anyway: each rank has a part
 * of everybody's region. */
typedef struct plain {
    uint64_t n_bytes; /* to all together */
    size_t parts, stride, room;
    const uint8_t *from;
} plain;

static size_t bytes_of_each(const bench_rank *r, const plain *p)
{
    return CMI_MIN((size_t)(p->n_bytes / r->place->n_ranks), p->room);
}

static cmi_status put_plainly(bench_rank *r, const plain *p, double *seconds_out)
{
    const size_t n_each = bytes_of_each(r, p), to = p->parts + r->place->rank * p->stride;
    cmi_status st = cmi_bench_ep_start_together(r);
    const double begin = now_s(r);
    for (uint32_t i = 1; st == CMI_OK && i < r->place->n_ranks; i++) {
        st = cmi_bench_ep_put(r, (r->place->rank + i) % r->place->n_ranks, p->from, to, n_each);
    }
    memcpy(r->region + to, p->from, n_each);
    st = st == CMI_OK ? cmi_bench_ep_flush(r) : st;
    *seconds_out = now_s(r) - begin;
    return st;
}

/* Ranks in other processes have memory of their own: there each copies all to its own. */
static cmi_status copy_plainly(bench_rank *r, const plain *p, double *seconds_out)
{
    const size_t n_each = bytes_of_each(r, p);
    cmi_status st = cmi_bench_ep_start_together(r);
    const double begin = now_s(r);
    for (uint32_t i = 1; st == CMI_OK && i <= r->place->n_ranks; i++) {
        const uint32_t rank = (r->place->rank + i) % r->place->n_ranks;
        uint8_t *parts = (r->place->memory != NULL ? r->place->memory[rank] : r->region) + p->parts;
        memcpy(parts + (r->place->memory != NULL ? r->place->rank : rank) * p->stride, p->from,
               n_each);
    }
    *seconds_out = now_s(r) - begin;
    return st;
}

static cmi_status run_round(bench_rank *r, uint32_t round)
{
    const cmi_ep_layout *l = &r->layout;
    const size_t part = (l->region_bytes - l->combine) / r->place->n_ranks;
    const plain dispatch = {.n_bytes = r->report.dispatch_bytes,
                            .parts = cmi_ep_window(l, 0, 0) + l->messages,
                            .stride = l->source_bytes,
                            .room = l->source_bytes - l->messages,
                            .from = r->values};
    const plain combine = {.n_bytes = r->report.combine_bytes,
                           .parts = l->combine,
                           .stride = part,
                           .room = part,
                           .from = r->results};
    const void *unused;
    size_t unused_stride;
    cmi_status st = cmi_bench_ep_start_together(r);
    st = st == CMI_OK ? exchange_rows(r, round, false, &unused, &unused_stride) : st;
    st = st == CMI_OK ? put_plainly(r, &dispatch, &r->report.times[DISPATCH_PUT][round]) : st;
    st = st == CMI_OK ? put_plainly(r, &combine, &r->report.times[COMBINE_PUT][round]) : st;
    st = st == CMI_OK ? copy_plainly(r, &dispatch, &r->report.times[DISPATCH_COPY][round]) : st;
    return st == CMI_OK ? copy_plainly(r, &combine, &r->report.times[COMBINE_COPY][round]) : st;
}

/* ---- what came of it ---- */

static double median_of_slowest(const bench_rank *r, int what)
{
    cmi_bench_samples samples = {.n = 0};
    for (uint32_t round = 0; round < r->opt->n_rounds; round++) {
        double slowest = 0;
        for (uint32_t i = 0; i < r->place->n_ranks; i++) {
            const rank_report *report =
                (const rank_report *)(const void *)(r->region +
                                                    cmi_bench_ep_report_offset(&r->layout, i));
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
            (const rank_report *)(const void *)(r->region +
                                                cmi_bench_ep_report_offset(&r->layout, i));
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
    st = st == CMI_OK ? prove(r) : st;
    for (uint32_t i = 0; st == CMI_OK && i < opt->n_rounds; i++) {
        st = run_round(r, i);
    }
    st = st == CMI_OK ? cmi_bench_ep_part(r) : st;
    if (st == CMI_OK && place->rank == 0) {
        gather(result_out, r);
    }
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
