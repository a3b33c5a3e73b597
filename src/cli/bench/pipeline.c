#include "cli/bench/pipeline.h"

#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/ranks.h"
#include "cli/bench/rig.h"
#include "ep/group.h"
#include "fabric/fault.h"
#include "model/pipeline.h"

static const uint64_t patience_ns = 60000000000u;

enum { N_HELD = 1 << 13, TOKEN_SEED = 7 };

/* An exchange that notes how long its calls that wait have taken. */
typedef struct timed_exchange {
    cmi_exchange base;
    cmi_exchange *inner;
    double seconds;
} timed_exchange;

typedef struct bench_rank {
    struct bench_run *run;
    uint32_t rank;
    cmi_fabric *fabric;
    cmi_team *team;
    cmi_ep_peer peers[2][CMI_BENCH_PIPELINE_MAX_RANKS];
    cmi_region_id regions[2];
    cmi_exchange *exchanges[2];
    timed_exchange timed[2];
    cmi_forward *forward;
    cmi_pipeline *pipeline;
    void *kv;
    uint32_t *token_ids, *page_ids, *expert_ids;
    cmi_batch_span *spans;
    cmi_batch batch;
    cmi_fabric_counters passes[2];                       /* what a pass did, by microbatches */
    double (*seconds)[CMI_BENCH_PIPELINE_MAX_DELAYS][2]; /* [n_rounds] */
    double (*waited)[CMI_BENCH_PIPELINE_MAX_DELAYS][2];  /* [n_rounds] */
} bench_rank;

typedef struct bench_run {
    const cmi_instance *instance;
    const cmi_bench_pipeline_test *test;
    const cmi_bench_pipeline_options *opt;
    cmi_ep_layout layouts[2];
    cmi_ep_group *group;
    uint16_t *rank_of; /* [layers][experts] */
    cmi_bench_ranks together;
    bench_rank *ranks; /* [n_ranks] */
} bench_run;

/* ---- sizes ---- */

static uint32_t n_sequences(const cmi_bench_pipeline_test *t)
{
    return t->is_prefill ? 1 : t->n;
}

static uint32_t rows_each(const cmi_bench_pipeline_test *t)
{
    return t->is_prefill ? t->n : 1 + t->n_drafts;
}

static uint32_t n_rows(const cmi_bench_pipeline_test *t)
{
    return n_sequences(t) * rows_each(t);
}

static uint32_t pages_each(const cmi_bench_pipeline_test *t)
{
    return CMI_DIV_UP(t->depth + rows_each(t), (uint32_t)CMI_KV_PAGE_TOKENS);
}

static cmi_status make_layouts(bench_run *run, cmi_error *err)
{
    const cmi_instance *in = run->instance;
    const cmi_model_config *c = &in->config;
    const size_t wide = c->hidden_size * cmi_dtype_bytes(in->dtype);
    cmi_ep_shape shape = {
        .n_ranks = run->opt->n_ranks,
        .max_rows = n_rows(run->test),
        .top_k = c->num_experts_per_tok,
        .max_local_experts = CMI_DIV_UP(c->n_routed_experts, run->opt->n_ranks),
        .row_bytes = in->weights_dtype == CMI_DTYPE_I8 ? cmi_i8_row_stride(c->hidden_size) : wide,
        .result_bytes = wide};
    cmi_status st = cmi_ep_layout_make(&run->layouts[0], &shape, err);
    shape.max_rows = cmi_pipeline_second_rows(shape.max_rows);
    return st == CMI_OK ? cmi_ep_layout_make(&run->layouts[1], &shape, err) : st;
}

/* ---- waiting ---- */

static timed_exchange *timed(cmi_exchange *exchange)
{
    return (timed_exchange *)exchange; /* it begins with one */
}

static cmi_status pass_on_send(cmi_exchange *exchange, const cmi_exchange_rows *rows)
{
    cmi_exchange *inner = timed(exchange)->inner;
    return inner->calls->send(inner, rows);
}

static cmi_status time_receive(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals)
{
    timed_exchange *t = timed(exchange);
    const double begin = cmi_bench_seconds();
    cmi_status st = t->inner->calls->receive(t->inner, arrivals);
    t->seconds += cmi_bench_seconds() - begin;
    return st;
}

static cmi_status pass_on_send_back(cmi_exchange *exchange, const void *results)
{
    cmi_exchange *inner = timed(exchange)->inner;
    return inner->calls->send_back(inner, results);
}

static cmi_status time_receive_back(cmi_exchange *exchange, const void **results_out,
                                    size_t *stride_out)
{
    timed_exchange *t = timed(exchange);
    const double begin = cmi_bench_seconds();
    cmi_status st = t->inner->calls->receive_back(t->inner, results_out, stride_out);
    t->seconds += cmi_bench_seconds() - begin;
    return st;
}

static void pass_on_progress(cmi_exchange *exchange)
{
    cmi_exchange *inner = timed(exchange)->inner;
    inner->calls->progress(inner);
}

static const cmi_exchange_calls timed_calls = {pass_on_send, time_receive, pass_on_send_back,
                                               time_receive_back, pass_on_progress};

/* ---- a rank ---- */

static void make_batch(bench_rank *r)
{
    const cmi_bench_pipeline_test *t = r->run->test;
    const cmi_model_config *c = &r->run->instance->config;
    const uint32_t n_pages = n_sequences(t) * pages_each(t);
    r->token_ids = cmi_alloc(n_rows(t), sizeof *r->token_ids);
    r->page_ids = cmi_alloc(n_pages, sizeof *r->page_ids);
    r->spans = cmi_alloc(n_sequences(t), sizeof *r->spans);
    for (uint32_t i = 0; i < n_rows(t); i++) {
        uint32_t words[4];
        cmi_philox4x32(TOKEN_SEED, r->rank, i, words);
        r->token_ids[i] = words[0] % c->vocab_size;
    }
    for (uint32_t i = 0; i < n_pages; i++) {
        r->page_ids[i] = i;
    }
    if (r->run->opt->routing != CMI_BENCH_ROUTING_GATE) {
        r->expert_ids = cmi_alloc((size_t)n_rows(t) * c->num_experts_per_tok, sizeof(uint32_t));
        (void)cmi_bench_route(r->run->opt->routing, c, (uint64_t)r->rank * n_rows(t), n_rows(t),
                              r->expert_ids);
    }
    for (uint32_t i = 0; i < n_sequences(t); i++) {
        r->spans[i] = (cmi_batch_span){.page_ids = r->page_ids + i * pages_each(t),
                                       .row_idx = i * rows_each(t),
                                       .n_rows = rows_each(t),
                                       .position = t->depth,
                                       .is_prefill = t->is_prefill};
    }
    r->batch = (cmi_batch){.token_ids = r->token_ids,
                           .spans = r->spans,
                           .n_rows = n_rows(t),
                           .n_spans = n_sequences(t),
                           .expert_ids = r->expert_ids};
}

static cmi_status make_exchanges(bench_rank *r, cmi_error *err)
{
    bench_run *run = r->run;
    const uint32_t n_threads = cmi_team_size(run->instance->team) / run->opt->n_ranks;
    cmi_status st = cmi_team_create(&r->team, CMI_MAX(n_threads, 1u), err);
    if (st == CMI_OK) {
        st = cmi_ep_group_join(run->group, r->rank, run->layouts[0].region_bytes, patience_ns,
                               &r->regions[0], r->peers[0], err);
    }
    if (st != CMI_OK) {
        atomic_store(&run->together.has_failed, true);
    }
    pthread_barrier_wait(&run->together.barrier); /* all have joined */
    if (atomic_load(&run->together.has_failed)) {
        return st;
    }
    st = cmi_ep_group_share(run->group, r->rank, run->layouts[1].region_bytes, patience_ns,
                            r->peers[0], &r->regions[1], r->peers[1], err);
    for (int i = 0; st == CMI_OK && i < 2; i++) {
        const cmi_ep_options opt = {.layout = run->layouts[i],
                                    .rank = r->rank,
                                    .team = r->team,
                                    .fabric = r->fabric,
                                    .region = r->regions[i],
                                    .peers = r->peers[i],
                                    .n_layers = run->instance->config.num_hidden_layers + 1,
                                    .n_experts = run->instance->config.n_routed_experts,
                                    .rank_of = run->rank_of,
                                    .patience_ns = patience_ns};
        st = cmi_ep_create(&r->exchanges[i], &opt, err);
        if (st == CMI_OK) {
            r->timed[i] = (timed_exchange){.base = *r->exchanges[i], .inner = r->exchanges[i]};
            r->timed[i].base.calls = &timed_calls;
        }
    }
    return st;
}

static cmi_status make_pipeline(bench_rank *r, cmi_error *err)
{
    const cmi_instance *in = r->run->instance;
    const cmi_bench_pipeline_test *t = r->run->test;
    const size_t kv_bytes = n_sequences(t) * pages_each(t) * in->kv_pool.layout.page_bytes;
    r->kv = cmi_alloc_aligned(kv_bytes, 4096);
    cmi_bench_fill(r->kv, kv_bytes, r->rank);
    const cmi_forward_options opt = {.config = &in->config,
                                     .weights = in->weights,
                                     .kernels = &in->kernels,
                                     .team = r->team,
                                     .kv_layout = in->kv_pool.layout,
                                     .kv_base = r->kv,
                                     .max_rows = n_rows(t),
                                     .max_decode_rows = t->is_prefill ? 0 : n_rows(t),
                                     .max_positions = t->depth + rows_each(t),
                                     .exchange = &r->timed[0].base};
    cmi_status st = cmi_forward_create(&r->forward, &opt, err);
    return st == CMI_OK ? cmi_pipeline_create(&r->pipeline, r->forward, &r->timed[1].base, err)
                        : st;
}

static cmi_status make_rank(bench_rank *r, cmi_error *err)
{
    r->fabric = cmi_ep_group_fabric(r->run->group, r->rank);
    r->seconds = cmi_alloc(r->run->opt->n_rounds, sizeof *r->seconds);
    r->waited = cmi_alloc(r->run->opt->n_rounds, sizeof *r->waited);
    make_batch(r);
    cmi_status st = make_exchanges(r, err); /* the others wait there */
    if (st == CMI_OK && r->exchanges[1] != NULL) {
        st = make_pipeline(r, err);
    }
    return st;
}

static void free_rank(bench_rank *r)
{
    cmi_pipeline_destroy(r->pipeline);
    cmi_forward_destroy(r->forward);
    cmi_ep_destroy(r->exchanges[0]);
    cmi_ep_destroy(r->exchanges[1]);
    cmi_team_destroy(r->team);
    cmi_free(r->kv);
    cmi_free(r->spans);
    cmi_free(r->page_ids);
    cmi_free(r->expert_ids);
    cmi_free(r->token_ids);
}

/* ---- passes ---- */

/* What was put goes on its way while the rank takes part, so it is there before the time ends. */
static cmi_status run_pass(bench_rank *r, uint32_t round, uint32_t delay_idx, uint32_t n)
{
    const uint64_t delay_ns = r->run->opt->delay_us[delay_idx] * UINT64_C(1000);
    const cmi_fault_options faults = {.min_delay_ns = delay_ns, .max_delay_ns = delay_ns};
    cmi_fabric_counters before;
    r->timed[0].seconds = r->timed[1].seconds = 0;
    cmi_fault_set(r->fabric, &faults);
    cmi_fabric_get_counters(r->fabric, &before);
    pthread_barrier_wait(&r->run->together.barrier); /* all begin together */
    const double begin = cmi_bench_seconds();
    cmi_status st = cmi_pipeline_run(r->pipeline, &r->batch, n);
    r->seconds[round][delay_idx][n - 1] = cmi_bench_seconds() - begin;
    r->waited[round][delay_idx][n - 1] = r->timed[0].seconds + r->timed[1].seconds;
    cmi_fabric_get_counters(r->fabric, &r->passes[n - 1]);
    r->passes[n - 1].n_puts -= before.n_puts;
    r->passes[n - 1].put_bytes -= before.put_bytes;
    return st == CMI_OK ? cmi_ep_drain(r->exchanges[0]) : st;
}

/* All delays and both numbers of microbatches in turn, so that whatever else the machine does meets
 * them alike. */
static void run_rank(void *arg, uint32_t rank, cmi_error *err)
{
    bench_run *run = arg;
    bench_rank *r = &run->ranks[rank];
    cmi_bench_ranks *together = &run->together;
    const uint32_t n_cases = 2 * run->opt->n_delays;
    r->run = run;
    r->rank = rank;
    cmi_status st = make_rank(r, err);
    if (st != CMI_OK) {
        atomic_store(&together->has_failed, true);
    }
    for (uint32_t i = 0; i < run->opt->n_rounds * n_cases; i++) {
        pthread_barrier_wait(&together->barrier); /* all see one failure alike */
        if (atomic_load(&together->has_failed)) {
            break;
        }
        st = run_pass(r, i / n_cases, i % n_cases / 2, 1 + i % 2);
        if (st != CMI_OK) {
            (void)cmi_error_set(err, st, "rank %u: %s", rank, cmi_status_text(st));
            atomic_store(&together->has_failed, true);
        }
    }
    pthread_barrier_wait(&together->barrier);
    free_rank(r);
}

/* ---- all ranks ---- */

static cmi_status wrap(void *arg, uint32_t rank, cmi_fabric **fabric_inout, cmi_error *err)
{
    (void)arg;
    const cmi_fault_options faults = {.seed = rank, .n_ops = N_HELD};
    cmi_fabric *inner = *fabric_inout;
    return cmi_fabric_wrap_faults(fabric_inout, inner, &faults, err);
}

static double slowest(const bench_run *run, uint32_t round, uint32_t delay_idx, uint32_t n)
{
    double seconds = 0;
    for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
        seconds = CMI_MAX(seconds, run->ranks[i].seconds[round][delay_idx][n]);
    }
    return seconds;
}

static double mean_wait(const bench_run *run, uint32_t round, uint32_t delay_idx, uint32_t n)
{
    double seconds = 0;
    for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
        seconds += run->ranks[i].waited[round][delay_idx][n] / run->opt->n_ranks;
    }
    return seconds;
}

/* Waiting is timed apart: a delay's share of a pass is smaller than what passes differ by. And
 * differences are taken within a round, for what slows the machine down slows both sides then. */
static void gather_times(cmi_bench_pipeline_result *result, const bench_run *run,
                         uint32_t delay_idx, uint32_t n)
{
    cmi_bench_samples seconds = {.n = 0}, waited = {.n = 0};
    for (uint32_t round = 0; round < run->opt->n_rounds; round++) {
        const double without = mean_wait(run, round, 0, n);
        cmi_bench_sample(&seconds, slowest(run, round, delay_idx, n));
        cmi_bench_sample(&waited, mean_wait(run, round, delay_idx, n) - without);
    }
    result->seconds[delay_idx][n] = cmi_bench_median(&seconds);
    result->waited[delay_idx][n] = cmi_bench_median(&waited);
}

static void gather(cmi_bench_pipeline_result *result, const bench_run *run)
{
    const cmi_model_config *c = &run->instance->config;
    *result = (cmi_bench_pipeline_result){0};
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        result->n_transfers += cmi_model_config_is_moe(c, i) ? 2 : 0;
    }
    for (uint32_t n = 0; n < 2; n++) {
        for (uint32_t d = 0; d < run->opt->n_delays; d++) {
            gather_times(result, run, d, n);
        }
        for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
            const cmi_fabric_counters *did = &run->ranks[i].passes[n];
            result->n_puts[n] += (double)did->n_puts / run->opt->n_ranks;
            result->put_bytes[n] += (double)did->put_bytes / run->opt->n_ranks;
        }
    }
}

cmi_status cmi_bench_pipeline_run(cmi_bench_pipeline_result *result_out,
                                  const cmi_instance *instance, const cmi_bench_pipeline_test *test,
                                  const cmi_bench_pipeline_options *opt, cmi_error *err)
{
    bench_run run = {.instance = instance, .test = test, .opt = opt};
    const cmi_model_config *c = &instance->config;
    if (c->n_routed_experts == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the model has no experts to spread over ranks");
    }
    cmi_status st = make_layouts(&run, err);
    st =
        st == CMI_OK ? cmi_ep_group_create(&run.group, "local", opt->n_ranks, wrap, NULL, err) : st;
    if (st != CMI_OK) {
        return st;
    }
    const size_t n_places = ((size_t)c->num_hidden_layers + 1) * c->n_routed_experts;
    run.rank_of = cmi_alloc(n_places, sizeof *run.rank_of);
    for (size_t i = 0; i < n_places; i++) {
        run.rank_of[i] = (uint16_t)(i % c->n_routed_experts % opt->n_ranks);
    }
    run.ranks = cmi_alloc(opt->n_ranks, sizeof *run.ranks);
    st = cmi_bench_ranks_run(&run.together, opt->n_ranks, run_rank, &run, err);
    if (st == CMI_OK) {
        gather(result_out, &run);
    }
    for (uint32_t i = 0; i < opt->n_ranks; i++) {
        cmi_free(run.ranks[i].seconds);
        cmi_free(run.ranks[i].waited);
    }
    cmi_free(run.ranks);
    cmi_free(run.rank_of);
    cmi_ep_group_destroy(run.group);
    return st;
}

double cmi_bench_pipeline_hidden(const cmi_bench_pipeline_result *result, uint32_t delay_idx,
                                 double delay_s)
{
    const double delays = result->n_transfers * delay_s;
    const double other_computes = result->seconds[0][1] / 2;
    return (delays - result->waited[delay_idx][1]) / CMI_MIN(delays, other_computes);
}
