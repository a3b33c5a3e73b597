/* Any bytes as a JSON schema, as a regular expression and as a tree, over a small vocabulary, and a
 * walk through the masks: an error line, or a grammar whose masks are what each token alone says,
 * whose texts can be finished, and whose texts of JSON are JSON. Bytes behind a record separator
 * (0x1E) choose the tokens. */
#include <assert.h>
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/utf8.h"
#include "grammar/matcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum {
    SEPARATOR = 0x1E,
    END_ID = 256,
    MARKER_ID = 254, /* instead of the byte, which no UTF-8 has */
    STATES_MAX = 3000,
    WORK_MAX = 300000, /* far below the default, to try more inputs in a second */
    TOKENS_MAX = 64,
    TEXT_MAX = 1 << 16,
};

static const char *const words[] = {"{\"",  "\":",  "\", ",  "\"}",      "}}",    "[[",
                                    "]]",   "true", "null",  "12",       "-1.5",  "e5",
                                    "\n  ", "ab",   "\\u00", "\xC3\xA9", "\xC3",  "\x98\x80",
                                    "name", "a\":", "0000",  "  ",       "\"a\"", "},{"};

enum { N_TOKENS = END_ID + 1 + CMI_LEN(words) };

static cmi_vocab *vocab;
static cmi_vocab_token tokens[N_TOKENS];

static void make_vocab(void)
{
    static char bytes[END_ID];
    const uint32_t end = END_ID;
    for (uint32_t id = 0; id < N_TOKENS; id++) {
        if (id < END_ID) {
            bytes[id] = (char)id;
            tokens[id] = (cmi_vocab_token){&bytes[id], 1, id == MARKER_ID};
        } else if (id > END_ID) {
            tokens[id] =
                (cmi_vocab_token){words[id - END_ID - 1], strlen(words[id - END_ID - 1]), false};
        }
    }
    cmi_status st = cmi_vocab_create(&vocab, tokens, N_TOKENS, &end, 1, NULL);
    assert(st == CMI_OK);
}

static bool is_set(const uint32_t *mask, uint32_t id)
{
    return (mask[id / 32] >> id % 32 & 1) != 0;
}

static void check_mask(const cmi_matcher *m, const uint32_t *mask)
{
    for (uint32_t id = 0; id < N_TOKENS; id++) {
        cmi_matcher copy;
        cmi_matcher_copy(&copy, m);
        bool accepted = cmi_matcher_accept(&copy, id);
        assert(accepted == is_set(mask, id));
    }
}

/* The allowed token that a byte chooses; what closes something when there are no more bytes. */
static uint32_t choose(const uint32_t *mask, const uint8_t **choices, const uint8_t *end)
{
    static const uint32_t closing[] = {END_ID, '"', ']', '}', ':'};
    for (size_t i = 0; *choices == end && i < CMI_LEN(closing); i++) {
        if (is_set(mask, closing[i])) {
            return closing[i];
        }
    }
    uint32_t id = *choices == end ? 'a' : *(*choices)++ * 97u % N_TOKENS;
    while (!is_set(mask, id)) {
        id = (id + 1) % N_TOKENS;
    }
    return id;
}

static void walk(const cmi_grammar *g, bool json, const uint8_t *choices, const uint8_t *end)
{
    uint32_t mask[CMI_DIV_UP(N_TOKENS, 32)];
    cmi_buf text;
    cmi_matcher m;
    bool marked = false;
    cmi_buf_init(&text, TEXT_MAX);
    cmi_matcher_init(&m, g);
    for (int i = 0; i < TOKENS_MAX && !m.ended; i++) {
        bool any = cmi_matcher_mask(&m, mask);
        assert(any);
        check_mask(&m, mask);
        uint32_t id = choose(mask, &choices, end);
        bool accepted = cmi_matcher_accept(&m, id);
        assert(accepted);
        marked |= id == MARKER_ID;
        if (tokens[id].bytes != NULL && !tokens[id].is_marker) {
            cmi_buf_append(&text, tokens[id].bytes, tokens[id].n_bytes);
        }
    }
    if (m.ended) {
        assert(cmi_utf8_valid_prefix(cmi_buf_cstr(&text), text.len) == text.len);
    }
    if (m.ended && json) {
        json_t *value = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
        assert(value != NULL);
        json_decref(value);
    }
    cmi_matcher again;
    cmi_matcher_init(&again, g);
    bool accepted = cmi_matcher_accept_bytes(&again, cmi_buf_cstr(&text), text.len);
    assert(marked || (accepted && cmi_matcher_is_complete(&again) == cmi_matcher_is_complete(&m)));
    cmi_buf_deinit(&text);
}

static void try_source(cmi_grammar_kind kind, const char *text, size_t n_bytes,
                       const uint8_t *choices, const uint8_t *end)
{
    cmi_grammar *g = NULL;
    cmi_error err = {0};
    cmi_grammar_source source = {.kind = kind,
                                 .text = text,
                                 .n_bytes = n_bytes,
                                 .max_states = STATES_MAX,
                                 .max_work = WORK_MAX};
    cmi_status st = cmi_grammar_compile(&g, vocab, &source, &err);
    if (st != CMI_OK) {
        assert(g == NULL && err.text[0] != '\0' && strchr(err.text, '\n') == NULL);
        assert(st == CMI_ERR_BAD_DATA || st == CMI_ERR_UNSUPPORTED || st == CMI_ERR_TOO_LARGE);
        return;
    }
    assert(cmi_grammar_n_states(g) <= STATES_MAX);
    walk(g, kind == CMI_GRAMMAR_JSON_SCHEMA, choices, end);
    cmi_grammar_destroy(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (vocab == NULL) {
        make_vocab();
    }
    const uint8_t *end = data + n_bytes;
    const uint8_t *separator = n_bytes == 0 ? NULL : memchr(data, SEPARATOR, n_bytes);
    size_t n_source = separator == NULL ? n_bytes : (size_t)(separator - data);
    const uint8_t *choices = separator == NULL ? end : separator + 1;
    try_source(CMI_GRAMMAR_JSON_SCHEMA, (const char *)data, n_source, choices, end);
    try_source(CMI_GRAMMAR_REGEX, (const char *)data, n_source, choices, end);
    try_source(CMI_GRAMMAR_TREE, (const char *)data, n_source, choices, end);
    return 0;
}
