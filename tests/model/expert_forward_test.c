/* A model without experts, with all of them set from slabs, computes the bits of a whole one; and
 * experts come in and are set while passes run over others. */
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "model/expert_slabs.h"
#include "model/forward.h"

enum { N_PROMPT = 19, N_DECODE = 3, N_ROWS = N_PROMPT + N_DECODE, N_PAGES = 1, SEED = 5 };

static cmi_model_config config;
static cmi_kernels kernels;
static cmi_team *team;
static char dir[512];

static int setup(void **state)
{
    (void)state;
    cmi_error err;
    cmi_generation_config generation;
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_kernels_select(&kernels, cmi_cpu_flags());
    return cmi_team_create(&team, 2, &err) == CMI_OK &&
                   cmi_model_config_load(&config, &generation, dir, &err) == CMI_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    cmi_team_destroy(team);
    return 0;
}

/* ---- passes ---- */

typedef struct model {
    cmi_weights *weights;
    cmi_kv_layout layout;
    void *kv;
    cmi_forward *forward;
} model;

static model open_model(const cmi_weights_options *opt, bool is_random)
{
    model m = {0};
    cmi_error err = {0};
    cmi_status st = is_random ? cmi_weights_random(&m.weights, &config, SEED, opt, &err)
                              : cmi_weights_load(&m.weights, &config, dir, opt, &err);
    assert_int_equal(st, CMI_OK);
    cmi_dtype kv_dtype = opt->dtype == CMI_DTYPE_F32 ? CMI_DTYPE_F32 : CMI_DTYPE_BF16;
    m.layout = cmi_kv_layout_make(&config, kv_dtype, true);
    m.kv = cmi_alloc_aligned(N_PAGES * m.layout.page_bytes, CMI_CACHE_LINE);
    cmi_forward_options forward = {.config = &config,
                                   .weights = m.weights,
                                   .kernels = &kernels,
                                   .team = team,
                                   .kv_layout = m.layout,
                                   .kv_base = m.kv,
                                   .max_rows = N_PROMPT,
                                   .max_decode_rows = 1,
                                   .max_positions = N_PAGES * CMI_KV_PAGE_TOKENS};
    assert_int_equal(cmi_forward_create(&m.forward, &forward, &err), CMI_OK);
    return m;
}

static void close_model(model *m)
{
    cmi_forward_destroy(m->forward);
    cmi_free(m->kv);
    cmi_weights_destroy(m->weights);
}

/* expert_ids NULL: the gate's choice. */
static void pass(model *m, uint32_t position, uint32_t n, const float *mtp_hidden,
                 const uint32_t *expert_ids, float *hidden_out)
{
    static const uint32_t page_id = 0;
    uint32_t tokens[N_PROMPT];
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = (position + i) * 97 % config.vocab_size;
    }
    cmi_batch_span span = {
        .page_ids = &page_id, .n_rows = n, .position = position, .is_prefill = n > 1};
    cmi_batch batch = {.token_ids = tokens,
                       .spans = &span,
                       .n_rows = n,
                       .n_spans = 1,
                       .mtp_hidden = mtp_hidden,
                       .expert_ids = expert_ids};
    assert_int_equal(cmi_forward_run(m->forward, &batch), CMI_OK);
    memcpy(hidden_out, cmi_forward_hidden(m->forward), n * config.hidden_size * sizeof(float));
}

/* A prompt, some decode steps, and the MTP layer over the prompt: [N_ROWS + N_PROMPT] rows. */
static float *run(model *m)
{
    const size_t width = config.hidden_size;
    float *hidden = cmi_alloc((N_ROWS + N_PROMPT) * width, sizeof *hidden);
    pass(m, 0, N_PROMPT, NULL, NULL, hidden);
    for (uint32_t i = N_PROMPT; i < N_ROWS; i++) {
        pass(m, i, 1, NULL, NULL, hidden + i * width);
    }
    pass(m, 1, N_PROMPT, hidden, NULL, hidden + N_ROWS * width);
    return hidden;
}

/* ---- slabs ---- */

typedef struct slabs {
    cmi_expert_source *source;
    cmi_expert_target *targets; /* of all experts */
    uint32_t n;
    uint8_t *memory;
} slabs;

static slabs open_slabs(const cmi_weights_options *opt, bool is_random)
{
    slabs s = {0};
    cmi_error err = {0};
    cmi_status st = is_random ? cmi_expert_source_random(&s.source, &config, SEED, opt, &err)
                              : cmi_expert_source_open(&s.source, &config, dir, opt, &err);
    assert_int_equal(st, CMI_OK);
    const size_t slab_bytes = cmi_expert_slab_bytes(&config, opt);
    const size_t most = (config.num_hidden_layers + 1) * (size_t)config.n_routed_experts;
    s.targets = cmi_alloc(most, sizeof *s.targets);
    s.memory = cmi_alloc_aligned(most * slab_bytes, CMI_CACHE_LINE);
    for (uint32_t layer = 0; layer <= config.num_hidden_layers; layer++) {
        for (uint32_t e = 0; e < config.n_routed_experts; e++) {
            if (cmi_expert_source_has_layer(s.source, layer)) {
                s.targets[s.n] = (cmi_expert_target){{layer, e}, s.memory + s.n * slab_bytes};
                s.n++;
            }
        }
    }
    return s;
}

static void close_slabs(slabs *s)
{
    cmi_expert_source_close(s->source);
    cmi_free(s->targets);
    cmi_free(s->memory);
}

static void set(model *m, const slabs *s, const cmi_expert_target *t)
{
    const cmi_ffn ffn = cmi_expert_view(s->source, t->slab);
    cmi_weights_set_expert(m->weights, t->id.layer_idx, t->id.expert, &ffn);
}

/* ---- tests ---- */

static void expect_same_bits(cmi_dtype dtype, bool is_random)
{
    cmi_error err = {0};
    cmi_weights_options opt = {.dtype = dtype, .int8_head = true, .with_mtp = true, .team = team};
    model whole = open_model(&opt, is_random);
    opt.without_experts = true;
    model bare = open_model(&opt, is_random);
    slabs s = open_slabs(&opt, is_random);
    assert_int_equal(cmi_expert_read_many(s.source, s.targets, s.n, &opt, &err), CMI_OK);
    for (uint32_t i = 0; i < s.n; i++) {
        set(&bare, &s, &s.targets[i]);
    }
    float *want = run(&whole), *got = run(&bare);
    const size_t n_bytes = (N_ROWS + N_PROMPT) * config.hidden_size * sizeof *want;
    assert_memory_equal(want, got, n_bytes);
    /* Another expert in its place shows. */
    const cmi_ffn other = cmi_expert_view(s.source, s.targets[1].slab);
    for (uint32_t e = 0; e < config.n_routed_experts; e++) {
        cmi_weights_set_expert(bare.weights, s.targets[0].id.layer_idx, e, &other);
    }
    cmi_free(got);
    got = run(&bare);
    assert_memory_not_equal(want, got, n_bytes);
    cmi_weights_set_expert(bare.weights, config.num_hidden_layers, 3, NULL);
    assert_null(bare.weights->mtp->layer.experts[3].gate_up.w);
    assert_null(bare.weights->mtp->layer.experts[3].down.w);
    cmi_free(got);
    cmi_free(want);
    close_slabs(&s);
    close_model(&bare);
    close_model(&whole);
}

static void all_experts_set_give_the_bits_of_the_whole(void **state)
{
    (void)state;
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        expect_same_bits(dtypes[i], false);
        expect_same_bits(dtypes[i], true);
    }
}

/* Reads all experts with odd numbers, then one of them again and again. */
typedef struct reader {
    const slabs *s;
    _Atomic uint32_t n_read; /* targets before this one that are odd are in their slabs */
    _Atomic bool stop;
    void *spare; /* a slab */
    cmi_status status;
} reader;

static void *read_odd(void *arg)
{
    reader *r = arg;
    const slabs *s = r->s;
    cmi_error err;
    for (uint32_t i = 0; i < s->n && r->status == CMI_OK; i++) {
        if (s->targets[i].id.expert % 2 == 1) {
            r->status = cmi_expert_read(s->source, &s->targets[i], &err);
        }
        atomic_store_explicit(&r->n_read, i + 1, memory_order_release); /* partner: take_in */
    }
    while (r->status == CMI_OK && !atomic_load_explicit(&r->stop, memory_order_relaxed)) {
        const cmi_expert_target again = {s->targets[1].id, r->spare};
        r->status = cmi_expert_read(s->source, &again, &err);
    }
    atomic_store_explicit(&r->n_read, s->n, memory_order_release);
    return NULL;
}

/* Between two passes: what has come in since. */
static uint32_t take_in(model *m, const slabs *s, reader *r, uint32_t first)
{
    uint32_t end = atomic_load_explicit(&r->n_read, memory_order_acquire);
    for (uint32_t i = first; i < end; i++) {
        if (s->targets[i].id.expert % 2 == 1) {
            set(m, s, &s->targets[i]);
        }
    }
    return end;
}

static void experts_come_in_beside_passes(void **state)
{
    (void)state;
    enum { MIN_PASSES = 3, N = 4 };
    cmi_error err = {0};
    cmi_weights_options opt = {.dtype = CMI_DTYPE_I8, .with_mtp = true, .team = team};
    model whole = open_model(&opt, false);
    opt.without_experts = true;
    model bare = open_model(&opt, false);
    slabs s = open_slabs(&opt, false);
    for (uint32_t i = 0; i < s.n; i += 2) {
        assert_int_equal(s.targets[i].id.expert % 2, 0);
        assert_int_equal(cmi_expert_read(s.source, &s.targets[i], &err), CMI_OK);
        set(&bare, &s, &s.targets[i]);
    }
    uint32_t even[N * 8];
    float want[N * 256], got[N * 256];
    assert_true(config.hidden_size == 256 && config.num_experts_per_tok <= 8);
    for (uint32_t i = 0; i < N * config.num_experts_per_tok; i++) {
        even[i] = i * 2 % config.n_routed_experts;
    }
    pass(&whole, 0, N, NULL, even, want);
    reader r = {.s = &s,
                .spare = cmi_alloc_aligned(cmi_expert_slab_bytes(&config, &opt), CMI_CACHE_LINE)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_odd, &r), 0);
    for (uint32_t n_passes = 0, n_set = 0; n_passes < MIN_PASSES || n_set < s.n; n_passes++) {
        pass(&bare, 0, N, NULL, even, got);
        assert_memory_equal(want, got, sizeof want);
        n_set = take_in(&bare, &s, &r, n_set);
    }
    atomic_store_explicit(&r.stop, true, memory_order_relaxed);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(r.status, CMI_OK);
    float *all = run(&whole), *too = run(&bare);
    assert_memory_equal(all, too, (N_ROWS + N_PROMPT) * config.hidden_size * sizeof *all);
    cmi_free(too);
    cmi_free(all);
    cmi_free(r.spare);
    close_slabs(&s);
    close_model(&bare);
    close_model(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_experts_set_give_the_bits_of_the_whole),
        cmocka_unit_test(experts_come_in_beside_passes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
