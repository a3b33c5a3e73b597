/* Staged passes give the bits of one forward pass alone: whatever prompts ranks have, in whatever
 * chunks, beside rows that decode, and between passes that are not staged; and when a rank leaves
 * in the middle, or says what cannot be, the others are told. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/instance.h"
#include "ep/stage.h"
#include "tests/ep/mesh.h"

static const char *fabric = "local"; /* or the program's argument */

enum {
    N_PASSES = 6,
    MAX_ROWS = 80,
    N_SEQS = 3,
    SEQ_PAGES = 3,
    MAX_PROMPT = 180,
    MAX_DECODE_ROWS = 15, /* three sequences with four drafts each */
    N_SHAPES = 5,
    ALL_PAGES = 64,
    FEW_PAGES = 4, /* prompts are left at home */
};

typedef struct world {
    cmi_instance *instance;
    uint64_t seed;
    uint32_t max_pages;
    uint32_t leaves_at;            /* rank 1 stops at this call of its stage exchange; 0: never */
    bool lies;                     /* rank 1 about where its prompt is */
    bool restarts;                 /* the exchange, after offers that not all ranks have made */
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

/* By rank: nothing at all, one short prompt, one long one, and two that have all sequences. */
static void begin_steps(rank_steps *s, const world *w, uint32_t rank)
{
    static const uint32_t n_seqs[N_SHAPES] = {N_SEQS, 0, 1, 1, N_SEQS};
    const uint32_t shape = (rank + (uint32_t)w->seed) % N_SHAPES;
    *s = (rank_steps){0};
    for (uint32_t i = 0; i < N_SEQS; i++) {
        const uint32_t n = 1 + draw(w->seed, rank, i, MAX_PROMPT);
        s->n_prompt[i] = i >= n_seqs[shape] ? 0 : shape == 2 ? 9 : shape == 3 ? MAX_PROMPT : n;
        for (uint32_t page = 0; page < SEQ_PAGES; page++) {
            s->page_ids[i][page] = (N_SEQS - 1 - i) * SEQ_PAGES + (page + 1) % SEQ_PAGES;
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
    s->batch = (cmi_batch){.token_ids = s->token_ids, .spans = s->spans, .says = pass + 1};
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        s->token_ids[i] =
            draw(w->seed, 100 + rank, pass * MAX_ROWS + i, w->instance->config.vocab_size);
    }
    for (uint32_t i = 0; i < N_SEQS; i++) {
        const uint32_t n_drafts = draw(w->seed, 200 + rank, pass * N_SEQS + i, 5);
        is_decoding[i] = s->n_prompt[i] > 0 && s->n_done[i] >= s->n_prompt[i];
        if (is_decoding[i] && s->n_done[i] + n_drafts < SEQ_PAGES * CMI_KV_PAGE_TOKENS) {
            add_span(s, i, 1 + n_drafts, false);
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
                                 cmi_stage_exchange *stage, void **kv_out)
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
                                     .exchange = exchange,
                                     .stage = stage};
    return cmi_forward_create(&forward, &opt, &err) == CMI_OK ? forward : NULL;
}

static void keep_hidden(const world *w, const cmi_forward *forward, uint32_t pass,
                        const cmi_batch *batch, float *hidden_out)
{
    const size_t width = w->instance->config.hidden_size;
    memcpy(hidden_out + pass * MAX_ROWS * width, cmi_forward_hidden(forward),
           batch->n_rows * width * sizeof *hidden_out);
}

/* ---- leaving ---- */

/* A stage exchange whose rank is gone from some call on. */
typedef struct leaver {
    cmi_stage_exchange base;
    cmi_stage_exchange *inner;
    mesh_rank *rank;
    uint32_t n_calls; /* left */
    bool misses;      /* fails, but stays */
    cmi_ep_peer peers[MESH_MAX_RANKS];
} leaver;

static bool is_gone(leaver *l)
{
    if (l->misses) {
        return true;
    }
    if (--l->n_calls > 0) {
        return false;
    }
    for (uint32_t i = 0; i < l->rank->mesh->n_ranks; i++) {
        cmi_endpoint_close(l->rank->fabric, l->rank->peers[i].endpoint);
    }
    return true;
}

static cmi_status leave_put(cmi_stage_exchange *exchange, uint32_t rank, size_t at,
                            const void *from, size_t n_bytes)
{
    leaver *l = (leaver *)exchange;
    return l->inner->calls->put(l->inner, rank, at, from, n_bytes);
}

static cmi_status leave_tell(cmi_stage_exchange *exchange)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED : l->inner->calls->tell(l->inner);
}

static cmi_status leave_hear(cmi_stage_exchange *exchange)
{
    leaver *l = (leaver *)exchange;
    return is_gone(l) ? CMI_ERR_CANCELLED : l->inner->calls->hear(l->inner);
}

static void leave_progress(cmi_stage_exchange *exchange)
{
    leaver *l = (leaver *)exchange;
    l->inner->calls->progress(l->inner);
}

static cmi_status leave_blame(cmi_stage_exchange *exchange, uint32_t rank)
{
    leaver *l = (leaver *)exchange;
    return l->inner->calls->blame(l->inner, rank);
}

static uint64_t leave_next_step(const cmi_stage_exchange *exchange)
{
    const leaver *l = (const leaver *)exchange;
    return l->inner->calls->next_step(l->inner);
}

static const cmi_stage_exchange_calls leaver_calls = {leave_put,      leave_tell,  leave_hear,
                                                      leave_progress, leave_blame, leave_next_step};

/* ---- a rank ---- */

static cmi_stage_exchange *make_stage(mesh_rank *r, cmi_ep_peer *peers)
{
    const world *w = r->mesh->arg;
    cmi_error err = {0};
    cmi_stage_exchange *stage = NULL;
    cmi_ep_stage_options opt = {
        .shape = {.n_ranks = r->mesh->n_ranks,
                  .max_rows = MAX_ROWS,
                  .max_pages = w->max_pages,
                  .min_rows_saved = w->leaves_at == 0 && w->seed % 3 == 2 ? 20 : 0},
        .rank = r->rank,
        .team = r->team,
        .fabric = r->fabric,
        .peers = peers,
        .patience_ns = 120000000000u};
    const size_t n_bytes = cmi_ep_stage_region_bytes(
        r->mesh->n_ranks, cmi_forward_stage_window_bytes(&w->instance->config,
                                                         &w->instance->kv_pool.layout, &opt.shape));
    pthread_barrier_wait(&r->mesh->barrier); /* all have joined */
    if (cmi_ep_group_share(r->mesh->group, r->rank, n_bytes, opt.patience_ns, r->peers, &opt.region,
                           peers, &err) == CMI_OK &&
        cmi_ep_stage_create(&stage, &opt, &err) == CMI_OK) {
        pthread_barrier_wait(&r->mesh->barrier); /* nobody leaves before */
        return stage;
    }
    fprintf(stderr, "%s\n", err.text);
    abort(); /* the others would wait for it */
}

/* A view ends in the middle of offers that some ranks have not begun; all begin anew. */
static cmi_status restart(leaver *l, cmi_forward *forward, const cmi_batch *batch, uint32_t pass)
{
    bool is_staged;
    cmi_status st = CMI_OK;
    l->misses = true;
    if (draw(pass, l->rank->rank, 500, 2) == 0) {
        st = cmi_forward_offer(forward, batch, &is_staged);
    }
    l->misses = false;
    pthread_barrier_wait(&l->rank->mesh->barrier);
    cmi_ep_stage_restart(l->inner, l->peers, (uint64_t)(pass + 1) << 20);
    pthread_barrier_wait(&l->rank->mesh->barrier);
    return st == CMI_ERR_CANCELLED ? CMI_OK : st;
}

static cmi_status run_passes(leaver *l, cmi_forward *forward)
{
    const mesh_rank *r = l->rank;
    const world *w = r->mesh->arg;
    rank_steps steps;
    cmi_status st = CMI_OK;
    begin_steps(&steps, w, r->rank);
    for (uint32_t pass = 0; st == CMI_OK && pass < N_PASSES; pass++) {
        const cmi_batch *batch = make_pass(&steps, w, r->rank, pass);
        _Atomic uint32_t n_layers_done = 0;
        steps.batch.n_layers_done = &n_layers_done;
        if (w->lies) {
            steps.spans[0] = (cmi_batch_span){.page_ids = steps.page_ids[0],
                                              .n_rows = 1,
                                              .position = r->rank == 1 ? UINT32_MAX : 0,
                                              .is_prefill = true};
            steps.batch.n_spans = steps.batch.n_rows = 1;
        }
        st = w->restarts ? restart(l, forward, batch, pass) : CMI_OK;
        if (st == CMI_OK && (w->lies || draw(w->seed, 400, pass, 4) > 0)) {
            st = cmi_forward_offer(forward, batch, &steps.batch.is_staged);
        }
        st = st == CMI_OK ? cmi_forward_run(forward, batch) : st;
        if (st == CMI_OK && (cmi_forward_heard(forward) != pass + 1 ||
                             n_layers_done != w->instance->config.num_hidden_layers)) {
            return CMI_ERR_INVALID;
        }
        if (st == CMI_OK) {
            keep_hidden(w, forward, pass, batch, w->hidden[r->rank]);
        }
    }
    return st;
}

static bool run_rank(mesh_rank *r)
{
    const world *w = r->mesh->arg;
    void *kv;
    leaver l = {.rank = r, .n_calls = w->leaves_at > 0 && r->rank == 1 ? w->leaves_at : UINT32_MAX};
    cmi_stage_exchange *stage = l.inner = make_stage(r, l.peers);
    l.base = *stage;
    l.base.calls = &leaver_calls;
    cmi_forward *forward = make_forward(w, r->team, r->exchange, &l.base, &kv);
    MESH_NEED(forward != NULL);
    const cmi_status st = run_passes(&l, forward);
    r->may_be_lost = w->leaves_at > 0;
    const bool is_drained = cmi_ep_drain(r->exchange) == CMI_OK; /* what puts have still to read */
    const uint32_t culprit = cmi_ep_stage_culprit(stage);
    cmi_forward_destroy(forward);
    cmi_ep_stage_destroy(stage);
    cmi_free(kv);
    if (w->lies) {
        MESH_NEED(st == CMI_ERR_BAD_DATA && culprit == 1);
    } else if (w->leaves_at == 0) {
        MESH_NEED(st == CMI_OK && is_drained);
    } else if (r->rank == 1) {
        MESH_NEED(st == CMI_ERR_CANCELLED);
    } else {
        MESH_NEED(st == CMI_ERR_CLOSED);
        MESH_NEED(culprit == 1 || cmi_ep_culprit(r->exchange) == 1);
    }
    return true;
}

static void run_ranks(world *w, uint32_t n_ranks, const cmi_fault_options *faults)
{
    const cmi_model_config *c = &w->instance->config;
    cmi_error err = {0};
    mesh *m = cmi_alloc(1, sizeof *m);
    *m = (mesh){.n_ranks = n_ranks,
                .fabric = fabric,
                .n_layers = c->num_hidden_layers + 1,
                .n_experts = c->n_routed_experts,
                .faults = faults,
                .run = run_rank,
                .arg = w};
    m->rank_of = cmi_alloc((size_t)m->n_layers * m->n_experts, sizeof *m->rank_of);
    for (uint32_t i = 0; i < m->n_layers * m->n_experts; i++) {
        m->rank_of[i] = (uint16_t)(i % m->n_experts % n_ranks);
    }
    const cmi_ep_shape shape = {.n_ranks = n_ranks,
                                .max_rows = MAX_ROWS,
                                .top_k = c->num_experts_per_tok,
                                .max_local_experts = CMI_DIV_UP(c->n_routed_experts, n_ranks),
                                .row_bytes = c->hidden_size * sizeof(float),
                                .result_bytes =
                                    c->hidden_size * cmi_dtype_bytes(w->instance->dtype)};
    assert_int_equal(cmi_ep_layout_make(&m->layout, &shape, &err), CMI_OK);
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
    cmi_forward *forward = make_forward(w, w->instance->team, NULL, NULL, &kv);
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
        if (w->leaves_at == 0 && !w->lies) {
            run_alone(w, i, want);
            assert_memory_equal(w->hidden[i], want, n * sizeof *want);
        }
        cmi_free(w->hidden[i]);
    }
    cmi_free(want);
}

typedef struct variant {
    cmi_dtype dtype;
    cmi_quantization quantization;
    bool int8_kv, is_odd;
} variant;

/* Of the tracked model; or odd: heads whose queries begin inside a block of INT8 weights, queries
 * from the hidden state as in V2-Lite, and values that are narrower than keys. */
static cmi_instance *open_instance(const variant *v)
{
    char path[1024];
    cmi_error err = {0};
    cmi_instance *instance = NULL;
    snprintf(path, sizeof path, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options opt = {.model_dir = path,
                                .dtype = v->dtype,
                                .quantization = v->quantization,
                                .int8_kv = v->int8_kv,
                                .isa = cmi_isa_best(cmi_cpu_flags()),
                                .n_threads = 1,
                                .max_num_batched_tokens = MAX_ROWS,
                                .max_model_len = SEQ_PAGES * CMI_KV_PAGE_TOKENS};
    assert_int_equal(cmi_instance_open(&instance, &opt, &err), CMI_OK);
    if (v->is_odd) {
        cmi_model_config odd = instance->config;
        odd.num_attention_heads = 5;
        odd.q_lora_rank = 0;
        odd.qk_nope_head_dim = 24;
        odd.qk_rope_head_dim = 16;
        odd.v_head_dim = 16;
        odd.num_hidden_layers = 3;
        cmi_instance_close(instance);
        opt.random_config = &odd;
        assert_int_equal(cmi_instance_open(&instance, &opt, &err), CMI_OK);
    }
    return instance;
}

static bool are_few(void)
{
    return getenv("CMI_FEW") != NULL || strcmp(fabric, "local") != 0;
}

static void staged_passes_give_the_bits_of_one_rank(void **state)
{
    (void)state;
    static const variant variants[] = {
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_W8A8_INT8, false, false},
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_W8A8_INT8, true, true},
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE, true, false},
        {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE, false, true},
        {CMI_DTYPE_F32, CMI_QUANTIZATION_NONE, false, false},
    };
    static const uint32_t n_ranks[] = {3, 2, 4, 1, 7};
    for (size_t v = 0; v < CMI_LEN(variants); v += are_few() ? 3 : 1) {
        world w = {.instance = open_instance(&variants[v])};
        for (size_t i = 0; i < CMI_LEN(n_ranks) - (are_few() ? 4 : 0); i++) {
            for (uint64_t seed = 0; seed < (are_few() || n_ranks[i] > 4 ? 1u : 2u); seed++) {
                const cmi_fault_options slow = {.seed = seed,
                                                .n_ops = 512,
                                                .max_delay_ns = seed % 2 == 0 ? 50000 : 0,
                                                .shuffles_events = true,
                                                .refuse_ppm = 1000};
                w.seed = 10 * i + seed + v;
                w.max_pages = (seed + i) % 2 == 0 ? ALL_PAGES : FEW_PAGES;
                if (!are_few() || v == 0) {
                    expect_same(&w, n_ranks[i], NULL);
                }
                if (!are_few() || v > 0) {
                    expect_same(&w, n_ranks[i], &slow);
                }
            }
        }
        cmi_instance_close(w.instance);
    }
}

static void a_rank_that_leaves_ends_the_pass_of_all(void **state)
{
    (void)state;
    const variant bf16 = {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE, false, false};
    world w = {.instance = open_instance(&bf16), .max_pages = ALL_PAGES};
    const cmi_fault_options slow = {.seed = 1, .n_ops = 512, .max_delay_ns = 50000};
    for (uint32_t i = 1; i <= 48; i += are_few() ? 17 : 3) {
        w.seed = i;
        w.leaves_at = i;
        expect_same(&w, 3, i % 2 == 0 ? &slow : NULL);
    }
    cmi_instance_close(w.instance);
}

static void ranks_begin_anew_after_offers_of_some(void **state)
{
    (void)state;
    const variant bf16 = {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE, false, false};
    world w = {.instance = open_instance(&bf16), .max_pages = ALL_PAGES, .restarts = true};
    for (uint64_t seed = 0; seed < (are_few() ? 1u : 2u); seed++) {
        w.seed = seed;
        expect_same(&w, 3, NULL);
    }
    cmi_instance_close(w.instance);
}

static void a_rank_that_says_what_cannot_be_is_at_fault(void **state)
{
    (void)state;
    const variant bf16 = {CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE, false, false};
    world w = {.instance = open_instance(&bf16), .max_pages = ALL_PAGES, .lies = true};
    expect_same(&w, 3, NULL);
    cmi_instance_close(w.instance);
}

int main(int argc, char **argv)
{
    fabric = argc > 1 ? argv[1] : fabric;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(staged_passes_give_the_bits_of_one_rank),
        cmocka_unit_test(a_rank_that_leaves_ends_the_pass_of_all),
        cmocka_unit_test(ranks_begin_anew_after_offers_of_some),
        cmocka_unit_test(a_rank_that_says_what_cannot_be_is_at_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
