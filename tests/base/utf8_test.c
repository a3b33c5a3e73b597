#include "tests/test.h"

#include "base/utf8.h"

static int next_length(const char *bytes, size_t n, uint32_t *cp)
{
    return cmi_utf8_next(bytes, n, cp);
}

static void every_scalar_value_round_trips(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        if (cp >= 0xD800 && cp <= 0xDFFF) {
            continue;
        }
        char bytes[4];
        uint32_t got = 0;
        size_t n = cmi_utf8_encode(cp, bytes);
        assert_int_equal(next_length(bytes, n, &got), (int)n);
        assert_int_equal(got, cp);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(next_length(bytes, cut, &got), 0);
        }
    }
}

static void malformed_bytes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80", "\xC0\x80",         "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF5", "\xF4\x90\x80\x80", "\xFF",     "\xE2\x28\xA1"};
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        uint32_t cp;
        assert_int_equal(next_length(bad[i], strlen(bad[i]), &cp), -1);
        assert_int_equal(cmi_utf8_valid_prefix(bad[i], strlen(bad[i])), 0);
    }
}

static void valid_prefix_stops_at_the_first_bad_byte(void **state)
{
    (void)state;
    assert_int_equal(cmi_utf8_valid_prefix("ab\xC3\xA9\xFFz", 6), 4);
    assert_int_equal(cmi_utf8_valid_prefix("a\0b", 3), 3);
    assert_int_equal(cmi_utf8_valid_prefix("a\xE2\x82", 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value_round_trips),
        cmocka_unit_test(malformed_bytes_are_refused),
        cmocka_unit_test(valid_prefix_stops_at_the_first_bad_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
