#include "tests/test.h"

#include "base/error.h"
#include "base/utf8.h"

static void the_line_stays_one_line_of_utf8(void **state)
{
    (void)state;
    cmi_error err = {0};
    assert_int_equal(cmi_error_set(&err, CMI_ERR_BAD_DATA, "x\ny\x1b[31m\xFF%s", "é"),
                     CMI_ERR_BAD_DATA);
    assert_string_equal(err.text, "x?y?[31m?é");
    assert_int_equal(cmi_error_prefix(&err, "file %d", 7), CMI_ERR_BAD_DATA);
    assert_string_equal(err.text, "file 7: x?y?[31m?é");
}

static void a_long_line_is_cut_between_characters(void **state)
{
    (void)state;
    char text[1200];
    for (size_t i = 0; i + 2 < sizeof text; i += 2) {
        memcpy(text + i, "é", 3);
    }
    cmi_error err = {0};
    cmi_error_set(&err, CMI_ERR_IO, "a%s", text);
    assert_int_equal(cmi_utf8_valid_prefix(err.text, strlen(err.text)), strlen(err.text));
    assert_true(strlen(err.text) > 500);
}

static void every_status_has_its_text(void **state)
{
    (void)state;
    assert_string_equal(cmi_status_text(CMI_ERR_NO_CAPACITY), "no capacity");
    assert_string_equal(cmi_status_text((cmi_status)-999), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_stays_one_line_of_utf8),
        cmocka_unit_test(a_long_line_is_cut_between_characters),
        cmocka_unit_test(every_status_has_its_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
