#include "cli/bench/staged.h"

#include <string.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "cli/bench/ranks.h"
#include "cli/bench/rig.h"
#include "ep/group.h"
#include "ep/stage.h"
#include "fabric/fault.h"

static const uint64_t patience_ns = 60000000000u;

enum { N_HELD = 1 << 13, TOKEN_SEED = 7, N_WAYS = CMI_BENCH_N_PREFILL_WAYS };

typedef struct sample {
    double seconds, waited, staged_bytes;
} sample;

/* An exchange that notes how long its calls have waited for other ranks. */
typedef struct timed_exchange {
    cmi_exchange base;
    cmi_exchange *inner;
    cmi_fabric *fabric;
    double seconds;
} timed_exchange;

/* A stage exchange that counts what goes to others. */
typedef struct counted_stage {
    cmi_stage_exchange base;
    cmi_stage_exchange *inner;
    double n_bytes;
} counted_stage;

typedef struct bench_rank {
    struct bench_run *run;
    uint32_t rank;
    cmi_fabric *fabric;
    cmi_team *team;
    cmi_ep_peer peers[2][CMI_BENCH_STAGED_MAX_RANKS];
    cmi_region_id regions[2];
    cmi_exchange *exchange;
    cmi_stage_exchange *stage;
    timed_exchange timed;
    counted_stage counted;
    cmi_forward *forward;
    void *kv;
    uint32_t *token_ids, *page_ids; /* of all its prompts; of a prompt's pages its number says */
    uint32_t first_page[CMI_BENCH_MAX_LIST];
    uint32_t n_done[CMI_BENCH_MAX_LIST]; /* rows of each prompt of the round */
    uint32_t *batch_tokens;
    cmi_batch_span spans[CMI_BENCH_MAX_LIST];
    cmi_batch batch;
    uint32_t crc[N_WAYS];      /* of all hidden states of the first round */
    sample (*samples)[N_WAYS]; /* [n_rounds + 1] */
} bench_rank;

typedef struct bench_run {
    const cmi_instance *instance;
    const cmi_bench_staged_options *opt;
    cmi_ep_layout layout;
    cmi_stage_shape stage_shape;
    size_t stage_region_bytes;
    uint32_t n_passes, max_positions;
    cmi_ep_group *group;
    uint16_t *rank_of; /* [layers][experts] */
    cmi_bench_ranks together;
    bench_rank *ranks; /* [n_ranks] */
} bench_run;

/* ---- sizes ---- */

static uint32_t pages_of(uint32_t n_tokens)
{
    return CMI_DIV_UP(n_tokens, (uint32_t)CMI_KV_PAGE_TOKENS);
}

/* Tokens and pages of a rank's prompts. */
static void count_prompts(const cmi_bench_staged_options *opt, uint32_t rank, uint32_t *tokens_out,
                          uint32_t *pages_out)
{
    *tokens_out = *pages_out = 0;
    for (size_t i = rank; i < opt->prompts.n; i += opt->n_ranks) {
        *tokens_out += opt->prompts.values[i];
        *pages_out += pages_of(opt->prompts.values[i]);
    }
}

static cmi_status make_sizes(bench_run *run, cmi_error *err)
{
    const cmi_instance *in = run->instance;
    const cmi_model_config *c = &in->config;
    const cmi_bench_staged_options *opt = run->opt;
    const size_t wide = c->hidden_size * cmi_dtype_bytes(in->dtype);
    const cmi_ep_shape shape = {
        .n_ranks = opt->n_ranks,
        .max_rows = opt->chunk,
        .top_k = c->num_experts_per_tok,
        .max_local_experts = CMI_DIV_UP(c->n_routed_experts, opt->n_ranks),
        .row_bytes = in->weights_dtype == CMI_DTYPE_I8 ? cmi_i8_row_stride(c->hidden_size) : wide,
        .result_bytes = wide};
    run->stage_shape = (cmi_stage_shape){.n_ranks = opt->n_ranks, .max_rows = opt->chunk};
    for (uint32_t rank = 0; rank < opt->n_ranks; rank++) {
        uint32_t n_tokens, n_pages;
        count_prompts(opt, rank, &n_tokens, &n_pages);
        run->stage_shape.max_pages += n_pages;
        run->n_passes = CMI_MAX(run->n_passes, CMI_DIV_UP(n_tokens, opt->chunk));
    }
    for (size_t i = 0; i < opt->prompts.n; i++) {
        run->max_positions = CMI_MAX(run->max_positions, opt->prompts.values[i]);
    }
    run->stage_region_bytes = cmi_ep_stage_region_bytes(
        opt->n_ranks, cmi_forward_stage_window_bytes(c, &in->kv_pool.layout, &run->stage_shape));
    return cmi_ep_layout_make(&run->layout, &shape, err);
}

/* ---- waiting and counting ---- */

static timed_exchange *timed(cmi_exchange *exchange)
{
    return (timed_exchange *)exchange; /* it begins with one */
}

static cmi_status pass_on_send(cmi_exchange *exchange, const cmi_exchange_rows *rows)
{
    cmi_exchange *inner = timed(exchange)->inner;
    return inner->calls->send(inner, rows);
}

static double seconds_between(uint64_t begin_ns, uint64_t end_ns)
{
    return end_ns > begin_ns ? (double)(end_ns - begin_ns) * 1e-9 : 0;
}

/* Sorting, once all is there, is no waiting. */
static cmi_status time_receive(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals)
{
    timed_exchange *t = timed(exchange);
    const uint64_t begin_ns = cmi_fabric_now_ns(t->fabric);
    cmi_status st = t->inner->calls->receive(t->inner, arrivals);
    t->seconds += seconds_between(begin_ns, cmi_ep_arrived_ns(t->inner));
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
    const uint64_t begin_ns = cmi_fabric_now_ns(t->fabric);
    cmi_status st = t->inner->calls->receive_back(t->inner, results_out, stride_out);
    t->seconds += seconds_between(begin_ns, cmi_fabric_now_ns(t->fabric));
    return st;
}

static void pass_on_progress(cmi_exchange *exchange)
{
    cmi_exchange *inner = timed(exchange)->inner;
    inner->calls->progress(inner);
}

static const cmi_exchange_calls timed_calls = {pass_on_send, time_receive, pass_on_send_back,
                                               time_receive_back, pass_on_progress};

static counted_stage *counted(cmi_stage_exchange *exchange)
{
    return (counted_stage *)exchange; /* it begins with one */
}

static cmi_status count_put(cmi_stage_exchange *exchange, uint32_t rank, size_t at,
                            const void *from, size_t n_bytes)
{
    counted_stage *c = counted(exchange);
    c->n_bytes += rank != exchange->rank ? (double)n_bytes : 0;
    return c->inner->calls->put(c->inner, rank, at, from, n_bytes);
}

static cmi_status pass_on_tell(cmi_stage_exchange *exchange)
{
    cmi_stage_exchange *inner = counted(exchange)->inner;
    return inner->calls->tell(inner);
}

static cmi_status pass_on_hear(cmi_stage_exchange *exchange)
{
    cmi_stage_exchange *inner = counted(exchange)->inner;
    return inner->calls->hear(inner);
}

static void pass_on_stage_progress(cmi_stage_exchange *exchange)
{
    cmi_stage_exchange *inner = counted(exchange)->inner;
    inner->calls->progress(inner);
}

static cmi_status pass_on_blame(cmi_stage_exchange *exchange, uint32_t rank)
{
    cmi_stage_exchange *inner = counted(exchange)->inner;
    return inner->calls->blame(inner, rank);
}

static uint64_t pass_on_next_step(const cmi_stage_exchange *exchange)
{
    const cmi_stage_exchange *inner = ((const counted_stage *)exchange)->inner;
    return inner->calls->next_step(inner);
}

static const cmi_stage_exchange_calls counted_calls = {count_put,     pass_on_tell,
                                                       pass_on_hear,  pass_on_stage_progress,
                                                       pass_on_blame, pass_on_next_step};

/* ---- a rank ---- */

static void make_prompts(bench_rank *r)
{
    const cmi_bench_staged_options *opt = r->run->opt;
    uint32_t n_tokens, n_pages, page = 0;
    count_prompts(opt, r->rank, &n_tokens, &n_pages);
    r->token_ids = cmi_alloc(n_tokens, sizeof *r->token_ids);
    r->page_ids = cmi_alloc(n_pages, sizeof *r->page_ids);
    r->batch_tokens = cmi_alloc(opt->chunk, sizeof *r->batch_tokens);
    r->samples = cmi_alloc(opt->n_rounds + 1, sizeof *r->samples);
    for (uint32_t i = 0; i < n_tokens; i++) {
        uint32_t words[4];
        cmi_philox4x32(TOKEN_SEED, r->rank, i, words);
        r->token_ids[i] = words[0] % r->run->instance->config.vocab_size;
    }
    for (uint32_t i = 0; i < n_pages; i++) {
        r->page_ids[i] = i;
    }
    for (size_t i = r->rank; i < opt->prompts.n; i += opt->n_ranks) {
        r->first_page[i] = page;
        page += pages_of(opt->prompts.values[i]);
    }
}

static cmi_status make_exchange(bench_rank *r, cmi_error *err)
{
    bench_run *run = r->run;
    const cmi_ep_options opt = {.layout = run->layout,
                                .rank = r->rank,
                                .team = r->team,
                                .fabric = r->fabric,
                                .region = r->regions[0],
                                .peers = r->peers[0],
                                .n_layers = run->instance->config.num_hidden_layers + 1,
                                .n_experts = run->instance->config.n_routed_experts,
                                .rank_of = run->rank_of,
                                .patience_ns = patience_ns};
    const cmi_ep_stage_options stage = {.shape = run->stage_shape,
                                        .rank = r->rank,
                                        .team = r->team,
                                        .fabric = r->fabric,
                                        .region = r->regions[1],
                                        .peers = r->peers[1],
                                        .patience_ns = patience_ns};
    cmi_status st = cmi_ep_create(&r->exchange, &opt, err);
    st = st == CMI_OK ? cmi_ep_stage_create(&r->stage, &stage, err) : st;
    if (st == CMI_OK) {
        r->timed =
            (timed_exchange){.base = *r->exchange, .inner = r->exchange, .fabric = r->fabric};
        r->timed.base.calls = &timed_calls;
        r->counted = (counted_stage){.base = *r->stage, .inner = r->stage};
        r->counted.base.calls = &counted_calls;
    }
    return st;
}

static cmi_status connect_rank(bench_rank *r, cmi_error *err)
{
    bench_run *run = r->run;
    const uint32_t n_threads = cmi_team_size(run->instance->team) / run->opt->n_ranks;
    cmi_status st = cmi_team_create(&r->team, CMI_MAX(n_threads, 1u), err);
    if (st == CMI_OK) {
        st = cmi_ep_group_join(run->group, r->rank, run->layout.region_bytes, patience_ns,
                               &r->regions[0], r->peers[0], err);
    }
    if (st != CMI_OK) {
        atomic_store(&run->together.has_failed, true);
    }
    pthread_barrier_wait(&run->together.barrier); /* all have joined */
    if (atomic_load(&run->together.has_failed)) {
        return st;
    }
    st = cmi_ep_group_share(run->group, r->rank, run->stage_region_bytes, patience_ns, r->peers[0],
                            &r->regions[1], r->peers[1], err);
    return st == CMI_OK ? make_exchange(r, err) : st;
}

static cmi_status make_forward(bench_rank *r, cmi_error *err)
{
    const cmi_instance *in = r->run->instance;
    uint32_t n_tokens, n_pages;
    count_prompts(r->run->opt, r->rank, &n_tokens, &n_pages);
    r->kv = cmi_alloc_aligned((size_t)CMI_MAX(n_pages, 1u) * in->kv_pool.layout.page_bytes, 4096);
    const cmi_forward_options opt = {.config = &in->config,
                                     .weights = in->weights,
                                     .kernels = &in->kernels,
                                     .team = r->team,
                                     .kv_layout = in->kv_pool.layout,
                                     .kv_base = r->kv,
                                     .max_rows = r->run->opt->chunk,
                                     .max_positions = r->run->max_positions,
                                     .exchange = &r->timed.base,
                                     .stage = &r->counted.base};
    return cmi_forward_create(&r->forward, &opt, err);
}

static void free_rank(bench_rank *r)
{
    cmi_forward_destroy(r->forward);
    cmi_ep_stage_destroy(r->stage);
    cmi_ep_destroy(r->exchange);
    cmi_team_destroy(r->team);
    cmi_free(r->kv);
    cmi_free(r->batch_tokens);
    cmi_free(r->page_ids);
    cmi_free(r->token_ids);
}

/* ---- passes ---- */

/* The next rows of the rank's prompts, in order. */
static void next_batch(bench_rank *r)
{
    const cmi_bench_staged_options *opt = r->run->opt;
    uint32_t token = 0;
    r->batch = (cmi_batch){.token_ids = r->batch_tokens, .spans = r->spans};
    for (size_t i = r->rank; i < opt->prompts.n; i += opt->n_ranks) {
        const uint32_t n = opt->prompts.values[i];
        const uint32_t n_rows = CMI_MIN(n - r->n_done[i], opt->chunk - r->batch.n_rows);
        if (n_rows > 0) {
            r->spans[r->batch.n_spans++] =
                (cmi_batch_span){.page_ids = r->page_ids + r->first_page[i],
                                 .row_idx = r->batch.n_rows,
                                 .n_rows = n_rows,
                                 .position = r->n_done[i],
                                 .is_prefill = true};
            memcpy(r->batch_tokens + r->batch.n_rows, r->token_ids + token + r->n_done[i],
                   n_rows * sizeof *r->batch_tokens);
            r->batch.n_rows += n_rows;
            r->n_done[i] += n_rows;
        }
        token += n;
    }
}

/* All prompts once. What was put goes on its way while the rank takes part, so it is there before
 * the time ends. The first round is for caches, and for the bits of both ways. */
static cmi_status run_prompts(bench_rank *r, uint32_t round, cmi_bench_prefill_way way)
{
    const size_t width = r->run->instance->config.hidden_size;
    sample *s = &r->samples[round][way];
    const uint64_t waited_ns = cmi_ep_stage_waited_ns(r->stage);
    cmi_status st = CMI_OK;
    memset(r->n_done, 0, sizeof r->n_done);
    r->timed.seconds = r->counted.n_bytes = 0;
    pthread_barrier_wait(&r->run->together.barrier); /* all begin together */
    const double begin = cmi_bench_seconds();
    for (uint32_t pass = 0; st == CMI_OK && pass < r->run->n_passes; pass++) {
        next_batch(r);
        if (way == CMI_BENCH_PREFILL_STAGED) {
            st = cmi_forward_offer(r->forward, &r->batch, &r->batch.is_staged);
        }
        st = st == CMI_OK ? cmi_forward_run(r->forward, &r->batch) : st;
        if (round == 0) {
            r->crc[way] = cmi_crc32c(r->crc[way], cmi_forward_hidden(r->forward),
                                     r->batch.n_rows * width * sizeof(float));
        }
    }
    s->seconds = cmi_bench_seconds() - begin;
    s->waited = r->timed.seconds + (double)(cmi_ep_stage_waited_ns(r->stage) - waited_ns) * 1e-9;
    s->staged_bytes = r->counted.n_bytes;
    if (st == CMI_OK && round == 0 && way > 0 && r->crc[way] != r->crc[0]) {
        return CMI_ERR_BAD_DATA;
    }
    return st == CMI_OK ? cmi_ep_drain(r->exchange) : st;
}

/* Both ways in turn, so that whatever else the machine does meets them alike. */
static void run_rank(void *arg, uint32_t rank, cmi_error *err)
{
    bench_run *run = arg;
    bench_rank *r = &run->ranks[rank];
    cmi_bench_ranks *together = &run->together;
    r->run = run;
    r->rank = rank;
    r->fabric = cmi_ep_group_fabric(run->group, rank);
    make_prompts(r);
    cmi_status st = connect_rank(r, err); /* the others wait there */
    if (st == CMI_OK && r->stage != NULL) {
        st = make_forward(r, err);
    }
    if (st != CMI_OK) {
        atomic_store(&together->has_failed, true);
    }
    for (uint32_t i = 0; i < (run->opt->n_rounds + 1) * N_WAYS; i++) {
        pthread_barrier_wait(&together->barrier); /* all see one failure alike */
        if (atomic_load(&together->has_failed)) {
            break;
        }
        st = run_prompts(r, i / N_WAYS, (cmi_bench_prefill_way)(i % N_WAYS));
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
    const cmi_bench_staged_options *opt = arg;
    const uint64_t delay_ns = opt->delay_us * UINT64_C(1000);
    const cmi_fault_options faults = {
        .seed = rank, .n_ops = N_HELD, .min_delay_ns = delay_ns, .max_delay_ns = delay_ns};
    cmi_fabric *inner = *fabric_inout;
    return cmi_fabric_wrap_faults(fabric_inout, inner, &faults, err);
}

/* Of a round: the slowest rank's time, and what all did. */
static sample of_round(const bench_run *run, uint32_t round, uint32_t way, double *idle_out)
{
    sample all = {0};
    double seconds = 0;
    for (uint32_t i = 0; i < run->opt->n_ranks; i++) {
        const sample *s = &run->ranks[i].samples[round][way];
        all.seconds = CMI_MAX(all.seconds, s->seconds);
        all.waited += s->waited;
        all.staged_bytes += s->staged_bytes;
        seconds += s->seconds;
    }
    *idle_out = all.waited / seconds;
    return all;
}

static void gather(cmi_bench_staged_result *result, const bench_run *run)
{
    cmi_bench_samples seconds[N_WAYS] = {{.n = 0}}, idle[N_WAYS] = {{.n = 0}}, gain = {.n = 0};
    *result = (cmi_bench_staged_result){.n_passes = run->n_passes};
    for (uint32_t round = 1; round <= run->opt->n_rounds; round++) {
        double of_way[N_WAYS];
        for (uint32_t way = 0; way < N_WAYS; way++) {
            double share;
            const sample all = of_round(run, round, way, &share);
            of_way[way] = all.seconds;
            cmi_bench_sample(&seconds[way], all.seconds);
            cmi_bench_sample(&idle[way], share);
            result->staged_bytes = CMI_MAX(result->staged_bytes, all.staged_bytes);
        }
        cmi_bench_sample(&gain, of_way[0] / of_way[CMI_BENCH_PREFILL_STAGED] - 1);
    }
    for (uint32_t way = 0; way < N_WAYS; way++) {
        result->seconds[way] = cmi_bench_median(&seconds[way]);
        result->idle[way] = cmi_bench_median(&idle[way]);
    }
    result->gain = cmi_bench_median(&gain);
}

cmi_status cmi_bench_staged_run(cmi_bench_staged_result *result_out, const cmi_instance *instance,
                                const cmi_bench_staged_options *opt, cmi_error *err)
{
    bench_run run = {.instance = instance, .opt = opt};
    cmi_bench_staged_options own = *opt; /* for wrap */
    const cmi_model_config *c = &instance->config;
    if (c->n_routed_experts == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the model has no experts to spread over ranks");
    }
    cmi_status st = make_sizes(&run, err);
    st = st == CMI_OK ? cmi_ep_group_create(&run.group, "local", opt->n_ranks,
                                            opt->delay_us > 0 ? wrap : NULL, &own, err)
                      : st;
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
        cmi_free(run.ranks[i].samples);
    }
    cmi_free(run.ranks);
    cmi_free(run.rank_of);
    cmi_ep_group_destroy(run.group);
    return st;
}
