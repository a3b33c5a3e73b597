#include "tests/test.h"

#include "base/buf.h"

static void appends_grow_and_stay_terminated(void **state)
{
    (void)state;
    cmi_buf b;
    cmi_buf_init(&b, 1000);
    assert_string_equal(cmi_buf_cstr(&b), "");
    for (int i = 0; i < 100; i++) {
        assert_true(cmi_buf_printf(&b, "%d,", i));
    }
    assert_int_equal(b.len, 290);
    assert_int_equal(b.data[b.len], '\0');
    cmi_buf_consume(&b, 2);
    assert_memory_equal(b.data, "1,2,3", 5);
    cmi_buf_deinit(&b);
}

static void the_limit_holds_and_is_remembered(void **state)
{
    (void)state;
    cmi_buf b;
    cmi_buf_init(&b, 4);
    assert_true(cmi_buf_append(&b, "abcd", 4));
    assert_false(cmi_buf_char(&b, 'e'));
    assert_false(cmi_buf_printf(&b, "%s", "f"));
    assert_true(b.overflow);
    assert_string_equal(cmi_buf_cstr(&b), "abcd");
    cmi_buf_clear(&b);
    assert_false(b.overflow);
    assert_true(cmi_buf_str(&b, "xy"));
    cmi_buf_deinit(&b);
}

static void the_end_can_be_cut_off(void **state)
{
    (void)state;
    cmi_buf b;
    cmi_buf_init(&b, 10);
    cmi_buf_truncate(&b, 0);
    assert_true(cmi_buf_str(&b, "abcdef"));
    cmi_buf_truncate(&b, 6);
    cmi_buf_truncate(&b, 2);
    assert_int_equal(b.len, 2);
    assert_string_equal(cmi_buf_cstr(&b), "ab");
    cmi_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_grow_and_stay_terminated),
        cmocka_unit_test(the_limit_holds_and_is_remembered),
        cmocka_unit_test(the_end_can_be_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
