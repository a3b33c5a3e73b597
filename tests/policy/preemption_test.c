#include "tests/test.h"

#include "base/rng.h"
#include "policy/preemption.h"

static void the_last_to_come_of_the_least_important_goes(void **state)
{
    (void)state;
    const cmi_preemption_candidate c[] = {
        {.id = 1, .arrival_ns = 10, .priority = 0, .freed_pages = 4},
        {.id = 2, .arrival_ns = 30, .priority = 0, .freed_pages = 4},
        {.id = 3, .arrival_ns = 20, .priority = 0, .freed_pages = 4},
        {.id = 4, .arrival_ns = 99, .priority = 1, .freed_pages = 4},
        {.id = 5, .arrival_ns = 30, .priority = 0, .freed_pages = 4},
        {.id = 6, .arrival_ns = 40, .priority = 0, .freed_pages = 0},
    };
    assert_int_equal(cmi_preemption_pick(c, 6, &c[0]), 4);
    assert_int_equal(cmi_preemption_pick(c, 4, &c[0]), 1);
    assert_int_equal(cmi_preemption_pick(c, 6, &c[3]), 4);
    assert_int_equal(cmi_preemption_pick(c, 6, &c[4]), UINT32_MAX); /* it has to give way itself */
    assert_int_equal(cmi_preemption_pick(c, 6, &c[5]), UINT32_MAX);
    assert_int_equal(cmi_preemption_pick(c, 0, &c[0]), UINT32_MAX);
}

/* Whoever needs pages and chases others out is never chased by one of those. */
static void nobody_is_chased_by_whom_it_chased(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 10000; i++) {
        cmi_preemption_candidate c[2];
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t words[4];
            cmi_philox4x32(5, i, k, words);
            c[k] = (cmi_preemption_candidate){.id = k + 1,
                                              .arrival_ns = words[0] % 3,
                                              .priority = (int32_t)(words[1] % 3) - 1,
                                              .freed_pages = 1};
        }
        bool first = cmi_preemption_pick(c, 2, &c[0]) != UINT32_MAX;
        bool second = cmi_preemption_pick(c, 2, &c[1]) != UINT32_MAX;
        if (first == second) {
            fail_msg("seed 5, case %llu", (unsigned long long)i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_to_come_of_the_least_important_goes),
        cmocka_unit_test(nobody_is_chased_by_whom_it_chased),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
