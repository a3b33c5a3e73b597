#include "tests/test.h"

#include "base/alloc.h"
#include "server/trace_context.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

/* In memory of its size, so that a sanitizer sees a look past the end. */
static bool parse(cmi_trace_context *out, const char *text)
{
    size_t n = strlen(text);
    char *exact = cmi_alloc(n, 1);
    memcpy(exact, text, n);
    bool ok = cmi_trace_context_parse(out, exact, n);
    cmi_free(exact);
    return ok;
}

static void valid_ones_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_sampled;
    } cases[] = {
        {"00-" TRACE "-" PARENT "-01", true},
        {"00-" TRACE "-" PARENT "-00", false},
        {"00-" TRACE "-" PARENT "-fe", false},
        {"00-" TRACE "-" PARENT "-ff", true},
        {"01-" TRACE "-" PARENT "-01", true},
        {"cc-" TRACE "-" PARENT "-03-what-the-future-will-be-like", true},
        {"fe-" TRACE "-" PARENT "-00-", false},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_trace_context c;
        assert_true(parse(&c, cases[i].text));
        assert_string_equal(c.trace_id, TRACE);
        assert_string_equal(c.parent_id, PARENT);
        assert_int_equal(c.is_sampled, cases[i].is_sampled);
    }
}

static void others_are_no_header(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "00",
        "00-" TRACE "-" PARENT,
        "00-" TRACE "-" PARENT "-",
        "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT "-0g",
        "00-" TRACE "-" PARENT "-01-",
        "00-" TRACE "-" PARENT "-01-more",
        "00-" TRACE "-" PARENT "-01 ",
        " 00-" TRACE "-" PARENT "-01",
        "ff-" TRACE "-" PARENT "-01",
        "FE-" TRACE "-" PARENT "-01",
        "0g-" TRACE "-" PARENT "-01",
        "01-" TRACE "-" PARENT "-01.more",
        "00_" TRACE "-" PARENT "-01",
        "00-" TRACE "_" PARENT "-01",
        "00-" TRACE "-" PARENT "_01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-" TRACE "-00F067AA0BA902B7-01",
        "00-" TRACE "0-" PARENT "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-" PARENT "-010",
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_trace_context c;
        assert_false(parse(&c, cases[i]));
        assert_string_equal(c.trace_id, "");
        assert_string_equal(c.parent_id, "");
        assert_false(c.is_sampled);
    }
}

/* Every byte of a valid header replaced by every other: what is read is what stands there. */
static void one_byte_matters(void **state)
{
    (void)state;
    const char *good = "00-" TRACE "-" PARENT "-01";
    uint32_t n_valid = 0;
    for (size_t i = 0; i < strlen(good); i++) {
        for (int byte = 1; byte < 256; byte++) {
            char text[64];
            snprintf(text, sizeof text, "%s", good);
            text[i] = (char)byte;
            cmi_trace_context c;
            if (parse(&c, text)) {
                n_valid++;
                assert_memory_equal(c.trace_id, text + 3, 32);
                assert_memory_equal(c.parent_id, text + 36, 16);
            }
        }
    }
    /* Any of 16 digits in each of 52 places (ff, which is no version, needs two changes), and the
     * three dashes themselves. */
    assert_int_equal(n_valid, 52 * 16 + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_ones_are_read),
        cmocka_unit_test(others_are_no_header),
        cmocka_unit_test(one_byte_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
