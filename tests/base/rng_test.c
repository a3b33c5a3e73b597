#include "tests/test.h"

#include "base/rng.h"

/* Known answers of Philox4x32-10, published with Random123 (kat_vectors). */
static void philox_gives_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint64_t key, lo, hi;
        uint32_t want[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~UINT64_C(0),
         ~UINT64_C(0),
         ~UINT64_C(0),
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x85a308d3243f6a88,
         0x0370734413198a2e,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        uint32_t got[4];
        cmi_philox4x32(cases[i].key, cases[i].lo, cases[i].hi, got);
        assert_memory_equal(got, cases[i].want, sizeof got);
    }
}

static void uniform_is_in_range_and_depends_on_each_argument(void **state)
{
    (void)state;
    double sum = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        float u = cmi_philox_uniform(42, i, 0);
        assert_true(u >= 0.0f && u < 1.0f);
        sum += (double)u;
    }
    assert_true(sum > 4900 && sum < 5100);
    float u = cmi_philox_uniform(1, 2, 3);
    assert_true(u != cmi_philox_uniform(2, 2, 3));
    assert_true(u != cmi_philox_uniform(1, 3, 3));
    assert_true(u != cmi_philox_uniform(1, 2, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_is_in_range_and_depends_on_each_argument),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
