/* The same-bits promise on the bundled model: chunks, threads, instruction sets, earlier sequences.
 */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/instance.h"

/* Three pages; and two, for the instruction sets, since the reference kernels take their time. */
enum { N_PROMPT = 150, N_PROMPT_ISA = 70, N_GENERATED = 12, N_TOKENS = N_PROMPT + N_GENERATED };

static uint32_t tokens[N_TOKENS];

typedef struct run_options {
    cmi_dtype dtype;
    cmi_isa isa;
    uint32_t n_threads;
    uint32_t chunk;
    uint32_t n_prompt;  /* tokens 0 .. n_prompt-1 are the prompt, the next N_GENERATED generated */
    bool on_used_pages; /* run another sequence before, so that pages and scratch are not fresh */
} run_options;

static cmi_instance *open_instance(const run_options *opt)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options options = {.model_dir = dir,
                                    .dtype = opt->dtype,
                                    .isa = opt->isa,
                                    .n_threads = opt->n_threads,
                                    .max_num_batched_tokens = opt->chunk,
                                    .max_model_len = 512,
                                    .with_mtp = true};
    cmi_instance *instance = NULL;
    cmi_error err = {0};
    if (cmi_instance_open(&instance, &options, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return instance;
}

static void spoil_pages(cmi_instance *in)
{
    cmi_sequence other;
    cmi_sequence_init(&other, in);
    uint32_t n = CMI_MIN(in->max_num_batched_tokens, (uint32_t)100);
    assert_int_equal(cmi_instance_step(in, &other, tokens + 20, n, true), CMI_OK);
    cmi_sequence_deinit(&other, in);
}

/* Rows of logits that a run gives: after every prompt and generated token, and the MTP layer's
 * after every generated one. */
static size_t n_logit_rows(const run_options *opt)
{
    return opt->n_prompt + 2 * N_GENERATED;
}

/* [n_logit_rows][vocab_size]; the caller frees them. */
static float *run_all(const run_options *opt)
{
    cmi_instance *in = open_instance(opt);
    size_t vocab = in->config.vocab_size;
    float *out = cmi_alloc(n_logit_rows(opt) * vocab, sizeof *out);
    cmi_sequence seq;
    if (opt->on_used_pages) {
        spoil_pages(in);
    }
    cmi_sequence_init(&seq, in);
    for (uint32_t at = 0; at < opt->n_prompt;) {
        uint32_t n = CMI_MIN(opt->n_prompt - at, in->max_num_batched_tokens);
        assert_int_equal(cmi_instance_step(in, &seq, tokens + at, n, true), CMI_OK);
        for (uint32_t row = 0; row < n; row++) {
            memcpy(out + (at + row) * vocab, cmi_instance_logits(in, row, 1), vocab * sizeof *out);
        }
        assert_int_equal(cmi_instance_mtp_prefill(in, &seq, tokens + at, n), CMI_OK);
        at += n;
    }
    for (uint32_t i = 0; i < N_GENERATED; i++) {
        uint32_t at = opt->n_prompt + i;
        const float *draft;
        assert_int_equal(cmi_instance_mtp_draft(in, &seq, tokens[at], &draft), CMI_OK);
        memcpy(out + (opt->n_prompt + N_GENERATED + i) * vocab, draft, vocab * sizeof *out);
        assert_int_equal(cmi_instance_step(in, &seq, tokens + at, 1, false), CMI_OK);
        memcpy(out + at * vocab, cmi_instance_logits(in, 0, 1), vocab * sizeof *out);
    }
    cmi_sequence_deinit(&seq, in);
    cmi_instance_close(in);
    return out;
}

static void expect_same_bits(const float *want, const run_options *opt)
{
    float *got = run_all(opt);
    if (memcmp(want, got, n_logit_rows(opt) * 2048 * sizeof *got) != 0) {
        fail_msg("other bits with dtype %s, isa %s, %u threads, chunk %u, used pages %d",
                 cmi_dtype_name(opt->dtype), cmi_isa_name(opt->isa), opt->n_threads, opt->chunk,
                 opt->on_used_pages);
    }
    cmi_free(got);
}

static void check_dtype(cmi_dtype dtype)
{
    static const run_options variants[] = {
        {.n_threads = 2, .chunk = 512}, {.n_threads = 4, .chunk = 512},
        {.n_threads = 1, .chunk = 1},   {.n_threads = 2, .chunk = 7},
        {.n_threads = 1, .chunk = 64},  {.n_threads = 3, .chunk = 100, .on_used_pages = true},
    };
    cmi_isa best = cmi_isa_best(cmi_cpu_flags());
    run_options first = {
        .dtype = dtype, .isa = best, .n_threads = 1, .chunk = 512, .n_prompt = N_PROMPT};
    float *want = run_all(&first);
    for (size_t i = 0; i < CMI_LEN(variants); i++) {
        run_options opt = variants[i];
        opt.dtype = dtype;
        opt.isa = best;
        opt.n_prompt = N_PROMPT;
        expect_same_bits(want, &opt);
    }
    cmi_free(want);
    first.n_prompt = N_PROMPT_ISA;
    want = run_all(&first);
    for (cmi_isa isa = CMI_ISA_REF; isa < best; isa++) {
        if ((cmi_isa_cpu_flags(isa) & ~(cmi_cpu_flags() | CMI_CPU_TRAITS)) != 0) {
            continue; /* of another architecture */
        }
        run_options opt = first;
        opt.isa = isa;
        opt.n_threads = 2;
        expect_same_bits(want, &opt);
    }
    cmi_free(want);
}

static void bf16_bits_do_not_depend_on_how_it_ran(void **state)
{
    (void)state;
    check_dtype(CMI_DTYPE_BF16);
}

static void f32_bits_do_not_depend_on_how_it_ran(void **state)
{
    (void)state;
    check_dtype(CMI_DTYPE_F32);
}

static void a_sequence_cannot_outgrow_the_context(void **state)
{
    (void)state;
    run_options opt = {.dtype = CMI_DTYPE_BF16, .n_threads = 1, .chunk = 400};
    cmi_instance *in = open_instance(&opt);
    uint32_t many[400] = {0};
    cmi_sequence seq;
    cmi_sequence_init(&seq, in);
    assert_int_equal(cmi_instance_step(in, &seq, many, 400, true), CMI_OK);
    assert_int_equal(cmi_instance_step(in, &seq, many, 113, true), CMI_ERR_TOO_LARGE);
    assert_int_equal(seq.n_stored, 400);
    assert_int_equal(cmi_instance_step(in, &seq, many, 112, true), CMI_OK);
    cmi_sequence other;
    cmi_sequence_init(&other, in);
    assert_int_equal(cmi_instance_step(in, &other, many, 1, true), CMI_ERR_NO_CAPACITY);
    cmi_sequence_reset(&seq, in);
    assert_int_equal(cmi_instance_step(in, &other, many, 1, true), CMI_OK);
    cmi_sequence_deinit(&other, in);
    cmi_sequence_deinit(&seq, in);
    cmi_instance_close(in);
}

/* Beside its KV the MTP layer takes a hidden state for every row, and twice the room for the rows'
 * operands. */
static void memory_of_the_mtp_layer_is_planned_when_it_is_there(void **state)
{
    (void)state;
    enum { N_ROWS = 128 };
    char dir[512];
    uint64_t scratch_bytes[2];
    uint32_t hidden = 0;
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    for (int with_mtp = 0; with_mtp < 2; with_mtp++) {
        cmi_instance_options opt = {.model_dir = dir,
                                    .dtype = CMI_DTYPE_BF16,
                                    .n_threads = 1,
                                    .max_num_batched_tokens = N_ROWS,
                                    .max_model_len = 64,
                                    .with_mtp = with_mtp == 1};
        cmi_instance *in = NULL;
        assert_int_equal(cmi_instance_open(&in, &opt, NULL), CMI_OK);
        scratch_bytes[with_mtp] = in->scratch_bytes;
        hidden = in->config.hidden_size;
        assert_int_equal(in->mtp_hidden != NULL, with_mtp);
        cmi_instance_close(in);
    }
    assert_int_equal(scratch_bytes[1] - scratch_bytes[0],
                     N_ROWS * hidden * (3 * sizeof(float) + sizeof(cmi_bf16)));
}

static void what_does_not_fit_is_refused_with_a_line(void **state)
{
    (void)state;
    char dir[512];
    cmi_instance *instance = NULL;
    cmi_error err = {0};
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options opt = {.model_dir = dir, .n_threads = 1, .max_model_len = 4096};
    assert_int_equal(cmi_instance_open(&instance, &opt, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "max_position_embeddings 2048"));
    opt = (cmi_instance_options){.model_dir = "/nonexistent", .n_threads = 1};
    assert_int_equal(cmi_instance_open(&instance, &opt, &err), CMI_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent"));
    assert_null(instance);
}

static double cosine(const float *a, const float *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

/* Prefill and decode of random weights are the same model, and its numbers stay in range. */
static void random_weights_compute_like_loaded_ones(void **state)
{
    (void)state;
    static const cmi_quantization quantizations[] = {CMI_QUANTIZATION_NONE,
                                                     CMI_QUANTIZATION_W8A8_INT8};
    char dir[512];
    cmi_model_config config;
    cmi_generation_config generation;
    cmi_error err = {0};
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    assert_int_equal(cmi_model_config_load(&config, &generation, dir, &err), CMI_OK);
    for (size_t i = 0; i < CMI_LEN(quantizations); i++) {
        cmi_instance_options opt = {.model_dir = "random weights",
                                    .dtype = CMI_DTYPE_BF16,
                                    .quantization = quantizations[i],
                                    .isa = cmi_isa_best(cmi_cpu_flags()),
                                    .n_threads = 2,
                                    .max_model_len = 64,
                                    .max_num_seqs = 3,
                                    .n_kv_tokens = 200,
                                    .random_config = &config,
                                    .random_seed = 11};
        cmi_instance *in = NULL;
        assert_int_equal(cmi_instance_open(&in, &opt, &err), CMI_OK);
        assert_int_equal(in->kv_pool.n_pages, 4);
        const size_t vocab = in->config.vocab_size;
        float *prefilled = cmi_alloc(vocab, sizeof *prefilled);
        cmi_sequence seq;
        cmi_sequence_init(&seq, in);
        assert_int_equal(cmi_instance_step(in, &seq, tokens, 40, true), CMI_OK);
        memcpy(prefilled, cmi_instance_logits(in, 39, 1), vocab * sizeof *prefilled);
        cmi_sequence_reset(&seq, in);
        assert_int_equal(cmi_instance_step(in, &seq, tokens, 39, true), CMI_OK);
        assert_int_equal(cmi_instance_step(in, &seq, tokens + 39, 1, false), CMI_OK);
        const float *decoded = cmi_instance_logits(in, 0, 1);
        double size = 0;
        for (size_t j = 0; j < vocab; j++) {
            size += (double)decoded[j] * (double)decoded[j] / (double)vocab;
        }
        assert_true(size > 0.5 && size < 2);
        assert_true(cosine(prefilled, decoded, vocab) > 0.98);
        cmi_sequence_deinit(&seq, in);
        cmi_instance_close(in);
        cmi_free(prefilled);
    }
}

int main(void)
{
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (uint32_t)(cmi_philox_uniform(7, i, 0) * 2048);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_bits_do_not_depend_on_how_it_ran),
        cmocka_unit_test(f32_bits_do_not_depend_on_how_it_ran),
        cmocka_unit_test(a_sequence_cannot_outgrow_the_context),
        cmocka_unit_test(memory_of_the_mtp_layer_is_planned_when_it_is_there),
        cmocka_unit_test(what_does_not_fit_is_refused_with_a_line),
        cmocka_unit_test(random_weights_compute_like_loaded_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
