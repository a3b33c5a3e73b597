/* Random walks through the masks end in texts that another reader of JSON and another reading of
 * the schema accept. */
#include "tests/grammar/fixture.h"
#include "tests/grammar/validator.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "base/utf8.h"

static const char *const schemas[] = {
    "{}",
    "{\"type\": \"object\"}",
    "{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 9}",
    "{\"type\": \"string\", \"pattern\": \"^[a-f\\\"]+(x|yz)?$\", \"maxLength\": 12}",
    "{\"type\": [\"number\", \"string\"], \"minimum\": -2.5, \"exclusiveMaximum\": 1000.25}",
    "{\"type\": \"integer\", \"exclusiveMinimum\": -1001, \"maximum\": 99}",
    "{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 3, \"maxItems\": 6}",
    "{\"type\": \"array\", \"prefixItems\": [{\"type\": \"boolean\"}, {\"enum\": [\"red\", "
    "\"green\", null]}], \"items\": {\"type\": \"array\", \"maxItems\": 2}, \"minItems\": 1}",
    "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"minLength\": 1}, "
    "\"age\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 150}, \"tags\": {\"type\": "
    "\"array\", \"items\": {\"type\": \"string\", \"maxLength\": 5}}, \"a\": {\"type\": "
    "\"null\"}}, \"required\": [\"name\", \"tags\"], \"additionalProperties\": false}",
    "{\"type\": \"object\", \"properties\": {\"na\": {\"type\": \"null\"}, \"name\": {\"type\": "
    "\"integer\"}}, \"additionalProperties\": {\"type\": \"boolean\"}, \"required\": [\"name\"]}",
    "{\"type\": \"object\", \"additionalProperties\": {\"type\": \"integer\"}, \"maxProperties\": "
    "3}",
    "{\"type\": \"object\", \"properties\": {\"value\": {\"type\": \"number\"}, \"a\": {\"$ref\": "
    "\"#\"}, \"b\": {\"$ref\": \"#\"}}, \"required\": [\"value\"], \"additionalProperties\": "
    "false}",
    "{\"$ref\": \"#/$defs/e\", \"$defs\": {\"e\": {\"anyOf\": [{\"type\": \"object\", "
    "\"properties\": {\"a\": {\"$ref\": \"#/$defs/e\"}, \"b\": {\"const\": 1}}, \"required\": "
    "[\"a\", \"b\"]}, {\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#/$defs/e\"}, "
    "\"b\": {\"const\": 2}, \"id\": {\"type\": \"null\"}}, \"required\": [\"a\", \"b\", \"id\"]}, "
    "{\"type\": \"boolean\"}]}}}",
    "{\"allOf\": [{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\", "
    "\"minimum\": 5}}, \"required\": [\"a\"]}, {\"properties\": {\"a\": {\"maximum\": 12}, \"b\": "
    "{\"type\": \"string\", \"nullable\": true}}, \"required\": [\"b\"]}]}",
    "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
    "\"integer\"}}, \"anyOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
};

enum { WALKS = 150, FREE_TOKENS = 40, MAX_TOKENS = 3000 };

static bool is_set(const uint32_t *mask, uint32_t id)
{
    return (mask[id / 32] >> id % 32 & 1) != 0;
}

/* Any allowed token at first; then rather what closes something. */
static uint32_t pick(const uint32_t *mask, uint32_t n_ids, uint64_t seed, uint64_t position)
{
    static const uint32_t closing[] = {END_ID, '"', ']', '}', ':', '1', 'x'};
    if (position > FREE_TOKENS && cmi_philox_uniform(seed, position, n_ids) < 0.9f) {
        for (size_t i = 0; i < CMI_LEN(closing); i++) {
            if (is_set(mask, closing[i])) {
                return closing[i];
            }
        }
    }
    uint32_t chosen = UINT32_MAX, n = 0;
    for (uint32_t id = 0; id < n_ids; id++) {
        n += is_set(mask, id);
        if (is_set(mask, id) && cmi_philox_uniform(seed, position, id) < 1.0f / (float)n) {
            chosen = id;
        }
    }
    return chosen;
}

static void walk(const cmi_vocab *vocab, const cmi_grammar *g, uint64_t seed, cmi_buf *text)
{
    uint32_t *mask = cmi_alloc(cmi_vocab_mask_words(vocab), sizeof *mask);
    cmi_matcher m;
    cmi_matcher_init(&m, g);
    cmi_buf_clear(text);
    for (uint64_t t = 0; !m.ended; t++) {
        assert_true(t < MAX_TOKENS);
        if (!cmi_matcher_mask(&m, mask)) {
            fail_msg("seed %d: nothing may follow %s", (int)seed, cmi_buf_cstr(text));
        }
        uint32_t id = pick(mask, cmi_vocab_n_ids(vocab), seed, t);
        assert_true(cmi_matcher_accept(&m, id));
        size_t n;
        const char *bytes = small_vocab_bytes(id, &n);
        assert_true(cmi_buf_append(text, bytes, n));
    }
    cmi_free(mask);
}

static void walks_end_in_json_that_fits_the_schema(void **state)
{
    cmi_buf text;
    cmi_buf_init(&text, 1 << 20);
    for (size_t i = 0; i < CMI_LEN(schemas); i++) {
        json_t *schema = json_loads(schemas[i], 0, NULL);
        cmi_grammar *g = compile_schema(*state, schemas[i]);
        for (uint64_t seed = 0; seed < WALKS; seed++) {
            json_error_t error;
            walk(*state, g, seed, &text);
            json_t *value = json_loadb(text.data, text.len, JSON_DECODE_ANY, &error);
            if (value == NULL || !schema_allows(schema, schema, value)) {
                fail_msg("schema %zu, seed %d: %s: %s", i, (int)seed,
                         value == NULL ? error.text : "does not fit", cmi_buf_cstr(&text));
            }
            json_decref(value);
        }
        cmi_grammar_destroy(g);
        json_decref(schema);
    }
    cmi_buf_deinit(&text);
}

static void walks_through_any_object_are_objects(void **state)
{
    cmi_buf text;
    cmi_buf_init(&text, 1 << 20);
    cmi_grammar *g = compile_json_object(*state);
    for (uint64_t seed = 0; seed < WALKS * 4; seed++) {
        walk(*state, g, seed, &text);
        json_t *value = json_loadb(text.data, text.len, 0, NULL);
        if (!json_is_object(value)) {
            fail_msg("seed %d: %s", (int)seed, cmi_buf_cstr(&text));
        }
        json_decref(value);
    }
    cmi_grammar_destroy(g);
    cmi_buf_deinit(&text);
}

static void walks_through_any_characters_are_utf8(void **state)
{
    cmi_buf text;
    cmi_buf_init(&text, 1 << 20);
    cmi_grammar *g = compile_regex(*state, "[^\"\\n]{0,30}x?");
    for (uint64_t seed = 0; seed < WALKS * 4; seed++) {
        walk(*state, g, seed, &text);
        assert_int_equal(cmi_utf8_valid_prefix(cmi_buf_cstr(&text), text.len), text.len);
    }
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
        cmocka_unit_test(walks_end_in_json_that_fits_the_schema),
        cmocka_unit_test(walks_through_any_object_are_objects),
        cmocka_unit_test(walks_through_any_characters_are_utf8),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
