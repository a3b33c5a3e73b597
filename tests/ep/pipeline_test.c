/* Two microbatches over ranks give the bits of one forward pass alone: whatever rows ranks have,
 * wherever the cut falls, and however long rows are on their way; and when a rank leaves in the
 * middle, the others are told. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/instance.h"
#include "model/pipeline.h"
#include "tests/ep/mesh.h"

static const char *fabric = "local"; /* or the program's argument */

enum {
    N_PASSES = 6,
    MAX_ROWS = 64,
    N_SEQS = 4,
    SEQ_PAGES = 3,
    MAX_PROMPT = 90,
    MAX_DECODE_ROWS = 20, /* four sequences with four drafts each */
    N_SHAPES = 5,
};

typedef struct world {
    cmi_instance *instance;
    uint64_t seed;
    uint32_t leaves_at;            /* rank 1 stops at this call of its exchanges; 0: never */
    float *hidden[MESH_MAX_RANKS]; /* [N_PASSES][MAX_ROWS][hidden_size] of each rank */
} world;

static uint32_t draw(uint64_t seed, uint64_t a, uint64_t b, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(seed, a, b, words);
    return words[0] % n;
}

/* ---- what a rank runs ---- */

typedef struct rank_steps {
    uint32_t n_prompt[N_SEQS], n_done[N_SEQS];
    uint32_t token_ids[MAX_ROWS], page_ids[N_SEQS][SEQ_PAGES];
    cmi_batch_span spans[N_SEQS];
    cmi_batch batch;
} rank_steps;

/* By rank: nothing at all, one short prompt (one row a pass then), one long one, and two that have
 * all sequences. */
static void begin_steps(rank_steps *s, const world *w, uint32_t rank)
{
    static const uint32_t n_seqs[N_SHAPES] = {N_SEQS, 0, 1, 1, N_SEQS};
    const uint32_t shape = (rank + (uint32_t)w->seed) % N_SHAPES;
    *s = (rank_steps){0};
    for (uint32_t i = 0; i < N_SEQS; i++) {
        const uint32_t n = 1 + draw(w->seed, rank, i, MAX_PROMPT);
        s->n_prompt[i] = i >= n_seqs[shape] ? 0 : shape == 2 ? 1 : shape == 3 ? MAX_PROMPT : n;
        for (uint32_t page = 0; page < SEQ_PAGES; page++) {
            s->page_ids[i][page] = i * SEQ_PAGES + page;
        }
    }
}

static void add_span(rank_steps *s, uint32_t seq, uint32_t n_rows, bool is_prefill)
{
    s->spans[s->batch.n_spans++] = (cmi_batch_span){.page_ids = s->page_ids[seq],
                                                    .row_idx = s->batch.n_rows,
                                                    .n_rows = n_rows,
                                                    .position = s->n_done[seq],
                                                    .is_prefill = is_prefill};
    s->batch.n_rows += n_rows;
    s->n_done[seq] += n_rows;
}

/* Prompts in chunks of any length, then tokens with up to four drafts behind them. */
static const cmi_batch *make_pass(rank_steps *s, const world *w, uint32_t rank, uint32_t pass)
{
    bool is_decoding[N_SEQS];
    s->batch = (cmi_batch){.token_ids = s->token_ids,
                           .spans = s->spans,
                           .says = 10 * pass + (rank + pass) % 7,
                           .vote = 10 * pass + (rank + pass) % 3};
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        s->token_ids[i] =
            draw(w->seed, 100 + rank, pass * MAX_ROWS + i, w->instance->config.vocab_size);
    }
    for (uint32_t i = 0; i < N_SEQS; i++) {
        is_decoding[i] = s->n_prompt[i] > 0 && s->n_done[i] >= s->n_prompt[i];
        if (is_decoding[i]) {
            add_span(s, i, 1 + draw(w->seed, 200 + rank, pass * N_SEQS + i, 5), false);
        }
    }
    for (uint32_t i = 0; i < N_SEQS; i++) {
        const uint32_t left = CMI_MIN(s->n_prompt[i] - s->n_done[i], MAX_ROWS - s->batch.n_rows);
        if (!is_decoding[i] && s->n_prompt[i] > 0 && left > 0) {
            add_span(s, i, CMI_MIN(left, 1 + draw(w->seed, 300 + rank, pass, MAX_ROWS)), true);
        }
    }
    return &s->batch;
}

static cmi_forward *make_forward(const world *w, cmi_team *team, cmi_exchange *exchange,
                                 void **kv_out)
{
    cmi_instance *in = w->instance;
    cmi_error err = {0};
    cmi_forward *forward = NULL;
    *kv_out = cmi_alloc_aligned(N_SEQS * SEQ_PAGES * in->kv_pool.layout.page_bytes, 4096);
    const cmi_forward_options opt = {.config = &in->config,
                                     .weights = in->weights,
                                     .kernels = &in->kernels,
                                     .team = team,
                                     .kv_layout = in->kv_pool.layout,
                                     .kv_base = *kv_out,
                                     .max_rows = MAX_ROWS,
                                     .max_decode_rows = MAX_DECODE_ROWS,
                                     .max_positions = SEQ_PAGES * CMI_KV_PAGE_TOKENS,
                                     .exchange = exchange};
    return cmi_forward_create(&forward, &opt, &err) == CMI_OK ? forward : NULL;
}

static void keep_hidden(const world *w, const cmi_forward *forward, uint32_t pass,
                        const cmi_batch *batch, float *hidden_out)
{
    const size_t width = w->instance->config.hidden_size;
    memcpy(hidden_out + pass * MAX_ROWS * width, cmi_forward_hidden(forward),
           batch->n_rows * width * sizeof *hidden_out);
}

static uint32_t most(const mesh_rank *r, uint32_t pass, uint32_t modulus)
{
    uint32_t value = 0;
    for (uint32_t rank = 0; rank < r->mesh->n_ranks; rank++) {
        value = CMI_MAX(value, 10 * pass + (rank + pass) % modulus);
    }
    return value;
}

/* Passes of one microbatch and of two, in any order. */
static cmi_status run_passes(const mesh_rank *r, cmi_forward *forward, cmi_pipeline *pipeline)
{
    const world *w = r->mesh->arg;
    rank_steps steps;
    cmi_status st = CMI_OK;
    begin_steps(&steps, w, r->rank);
    for (uint32_t pass = 0; st == CMI_OK && pass < N_PASSES; pass++) {
        const cmi_batch *batch = make_pass(&steps, w, r->rank, pass);
        _Atomic uint32_t n_layers_done = 0;
        steps.batch.n_layers_done = &n_layers_done;
        st = cmi_pipeline_run(pipeline, batch, draw(w->seed, 400, pass, 4) == 0 ? 1 : 2);
        const bool is_told = cmi_forward_heard(forward) == most(r, pass, 7) &&
                             cmi_forward_heard_vote(forward) == most(r, pass, 3) &&
                             n_layers_done == w->instance->config.num_hidden_layers;
        if (st == CMI_OK && !is_told) {
            return CMI_ERR_BAD_DATA;
        }
        if (st == CMI_OK) {
            keep_hidden(w, forward, pass, batch, w->hidden[r->rank]);
        }
    }
    return st;
}

/* ---- leaving ---- */

/* An exchange whose rank is gone from some call on. */
typedef struct leaver {
    cmi_exchange base;
    cmi_exchange *inner;
    mesh_rank *rank;
    uint32_t *n_calls; /* left, of all exchanges of the rank */
} leaver;

static bool is_gone(leaver *l)
{
    if (--*l->n_calls > 0) {
        return false;
    }
    for (uint32_t i = 0; i < l->rank->mesh->n_ranks; i++) {
        cmi_endpoint_close(l->rank->fabric, l->rank->peers[i].endpoint);
    }
    return true;
}

static cmi_status leave_send(cmi_exchange *exchange, const cmi_exchange_rows *rows)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED : l->inner->calls->send(l->inner, rows);
}

static cmi_status leave_receive(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED : l->inner->calls->receive(l->inner, arrivals);
}

static cmi_status leave_send_back(cmi_exchange *exchange, const void *results)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED : l->inner->calls->send_back(l->inner, results);
}

static cmi_status leave_receive_back(cmi_exchange *exchange, const void **results_out,
                                     size_t *stride_out)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED
                      : l->inner->calls->receive_back(l->inner, results_out, stride_out);
}

static void leave_progress(cmi_exchange *exchange)
{
    leaver *l = (leaver *)exchange;
    l->inner->calls->progress(l->inner);
}

static const cmi_exchange_calls leaver_calls = {leave_send, leave_receive, leave_send_back,
                                                leave_receive_back, leave_progress};

static leaver make_leaver(mesh_rank *r, cmi_exchange *inner, uint32_t *n_calls)
{
    return (leaver){.base = {&leaver_calls, inner->max_rows, inner->max_arrivals},
                    .inner = inner,
                    .rank = r,
                    .n_calls = n_calls};
}

/* ---- a rank ---- */

static bool run_rank(mesh_rank *r)
{
    const world *w = r->mesh->arg;
    cmi_error err = {0};
    cmi_pipeline *pipeline;
    void *kv;
    uint32_t n_calls = w->leaves_at > 0 && r->rank == 1 ? w->leaves_at : UINT32_MAX;
    leaver first = make_leaver(r, r->exchange, &n_calls);
    leaver second = make_leaver(r, r->second, &n_calls);
    cmi_forward *forward = make_forward(w, r->team, &first.base, &kv);
    MESH_NEED(forward != NULL);
    MESH_NEED(cmi_pipeline_create(&pipeline, forward, &second.base, &err) == CMI_OK);
    const cmi_status st = run_passes(r, forward, pipeline);
    r->may_be_lost = w->leaves_at > 0;
    /* what puts have still to read */
    const bool is_drained = cmi_ep_drain(r->exchange) == CMI_OK;
    cmi_pipeline_destroy(pipeline);
    cmi_forward_destroy(forward);
    cmi_free(kv);
    if (w->leaves_at == 0) {
        MESH_NEED(st == CMI_OK && is_drained);
    } else if (r->rank == 1) {
        MESH_NEED(st == CMI_ERR_CANCELLED);
    } else {
        MESH_NEED(st == CMI_ERR_CLOSED);
        MESH_NEED(cmi_ep_culprit(r->exchange) == 1 || cmi_ep_culprit(r->second) == 1);
    }
    return true;
}

static void place_experts(mesh *m, uint64_t seed, uint32_t *most_out)
{
    *most_out = 1;
    m->rank_of = cmi_alloc((size_t)m->n_layers * m->n_experts, sizeof *m->rank_of);
    for (uint32_t layer = 0; layer < m->n_layers; layer++) {
        uint32_t n_local[MESH_MAX_RANKS] = {0};
        for (uint32_t e = 0; e < m->n_experts; e++) {
            const uint32_t rank = draw(seed, layer, e, m->n_ranks);
            m->rank_of[layer * m->n_experts + e] = (uint16_t)rank;
            *most_out = CMI_MAX(*most_out, ++n_local[rank]);
        }
    }
}

static void run_ranks(world *w, uint32_t n_ranks, const cmi_fault_options *faults)
{
    const cmi_model_config *c = &w->instance->config;
    cmi_error err = {0};
    mesh *m = cmi_alloc(1, sizeof *m);
    uint32_t max_local;
    cmi_ep_layout second;
    *m = (mesh){.n_ranks = n_ranks,
                .fabric = fabric,
                .second_layout = &second,
                .n_layers = c->num_hidden_layers + 1,
                .n_experts = c->n_routed_experts,
                .faults = faults,
                .run = run_rank,
                .arg = w};
    place_experts(m, w->seed, &max_local);
    cmi_ep_shape shape = {.n_ranks = n_ranks,
                          .max_rows = MAX_ROWS,
                          .top_k = c->num_experts_per_tok,
                          .max_local_experts = max_local,
                          .row_bytes = c->hidden_size * sizeof(float),
                          .result_bytes = c->hidden_size * cmi_dtype_bytes(w->instance->dtype)};
    assert_int_equal(cmi_ep_layout_make(&m->layout, &shape, &err), CMI_OK);
    shape.max_rows = cmi_pipeline_second_rows(MAX_ROWS);
    assert_int_equal(cmi_ep_layout_make(&second, &shape, &err), CMI_OK);
    assert_true(mesh_run(m));
    cmi_free(m->rank_of);
    cmi_free(m);
}

/* ---- against one forward ---- */

static void run_alone(const world *w, uint32_t rank, float *hidden_out)
{
    void *kv;
    rank_steps steps;
    cmi_team_own(w->instance->team);
    cmi_forward *forward = make_forward(w, w->instance->team, NULL, &kv);
    assert_non_null(forward);
    begin_steps(&steps, w, rank);
    for (uint32_t pass = 0; pass < N_PASSES; pass++) {
        const cmi_batch *batch = make_pass(&steps, w, rank, pass);
        if (batch->n_rows > 0) {
            assert_int_equal(cmi_forward_run(forward, batch), CMI_OK);
            keep_hidden(w, forward, pass, batch, hidden_out);
        }
    }
    cmi_forward_destroy(forward);
    cmi_free(kv);
}

static void expect_same(world *w, uint32_t n_ranks, const cmi_fault_options *faults)
{
    const size_t n = (size_t)N_PASSES * MAX_ROWS * w->instance->config.hidden_size;
    float *want = cmi_alloc(n, sizeof *want);
    for (uint32_t i = 0; i < n_ranks; i++) {
        w->hidden[i] = cmi_alloc(n, sizeof **w->hidden);
    }
    run_ranks(w, n_ranks, faults);
    for (uint32_t i = 0; i < n_ranks; i++) {
        memset(want, 0, n * sizeof *want);
        if (w->leaves_at == 0) {
            run_alone(w, i, want);
            assert_memory_equal(w->hidden[i], want, n * sizeof *want);
        }
        cmi_free(w->hidden[i]);
    }
    cmi_free(want);
}

static cmi_instance *open_instance(cmi_dtype dtype, cmi_quantization quantization)
{
    char path[1024];
    cmi_error err = {0};
    cmi_instance *instance = NULL;
    snprintf(path, sizeof path, "%s/matrix-tiny", getenv("CMI_MODELS"));
    const cmi_instance_options opt = {.model_dir = path,
                                      .dtype = dtype,
                                      .quantization = quantization,
                                      .isa = cmi_isa_best(cmi_cpu_flags()),
                                      .n_threads = 1,
                                      .max_num_batched_tokens = MAX_ROWS,
                                      .max_model_len = SEQ_PAGES * CMI_KV_PAGE_TOKENS};
    assert_int_equal(cmi_instance_open(&instance, &opt, &err), CMI_OK);
    return instance;
}

static bool are_few(void)
{
    return getenv("CMI_FEW") != NULL || strcmp(fabric, "local") != 0;
}

static void two_microbatches_give_the_bits_of_one_pass(void **state)
{
    (void)state;
    static const struct {
        cmi_dtype dtype;
        cmi_quantization quantization;
    } variants[] = {
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_W8A8_INT8},
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE},
        {CMI_DTYPE_F32, CMI_QUANTIZATION_NONE},
    };
    static const uint32_t n_ranks[] = {1, 2, 3, 5};
    for (size_t v = 0; v < CMI_LEN(variants); v++) {
        world w = {.instance = open_instance(variants[v].dtype, variants[v].quantization)};
        for (size_t i = 0; i < CMI_LEN(n_ranks) - (are_few() ? 1 : 0); i++) {
            for (uint64_t seed = 0; seed < (are_few() ? 2u : 3u); seed++) {
                const cmi_fault_options slow = {.seed = seed,
                                                .n_ops = 512,
                                                .max_delay_ns = seed % 2 == 0 ? 200000 : 0,
                                                .shuffles_events = true,
                                                .refuse_ppm = 1000};
                w.seed = 10 * i + seed;
                expect_same(&w, n_ranks[i], NULL);
                expect_same(&w, n_ranks[i], &slow);
            }
        }
        cmi_instance_close(w.instance);
    }
}

static void a_rank_that_leaves_ends_the_pass_of_all(void **state)
{
    (void)state;
    world w = {.instance = open_instance(CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE)};
    const cmi_fault_options slow = {.seed = 1, .n_ops = 512, .max_delay_ns = 50000};
    for (uint32_t i = 1; i <= 24; i += are_few() ? 5 : 1) {
        w.seed = i;
        w.leaves_at = i;
        expect_same(&w, 4, i % 2 == 0 ? &slow : NULL);
    }
    cmi_instance_close(w.instance);
}

/* ---- where a batch is cut ---- */

static uint32_t cut_of(const cmi_pipeline *p, cmi_batch_span *spans, uint32_t n_spans)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < n_spans; i++) {
        spans[i].row_idx = n_rows;
        n_rows += spans[i].n_rows;
    }
    const cmi_batch batch = {.spans = spans, .n_rows = n_rows, .n_spans = n_spans};
    return cmi_pipeline_cut(p, &batch);
}

#define CUT(p, ...)                                                                                \
    cut_of(p, (cmi_batch_span[]){__VA_ARGS__},                                                     \
           sizeof((cmi_batch_span[]){__VA_ARGS__}) / sizeof(cmi_batch_span))
#define PROMPT(n, at)                                                                              \
    {                                                                                              \
        .n_rows = (n), .position = (at), .is_prefill = true                                        \
    }
#define DECODE(n, at)                                                                              \
    {                                                                                              \
        .n_rows = (n), .position = (at)                                                            \
    }

static void a_batch_is_cut_into_halves_of_like_cost(void **state)
{
    (void)state;
    cmi_error err = {0};
    cmi_pipeline *p;
    void *kv;
    world w = {.instance = open_instance(CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE)};
    cmi_exchange exchange = {NULL, MAX_ROWS, MAX_ROWS * 8};
    cmi_forward *forward = make_forward(&w, w.instance->team, &exchange, &kv);
    assert_int_equal(cmi_pipeline_create(&p, forward, &exchange, &err), CMI_OK);
    const cmi_batch nothing = {0};
    assert_int_equal(cmi_pipeline_cut(p, &nothing), 0);
    assert_int_equal(CUT(p, DECODE(1, 7)), 1);
    assert_int_equal(CUT(p, PROMPT(1, 0)), 1);
    assert_int_equal(CUT(p, DECODE(1, 7), DECODE(1, 7)), 1);
    assert_int_equal(CUT(p, DECODE(5, 7)), 5); /* drafts stay with their token */
    assert_int_equal(CUT(p, DECODE(2, 7), DECODE(5, 7), DECODE(2, 7)), 7);
    assert_int_equal(CUT(p, PROMPT(30, 0), PROMPT(30, 0)), 30);
    assert_int_equal(CUT(p, PROMPT(28, 0), PROMPT(32, 0)), 28); /* a border is near */
    const uint32_t of_one = CUT(p, PROMPT(60, 0));
    assert_in_range(of_one, 30, 45); /* later rows look at more */
    assert_in_range(CUT(p, PROMPT(60, 100)), 30, of_one);
    assert_in_range(CUT(p, DECODE(1, 9), DECODE(1, 9), PROMPT(58, 0)), 30, 45);
    /* the second one's forward takes half of the rows at most */
    assert_in_range(CUT(p, DECODE(4, 190), DECODE(4, 190), PROMPT(56, 0)), 32, 63);
    assert_int_equal(CUT(p, PROMPT(2, 130), PROMPT(62, 0)) >= 32, 1);
    cmi_pipeline_destroy(p);
    cmi_forward_destroy(forward);
    cmi_free(kv);
    cmi_instance_close(w.instance);
}

int main(int argc, char **argv)
{
    fabric = argc > 1 ? argv[1] : fabric;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_cut_into_halves_of_like_cost),
        cmocka_unit_test(two_microbatches_give_the_bits_of_one_pass),
        cmocka_unit_test(a_rank_that_leaves_ends_the_pass_of_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
