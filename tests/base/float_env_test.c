#include "tests/test.h"

#include <math.h>

#include "base/float_env.h"

/* Values that a compiler cannot compute with beforehand. */
static volatile float one = 1.0f, least_normal = 0x1p-126f, subnormal = 0x1p-130f;

static void subnormal_operands_are_zero(void **state)
{
    (void)state;
    float product = subnormal * 0x1p100f, sum = subnormal + least_normal;
    assert_true(product == 0.0f);
    assert_true(sum == least_normal);
    assert_true(subnormal == 0.0f);
    assert_true(fmaf(subnormal, 0x1p100f, one) == 1.0f);
}

static void subnormal_results_are_zeros_of_their_sign(void **state)
{
    (void)state;
    float half = least_normal / 2, minus_half = -least_normal / 2;
    assert_true(half == 0.0f && !signbit(half));
    assert_true(minus_half == 0.0f && signbit(minus_half));
    float difference = least_normal * (1.0f + 0x1p-23f) - least_normal;
    assert_true(difference == 0.0f);
    float fused = fmaf(least_normal, 0.5f, 0.0f);
    assert_true(fused == 0.0f);
}

static void rounding_is_to_nearest_ties_to_even(void **state)
{
    (void)state;
    assert_true(one + 0x1p-24f == 1.0f);
    assert_true(one + 0x1.000002p-24f == 1.0f + 0x1p-23f);
    assert_true((one + 0x1p-23f) + 0x1p-24f == 1.0f + 0x1p-22f);
    assert_true(-one - 0x1p-24f == -1.0f);
}

/* The one place where architectures differ (base/float_env.h). */
static void what_rounding_lifts_to_the_least_normal_is_kept_on_x86_and_flushed_on_arm(void **state)
{
    (void)state;
    const float want = CMI_ARCH_AARCH64 ? 0.0f : least_normal;
    volatile float tiny = 0x1p-100f, below_one = 1.0f - 0x1p-23f, above_one = 1.0f + 0x1p-23f;
    float product = below_one * (above_one * least_normal); /* 2^-126 (1 - 2^-46) */
    assert_true(product == want);
    assert_true(fmaf(tiny, -0x1p-60f, least_normal) == want); /* 2^-126 - 2^-160 */
    /* Below 2^-126 - 2^-151 rounding lifts nothing: (1 - 2^-24) 2^-126. */
    volatile float largest_below_one = 1.0f - 0x1p-24f;
    assert_true(largest_below_one * least_normal == 0.0f);
}

int main(void)
{
    cmi_float_env_set();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subnormal_operands_are_zero),
        cmocka_unit_test(subnormal_results_are_zeros_of_their_sign),
        cmocka_unit_test(rounding_is_to_nearest_ties_to_even),
        cmocka_unit_test(what_rounding_lifts_to_the_least_normal_is_kept_on_x86_and_flushed_on_arm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
