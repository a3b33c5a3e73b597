/* Hostile sources end in one line, soon. */
#include "tests/grammar/fixture.h"

#include "base/alloc.h"
#include "base/buf.h"

static cmi_status compile_source(const cmi_vocab *vocab, const cmi_grammar_source *source,
                                 cmi_error *err)
{
    cmi_grammar *g = NULL;
    *err = (cmi_error){0};
    cmi_status st = cmi_grammar_compile(&g, vocab, source, err);
    assert_true((st == CMI_OK) == (g != NULL));
    cmi_grammar_destroy(g);
    return st;
}

static void limits_can_be_lowered(void **state)
{
    cmi_error err;
    static const char schema[] =
        "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}}";
    cmi_grammar_source source = {
        .kind = CMI_GRAMMAR_JSON_SCHEMA, .text = schema, .n_bytes = sizeof schema - 1};
    assert_int_equal(compile_source(*state, &source, &err), CMI_OK);
    source.max_states = 20;
    assert_int_equal(compile_source(*state, &source, &err), CMI_ERR_TOO_LARGE);
    assert_string_equal(err.text, "the grammar is too large: over 20 states");
    source.max_states = 0;
    source.max_work = 100;
    assert_int_equal(compile_source(*state, &source, &err), CMI_ERR_TOO_LARGE);
    assert_string_equal(err.text, "the grammar is too large: over 100 steps to compile");
    source.max_work = UINT32_MAX; /* not raised */
    assert_int_equal(compile_source(*state, &source, &err), CMI_OK);
}

static void long_sources_are_refused(void **state)
{
    cmi_error err;
    char *text = cmi_alloc(CMI_GRAMMAR_MAX_SOURCE_BYTES + 1, 1);
    memset(text, ' ', CMI_GRAMMAR_MAX_SOURCE_BYTES + 1);
    cmi_grammar_source source = {
        .kind = CMI_GRAMMAR_JSON_SCHEMA, .text = text, .n_bytes = CMI_GRAMMAR_MAX_SOURCE_BYTES + 1};
    assert_int_equal(compile_source(*state, &source, &err), CMI_ERR_TOO_LARGE);
    source.kind = CMI_GRAMMAR_REGEX;
    source.n_bytes = 20000;
    assert_int_equal(compile_source(*state, &source, &err), CMI_ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "at most 16384"));
    cmi_grammar_choice choices[2] = {{text, CMI_GRAMMAR_MAX_SOURCE_BYTES}, {"a", 1}};
    cmi_grammar_source choice = {.kind = CMI_GRAMMAR_CHOICE, .choices = choices, .n_choices = 2};
    assert_int_equal(compile_source(*state, &choice, &err), CMI_ERR_TOO_LARGE);
    choice.kind = (cmi_grammar_kind)17;
    assert_int_equal(compile_source(*state, &choice, &err), CMI_ERR_INVALID);
    cmi_free(text);
}

static void expansions_end_in_an_error(void **state)
{
    static const char *const schemas[] = {
        "{\"type\": \"string\", \"pattern\": \".*\", \"maxLength\": 1000000}",
        "{\"type\": \"string\", \"minLength\": 99999999}",
        "{\"type\": \"array\", \"prefixItems\": [{}], \"minItems\": 100000}",
        "{\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}]}",
        /* Each level merges more of the same schemas. */
        "{\"$defs\": {\"p\": {\"type\": \"object\", \"properties\": {\"a\": {\"allOf\": "
        "[{\"$ref\": \"#/$defs/p\"}, {\"$ref\": \"#/$defs/q\"}]}}}, "
        "\"q\": {\"type\": \"object\", \"properties\": {\"a\": {\"allOf\": [{\"$ref\": "
        "\"#/$defs/q\"}, {\"$ref\": \"#/$defs/p\"}]}}}}, \"$ref\": \"#/$defs/p\"}",
    };
    for (size_t i = 0; i < CMI_LEN(schemas); i++) {
        cmi_error err;
        cmi_status st = try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, schemas[i], &err);
        if (st != CMI_ERR_TOO_LARGE) {
            fail_msg("%s: %d %s", schemas[i], st, err.text);
        }
    }
}

static void large_but_plain_schemas_compile(void **state)
{
    cmi_buf text;
    cmi_error err;
    cmi_buf_init(&text, CMI_GRAMMAR_MAX_SOURCE_BYTES);
    cmi_buf_str(&text, "{\"type\": \"object\", \"properties\": {");
    for (int i = 0; i < 300; i++) {
        cmi_buf_printf(&text,
                       "%s\"property_%d\": {\"type\": \"object\", \"properties\": {\"name\": "
                       "{\"type\": \"string\", \"maxLength\": %d}, \"list\": {\"type\": \"array\", "
                       "\"items\": {\"enum\": [\"x%d\", \"y\"]}, \"maxItems\": 1000000}}}",
                       i == 0 ? "" : ", ", i, 1000 + i, i);
    }
    cmi_buf_str(&text, "}}");
    assert_false(text.overflow);
    cmi_status st = try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, cmi_buf_cstr(&text), &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CMI_OK);
    cmi_buf_clear(&text);
    cmi_buf_str(&text, "{\"enum\": [");
    for (int i = 0; i < 2000; i++) {
        cmi_buf_printf(&text, "%s\"value number %d\"", i == 0 ? "" : ", ", i);
    }
    cmi_buf_str(&text, "]}");
    cmi_grammar *g = compile_schema(*state, cmi_buf_cstr(&text));
    assert_true(fits(g, "\"value number 1999\"") && !fits(g, "\"value number 2000\""));
    cmi_grammar_destroy(g);
    cmi_buf_deinit(&text);
}

static void deep_schemas_are_an_error_or_fit(void **state)
{
    cmi_buf text;
    cmi_error err;
    cmi_buf_init(&text, CMI_GRAMMAR_MAX_SOURCE_BYTES);
    for (int i = 0; i < 300; i++) {
        cmi_buf_str(&text, "{\"type\": \"array\", \"minItems\": 1, \"items\": ");
    }
    cmi_buf_str(&text, "true");
    for (int i = 0; i < 300; i++) {
        cmi_buf_char(&text, '}');
    }
    assert_int_equal(try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, cmi_buf_cstr(&text), &err),
                     CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "no text fits"));
    cmi_buf_clear(&text);
    for (int i = 0; i < 3000; i++) {
        cmi_buf_str(&text, "{\"items\":");
    }
    assert_int_equal(try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, cmi_buf_cstr(&text), &err),
                     CMI_ERR_BAD_DATA);
    cmi_buf_deinit(&text);
}

/* The alternatives stay open at every level, with a list at each that any of them might own: more
 * stacks than are kept. What is dropped is missing, what is left is right. */
static void too_many_alternatives_allow_less_never_more(void **state)
{
    cmi_buf text;
    cmi_buf_init(&text, CMI_GRAMMAR_MAX_SOURCE_BYTES);
    cmi_buf_str(&text, "{\"anyOf\": [");
    for (int i = 0; i < 40; i++) {
        cmi_buf_printf(&text, "%s{\"type\": \"string\", \"minLength\": %d, \"maxLength\": %d}",
                       i == 0 ? "" : ", ", i * 2, i * 2);
    }
    cmi_buf_str(&text, "]}");
    cmi_grammar *g = compile_schema(*state, cmi_buf_cstr(&text));
    char string[128] = "\"";
    int n_fit = 0;
    for (int n = 0; n < 90; n++) {
        memset(string + 1, 'a', (size_t)n);
        memcpy(string + 1 + n, "\"", 2);
        assert_false(n % 2 == 1 && fits(g, string));
        n_fit += fits(g, string);
    }
    assert_int_equal(n_fit, CMI_GRAMMAR_MAX_ALTERNATIVES);
    cmi_grammar_destroy(g);
    cmi_buf_deinit(&text);
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
        cmocka_unit_test(limits_can_be_lowered),
        cmocka_unit_test(long_sources_are_refused),
        cmocka_unit_test(expansions_end_in_an_error),
        cmocka_unit_test(large_but_plain_schemas_compile),
        cmocka_unit_test(deep_schemas_are_an_error_or_fit),
        cmocka_unit_test(too_many_alternatives_allow_less_never_more),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
