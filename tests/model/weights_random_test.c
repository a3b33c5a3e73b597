/* Random weights: the same whoever makes them, packed as loaded ones are, and sane numbers. */
#include "tests/test.h"

#include <math.h>

#include "model/weights.h"

/* No width is a multiple of a block of outputs, the inner dimension of down_proj not one of 4. */
static const cmi_model_config config = {
    .vocab_size = 300,
    .hidden_size = 120,
    .intermediate_size = 75,
    .moe_intermediate_size = 22,
    .num_hidden_layers = 2,
    .num_nextn_predict_layers = 1,
    .num_attention_heads = 3,
    .q_lora_rank = 40,
    .kv_lora_rank = 24,
    .qk_nope_head_dim = 12,
    .qk_rope_head_dim = 8,
    .v_head_dim = 10,
    .n_routed_experts = 6,
    .n_shared_experts = 1,
    .num_experts_per_tok = 2,
    .first_k_dense_replace = 1,
    .moe_layer_freq = 1,
    .topk_method = CMI_TOPK_NOAUX_TC,
};

typedef struct made {
    cmi_team *team;
    cmi_weights *weights;
} made;

static made make(cmi_dtype dtype, uint64_t seed, uint32_t n_threads)
{
    made m;
    cmi_error err = {0};
    assert_int_equal(cmi_team_create(&m.team, n_threads, &err), CMI_OK);
    cmi_weights_options opt = {.dtype = dtype, .int8_head = true, .with_mtp = true, .team = m.team};
    if (cmi_weights_random(&m.weights, &config, seed, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return m;
}

static void discard(made *m)
{
    cmi_weights_destroy(m->weights);
    cmi_team_destroy(m->team);
}

static void the_seed_and_nothing_else_decides(void **state)
{
    (void)state;
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        made a = make(dtypes[i], 1, 1), b = make(dtypes[i], 1, 3), c = make(dtypes[i], 2, 1);
        assert_true(a.weights->block_bytes == b.weights->block_bytes);
        assert_memory_equal(a.weights->block, b.weights->block, a.weights->block_bytes);
        assert_memory_not_equal(a.weights->block, c.weights->block, a.weights->block_bytes);
        discard(&a);
        discard(&b);
        discard(&c);
    }
}

/* The value of an output's input, whatever the type. n_parts 2: gate and up. */
static float value_of(const cmi_linear *m, uint32_t n_parts, uint32_t out, uint32_t in)
{
    if (m->dtype == CMI_DTYPE_F32) {
        return ((const float *)m->w)[out * m->stride + in];
    }
    if (m->dtype == CMI_DTYPE_BF16) {
        return cmi_bf16_to_f32(((const cmi_bf16 *)m->w)[out * m->stride + in]);
    }
    const uint32_t part = out / (m->n_out / n_parts), row = out % (m->n_out / n_parts);
    const uint8_t *block = (const uint8_t *)m->w + (row / 16 * n_parts + part) * m->stride;
    const int8_t *w = (const int8_t *)block + 128 + in / 4 * 64 + row % 16 * 4 + in % 4;
    return ((const float *)(const void *)block)[row % 16] * (float)*w;
}

static void expect_deviation(const cmi_linear *m, uint32_t n_parts, double want)
{
    double sum = 0, squares = 0;
    for (uint32_t out = 0; out < m->n_out; out++) {
        for (uint32_t in = 0; in < m->n_in; in++) {
            double value = (double)value_of(m, n_parts, out, in);
            sum += value;
            squares += value * value;
        }
    }
    double n = (double)m->n_out * m->n_in;
    if (fabs(sqrt(squares / n) / want - 1) > 0.1 || fabs(sum / n / want) > 0.1) {
        fail_msg("%u x %u: deviation %g, mean %g, want %g", m->n_out, m->n_in, sqrt(squares / n),
                 sum / n, want);
    }
}

static void matrices_keep_the_size_of_a_row(void **state)
{
    (void)state;
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        made m = make(dtypes[i], 5, 2);
        const cmi_weights *w = m.weights;
        expect_deviation(&w->embed, 1, 1);
        expect_deviation(&w->lm_head, 1, 1 / sqrt(120));
        expect_deviation(&w->layers[0].dense.gate_up, 2, 1 / sqrt(120));
        expect_deviation(&w->layers[0].dense.down, 1, 1 / sqrt(75));
        expect_deviation(&w->layers[1].gate, 1, 1 / sqrt(120));
        expect_deviation(&w->layers[1].experts[5].down, 1, 1 / sqrt(22));
        expect_deviation(&w->mtp->layer.o_proj, 1, 1 / sqrt(30));
        assert_true(w->norm[119] == 1 && w->mtp->hnorm[0] == 1);
        assert_true(w->layers[1].gate_bias[0] == 0);
        discard(&m);
    }
}

/* A product relies on the offsets, and on zeros where there is no output or no input. */
static void int8_blocks_are_packed_as_loaded_ones(void **state)
{
    (void)state;
    made m = make(CMI_DTYPE_I8, 9, 2);
    const cmi_ffn *ffn = &m.weights->layers[1].experts[2];
    const cmi_linear *matrices[] = {&ffn->gate_up, &ffn->down};
    for (size_t i = 0; i < CMI_LEN(matrices); i++) {
        const cmi_linear *linear = matrices[i];
        const uint32_t n_parts = i == 0 ? 2 : 1, n_out = linear->n_out / n_parts;
        for (uint32_t b = 0; b < CMI_DIV_UP(n_out, 16u) * n_parts; b++) {
            const uint8_t *block = (const uint8_t *)linear->w + b * linear->stride;
            for (uint32_t lane = 0; lane < 16; lane++) {
                const bool is_there = b / n_parts * 16 + lane < n_out;
                int32_t sum = 0;
                for (uint32_t k = 0; k < CMI_ROUND_UP(linear->n_in, 4u); k++) {
                    int8_t w = ((const int8_t *)block)[128 + k / 4 * 64 + lane * 4 + k % 4];
                    assert_true((is_there && k < linear->n_in) || w == 0);
                    sum += w;
                }
                int32_t offset = ((const int32_t *)(const void *)block)[16 + lane];
                assert_int_equal(offset, -128 * sum);
                assert_true((((const float *)(const void *)block)[lane] > 0) == is_there);
            }
        }
    }
    discard(&m);
}

static void decode_has_the_halves_of_what_prefill_has(void **state)
{
    (void)state;
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16, CMI_DTYPE_I8};
    for (size_t i = 0; i < CMI_LEN(dtypes); i++) {
        made m = make(dtypes[i], 3, 2);
        const cmi_layer_weights *layer = &m.weights->layers[0];
        for (uint32_t head = 0; head < 3; head++) {
            cmi_linear uv = layer->w_uv;
            uv.w =
                (const uint8_t *)uv.w + head * layer->w_uv_head_stride * cmi_dtype_bytes(uv.dtype);
            for (uint32_t r = 0; r < 24; r++) {
                for (uint32_t k = 0; k < 12; k++) {
                    double want = (double)value_of(&layer->kv_b_proj, 1, head * 22 + k, r);
                    double got = (double)value_of(&layer->w_uk_t, 1, head * 24 + r, k);
                    assert_true(fabs(got - want) <= fabs(want) / 256);
                }
                for (uint32_t k = 0; k < 10; k++) {
                    double want = (double)value_of(&layer->kv_b_proj, 1, head * 22 + 12 + k, r);
                    assert_true(fabs((double)value_of(&uv, 1, k, r) - want) <= fabs(want) / 256);
                }
            }
        }
        discard(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_seed_and_nothing_else_decides),
        cmocka_unit_test(matrices_keep_the_size_of_a_row),
        cmocka_unit_test(int8_blocks_are_packed_as_loaded_ones),
        cmocka_unit_test(decode_has_the_halves_of_what_prefill_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
