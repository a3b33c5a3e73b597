#include "tests/test.h"

#include <math.h>

#include "server/json_out.h"
#include "server/sse.h"

static void assert_string_as(const char *bytes, size_t n, const char *json)
{
    cmi_buf b;
    cmi_buf_init(&b, 1000);
    cmi_json_write_string(&b, bytes, n);
    assert_string_equal(cmi_buf_cstr(&b), json);
    cmi_buf_deinit(&b);
}

static void strings_are_escaped(void **state)
{
    (void)state;
    assert_string_as("", 0, "\"\"");
    assert_string_as("plain", 5, "\"plain\"");
    assert_string_as("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    assert_string_as("\n\r\t\b\x1f\x7f", 6, "\"\\n\\r\\t\\u0008\\u001f\x7f\"");
    assert_string_as("a\0b", 3, "\"a\\u0000b\"");
    assert_string_as("h\xC3\xA9\xF0\x9F\x98\x80", 7, "\"h\xC3\xA9\xF0\x9F\x98\x80\"");
}

static void broken_utf8_is_replaced(void **state)
{
    (void)state;
    assert_string_as("\xFFz", 2, "\"\xEF\xBF\xBDz\"");
    assert_string_as("z\xC3", 2, "\"z\xEF\xBF\xBD\"");
    assert_string_as("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

static void assert_float_as(float x, const char *json)
{
    cmi_buf b;
    cmi_buf_init(&b, 100);
    cmi_json_write_float(&b, x);
    assert_string_equal(cmi_buf_cstr(&b), json);
    cmi_buf_deinit(&b);
}

static void floats_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    assert_float_as(0.0f, "0.0");
    assert_float_as(-0.1f, "-0.1");
    assert_float_as(-9999.0f, "-9999.0");
    assert_float_as(1.0f / 3.0f, "0.33333334");
    assert_float_as(-1e-10f, "-1e-10");
    assert_float_as(INFINITY, "null");
    assert_float_as(NAN, "null");
}

static void events_are_single_lines(void **state)
{
    (void)state;
    cmi_buf b;
    cmi_buf_init(&b, 100);
    cmi_sse_begin(&b);
    cmi_buf_str(&b, "{}");
    cmi_sse_end(&b);
    cmi_sse_ping(&b);
    cmi_sse_done(&b);
    assert_string_equal(cmi_buf_cstr(&b), "data: {}\n\n: ping\n\ndata: [DONE]\n\n");
    cmi_buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(broken_utf8_is_replaced),
        cmocka_unit_test(floats_are_as_short_as_they_can_be),
        cmocka_unit_test(events_are_single_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
