#include "tests/test.h"

#include "text/pair_map.h"

static void values_are_found_under_their_keys(void **state)
{
    (void)state;
    enum { KEYS = 5000 };
    cmi_pair_map map;
    assert_true(cmi_pair_map_init(&map, KEYS));
    for (uint64_t i = 0; i < KEYS; i++) {
        assert_true(cmi_pair_map_put(&map, i << 32 | i * 3, (uint32_t)i));
    }
    for (uint64_t i = 0; i < KEYS; i++) {
        assert_int_equal(cmi_pair_map_get(&map, i << 32 | i * 3, 9999), i);
        assert_int_equal(cmi_pair_map_get(&map, i << 32 | (i * 3 + 1), 9999), 9999);
    }
    assert_true(cmi_pair_map_put(&map, 0, 7)); /* replaces */
    assert_int_equal(cmi_pair_map_get(&map, 0, 9999), 7);
    assert_int_equal(map.n_keys, KEYS);
    cmi_pair_map_deinit(&map);
    cmi_pair_map_deinit(&map);
    cmi_pair_map_deinit(NULL);
}

static void keys_that_are_built_to_collide_are_refused(void **state)
{
    (void)state;
    enum { KEYS = 4096 };
    /* The inverse of the hash's odd factor modulo 2^64, by Newton's iteration, makes keys whose
     * hash is a small number, so that all share one home. */
    uint64_t factor = 0x9E3779B97F4A7C15u, inverse = factor;
    for (int i = 0; i < 6; i++) {
        inverse *= 2 - factor * inverse;
    }
    cmi_pair_map map;
    assert_true(cmi_pair_map_init(&map, KEYS));
    bool all = true;
    uint64_t n = 0;
    for (; all && n < KEYS; n++) {
        all = cmi_pair_map_put(&map, (n + 1) * inverse, 1);
    }
    assert_false(all);
    assert_int_equal(n, CMI_PAIR_MAP_MAX_PROBES + 1);
    cmi_pair_map_deinit(&map);
}

static void an_empty_map_holds_nothing(void **state)
{
    (void)state;
    cmi_pair_map map;
    assert_true(cmi_pair_map_init(&map, 0));
    assert_int_equal(cmi_pair_map_get(&map, 0, 5), 5);
    cmi_pair_map_deinit(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_found_under_their_keys),
        cmocka_unit_test(keys_that_are_built_to_collide_are_refused),
        cmocka_unit_test(an_empty_map_holds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
