#include "tests/test.h"

#include "base/ids.h"

static void ids_keep_their_order_while_the_array_grows(void **state)
{
    (void)state;
    cmi_ids ids = {0};
    for (uint32_t i = 0; i < 1000; i++) {
        cmi_ids_push(&ids, i);
    }
    const uint32_t more[] = {7, 8};
    cmi_ids_append(&ids, more, CMI_LEN(more));
    cmi_ids_append(&ids, NULL, 0);
    assert_int_equal(ids.len, 1002);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(ids.data[i], i);
    }
    assert_memory_equal(ids.data + 1000, more, sizeof more);
    cmi_ids_deinit(&ids);
    assert_null(ids.data);
    cmi_ids_deinit(&ids);
    cmi_ids_deinit(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_keep_their_order_while_the_array_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
