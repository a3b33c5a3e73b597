/* exp and log against the C library's float64 functions. */
#include "tests/test.h"

#include <math.h>

#include "base/float_env.h"
#include "kernels/kernels.h"
#include "kernels/ref/math.h"

/* A prime, so that the samples of the 2^32 floats fall on all residues. */
enum { SAMPLE_STEP = 5003 };

/* |got - want| in units in the last place of float32 at want. */
static double ulps(float got, double want)
{
    return fabs((double)got - want) / ldexp(1, ilogb(want) - 23);
}

static void check_exp(uint32_t bits)
{
    float x = cmi_f32_from_bits(bits), got = cmi_expf_ref(x);
    double want = exp((double)x);
    if (isnan(x)) {
        assert_true(isnan(got));
    } else if (x < CMI_EXP_MIN) {
        assert_int_equal(cmi_f32_bits(got), 0);
    } else if (x > CMI_EXP_MAX) {
        assert_true(isinf(got) && got > 0);
    } else if (!(ulps(got, want) <= 0.892)) {
        fail_msg("exp(%a) = %a, want %a: %g ulp", (double)x, (double)got, want, ulps(got, want));
    }
}

static void exp_is_within_0_892_ulp(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += SAMPLE_STEP) {
        check_exp((uint32_t)bits);
    }
    check_exp(0x40A65F09); /* 0x1.4cbe12p+2, and below the two worst of all floats */
    check_exp(0xC0BB2812);
}

static void exp_is_exact_or_flushed_at_its_limits(void **state)
{
    (void)state;
    assert_true(cmi_expf_ref(0.0f) == 1.0f && cmi_expf_ref(-0.0f) == 1.0f);
    assert_true(cmi_expf_ref(0x1p-130f) == 1.0f); /* a subnormal number is zero */
    assert_int_equal(cmi_f32_bits(cmi_expf_ref(-INFINITY)), 0);
    assert_true(isinf(cmi_expf_ref(INFINITY)));
    for (int i = -100; i <= 100; i++) {
        check_exp(cmi_f32_bits(CMI_EXP_MIN) + (uint32_t)i);
        check_exp(cmi_f32_bits(CMI_EXP_MAX) + (uint32_t)i);
    }
    /* The limits are where float64 says that a normal float32 ends. */
    assert_true(exp((double)CMI_EXP_MIN) >= 0x1p-126);
    assert_true(exp((double)nextafterf(CMI_EXP_MIN, -100.0f)) < 0x1p-126);
    assert_true(exp((double)CMI_EXP_MAX) <= 0x1.fffffep+127);
    assert_true(exp((double)nextafterf(CMI_EXP_MAX, 100.0f)) > 0x1.fffffep+127);
}

static void log_is_within_half_an_ulp(void **state)
{
    (void)state;
    for (uint64_t bits = 0x00800000; bits < 0x7F800000; bits += SAMPLE_STEP) {
        float x = cmi_f32_from_bits((uint32_t)bits), got = cmi_logf(x);
        double want = log((double)x);
        if (!(ulps(got, want) <= 0.5001)) {
            fail_msg("log(%a) = %a, want %a", (double)x, (double)got, want);
        }
    }
}

static void log_of_special_values_is_what_the_header_says(void **state)
{
    (void)state;
    assert_int_equal(cmi_f32_bits(cmi_logf(1.0f)), 0);
    assert_true(cmi_logf(0.0f) == -INFINITY && cmi_logf(-0.0f) == -INFINITY);
    assert_true(cmi_logf(0x1p-127f) == -INFINITY && cmi_logf(-0x1p-127f) == -INFINITY);
    assert_true(isnan(cmi_logf(-1.0f)) && isnan(cmi_logf(-INFINITY)) && isnan(cmi_logf(NAN)));
    assert_true(cmi_logf(INFINITY) == INFINITY);
}

int main(void)
{
    cmi_float_env_set();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_0_892_ulp),
        cmocka_unit_test(exp_is_exact_or_flushed_at_its_limits),
        cmocka_unit_test(log_is_within_half_an_ulp),
        cmocka_unit_test(log_of_special_values_is_what_the_header_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
