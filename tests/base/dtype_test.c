#include "tests/test.h"

#include <math.h>

#include "base/dtype.h"

/* The definition of e4m3: sign, 4 exponent bits with bias 7, 3 fraction bits, no infinity. */
static double e4m3_by_definition(int code)
{
    int exponent = code >> 3 & 15;
    int fraction = code & 7;
    double magnitude = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);
    return code & 128 ? -magnitude : magnitude;
}

static void e4m3_is_its_definition(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) {
        float got = cmi_f8e4m3_to_f32((uint8_t)code);
        if ((code & 127) == 127) {
            assert_true(isnan(got));
        } else {
            assert_true((double)got == e4m3_by_definition(code));
            assert_int_equal(signbit(got) != 0, code >> 7);
        }
    }
}

static void f16_is_its_definition(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 65536; code++) {
        int exponent = (int)(code >> 10 & 31u);
        int fraction = (int)(code & 1023u);
        float got = cmi_f16_to_f32((uint16_t)code);
        double want = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        if (exponent == 31) {
            assert_true(fraction == 0 ? isinf(got) : isnan(got));
        } else {
            assert_true(fabs((double)got) == want);
        }
        assert_int_equal(signbit(got) != 0, code >> 15);
    }
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        uint32_t f32;
        uint16_t bf16;
    } cases[] = {
        {0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F808001, 0x3F81}, {0x3F818000, 0x3F82},
        {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80}, {0x7F800001, 0x7FC0}, {0x80000001, 0x8000},
        {0x007FFFFF, 0x0000}, {0x00800000, 0x0080}, {0xBF7FFFFF, 0xBF80},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_int_equal(cmi_bf16_from_f32(cmi_f32_from_bits(cases[i].f32)), cases[i].bf16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e4m3_is_its_definition),
        cmocka_unit_test(f16_is_its_definition),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
