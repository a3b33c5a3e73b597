#include "tests/test.h"

#include "base/utf8.h"
#include "text/tokenizer_internal.h"

static cmi_pattern compile(const char *pattern)
{
    cmi_pattern p;
    cmi_error err = {0};
    if (cmi_pattern_init(&p, pattern, strlen(pattern), "field", &err) != CMI_OK) {
        fail_msg("%s: %s", pattern, err.text);
    }
    return p;
}

static bool matches(const pcre2_code *code, pcre2_match_data *data, const char *text, size_t n,
                    size_t *begin_out, size_t *end_out)
{
    if (pcre2_match(code, (PCRE2_SPTR)text, n, 0, PCRE2_NO_UTF_CHECK, data, NULL) < 0) {
        return false;
    }
    *begin_out = pcre2_get_ovector_pointer(data)[0];
    *end_out = pcre2_get_ovector_pointer(data)[1];
    return true;
}

static void the_first_match_is_the_one_oniguruma_finds(void **state)
{
    (void)state;
    const struct {
        const char *pattern, *text;
        int begin, end; /* -1: no match */
    } cases[] = {
        {"\\p{N}{1,3}", "a1234", 1, 4},
        {"\\p{N}{1,3}+", "a1234", 1, 5}, /* repeats the repetition */
        {"(?:ab){1,2}*c", "abababc", 0, 7},
        {"(ab|c){2}?d", "abcd", 0, 4},
        {"(ab|c){2}?d", "abd", 2, 3},
        {"a{,2}", "aaa", 0, 2},
        {"a{,}", "xa{,}", 1, 5},
        {"x{", "ax{", 1, 3},
        {"a]}", "a]}", 0, 3},
        {"a*+a", "aaa", -1, -1},
        {"a++b", "aab", 0, 3},
        {"a+?", "aa", 0, 1},
        {"(?>a+)a", "aaa", -1, -1},
        {"^b", "a\nb", 2, 3},
        {"a$", "a\nb", 0, 1},
        {"\\Ab", "a\nb", -1, -1},
        {"b\\z", "b\n", -1, -1},
        {"b\\Z", "b\n", 0, 1},
        {".+", "\r\u2028\n", 0, 4},
        {"(?i)ab|CD", "xcd", 1, 3},
        {"(?i:'S)x", "'sX'sx", 3, 6},
        {"(?i:\\u00e9)", "É", 0, 2},
        {"(?<=a)b(?=c)", "babc", 2, 3},
        {"(?<!a)b(?!c)", "abcbcb", 5, 6},
        {"[]a]+", "x]a", 1, 3},
        {"[^]a]+", "]ax", 2, 3},
        {"[a-]+", "b-a", 1, 3},
        {"[a\\-z]+", "b-az", 1, 4},
        {"[\\s-x]+", "y- x", 1, 4},
        {"[0-9-a]+", "b5-a", 1, 4},
        {"[a[bc]d]+", "xabcd", 1, 5},
        {"[^(\\s|[.,])]+", " (.ab)", 3, 5},
        {"[+--]+", "*+,-.", 1, 4},
        {"[a^]+", "b^a", 1, 3},
        {"[\\h\\v]+", "xF\vg", 1, 3},
        {"\\h\\H", "fa-", 1, 3},
        {"[\\p{^L}]+", "a12b", 1, 3},
        {"\\P{^L}+", "1ab2", 1, 3},
        {"[一-龥\u3040-ゟ゠-ヿ]+", "a日本ゆヴb", 1, 13},
        {"\\p{Han}+", "a、日本", 4, 10}, /* the comma is used by Han, but not of it */
        {"\\x41\\x{1F600}\\u00e9", "A😀é", 0, 7},
        {"\\/\\-\\\"\\ \\é", "/-\" é", 0, 6},
        {"#a b", "x#a b", 1, 5},
        {"", "a", 0, 0},
    };
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_pattern p = compile(cases[i].pattern);
        const pcre2_code *codes[] = {p.code, p.guarded};
        for (size_t k = 0; k < CMI_LEN(codes); k++) {
            size_t begin = SIZE_MAX, end = SIZE_MAX;
            matches(codes[k], data, cases[i].text, strlen(cases[i].text), &begin, &end);
            if ((int)begin != cases[i].begin || (int)end != cases[i].end) {
                fail_msg("%s on \"%s\": %d to %d", cases[i].pattern, cases[i].text, (int)begin,
                         (int)end);
            }
        }
        cmi_pattern_deinit(&p);
    }
    pcre2_match_data_free(data);
}

/* Unicode's property White_Space, which has not changed since Unicode 6.3. */
static bool is_white_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

static void white_space_is_unicodes_for_every_character(void **state)
{
    (void)state;
    const struct {
        const char *pattern;
        bool white; /* what it matches */
    } cases[] = {{"\\s", true},    {"\\S", false},    {"[\\s]", true},     {"[^\\S]", true},
                 {"[\\S]", false}, {"[^\\s]", false}, {"[\\Sa-z]", false}, {"(?!\\S).|\\n", true}};
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_pattern p = compile(cases[i].pattern);
        for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
            if (cp == 0xD800) {
                cp = 0xE000;
            }
            char bytes[4];
            size_t n = cmi_utf8_encode(cp, bytes), begin, end;
            if (matches(p.code, data, bytes, n, &begin, &end) !=
                (is_white_space(cp) == cases[i].white)) {
                fail_msg("%s at U+%04X", cases[i].pattern, cp);
            }
        }
        cmi_pattern_deinit(&p);
    }
    pcre2_match_data_free(data);
}

static void what_may_mean_something_else_is_refused_by_name(void **state)
{
    (void)state;
    const struct {
        const char *pattern, *why;
    } cases[] = {
        {"(a)\\1", "escape \\1"},
        {"a\\b", "escape \\b"},
        {"\\w+", "escape \\w"},
        {"\\K", "escape \\K"},
        {"\\Qa", "escape \\Q"},
        {"[\\w]", "escape \\w"},
        {"\\pL", "property"},
        {"\\p{L", "property"},
        {"\\p{}", "property"},
        {"\\p{Nonsense}", "PCRE2"},
        {"\\x8", "character code"},
        {"\\xE9", "byte"},
        {"\\x{}", "character code"},
        {"\\x{110000}", "PCRE2"},
        {"\\u12", "character code"},
        {"[a&&b]", "intersection"},
        {"[[:alpha:]]", "POSIX"},
        {"[a[^b]]", "negated class"},
        {"[a-\\d]", "range"},
        {"[z-a]", "PCRE2"},
        {"[abc", "closing bracket"},
        {"[", "closing bracket"},
        {"a\\", "backslash"},
        {"(?m)a", "group"},
        {"a(?i)b", "group"},
        {"(?<name>a)", "group"},
        {"(*ACCEPT)", "group"},
        {"(?#x)", "group"},
        {"(?~a)", "group"},
        {"a)", "parenthesis"},
        {"(a", "PCRE2"},
        {"*a", "PCRE2"},
        {"|{2}", "repetition"},
        {"a{999999}", "repetition"},
        {"a{2,1}", "PCRE2"},
        {"(?<=a+)b", "PCRE2"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_pattern p = {0};
        cmi_error err = {0};
        cmi_status st =
            cmi_pattern_init(&p, cases[i].pattern, strlen(cases[i].pattern), "the.field", &err);
        if (st != CMI_ERR_UNSUPPORTED || strstr(err.text, cases[i].why) == NULL ||
            strstr(err.text, "tokenizer.json: the.field: ") == NULL) {
            fail_msg("%s: %s", cases[i].pattern, err.text);
        }
        cmi_pattern_deinit(&p);
    }
}

static void size_and_depth_are_limited(void **state)
{
    (void)state;
    static char pattern[CMI_TOKENIZER_MAX_PATTERN_BYTES + 1];
    const char *const fillings[] = {"(",   "[",   "[a",         "a{1}+",
                                    "\\S", "(?=", "a{9}{9}{9}", "\\p{L}{999}"};
    for (size_t i = 0; i < CMI_LEN(fillings); i++) {
        size_t n = strlen(fillings[i]);
        for (size_t at = 0; at < sizeof pattern; at++) {
            pattern[at] = fillings[i][at % n];
        }
        cmi_pattern p = {0};
        cmi_error err = {0};
        cmi_status st = cmi_pattern_init(&p, pattern, sizeof pattern - 1, "field", &err);
        assert_true(st == CMI_OK || st == CMI_ERR_UNSUPPORTED);
        cmi_pattern_deinit(&p);
        assert_int_equal(cmi_pattern_init(&p, pattern, sizeof pattern, "field", &err),
                         CMI_ERR_BAD_DATA);
        assert_int_equal(cmi_pattern_init_literal(&p, pattern, sizeof pattern, "field", &err),
                         CMI_ERR_BAD_DATA);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_match_is_the_one_oniguruma_finds),
        cmocka_unit_test(white_space_is_unicodes_for_every_character),
        cmocka_unit_test(what_may_mean_something_else_is_refused_by_name),
        cmocka_unit_test(size_and_depth_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
