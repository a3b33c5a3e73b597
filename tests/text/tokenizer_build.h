/* tests/text/tokenizer_build.h - small tokenizers made for one test. */
#ifndef CMI_TESTS_TEXT_TOKENIZER_BUILD_H
#define CMI_TESTS_TEXT_TOKENIZER_BUILD_H

#include "tests/test.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

enum { FIRST_FREE_ID = 256 };

/* Spells bytes as a vocabulary does, for instance a space as U+0120. out needs 2 * n + 1 bytes. */
static inline void spell(const char *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        unsigned byte = (unsigned char)bytes[i], letter = 0x100;
        for (unsigned b = 0; b <= byte; b++) {
            bool own = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            if (b == byte) {
                letter = own ? b : letter;
            } else if (!own) {
                letter++;
            }
        }
        char encoded[4];
        size_t length = cmi_utf8_encode(letter, encoded);
        memcpy(out, encoded, length);
        out += length;
    }
    *out = '\0';
}

/* A tokenizer.json whose ids below 256 are the bytes, without merges, added tokens or splits. */
static inline json_t *small_json(void)
{
    json_t *root = json_pack("{s:[], s:n, s:{s:s, s:b, s:b}, s:{s:s}, s:{s:s, s:{}, s:[]}}",
                             "added_tokens", "normalizer", "pre_tokenizer", "type", "ByteLevel",
                             "add_prefix_space", 0, "use_regex", 0, "decoder", "type", "ByteLevel",
                             "model", "type", "BPE", "vocab", "merges");
    assert_non_null(root);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte, letter[3];
        spell(&c, 1, letter);
        json_object_set_new(vocab, letter, json_integer(byte));
    }
    return root;
}

static inline void add_vocab(json_t *root, const char *text, int id)
{
    char letters[256];
    spell(text, strlen(text), letters);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_object_set_new(vocab, letters, json_integer(id));
}

/* Adds the merge and, under id, its result. */
static inline void add_merge(json_t *root, const char *left, const char *right, int id)
{
    char both[128], left_letters[128], right_letters[128];
    snprintf(both, sizeof both, "%s%s", left, right);
    add_vocab(root, both, id);
    spell(left, strlen(left), left_letters);
    spell(right, strlen(right), right_letters);
    json_array_append_new(json_object_get(json_object_get(root, "model"), "merges"),
                          json_sprintf("%s %s", left_letters, right_letters));
}

/* Adds an added token; flags is a JSON object with more fields, or NULL. */
static inline void add_token(json_t *root, const char *content, int id, const char *flags)
{
    json_t *token = json_pack("{s:s, s:i, s:b}", "content", content, "id", id, "normalized", 0);
    json_t *more = json_loads(flags == NULL ? "{}" : flags, 0, NULL);
    assert_non_null(more);
    json_object_update(token, more);
    json_decref(more);
    json_array_append_new(json_object_get(root, "added_tokens"), token);
}

/* Puts the JSON text of a list of steps before the ByteLevel step. */
static inline void set_splits(json_t *root, const char *steps)
{
    json_t *list = json_loads(steps, 0, NULL);
    assert_non_null(list);
    json_array_append(list, json_object_get(root, "pre_tokenizer"));
    json_object_set_new(root, "pre_tokenizer",
                        json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list));
}

static inline int append_json(const char *text, size_t n, void *buf)
{
    return cmi_buf_append(buf, text, n) ? 0 : -1;
}

/* Takes root over. */
static inline cmi_status try_load(cmi_tokenizer **out, json_t *root, const char *config,
                                  cmi_error *err)
{
    cmi_buf text;
    cmi_buf_init(&text, 1 << 24);
    assert_int_equal(json_dump_callback(root, append_json, &text, 0), 0);
    json_decref(root);
    *out = NULL;
    cmi_status st = cmi_tokenizer_load_json(out, text.data, text.len, config,
                                            config == NULL ? 0 : strlen(config), err);
    cmi_buf_deinit(&text);
    return st;
}

static inline cmi_tokenizer *load_with_config(json_t *root, const char *config)
{
    cmi_tokenizer *t;
    cmi_error err = {0};
    if (try_load(&t, root, config, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return t;
}

static inline cmi_tokenizer *load(json_t *root)
{
    return load_with_config(root, NULL);
}

/* The tokens of the text, each as its bytes, with '|' between them; valid until the next call. */
static inline const char *tokens_of(const cmi_tokenizer *t, const char *text, unsigned flags)
{
    static char line[1024];
    cmi_ids ids = {0};
    cmi_error err = {0};
    if (cmi_tokenizer_encode(t, text, strlen(text), flags, &ids, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    size_t at = 0;
    for (size_t i = 0; i < ids.len; i++) {
        size_t n;
        const char *bytes = cmi_tokenizer_token_bytes(t, ids.data[i], &n);
        assert_true(at + n + 2 < sizeof line);
        if (i > 0) {
            line[at++] = '|';
        }
        memcpy(line + at, bytes, n);
        at += n;
    }
    line[at] = '\0';
    cmi_ids_deinit(&ids);
    return line;
}

#endif
