#include "tests/test.h"

#include "text/unicode.h"

static void expect_case(uint32_t cp, cmi_unicode_case to, size_t n, uint32_t first)
{
    uint32_t image[3];
    assert_int_equal(cmi_unicode_map_case(cp, to, image), n);
    assert_int_equal(image[0], first);
}

static void letters_have_cases(void **state)
{
    (void)state;
    expect_case('a', CMI_UNICODE_UPPER, 1, 'A');
    expect_case('Z', CMI_UNICODE_LOWER, 1, 'z');
    expect_case('1', CMI_UNICODE_UPPER, 1, '1');
    expect_case('@', CMI_UNICODE_LOWER, 1, '@');
    expect_case('[', CMI_UNICODE_LOWER, 1, '[');
    expect_case(0xE9, CMI_UNICODE_UPPER, 1, 0xC9);   /* é */
    expect_case(0x101, CMI_UNICODE_UPPER, 1, 0x100); /* of a run with step 2 */
    expect_case(0x102, CMI_UNICODE_UPPER, 1, 0x102); /* between its letters */
    expect_case(0x436, CMI_UNICODE_UPPER, 1, 0x416); /* ж */
    expect_case(0x10400, CMI_UNICODE_LOWER, 1, 0x10428);
    expect_case(0x1E921, CMI_UNICODE_LOWER, 1, 0x1E943); /* the last of its run */
    expect_case(0x1E922, CMI_UNICODE_LOWER, 1, 0x1E922);
    expect_case(0x6771, CMI_UNICODE_UPPER, 1, 0x6771); /* 東 */
    expect_case(0x10FFFF, CMI_UNICODE_UPPER, 1, 0x10FFFF);
}

static void some_letters_become_two_or_three(void **state)
{
    (void)state;
    expect_case(0xDF, CMI_UNICODE_UPPER, 2, 'S');
    expect_case(0xDF, CMI_UNICODE_TITLE, 2, 'S');
    expect_case(0x390, CMI_UNICODE_UPPER, 3, 0x399);
    expect_case(0x130, CMI_UNICODE_LOWER, 2, 'i');
    uint32_t image[3];
    cmi_unicode_map_case(0xDF, CMI_UNICODE_TITLE, image);
    assert_int_equal(image[1], 's');
}

static void title_case_is_upper_case_but_for_a_few(void **state)
{
    (void)state;
    expect_case('a', CMI_UNICODE_TITLE, 1, 'A');
    expect_case(0xE9, CMI_UNICODE_TITLE, 1, 0xC9);
    expect_case(0x1C6, CMI_UNICODE_TITLE, 1, 0x1C5); /* dž: Dž, and DŽ in upper case */
    expect_case(0x1C6, CMI_UNICODE_UPPER, 1, 0x1C4);
    expect_case(0x10D0, CMI_UNICODE_TITLE, 1, 0x10D0);
    expect_case(0x10D0, CMI_UNICODE_UPPER, 1, 0x1C90);
}

static void properties_are_pythons(void **state)
{
    (void)state;
    static const uint32_t spaces[] = {' ', '\t', '\n', 0x1C, 0x85, 0xA0, 0x2003, 0x2028, 0x3000};
    static const uint32_t others[] = {'a', 0, 0x200B, 0xFEFF, 0x180E};
    static const uint32_t hidden[] = {0, '\n', 0x7F, 0xA0, 0xAD, 0x200B, 0xE000, 0x3000};
    for (size_t i = 0; i < CMI_LEN(spaces); i++) {
        assert_true(cmi_unicode_is_space(spaces[i]));
    }
    for (size_t i = 0; i < CMI_LEN(others); i++) {
        assert_false(cmi_unicode_is_space(others[i]));
    }
    for (size_t i = 0; i < CMI_LEN(hidden); i++) {
        assert_false(cmi_unicode_is_printable(hidden[i]));
    }
    assert_true(cmi_unicode_is_printable(' '));
    assert_true(cmi_unicode_is_printable(0x6771));
    assert_true(cmi_unicode_is_printable(0x1F600));
    assert_true(cmi_unicode_is_cased('a'));
    assert_true(cmi_unicode_is_cased(0x130));
    assert_false(cmi_unicode_is_cased('1'));
    assert_false(cmi_unicode_is_cased(0x6771));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_have_cases),
        cmocka_unit_test(some_letters_become_two_or_three),
        cmocka_unit_test(title_case_is_upper_case_but_for_a_few),
        cmocka_unit_test(properties_are_pythons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
