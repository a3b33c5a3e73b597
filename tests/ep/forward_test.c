/* The forward pass over ranks gives the bits of the forward pass alone, for every number of ranks,
 * placement of the experts and type, with ranks that have no row and ranks that have no expert. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/instance.h"
#include "tests/ep/mesh.h"

static const char *fabric = "local"; /* or the program's argument */

enum { N_PASSES = 4, MAX_PROMPT = 40, MAX_ROWS = 64, N_PAGES = 4 };

typedef struct variant {
    const char *name;
    cmi_dtype dtype;
    cmi_quantization quantization;
} variant;

typedef struct world {
    cmi_instance *instance;
    uint64_t seed;
    bool by_put;
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
    uint32_t token_ids[MAX_ROWS], page_ids[N_PAGES];
    cmi_batch_span span;
    cmi_batch batch;
    uint32_t n_prompt; /* 0: only others have work */
} rank_steps;

/* Passes of a rank, of which the group makes the most. */
static uint32_t passes_of(const world *w, uint32_t rank)
{
    return 1 + draw(w->seed, rank, 4, N_PASSES);
}

/* A prompt, then one token a pass; some ranks have none at first or for ever. */
static const cmi_batch *make_pass(rank_steps *s, const world *w, uint32_t rank, uint32_t pass)
{
    if (pass == 0) {
        bool is_idle = draw(w->seed, rank, 1, 3) == 0;
        s->n_prompt = is_idle ? 0 : 1 + draw(w->seed, rank, 2, MAX_PROMPT);
    }
    const bool is_late = draw(w->seed, rank, 3, 3) == 0;
    const uint32_t step = pass - (is_late ? 1 : 0);
    const bool has_rows = s->n_prompt > 0 && (!is_late || pass > 0) && pass < passes_of(w, rank);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        s->token_ids[i] =
            draw(w->seed, 100 + rank, pass * MAX_ROWS + i, w->instance->config.vocab_size);
    }
    for (uint32_t i = 0; i < N_PAGES; i++) {
        s->page_ids[i] = i;
    }
    s->span = (cmi_batch_span){.page_ids = s->page_ids,
                               .n_rows = step == 0 ? s->n_prompt : 1,
                               .position = step == 0 ? 0 : s->n_prompt + step - 1,
                               .is_prefill = step == 0};
    s->batch = (cmi_batch){.token_ids = s->token_ids,
                           .spans = &s->span,
                           .n_rows = has_rows ? s->span.n_rows : 0,
                           .n_spans = has_rows ? 1 : 0,
                           .says = pass + 1 < passes_of(w, rank)};
    return &s->batch;
}

static cmi_status make_forward(cmi_forward **forward_out, const world *w, cmi_team *team,
                               cmi_exchange *exchange, void **kv_out)
{
    cmi_instance *in = w->instance;
    cmi_error err = {0};
    *kv_out = cmi_alloc_aligned(N_PAGES * in->kv_pool.layout.page_bytes, 4096);
    const cmi_forward_options opt = {.config = &in->config,
                                     .weights = in->weights,
                                     .kernels = &in->kernels,
                                     .team = team,
                                     .kv_layout = in->kv_pool.layout,
                                     .kv_base = *kv_out,
                                     .max_rows = MAX_ROWS,
                                     .max_decode_rows = MAX_ROWS,
                                     .max_positions = N_PAGES * CMI_KV_PAGE_TOKENS,
                                     .exchange = exchange};
    return cmi_forward_create(forward_out, &opt, &err);
}

static bool run_passes(const world *w, uint32_t rank, cmi_forward *forward, float *hidden_out)
{
    const size_t width = w->instance->config.hidden_size;
    rank_steps steps;
    bool goes_on = true;
    for (uint32_t pass = 0; pass < N_PASSES && goes_on; pass++) {
        const cmi_batch *batch = make_pass(&steps, w, rank, pass);
        if (batch->n_rows == 0 && hidden_out != w->hidden[rank]) {
            continue; /* alone, there is nothing to do then */
        }
        MESH_NEED(cmi_forward_run(forward, batch) == CMI_OK);
        goes_on = hidden_out != w->hidden[rank] || cmi_forward_heard(forward) > 0;
        memcpy(hidden_out + pass * MAX_ROWS * width, cmi_forward_hidden(forward),
               batch->n_rows * width * sizeof *hidden_out);
    }
    return true;
}

static bool run_rank(mesh_rank *r)
{
    world *w = r->mesh->arg;
    cmi_forward *forward;
    void *kv;
    MESH_NEED(make_forward(&forward, w, r->team, r->exchange, &kv) == CMI_OK);
    bool is_good =
        run_passes(w, r->rank, forward, w->hidden[r->rank]) && cmi_ep_drain(r->exchange) == CMI_OK;
    cmi_forward_destroy(forward);
    cmi_free(kv);
    return is_good;
}

/* ---- against one forward ---- */

static void place_experts(mesh *m, uint64_t seed, uint32_t *most_out)
{
    uint32_t most = 1;
    m->rank_of = cmi_alloc((size_t)m->n_layers * m->n_experts, sizeof *m->rank_of);
    for (uint32_t layer = 0; layer < m->n_layers; layer++) {
        uint32_t n_local[MESH_MAX_RANKS] = {0};
        for (uint32_t e = 0; e < m->n_experts; e++) {
            uint32_t rank = seed % 2 == 0 ? e % m->n_ranks : draw(seed, layer, e, m->n_ranks);
            m->rank_of[layer * m->n_experts + e] = (uint16_t)rank;
            most = CMI_MAX(most, ++n_local[rank]);
        }
    }
    *most_out = most;
}

static void run_ranks(world *w, uint32_t n_ranks, uint64_t seed)
{
    const cmi_model_config *c = &w->instance->config;
    const cmi_fault_options faults = {.seed = seed, .n_ops = 512, .refuse_ppm = 1000};
    mesh *m = cmi_alloc(1, sizeof *m);
    uint32_t most;
    *m = (mesh){.n_ranks = n_ranks,
                .fabric = fabric,
                .n_layers = c->num_hidden_layers + 1,
                .n_experts = c->n_routed_experts,
                .faults = w->by_put ? &faults : NULL,
                .run = run_rank,
                .arg = w};
    place_experts(m, seed, &most);
    const cmi_ep_shape shape = {.n_ranks = n_ranks,
                                .max_rows = MAX_ROWS,
                                .top_k = c->num_experts_per_tok,
                                .max_local_experts = most,
                                .row_bytes = c->hidden_size * sizeof(float),
                                .result_bytes =
                                    c->hidden_size * cmi_dtype_bytes(w->instance->dtype)};
    cmi_error err = {0};
    assert_int_equal(cmi_ep_layout_make(&m->layout, &shape, &err), CMI_OK);
    assert_true(mesh_run(m));
    cmi_free(m->rank_of);
    cmi_free(m);
}

static void expect_same(world *w, uint32_t n_ranks, uint64_t seed, bool by_put)
{
    const size_t n = (size_t)N_PASSES * MAX_ROWS * w->instance->config.hidden_size;
    float *want = cmi_alloc(n, sizeof *want);
    w->seed = seed;
    w->by_put = by_put;
    for (uint32_t i = 0; i < n_ranks; i++) {
        w->hidden[i] = cmi_alloc(n, sizeof **w->hidden);
    }
    run_ranks(w, n_ranks, seed);
    cmi_team_own(w->instance->team);
    for (uint32_t i = 0; i < n_ranks; i++) {
        cmi_forward *forward;
        void *kv;
        memset(want, 0, n * sizeof *want);
        assert_int_equal(make_forward(&forward, w, w->instance->team, NULL, &kv), CMI_OK);
        assert_true(run_passes(w, i, forward, want));
        assert_memory_equal(w->hidden[i], want, n * sizeof *want);
        cmi_forward_destroy(forward);
        cmi_free(kv);
        cmi_free(w->hidden[i]);
    }
    cmi_free(want);
}

static void ranks_give_the_bits_of_one(void **state)
{
    (void)state;
    static const variant variants[] = {
        {"w8a8-int8", CMI_DTYPE_BF16, CMI_QUANTIZATION_W8A8_INT8},
        {"bf16", CMI_DTYPE_BF16, CMI_QUANTIZATION_NONE},
        {"f32", CMI_DTYPE_F32, CMI_QUANTIZATION_NONE},
    };
    static const uint32_t n_ranks[] = {1, 2, 3, 4, 8, 16};
    const size_t n_counts = getenv("CMI_FEW") != NULL ? 3 : CMI_LEN(n_ranks);
    for (size_t v = 0; v < CMI_LEN(variants); v++) {
        char path[1024];
        cmi_error err = {0};
        snprintf(path, sizeof path, "%s/matrix-tiny", getenv("CMI_MODELS"));
        const cmi_instance_options opt = {.model_dir = path,
                                          .dtype = variants[v].dtype,
                                          .quantization = variants[v].quantization,
                                          .isa = cmi_isa_best(cmi_cpu_flags()),
                                          .n_threads = 1,
                                          .max_num_batched_tokens = MAX_ROWS,
                                          .max_model_len = N_PAGES * CMI_KV_PAGE_TOKENS};
        world w = {0};
        assert_int_equal(cmi_instance_open(&w.instance, &opt, &err), CMI_OK);
        for (size_t i = 0; i < n_counts; i++) {
            if (strcmp(fabric, "local") != 0 && (i + v) % 3 != 0) {
                continue; /* every type, every number, but not each with each */
            }
            for (uint64_t seed = 2; seed < 4; seed++) {
                expect_same(&w, n_ranks[i], seed + 10 * i, false);
                expect_same(&w, n_ranks[i], seed + 10 * i, true);
            }
        }
        cmi_instance_close(w.instance);
    }
}

int main(int argc, char **argv)
{
    fabric = argc > 1 ? argv[1] : fabric;
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_give_the_bits_of_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
