#include "tests/grammar/fixture.h"

typedef struct regex_case {
    const char *expression;
    const char *good[8], *bad[8];
} regex_case;

static const regex_case cases[] = {
    {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
    {"", {""}, {"a"}},
    {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
    {"a*b+c?", {"b", "aabbb", "bc", "aaabc"}, {"a", "ac", "bcc"}},
    {"(ab){2,3}", {"abab", "ababab"}, {"ab", "abababab"}},
    {"a{2}", {"aa"}, {"a", "aaa"}},
    {"a{2,}", {"aa", "aaaaaaa"}, {"a", ""}},
    {"a{0}", {""}, {"a"}},
    {"(a*)*b", {"b", "aaab"}, {"a"}},
    {"a+?b*?", {"a", "aab"}, {"b"}},
    {"{\"x\":\\d}", {"{\"x\":7}"}, {"{\"x\":}"}},
    {"a{x}", {"a{x}"}, {"a"}},
    {"[a-c]", {"a", "b", "c"}, {"d", ""}},
    {"[^a-c]", {"d", "\n", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"a", "dd", "\xC3"}},
    {"[a\\]^-]", {"a", "]", "^", "-"}, {"b", "\\"}},
    {"[-a]", {"-", "a"}, {"b"}},
    {".", {"a", "\"", "\xE4\xBD\xA0", "\xF4\x8F\xBF\xBF"}, {"\n", "\r", "", "\xE4\xBD"}},
    {"\\d\\w\\s", {"1_ ", "0Z\t", "9a\n"}, {"aa ", "1- ", "1a."}},
    {"\\D\\W\\S", {"a-a", "x.\xC3\xA9"}, {"1-a", "xxa", "x- "}},
    {"[\\d\\s]+[^\\w]", {"1 2 !", " \xC3\xA9"}, {"1a", "!"}},
    {"\\x41\\u0042\\u{1F600}\\ud83d\\ude00", {"AB\xF0\x9F\x98\x80\xF0\x9F\x98\x80"}, {"AB"}},
    {"\\.\\*\\/\\[\\\\", {".*/[\\"}, {"a*/[\\"}},
    {"\\n\\t\\r\\f\\v", {"\n\t\r\f\v"}, {"nt"}},
    {"^abc$", {"abc"}, {"^abc$", "ab"}},
    {"^a$|^b$", {"a", "b"}, {"ab"}},
    {"(^a|b)c", {"ac", "bc"}, {"a"}},
    {"(?:a)(?P<n>b)(?<m>c)", {"abc"}, {"ab"}},
    {"[\xC3\xA9-\xE4\xBD\xA0]",
     {"\xC3\xA9", "\xE4\xBD\xA0", "\xD0\x90"},
     {"\xC3\xA8", "\xE4\xBD\xA1", "e"}},
    {"[\\u0000-\\u{10ffff}]",
     {"\x7F", "\xED\x9F\xBF", "\xEE\x80\x80"},
     {"\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80"}},
    {"(0|[1-9][0-9]*)(\\.[0-9]{1,2})?", {"0", "10.5", "7.25"}, {"01", "1.", "1.234"}},
    {"(a|ab)(c|bcd)", {"ac", "abc", "abcd", "abbcd"}, {"abcdd", "a"}},
    {"((((a))))", {"a"}, {"b"}},
    {"(a|b)*abb", {"abb", "babaabb"}, {"ab", "abba"}},
};

static void expressions_match_their_texts_and_no_others(void **state)
{
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_grammar *g = compile_regex(*state, cases[i].expression);
        check_texts(g, cases[i].expression, cases[i].good, cases[i].bad);
        cmi_grammar_destroy(g);
    }
}

static void what_is_not_supported_is_named_with_its_place(void **state)
{
    static const struct {
        const char *expression, *line;
        cmi_status status;
    } errors[] = {
        {"a(?=b)", "regular expression: look-around is not supported at byte 3 of the expression",
         CMI_ERR_UNSUPPORTED},
        {"(?<!a)b", "look-around", CMI_ERR_UNSUPPORTED},
        {"(a)\\1", "a back-reference is not supported at byte 4", CMI_ERR_UNSUPPORTED},
        {"(?i)a", "this kind of group", CMI_ERR_UNSUPPORTED},
        {"(?>a)", "this kind of group", CMI_ERR_UNSUPPORTED},
        {"\\bword", "this escape is not supported at byte 1", CMI_ERR_UNSUPPORTED},
        {"\\p{L}", "this escape", CMI_ERR_UNSUPPORTED},
        {"a++", "a quantifier on a quantifier", CMI_ERR_UNSUPPORTED},
        {"^*a", "a quantifier on an anchor", CMI_ERR_UNSUPPORTED},
        {"a^b", "^ and $ are supported at the ends", CMI_ERR_UNSUPPORTED},
        {"a$b", "^ and $ are supported at the ends", CMI_ERR_UNSUPPORTED},
        {"(a$)+", "^ and $ are supported at the ends", CMI_ERR_UNSUPPORTED},
        {"[[:alpha:]]", "a bracket in a class must be escaped", CMI_ERR_UNSUPPORTED},
        {"(a", "a group without its closing parenthesis at byte 2", CMI_ERR_BAD_DATA},
        {"a)", "a closing parenthesis without a group at byte 1", CMI_ERR_BAD_DATA},
        {"[a", "a class without its closing bracket", CMI_ERR_BAD_DATA},
        {"[z-a]", "ends before it begins", CMI_ERR_BAD_DATA},
        {"[\\d-z]", "ends before it begins", CMI_ERR_BAD_DATA},
        {"*a", "a quantifier with nothing to repeat at byte 0", CMI_ERR_BAD_DATA},
        {"a{3,2}", "a quantifier out of order", CMI_ERR_BAD_DATA},
        {"a\\", "a backslash with nothing behind it", CMI_ERR_BAD_DATA},
        {"\\xg1", "malformed hexadecimal escape", CMI_ERR_BAD_DATA},
        {"\\u{110000}", "an escape that is no character", CMI_ERR_BAD_DATA},
        {"\\ud800", "an escape that is no character", CMI_ERR_BAD_DATA},
        {"\xC3", "broken UTF-8", CMI_ERR_BAD_DATA},
        {"[^\\s\\S]", "no text fits", CMI_ERR_BAD_DATA},
        {"((a{1000}){1000}){1000}", "too large", CMI_ERR_TOO_LARGE},
        {"(a|b)*a(a|b){20}", "too large", CMI_ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < CMI_LEN(errors); i++) {
        cmi_error err;
        cmi_status st = try_compile(*state, CMI_GRAMMAR_REGEX, errors[i].expression, &err);
        if (st != errors[i].status || strstr(err.text, errors[i].line) == NULL) {
            fail_msg("%s: %d %s", errors[i].expression, st, err.text);
        }
    }
}

static void deep_nesting_is_an_error(void **state)
{
    char text[3000] = "";
    memset(text, '(', 1000);
    text[1000] = 'a';
    memset(text + 1001, ')', 1000);
    cmi_error err;
    assert_int_equal(try_compile(*state, CMI_GRAMMAR_REGEX, text, &err), CMI_ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "nested too deep"));
}

static void choices_are_the_only_texts(void **state)
{
    const cmi_grammar_choice choices[] = {{"yes", 3}, {"no", 2}, {"yes, sir", 8}, {"\xC3\xA9", 2}};
    cmi_grammar_source source = {
        .kind = CMI_GRAMMAR_CHOICE, .choices = choices, .n_choices = CMI_LEN(choices)};
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_grammar_compile(&g, *state, &source, &err), CMI_OK);
    const char *const good[] = {"yes", "no", "yes, sir", "\xC3\xA9", NULL};
    const char *const bad[] = {"", "y", "yes,", "yesno", "\xC3", NULL};
    check_texts(g, "choices", good, bad);
    cmi_grammar_destroy(g);
}

static void choices_must_be_texts(void **state)
{
    const cmi_grammar_choice empty[] = {{"a", 1}, {"", 0}}, broken[] = {{"\xC3", 1}};
    cmi_grammar_source source = {.kind = CMI_GRAMMAR_CHOICE, .choices = empty, .n_choices = 2};
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_grammar_compile(&g, *state, &source, &err), CMI_ERR_BAD_DATA);
    assert_string_equal(err.text, "choice 1 is empty or not UTF-8");
    source.choices = broken;
    source.n_choices = 1;
    assert_int_equal(cmi_grammar_compile(&g, *state, &source, &err), CMI_ERR_BAD_DATA);
    source.n_choices = 0;
    assert_int_equal(cmi_grammar_compile(&g, *state, &source, &err), CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "no text fits"));
    assert_null(g);
}

static int set_up(void **state)
{
    *state = small_vocab();
    return 0;
}

static int tear_down(void **state)
{
    cmi_vocab_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_match_their_texts_and_no_others),
        cmocka_unit_test(what_is_not_supported_is_named_with_its_place),
        cmocka_unit_test(deep_nesting_is_an_error),
        cmocka_unit_test(choices_are_the_only_texts),
        cmocka_unit_test(choices_must_be_texts),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
