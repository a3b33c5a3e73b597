#include "tests/test.h"

#include <math.h>

#include "model/rope.h"

static const cmi_model_config plain = {.qk_nope_head_dim = 128,
                                       .qk_rope_head_dim = 64,
                                       .rope_theta = 10000,
                                       .rope_scaling = {.factor = 1, .mscale = 1}};

static const cmi_model_config deepseek_v3 = {
    .qk_nope_head_dim = 128,
    .qk_rope_head_dim = 64,
    .rope_theta = 10000,
    .rope_scaling = {.is_yarn = true,
                     .factor = 40,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .mscale = 1,
                     .mscale_all_dim = 1,
                     .original_max_position_embeddings = 4096}};

/* The tables hold float32 roundings of float64 values, so half a unit in the last place of 1 beside
 * libm's float64 functions; their own last bits are far below. */
static void tables_are_cos_and_sin_of_position_times_frequency(void **state)
{
    (void)state;
    enum { N = 163840 };
    cmi_rope rope;
    cmi_rope_init(&rope, &plain, N);
    for (uint32_t position = 0; position < N; position += position < 3000 ? 1 : 997) {
        for (uint32_t i = 0; i < 32; i++) {
            double angle = position * pow(10000, -2.0 * i / 64);
            assert_true(fabs((double)cmi_rope_cos(&rope, position)[i] - cos(angle)) < 0x1p-24);
            assert_true(fabs((double)cmi_rope_sin(&rope, position)[i] - sin(angle)) < 0x1p-24);
        }
    }
    cmi_rope_deinit(&rope);
}

/* YaRN as its authors published it, in libm's float64. */
static double yarn_frequency(int i)
{
    double base = pow(10000, -2.0 * i / 64);
    double turns_low = floor(64 * log(4096 / (32 * 2 * M_PI)) / (2 * log(10000)));
    double turns_high = ceil(64 * log(4096 / (1 * 2 * M_PI)) / (2 * log(10000)));
    double ramp = fmin(fmax((i - turns_low) / (turns_high - turns_low), 0), 1);
    return base / 40 * ramp + base * (1 - ramp);
}

static void yarn_stretches_long_waves_only(void **state)
{
    (void)state;
    cmi_rope rope;
    cmi_rope_init(&rope, &deepseek_v3, 8192);
    for (uint32_t i = 0; i < 32; i++) {
        double angle = 8191 * yarn_frequency((int)i);
        assert_true(fabs((double)cmi_rope_cos(&rope, 8191)[i] - cos(angle)) < 0x1p-23);
    }
    cmi_rope_deinit(&rope);
}

static void the_softmax_scale_has_mscale_squared(void **state)
{
    (void)state;
    double mscale = 0.1 * log(40) + 1;
    double want = mscale * mscale / sqrt(192);
    assert_true(fabs((double)cmi_rope_softmax_scale(&deepseek_v3) - want) < 1e-8);
    assert_true(fabs((double)cmi_rope_softmax_scale(&plain) - 1 / sqrt(192)) < 1e-8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_cos_and_sin_of_position_times_frequency),
        cmocka_unit_test(yarn_stretches_long_waves_only),
        cmocka_unit_test(the_softmax_scale_has_mscale_squared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
