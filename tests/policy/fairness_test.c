#include "tests/test.h"

#include "base/rng.h"
#include "policy/fairness.h"

static cmi_fairness f;

static void the_least_served_goes_first(void **state)
{
    (void)state;
    cmi_fairness_init(&f);
    uint32_t a = cmi_fairness_enter(&f, 7), b = cmi_fairness_enter(&f, 8);
    assert_int_not_equal(a, b);
    assert_int_equal(cmi_fairness_enter(&f, 7), a);
    assert_false(cmi_fairness_is_before(&f, a, b) || cmi_fairness_is_before(&f, b, a));
    cmi_fairness_charge(&f, a, 10);
    assert_true(cmi_fairness_is_before(&f, b, a));
    cmi_fairness_charge(&f, b, 11);
    assert_true(cmi_fairness_is_before(&f, a, b));
}

static void turns_are_not_saved_up(void **state)
{
    (void)state;
    cmi_fairness_init(&f);
    uint32_t a = cmi_fairness_enter(&f, 1), b = cmi_fairness_enter(&f, 2);
    cmi_fairness_charge(&f, a, 1000);
    cmi_fairness_charge(&f, b, 500);
    cmi_fairness_leave(&f, b);
    uint32_t c = cmi_fairness_enter(&f, 3);
    assert_false(cmi_fairness_is_before(&f, c, a));
    cmi_fairness_charge(&f, a, 1000);
    cmi_fairness_charge(&f, c, 1500);
    assert_int_equal(cmi_fairness_enter(&f, 2), b);
    assert_false(cmi_fairness_is_before(&f, b, a)); /* lifted to 2000 */
    cmi_fairness_charge(&f, b, 900);
    cmi_fairness_leave(&f, b);
    assert_int_equal(cmi_fairness_enter(&f, 2), b);
    assert_true(cmi_fairness_is_before(&f, a, b)); /* what it was ahead stays */
}

static void a_full_table_forgets_the_idle_and_shares_an_entry(void **state)
{
    (void)state;
    cmi_fairness_init(&f);
    for (uint32_t i = 1; i < CMI_FAIRNESS_TENANTS; i++) {
        assert_int_equal(cmi_fairness_enter(&f, 1000 + i), i);
        cmi_fairness_charge(&f, i, i);
    }
    assert_int_equal(cmi_fairness_enter(&f, 5), 0);
    assert_int_equal(cmi_fairness_enter(&f, 6), 0);
    assert_int_equal(f.tenants[0].n_served, 1); /* the lowest of the busy */
    cmi_fairness_leave(&f, 9);
    cmi_fairness_leave(&f, 4);
    assert_int_equal(cmi_fairness_enter(&f, 5), 4); /* 4 was served less than 9 */
    assert_int_equal(cmi_fairness_enter(&f, 1009), 9);
    assert_int_equal(cmi_fairness_enter(&f, 1004), 0);
}

static void random_tenants_keep_the_counts(void **state)
{
    (void)state;
    enum { N_KEYS = 400, N_STEPS = 50000 };
    static uint32_t entries[N_KEYS][4], n_held[N_KEYS];
    uint32_t n_all = 0;
    cmi_fairness_init(&f);
    for (uint64_t i = 0; i < N_STEPS; i++) {
        uint32_t w[4];
        cmi_philox4x32(3, i, 0, w);
        uint32_t key = w[0] % N_KEYS;
        if (w[1] % 2 == 0 && n_held[key] < 4) {
            entries[key][n_held[key]++] = cmi_fairness_enter(&f, key + 1);
            n_all++;
        } else if (n_held[key] > 0) {
            uint32_t entry = entries[key][--n_held[key]];
            assert_true(entry == 0 || f.tenants[entry].key == key + 1);
            cmi_fairness_charge(&f, entry, w[2] % 100);
            cmi_fairness_leave(&f, entry);
            n_all--;
        }
        uint32_t n_requests = 0;
        for (uint32_t k = 0; k < f.n; k++) {
            n_requests += f.tenants[k].n_requests;
        }
        assert_int_equal(n_requests, n_all);
    }
    assert_int_equal(f.n, CMI_FAIRNESS_TENANTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_served_goes_first),
        cmocka_unit_test(turns_are_not_saved_up),
        cmocka_unit_test(a_full_table_forgets_the_idle_and_shares_an_entry),
        cmocka_unit_test(random_tenants_keep_the_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
