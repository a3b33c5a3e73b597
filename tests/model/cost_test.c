/* Costs against figures worked out by hand: DeepSeek-V2-Lite's layers with V3's attention, four of
 * them, as in docs/PERF.md. */
#include "tests/test.h"

#include <math.h>

#include "model/cost.h"
#include "model/weights.h"

/* Weights by hand, n_out x n_in. */
static const double projections = 2112.0 * 2048 + 3072.0 * 1536 + 2048.0 * 2048; /* a layer */
static const double absorbed = 16.0 * 512 * 128 * 2;                             /* a layer */
static const double dense = 3.0 * 2048 * 10944;
static const double expert = 3.0 * 2048 * 1408;
static const double head = 32000.0 * 2048;
static const double gate = 64.0 * 2048;

static const cmi_model_config config = {
    .vocab_size = 32000,
    .hidden_size = 2048,
    .intermediate_size = 10944,
    .moe_intermediate_size = 1408,
    .num_hidden_layers = 4,
    .num_attention_heads = 16,
    .q_lora_rank = 1536,
    .kv_lora_rank = 512,
    .qk_nope_head_dim = 128,
    .qk_rope_head_dim = 64,
    .v_head_dim = 128,
    .n_routed_experts = 64,
    .n_shared_experts = 2,
    .num_experts_per_tok = 6,
    .n_group = 1,
    .topk_group = 1,
    .first_k_dense_replace = 1,
    .moe_layer_freq = 1,
    .max_position_embeddings = 163840,
    .topk_method = CMI_TOPK_NOAUX_TC,
};

static cmi_cost_model model_of(cmi_dtype weights_dtype)
{
    return (cmi_cost_model){.config = &config,
                            .weights_dtype = weights_dtype,
                            .int8_head = true,
                            .kv_layout = cmi_kv_layout_make(&config, CMI_DTYPE_BF16, false)};
}

static cmi_cost step(const cmi_cost_model *m, const cmi_cost_span *spans, uint32_t n_spans,
                     uint32_t n_head_rows)
{
    const cmi_cost_batch batch = {spans, n_spans, n_head_rows, 0};
    return cmi_cost_step(m, &batch);
}

static void expect_near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want))) {
        fail_msg("got %.17g, want %.17g", got, want);
    }
}

static void a_decoded_token_reads_what_it_uses_once(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_BF16);
    const cmi_cost_span span = {.n_rows = 1, .position = 4096};
    cmi_cost cost = step(&m, &span, 1, 1);
    const double weights = 4 * (projections + absorbed) + dense + 3 * (6 + 2) * expert + head;
    expect_near(weights, 401.7e6, 1e-3);
    const double keys = 4097;
    expect_near(cmi_cost_ops(&cost), 2 * (weights + 3 * gate) + 4 * keys * 2 * 16 * 1088, 1e-12);
    expect_near(cmi_cost_bytes(&cost), 2 * weights + 4 * 3 * gate + 4 * keys * 1152, 1e-12);
    assert_true(cost.parts[CMI_COST_EXPANSION].ops == 0);
    assert_int_equal(cost.parts[CMI_COST_GATE].dtype, CMI_DTYPE_F32);
    assert_int_equal(cost.parts[CMI_COST_HEAD].dtype, CMI_DTYPE_BF16);
}

/* A matrix is n_out * (n_in + 8) bytes: each 16 outputs have 128 bytes of scales and offsets. */
static void int8_weights_are_half_as_many_bytes(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_I8);
    const cmi_cost_span span = {.n_rows = 1, .position = 0};
    cmi_cost cost = step(&m, &span, 1, 1);
    const double outputs =
        4 * (2112.0 + 3072 + 2048) + (2 * 10944.0 + 2048) + 3 * 6 * (2 * 1408.0 + 2048);
    const double shared_outputs = 3 * (2 * 2816.0 + 2048);
    const double i8 = 4 * projections + dense + 3 * (6 + 2) * expert + head +
                      8 * (outputs + shared_outputs + 32000);
    expect_near(cmi_cost_bytes(&cost), i8 + 2 * 4 * absorbed + 4 * 3 * gate + 4 * 1152, 1e-12);
    assert_int_equal(cost.parts[CMI_COST_HEAD].dtype, CMI_DTYPE_I8);
    assert_int_equal(cost.parts[CMI_COST_ABSORPTION].dtype, CMI_DTYPE_BF16);
    m.int8_head = false;
    cost = step(&m, &span, 1, 1);
    assert_int_equal(cost.parts[CMI_COST_HEAD].dtype, CMI_DTYPE_BF16);
}

static void a_batch_shares_weights_but_not_kv(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_BF16);
    cmi_cost_span spans[32];
    for (uint32_t i = 0; i < 32; i++) {
        spans[i] = (cmi_cost_span){.n_rows = 1, .position = 1023};
    }
    cmi_cost one = step(&m, spans, 1, 1), all = step(&m, spans, 32, 32);
    expect_near(cmi_cost_ops(&all), 32 * cmi_cost_ops(&one), 1e-12);
    expect_near(all.parts[CMI_COST_PROLOG].bytes, one.parts[CMI_COST_PROLOG].bytes, 0);
    expect_near(all.parts[CMI_COST_ATTENTION].bytes, 32.0 * 4 * 1024 * 1152, 1e-12);
    /* 64 (1 - (58/64)^32) = 61.25769 experts in each of three layers */
    expect_near(all.parts[CMI_COST_ROUTED].bytes, 3 * 61.25769 * 2 * expert, 1e-5);
    const cmi_cost_batch known = {spans, 32, 32, 10};
    all = cmi_cost_step(&m, &known);
    expect_near(all.parts[CMI_COST_ROUTED].bytes, 3 * 10 * 2 * expert, 1e-12);
}

/* A layer of experts, its input's projection and the head. */
static void a_pass_of_the_mtp_layer_is_a_layer_and_its_input(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_BF16);
    const cmi_cost_span span = {.n_rows = 2, .position = 4095};
    const cmi_cost_batch batch = {&span, 1, 1, 11};
    cmi_cost cost = cmi_cost_mtp_pass(&m, &batch);
    const double input = 2048.0 * 2 * 2048, shared = 2 * expert;
    const double row = input + projections + absorbed + (6 + 2) * expert + gate;
    const double keys = 4096 + 4097;
    expect_near(cmi_cost_ops(&cost), 2 * (2 * row + head) + keys * 2 * 16 * 1088, 1e-12);
    expect_near(cmi_cost_bytes(&cost),
                2 * (input + projections + absorbed + 11 * expert + shared + head) + 4 * gate +
                    4097 * 1152,
                1e-12);
}

static void chunks_of_a_prompt_add_up_to_it(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_I8);
    const cmi_cost_span whole = {1024, 0, 1024, true};
    const cmi_cost_span parts[] = {{512, 0, 512, true}, {512, 512, 512, true}};
    cmi_cost all = step(&m, &whole, 1, 1);
    cmi_cost first = step(&m, &parts[0], 1, 0), second = step(&m, &parts[1], 1, 1);
    expect_near(cmi_cost_ops(&all), cmi_cost_ops(&first) + cmi_cost_ops(&second), 1e-12);
    /* 1024 * 1025 / 2 pairs, for each of 16 heads 128 + 64 + 128 multiply-adds in 4 layers */
    expect_near(all.parts[CMI_COST_ATTENTION].ops, 524800.0 * 16 * 320 * 2 * 4, 1e-12);
    expect_near(all.parts[CMI_COST_EXPANSION].ops, 2 * 1024.0 * 4 * absorbed, 1e-12);
    assert_true(all.parts[CMI_COST_ABSORPTION].bytes == 0);
    assert_true(first.parts[CMI_COST_HEAD].ops == 0);
}

/* Everything that is loaded is read by a step with decode and prefill rows enough for all
 * experts, but for the embedding, the vectors and the structs. */
static void a_full_step_reads_what_is_loaded(void **state)
{
    (void)state;
    cmi_cost_model m = model_of(CMI_DTYPE_I8);
    const cmi_cost_span spans[] = {{.n_rows = 1}, {100000, 0, 100000, true}};
    cmi_cost cost = step(&m, spans, 2, 1);
    double bytes = cmi_cost_bytes(&cost) - cost.parts[CMI_COST_ATTENTION].bytes;
    const cmi_weights_options opt = {.dtype = CMI_DTYPE_I8, .int8_head = true};
    double loaded = (double)cmi_weights_estimate_bytes(&config, &opt);
    expect_near(bytes + 2 * head, loaded, 1e-3);
}

static void time_is_the_larger_of_both_in_every_part(void **state)
{
    (void)state;
    cmi_cost cost = {0};
    cost.parts[CMI_COST_PROLOG] = (cmi_cost_part){CMI_DTYPE_I8, 600, 10};
    cost.parts[CMI_COST_ROUTED] = (cmi_cost_part){CMI_DTYPE_I8, 100, 50};
    cost.parts[CMI_COST_ATTENTION] = (cmi_cost_part){CMI_DTYPE_BF16, 90, 1};
    cost.parts[CMI_COST_GATE] = (cmi_cost_part){CMI_DTYPE_F32, 8, 0};
    const cmi_cost_rates rates = {.read_bytes = 10, .i8_ops = 100, .bf16_ops = 30, .f32_ops = 4};
    cmi_cost_time time = {0};
    cmi_cost_add_time(&time, &cost, &rates);
    expect_near(time.i8, 6, 1e-12);
    expect_near(time.read, 5, 1e-12);
    expect_near(time.bf16, 3, 1e-12);
    expect_near(time.f32, 2, 1e-12);
    expect_near(cmi_cost_seconds(&time), 16, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decoded_token_reads_what_it_uses_once),
        cmocka_unit_test(int8_weights_are_half_as_many_bytes),
        cmocka_unit_test(a_batch_shares_weights_but_not_kv),
        cmocka_unit_test(a_pass_of_the_mtp_layer_is_a_layer_and_its_input),
        cmocka_unit_test(a_pass_of_the_mtp_layer_is_a_layer_and_its_input),
        cmocka_unit_test(chunks_of_a_prompt_add_up_to_it),
        cmocka_unit_test(a_full_step_reads_what_is_loaded),
        cmocka_unit_test(time_is_the_larger_of_both_in_every_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
