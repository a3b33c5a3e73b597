#include "tests/grammar/fixture.h"

#include "base/alloc.h"

static const char *const words[] = {
    "{\"",
    "\":",
    "\": ",
    "\",",
    "\", ",
    "\", \"",
    "\":\"",
    "\": \"",
    "\"}",
    "\"]",
    "\"}]",
    "}}",
    "}]}",
    "[{",
    "[[",
    "[[[[",
    "]]",
    "],",
    "], ",
    "},",
    "}, {",
    "},{\"",
    "{}",
    "[]",
    "[1",
    "[\"",
    "true",
    "false",
    "null",
    "true}",
    "null,",
    "tr",
    "ue",
    "12",
    "123",
    "1234",
    "0.",
    "-1",
    "e5",
    "1,",
    "2}",
    "\n",
    "\n  ",
    "\n    ",
    ",\n",
    "{\n",
    "}\n",
    " ",
    "  ",
    "   ",
    "\t",
    "name",
    "na",
    "me",
    "name\"",
    "name\":",
    "\"name\"",
    "\"name\": \"",
    "age",
    "a",
    "b",
    "ab",
    "abc",
    "abcabc",
    "the",
    " the",
    "the quick brown fox",
    "id",
    "value",
    "\\n",
    "\\\"",
    "\\u00",
    "\\u",
    "\\",
    "\\\\",
    "d83d",
    "\xC3\xA9",
    "\xC3",
    "\xA9",
    "\xF0\x9F",
    "\x98\x80",
    "\xF0\x9F\x98\x80",
    "h\xC3\xA9",
    "\xE4\xBD\xA0\xE5\xA5\xBD",
    "\xE4\xBD\xA0\xE5",
    "-",
    "2024-",
    "01-",
    "0000",
    "a@",
    ".com",
    "127.0",
    ".0.1",
    "name",
    "true",
    "x\"",
    "x\",\"y\":",
    "x\"}]}",
    "red",
    "green",
    "\"red\"",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

enum { N_WORDS = CMI_LEN(words) };

const char *small_vocab_bytes(uint32_t id, size_t *n_out)
{
    static char bytes[256];
    if (id < END_ID) {
        bytes[id] = (char)id;
        *n_out = 1;
        return &bytes[id];
    }
    const char *text = id >= WORDS_ID ? words[id - WORDS_ID] : "";
    *n_out = strlen(text);
    return text;
}

cmi_vocab *small_vocab(void)
{
    cmi_vocab_token tokens[WORDS_ID + N_WORDS] = {{0}};
    for (uint32_t id = 0; id < CMI_LEN(tokens); id++) {
        tokens[id].bytes = small_vocab_bytes(id, &tokens[id].n_bytes);
    }
    tokens[SPECIAL_ID].bytes = NULL;
    cmi_vocab *vocab = NULL;
    const uint32_t end = END_ID;
    cmi_error err = {0};
    cmi_status st = cmi_vocab_create(&vocab, tokens, CMI_LEN(tokens), &end, 1, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(st, CMI_OK);
    return vocab;
}

static cmi_grammar *compile(const cmi_vocab *vocab, cmi_grammar_kind kind, const char *text)
{
    cmi_grammar *grammar = NULL;
    cmi_error err = {0};
    cmi_grammar_source source = {.kind = kind, .text = text, .n_bytes = strlen(text)};
    if (cmi_grammar_compile(&grammar, vocab, &source, &err) != CMI_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return grammar;
}

cmi_grammar *compile_schema(const cmi_vocab *vocab, const char *schema)
{
    return compile(vocab, CMI_GRAMMAR_JSON_SCHEMA, schema);
}

cmi_grammar *compile_regex(const cmi_vocab *vocab, const char *expression)
{
    return compile(vocab, CMI_GRAMMAR_REGEX, expression);
}

cmi_grammar *compile_json_object(const cmi_vocab *vocab)
{
    return compile(vocab, CMI_GRAMMAR_JSON_OBJECT, "");
}

cmi_status try_compile(const cmi_vocab *vocab, cmi_grammar_kind kind, const char *text,
                       cmi_error *err)
{
    cmi_grammar *grammar = NULL;
    cmi_grammar_source source = {.kind = kind, .text = text, .n_bytes = strlen(text)};
    *err = (cmi_error){0};
    cmi_status st = cmi_grammar_compile(&grammar, vocab, &source, err);
    assert_true((st == CMI_OK) == (grammar != NULL));
    cmi_grammar_destroy(grammar);
    return st;
}

bool fits_bytes(const cmi_grammar *grammar, const char *text, size_t n_bytes)
{
    cmi_matcher m;
    cmi_matcher_init(&m, grammar);
    return cmi_matcher_accept_bytes(&m, text, n_bytes) && cmi_matcher_is_complete(&m);
}

bool fits(const cmi_grammar *grammar, const char *text)
{
    return fits_bytes(grammar, text, strlen(text));
}

void check_texts(const cmi_grammar *grammar, const char *name, const char *const *good,
                 const char *const *bad)
{
    for (; *good != NULL; good++) {
        if (!fits(grammar, *good)) {
            fail_msg("%s refuses %s", name, *good);
        }
    }
    for (; *bad != NULL; bad++) {
        if (fits(grammar, *bad)) {
            fail_msg("%s accepts %s", name, *bad);
        }
    }
}
