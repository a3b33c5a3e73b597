#include "tests/test.h"

#include <stdio.h>

#include "base/strmap.h"

enum { N_KEYS = 20000 };

static void all_keys_are_found_after_growing(void **state)
{
    (void)state;
    static char keys[N_KEYS][8];
    cmi_strmap map;
    cmi_strmap_init(&map, 0);
    for (uint32_t i = 0; i < N_KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "k%u", i);
        assert_true(cmi_strmap_put(&map, keys[i], strlen(keys[i]), i));
        assert_false(cmi_strmap_put(&map, keys[i], strlen(keys[i]), i + 1));
    }
    for (uint32_t i = 0; i < N_KEYS; i++) {
        uint32_t value = UINT32_MAX;
        assert_true(cmi_strmap_get(&map, keys[i], strlen(keys[i]), &value));
        assert_int_equal(value, i);
    }
    assert_false(cmi_strmap_get(&map, "k", 1, NULL));
    cmi_strmap_deinit(&map);
}

static void keys_are_bytes(void **state)
{
    (void)state;
    cmi_strmap map;
    cmi_strmap_init(&map, 4);
    assert_true(cmi_strmap_put(&map, "a\0b", 3, 1));
    assert_true(cmi_strmap_put(&map, "a", 1, 2));
    assert_true(cmi_strmap_put(&map, "", 0, 3));
    uint32_t value = 0;
    assert_true(cmi_strmap_get(&map, "a\0b", 3, &value));
    assert_int_equal(value, 1);
    assert_true(cmi_strmap_get(&map, "", 0, &value));
    assert_int_equal(value, 3);
    cmi_strmap_deinit(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys_are_found_after_growing),
        cmocka_unit_test(keys_are_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
