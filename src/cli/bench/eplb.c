#include "cli/bench/eplb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/ranks.h"
#include "cli/bench/rig.h"
#include "engine/instance_rank.h"
#include "os/affinity.h"
#include "os/child.h"

static const uint64_t PATIENCE_NS = 120000000000u, ORDER_SEED = 5;
static const uint8_t secret[] = "of ranks that are threads of one process";

enum { WARM_UP = 5, RING_BYTES = 1 << 18 };

/* A pass, as one rank saw it. */
typedef struct pass {
    double seconds;
    uint64_t n_pairs; /* that came to its experts */
    bool is_moving, is_planned;
} pass;

typedef struct bench_rank {
    struct bench_run *run;
    uint32_t rank;
    cmi_fabric *fabric;
    cmi_membership *membership;
    cmi_instance *instance;
    uint32_t *token_ids, *page_ids, *expert_ids;
    uint32_t *order; /* [n_routed_experts] which expert is the k-th in demand */
    cmi_batch_span *spans;
    cmi_batch batch;
    pass *passes; /* [CMI_BENCH_EPLB_MAX_PASSES] */
    cmi_instance_rank_stats stats;
} bench_rank;

typedef struct bench_run {
    const cmi_bench_eplb_options *opt;
    cmi_bench_ranks together;
    bench_rank ranks[CMI_BENCH_EPLB_MAX_RANKS];
    uint32_t n_passes;
    _Atomic bool is_over; /* by rank 0, seen behind a barrier */
} bench_run;

/* ---- a rank ---- */

static void address_of(char *out, size_t size, uint32_t rank)
{
    snprintf(out, size, "local:bench-eplb-%d-%u", cmi_child_own_pid(), rank);
}

static cmi_status open_fabric(bench_rank *r, cmi_error *err)
{
    const uint32_t n = r->run->opt->n_ranks;
    cmi_member members[CMI_BENCH_EPLB_MAX_RANKS] = {0};
    char name[16];
    cmi_fabric_options opt;
    snprintf(name, sizeof name, "rank %u", r->rank);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = secret;
    opt.secret_bytes = sizeof secret;
    opt.n_endpoints = 2 * n + 8;
    opt.message_bytes = CMI_EP_RANK_MESSAGE_BYTES;
    opt.ring_bytes = RING_BYTES;
    opt.handshake_ns = PATIENCE_NS;
    for (uint32_t i = 0; i < n; i++) {
        address_of(members[i].address, sizeof members[i].address, i);
    }
    cmi_status st = cmi_fabric_create_local(&r->fabric, &opt, err);
    st = st == CMI_OK ? cmi_fabric_listen(r->fabric, members[r->rank].address, err) : st;
    return st == CMI_OK ? cmi_membership_create_static(&r->membership, members, n, r->rank, err)
                        : st;
}

/* On processors of its own where there are enough, as ranks of `serve --ep` are. */
static void take_processors(const bench_rank *r)
{
    const uint32_t n_own = r->run->opt->instance.n_threads;
    cmi_affinity all;
    if (cmi_affinity_get(&all) && cmi_affinity_count(&all) >= n_own * r->run->opt->n_ranks) {
        const cmi_affinity part = cmi_affinity_part(&all, r->rank * n_own, n_own);
        (void)cmi_affinity_set(&part);
    }
}

static void shuffle(uint32_t *order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t words[4];
        cmi_philox4x32(ORDER_SEED, i, 0, words);
        const uint32_t k = words[0] % (i + 1), other = order[k];
        order[k] = order[i];
        order[i] = other;
    }
}

static void make_batch(bench_rank *r)
{
    const uint32_t n = r->run->opt->n_rows;
    const cmi_model_config *c = &r->instance->config;
    r->token_ids = cmi_alloc(n, sizeof *r->token_ids);
    r->page_ids = cmi_alloc(n, sizeof *r->page_ids);
    r->spans = cmi_alloc(n, sizeof *r->spans);
    r->expert_ids = cmi_alloc((size_t)n * c->num_experts_per_tok, sizeof *r->expert_ids);
    r->order = cmi_alloc(c->n_routed_experts, sizeof *r->order);
    shuffle(r->order, c->n_routed_experts);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t words[4];
        cmi_philox4x32(ORDER_SEED, r->rank, i, words);
        r->token_ids[i] = words[0] % c->vocab_size;
        r->page_ids[i] = i;
        r->spans[i] =
            (cmi_batch_span){.page_ids = &r->page_ids[i], .row_idx = i, .n_rows = 1, .position = 0};
    }
    r->batch = (cmi_batch){.token_ids = r->token_ids,
                           .spans = r->spans,
                           .n_rows = n,
                           .n_spans = n,
                           .expert_ids = r->expert_ids};
}

static cmi_status open_rank(bench_rank *r, cmi_error *err)
{
    const cmi_bench_eplb_options *opt = r->run->opt;
    cmi_instance_options instance = opt->instance;
    take_processors(r);
    cmi_status st = open_fabric(r, err);
    if (st != CMI_OK) {
        return st;
    }
    const cmi_rank_options rank = {.name = "bench",
                                   .fabric = r->fabric,
                                   .membership = r->membership,
                                   .min_ranks = opt->n_ranks,
                                   .n_redundant = opt->n_redundant,
                                   .n_microbatches = 1,
                                   .balance_window = opt->window};
    instance.max_num_seqs = opt->n_rows;
    instance.n_kv_tokens = (uint64_t)opt->n_rows * CMI_KV_PAGE_TOKENS;
    instance.rank = &rank;
    st = cmi_instance_open(&r->instance, &instance, err);
    if (st == CMI_OK) {
        make_batch(r);
        st = cmi_instance_join(r->instance, PATIENCE_NS, err);
    }
    return st;
}

static void close_rank(bench_rank *r)
{
    cmi_instance_close(r->instance);
    cmi_fabric_destroy(r->fabric);
    cmi_membership_destroy(r->membership);
    cmi_free(r->order);
    cmi_free(r->expert_ids);
    cmi_free(r->spans);
    cmi_free(r->page_ids);
    cmi_free(r->token_ids);
}

/* ---- passes ---- */

/* Other rows in each pass, whose experts are drawn anew; not by their numbers, for those that are
 * neighbours lie on one rank at first. */
static void route(bench_rank *r, uint32_t pass_idx)
{
    const bench_run *run = r->run;
    const cmi_model_config *c = &r->instance->config;
    const uint32_t n = run->opt->n_rows;
    const uint64_t first = ((uint64_t)pass_idx * run->opt->n_ranks + r->rank) * n;
    (void)cmi_bench_route(run->opt->routing, c, first, n, r->expert_ids);
    for (uint32_t i = 0; i < n * c->num_experts_per_tok; i++) {
        r->expert_ids[i] = r->order[r->expert_ids[i]];
    }
}

static cmi_status run_pass(bench_rank *r, uint32_t pass_idx, cmi_error *err)
{
    const uint64_t n_before = r->stats.work.n_pairs;
    pass *p = &r->passes[pass_idx];
    route(r, pass_idx);
    p->is_moving = r->stats.balance.is_moving;
    pthread_barrier_wait(&r->run->together.barrier); /* all begin together */
    const double begin = cmi_bench_seconds();
    cmi_status st = cmi_instance_run(r->instance, &r->batch, err);
    p->seconds = cmi_bench_seconds() - begin;
    cmi_instance_rank_get_stats(r->instance, &r->stats);
    p->n_pairs = r->stats.work.n_pairs - n_before;
    p->is_moving |= r->stats.balance.is_moving;
    p->is_planned = r->stats.balance.n_plans > 0;
    return st;
}

static void pause_between(const bench_rank *r)
{
    const double until = cmi_bench_seconds() + r->run->opt->pause_us * 1e-6;
    for (double left; (left = until - cmi_bench_seconds()) > 0;) {
        cmi_instance_rank_sleep(r->instance, (uint64_t)(left * 1e9) + 1);
    }
}

static bool is_calm(const pass *p)
{
    return p->is_planned && !p->is_moving;
}

/* Rank 0 says when it is enough: a window's passes without moves behind the first plan. */
static void run_passes(bench_rank *r, cmi_error *err)
{
    bench_run *run = r->run;
    cmi_bench_ranks *together = &run->together;
    uint32_t n_calm = 0;
    for (uint32_t i = 0; i < CMI_BENCH_EPLB_MAX_PASSES; i++) {
        pthread_barrier_wait(&together->barrier);
        if (atomic_load(&together->has_failed) || atomic_load(&run->is_over)) {
            return;
        }
        if (run_pass(r, i, err) != CMI_OK) {
            atomic_store(&together->has_failed, true);
        }
        n_calm += is_calm(&r->passes[i]) ? 1 : 0;
        if (!atomic_load(&together->has_failed)) {
            pause_between(r);
        }
        pthread_barrier_wait(&together->barrier);
        if (r->rank == 0) {
            run->n_passes = i + 1;
            atomic_store(&run->is_over, n_calm >= run->opt->window - 1);
        }
    }
}

static void run_rank(void *arg, uint32_t rank, cmi_error *err)
{
    bench_run *run = arg;
    bench_rank *r = &run->ranks[rank];
    r->run = run;
    r->rank = rank;
    r->passes = cmi_alloc(CMI_BENCH_EPLB_MAX_PASSES, sizeof *r->passes);
    if (open_rank(r, err) != CMI_OK) {
        atomic_store(&run->together.has_failed, true);
    }
    run_passes(r, err);
    pthread_barrier_wait(&run->together.barrier);
    close_rank(r);
}

/* ---- what came of it ---- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The passes whose phase is this one: 0 before, 1 moving, 2 after. */
static uint32_t phase_of(const bench_run *run, uint32_t pass_idx)
{
    bool is_planned = false, is_moving = false;
    for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
        is_planned |= run->ranks[i].passes[pass_idx].is_planned;
        is_moving |= run->ranks[i].passes[pass_idx].is_moving;
    }
    return is_moving ? 1 : is_planned ? 2 : 0;
}

static cmi_bench_eplb_phase gather_phase(const bench_run *run, uint32_t phase)
{
    const uint32_t n_ranks = run->opt->n_ranks;
    double *seconds = cmi_alloc(run->n_passes, sizeof *seconds);
    double pairs[CMI_BENCH_EPLB_MAX_RANKS] = {0}, busiest = 0, all = 0;
    cmi_bench_eplb_phase result = {0};
    for (uint32_t i = WARM_UP; i < run->n_passes; i++) {
        if (phase_of(run, i) != phase) {
            continue;
        }
        for (uint32_t k = 0; k < n_ranks; k++) {
            const pass *p = &run->ranks[k].passes[i];
            seconds[result.n_passes] = CMI_MAX(seconds[result.n_passes], p->seconds);
            pairs[k] += (double)p->n_pairs;
        }
        result.n_passes++;
    }
    qsort(seconds, result.n_passes, sizeof *seconds, compare);
    if (result.n_passes > 0) {
        result.median_s = seconds[result.n_passes / 2];
        result.longest_s = seconds[result.n_passes - 1];
    }
    for (uint32_t i = 0; i < result.n_passes; i++) {
        result.slow_share += seconds[i] > 1.2 * result.median_s ? 1.0 / result.n_passes : 0;
    }
    for (uint32_t k = 0; k < n_ranks; k++) {
        busiest = CMI_MAX(busiest, pairs[k]);
        all += pairs[k];
    }
    result.imbalance = all > 0 ? busiest * n_ranks / all : 1;
    cmi_free(seconds);
    return result;
}

static void gather(cmi_bench_eplb_result *result, const bench_run *run)
{
    *result = (cmi_bench_eplb_result){.before = gather_phase(run, 0),
                                      .moving = gather_phase(run, 1),
                                      .after = gather_phase(run, 2),
                                      .planned = run->ranks[0].stats.balance.planned};
    for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
        result->n_moves += run->ranks[i].stats.balance.n_moves;
    }
}

cmi_status cmi_bench_eplb_run(cmi_bench_eplb_result *result_out, const cmi_bench_eplb_options *opt,
                              cmi_error *err)
{
    bench_run *run = cmi_alloc(1, sizeof *run);
    run->opt = opt;
    cmi_status st = cmi_bench_ranks_run(&run->together, opt->n_ranks, run_rank, run, err);
    if (st == CMI_OK && !atomic_load(&run->is_over)) {
        st = cmi_error_set(err, CMI_ERR_TIMEOUT, "experts still move after %d passes",
                           CMI_BENCH_EPLB_MAX_PASSES);
    }
    if (st == CMI_OK) {
        gather(result_out, run);
    }
    for (uint32_t i = 0; i < opt->n_ranks; i++) {
        cmi_free(run->ranks[i].passes);
    }
    cmi_free(run);
    return st;
}
