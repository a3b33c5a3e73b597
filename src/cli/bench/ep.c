#include "cli/bench/ep.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/rig.h"
#include "ep/group.h"
#include "fabric/fault.h"

static const uint64_t patience_ns = 60000000000u;

enum { DISPATCH, COMBINE, DISPATCH_COPY, COMBINE_COPY, N_TIMES };

typedef struct bench_run {
    const cmi_bench_ep_options *opt;
    uint32_t n_ranks;
    cmi_ep_layout layout;
    cmi_ep_group *group;
    uint16_t *rank_of;    /* [n_experts] */
    pthread_mutex_t gate; /* closed until all threads are there */
    pthread_barrier_t barrier;
    _Atomic bool has_failed;
    struct bench_rank *ranks; /* [n_ranks] */
} bench_run;

typedef struct bench_rank {
    bench_run *run;
    uint32_t rank;
    pthread_t thread;
    cmi_fabric *fabric;
    cmi_team *team;
    cmi_region_id region;
    cmi_ep_peer peers[CMI_BENCH_EP_MAX_RANKS];
    uint8_t *memory[CMI_BENCH_EP_MAX_RANKS]; /* of the peers; NULL: not mapped */
    cmi_exchange *exchange;
    uint8_t *values; /* [n_rows][hidden], and more behind them */
    float *scales;
    uint32_t *expert_ids;
    uint8_t *arrived, *results;
    float *arrived_scales;
    uint32_t *expert_begin;
    uint64_t dispatch_bytes, combine_bytes;
    double times[N_TIMES][CMI_BENCH_EP_MAX_ROUNDS];
    cmi_error err;
} bench_rank;

/* ---- a rank's memory ---- */

/* Distinct experts, drawn uniformly; and the bytes that they mean. */
static void draw_rows(bench_rank *r)
{
    const cmi_bench_ep_options *opt = r->run->opt;
    for (uint32_t row = 0; row < opt->n_rows; row++) {
        uint32_t *experts = r->expert_ids + (size_t)row * opt->top_k;
        uint64_t ranks = 0;
        for (uint32_t k = 0, tries = 0; k < opt->top_k; tries++) {
            uint32_t words[4];
            cmi_philox4x32(r->rank, row, tries, words);
            experts[k] = words[0] % opt->n_experts;
            bool is_new = true;
            for (uint32_t i = 0; i < k; i++) {
                is_new &= experts[i] != experts[k];
            }
            if (is_new) {
                ranks |= UINT64_C(1) << r->run->rank_of[experts[k++]];
            }
        }
        r->dispatch_bytes += (uint64_t)__builtin_popcountll(ranks) * r->run->layout.message_bytes;
        r->combine_bytes += (uint64_t)opt->top_k * r->run->layout.shape.result_bytes;
    }
}

static cmi_status make_rank(bench_rank *r)
{
    const bench_run *run = r->run;
    const cmi_bench_ep_options *opt = run->opt;
    const cmi_ep_layout *l = &run->layout;
    r->fabric = cmi_ep_group_fabric(run->group, r->rank);
    cmi_status st = cmi_team_create(&r->team, 1, &r->err);
    if (st == CMI_OK) {
        st = cmi_ep_group_join(run->group, r->rank, l->region_bytes, patience_ns, &r->region,
                               r->peers, &r->err);
    }
    const cmi_ep_options options = {.layout = *l,
                                    .rank = r->rank,
                                    .team = r->team,
                                    .fabric = r->fabric,
                                    .region = r->region,
                                    .peers = r->peers,
                                    .n_layers = 1,
                                    .n_experts = opt->n_experts,
                                    .rank_of = run->rank_of,
                                    .patience_ns = patience_ns};
    st = st == CMI_OK ? cmi_ep_create(&r->exchange, &options, &r->err) : st;
    if (st != CMI_OK) {
        return st;
    }
    const size_t n_arrivals = r->exchange->max_arrivals;
    r->values = cmi_alloc((size_t)opt->n_rows, l->message_bytes); /* plain copies take as many */
    r->scales = cmi_alloc(opt->n_rows, sizeof *r->scales);
    r->expert_ids = cmi_alloc((size_t)opt->n_rows * opt->top_k, sizeof *r->expert_ids);
    r->arrived = cmi_alloc(n_arrivals, opt->hidden);
    r->arrived_scales = cmi_alloc(n_arrivals, sizeof *r->arrived_scales);
    r->results = cmi_alloc(n_arrivals, l->shape.result_bytes);
    r->expert_begin = cmi_alloc(opt->n_experts + 1, sizeof *r->expert_begin);
    cmi_bench_fill(r->values, (size_t)opt->n_rows * opt->hidden, r->rank);
    cmi_bench_fill(r->results, n_arrivals * l->shape.result_bytes, r->rank);
    memset(r->arrived, 0, n_arrivals * opt->hidden);
    for (uint32_t i = 0; i < run->n_ranks; i++) {
        r->memory[i] = i == r->rank
                           ? cmi_region_memory(r->fabric, r->region)
                           : cmi_remote_memory(r->fabric, r->peers[i].endpoint, r->peers[i].region);
    }
    draw_rows(r);
    return CMI_OK;
}

static void free_rank(bench_rank *r)
{
    cmi_ep_destroy(r->exchange);
    cmi_team_destroy(r->team);
    cmi_free(r->values);
    cmi_free(r->scales);
    cmi_free(r->expert_ids);
    cmi_free(r->arrived);
    cmi_free(r->arrived_scales);
    cmi_free(r->results);
    cmi_free(r->expert_begin);
}

/* ---- a round ---- */

static cmi_status exchange_rows(bench_rank *r, uint32_t round)
{
    const cmi_bench_ep_options *opt = r->run->opt;
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
    double begin = cmi_bench_seconds();
    cmi_status st = calls->send(r->exchange, &rows);
    st = st == CMI_OK ? calls->receive(r->exchange, &arrivals) : st;
    double middle = cmi_bench_seconds();
    st = st == CMI_OK ? calls->send_back(r->exchange, r->results) : st;
    st = st == CMI_OK ? calls->receive_back(r->exchange, &back, &stride) : st;
    r->times[DISPATCH][round] = middle - begin;
    r->times[COMBINE][round] = cmi_bench_seconds() - middle;
    return st == CMI_OK ? cmi_ep_drain(r->exchange) : st;
}

/* As many bytes in as few copies as there are peers, from memory that a cache may hold, as rows and
 * results are. Lands where the next exchange writes anyway. */
static double copy_plainly(bench_rank *r, uint64_t n_bytes, size_t offset, size_t room,
                           const uint8_t *from)
{
    const size_t n_each = CMI_MIN((size_t)(n_bytes / r->run->n_ranks), room);
    double begin = cmi_bench_seconds();
    for (uint32_t i = 1; i <= r->run->n_ranks; i++) {
        uint8_t *memory = r->memory[(r->rank + i) % r->run->n_ranks];
        if (memory != NULL) {
            memcpy(memory + offset, from, n_each);
        }
    }
    return cmi_bench_seconds() - begin;
}

static void copy_rounds(bench_rank *r, uint32_t round)
{
    const cmi_ep_layout *l = &r->run->layout;
    const size_t part = (l->region_bytes - l->combine) / r->run->n_ranks;
    r->times[DISPATCH_COPY][round] =
        copy_plainly(r, r->dispatch_bytes, cmi_ep_window(l, 0, r->rank) + l->messages,
                     l->source_bytes - l->messages, r->values);
    pthread_barrier_wait(&r->run->barrier);
    r->times[COMBINE_COPY][round] =
        copy_plainly(r, r->combine_bytes, l->combine + r->rank * part, part, r->results);
}

static void *rank_main(void *arg)
{
    bench_rank *r = arg;
    bench_run *run = r->run;
    pthread_mutex_lock(&run->gate);
    pthread_mutex_unlock(&run->gate);
    if (atomic_load(&run->has_failed)) {
        return NULL;
    }
    cmi_status st = make_rank(r);
    if (st != CMI_OK) {
        atomic_store(&run->has_failed, true);
    }
    for (uint32_t i = 0; i < run->opt->n_rounds; i++) {
        pthread_barrier_wait(&run->barrier); /* all begin together, and see one failure alike */
        if (atomic_load(&run->has_failed)) {
            break;
        }
        st = exchange_rows(r, i);
        pthread_barrier_wait(&run->barrier);
        copy_rounds(r, i);
        if (st != CMI_OK) {
            (void)cmi_error_set(&r->err, st, "rank %u: %s", r->rank, cmi_status_text(st));
            atomic_store(&run->has_failed, true);
        }
    }
    pthread_barrier_wait(&run->barrier);
    free_rank(r);
    return NULL;
}

/* ---- all ranks ---- */

static cmi_status wrap(void *arg, uint32_t rank, cmi_fabric **fabric_inout, cmi_error *err)
{
    const cmi_bench_ep_options *opt = arg;
    const uint64_t delay_ns = opt->delay_us * UINT64_C(1000);
    const cmi_fault_options faults = {
        .seed = rank, .n_ops = 1u << 14, .min_delay_ns = delay_ns, .max_delay_ns = delay_ns};
    cmi_fabric *inner = *fabric_inout;
    return cmi_fabric_wrap_faults(fabric_inout, inner, &faults, err);
}

static double median_of_slowest(const bench_run *run, int what)
{
    cmi_bench_samples samples = {.n = 0};
    for (uint32_t round = 0; round < run->opt->n_rounds; round++) {
        double slowest = 0;
        for (uint32_t i = 0; i < run->n_ranks; i++) {
            slowest = CMI_MAX(slowest, run->ranks[i].times[what][round]);
        }
        cmi_bench_sample(&samples, slowest);
    }
    return cmi_bench_median(&samples);
}

static void gather(cmi_bench_ep_result *result, const bench_run *run)
{
    *result = (cmi_bench_ep_result){.dispatch_s = median_of_slowest(run, DISPATCH),
                                    .combine_s = median_of_slowest(run, COMBINE),
                                    .dispatch_copy_s = median_of_slowest(run, DISPATCH_COPY),
                                    .combine_copy_s = median_of_slowest(run, COMBINE_COPY)};
    for (uint32_t i = 0; i < run->n_ranks; i++) {
        result->dispatch_bytes += (double)run->ranks[i].dispatch_bytes / run->n_ranks;
        result->combine_bytes += (double)run->ranks[i].combine_bytes / run->n_ranks;
    }
}

static cmi_status run_ranks(bench_run *run, cmi_error *err)
{
    cmi_status st = CMI_OK;
    uint32_t n_threads = 0;
    pthread_barrier_init(&run->barrier, NULL, run->n_ranks);
    pthread_mutex_init(&run->gate, NULL);
    pthread_mutex_lock(&run->gate);
    for (bench_rank *r = run->ranks; n_threads < run->n_ranks; n_threads++, r++) {
        r->run = run;
        r->rank = n_threads;
        int rc = pthread_create(&r->thread, NULL, rank_main, r);
        if (rc != 0) {
            st = cmi_error_set(err, CMI_ERR_IO, "no thread for a rank: %s", strerror(rc));
            atomic_store(&run->has_failed, true);
            break;
        }
    }
    pthread_mutex_unlock(&run->gate);
    for (uint32_t i = 0; i < n_threads; i++) {
        pthread_join(run->ranks[i].thread, NULL);
        if (st == CMI_OK && run->ranks[i].err.status != CMI_OK) {
            *err = run->ranks[i].err;
            st = err->status;
        }
    }
    pthread_mutex_destroy(&run->gate);
    pthread_barrier_destroy(&run->barrier);
    return st;
}

cmi_status cmi_bench_ep_run(cmi_bench_ep_result *result_out, uint32_t n_ranks,
                            const cmi_bench_ep_options *opt, cmi_error *err)
{
    bench_run run = {.opt = opt, .n_ranks = n_ranks};
    const cmi_ep_shape shape = {.n_ranks = n_ranks,
                                .max_rows = opt->n_rows,
                                .top_k = opt->top_k,
                                .max_local_experts = CMI_DIV_UP(opt->n_experts, n_ranks),
                                .row_bytes = opt->hidden,
                                .result_bytes = 2 * (size_t)opt->hidden};
    cmi_bench_ep_options wrapped = *opt;
    cmi_status st = cmi_ep_layout_make(&run.layout, &shape, err);
    if (st == CMI_OK) {
        const bool has_faults = opt->by_put || opt->delay_us > 0;
        st = cmi_ep_group_create(&run.group, "local", n_ranks, has_faults ? wrap : NULL, &wrapped,
                                 err);
    }
    if (st != CMI_OK) {
        return st;
    }
    run.rank_of = cmi_alloc(opt->n_experts, sizeof *run.rank_of);
    for (uint32_t e = 0; e < opt->n_experts; e++) {
        run.rank_of[e] = (uint16_t)(e % n_ranks);
    }
    run.ranks = cmi_alloc(n_ranks, sizeof *run.ranks);
    st = run_ranks(&run, err);
    if (st == CMI_OK) {
        gather(result_out, &run);
    }
    cmi_free(run.ranks);
    cmi_free(run.rank_of);
    cmi_ep_group_destroy(run.group);
    return st;
}
