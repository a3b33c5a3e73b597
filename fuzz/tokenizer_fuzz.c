/* Any bytes as tokenizer.json and as tokenizer_config.json: an error line, or a tokenizer that
 * encodes a text and decodes it again without harm.
 *
 * A loadable file must have 243 bytes in its vocabulary, which no mutation finds, so the input is
 * tried a second time with those added. */
#include <assert.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/tokenizer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static const char text[] = "<s> aaaa abab abcabc, don't 'S 1234567 \r\n \n\t  x\u00A0\u3000 "
                           "日本語、ヴ Ωμέγα éſK \0 <a><b>--<c> \U0001F600\u200D \xEF\xBF\xBF</s>";

static void check_tokenizer(cmi_tokenizer *t, unsigned flags)
{
    t->timeout_ns = 20 * 1000 * 1000; /* of a hostile pattern's time, this shows enough */
    cmi_ids ids = {0};
    cmi_error err = {0};
    cmi_status st = cmi_tokenizer_encode(t, text, sizeof text - 1, flags, &ids, &err);
    assert(st == CMI_OK || (ids.len == 0 && err.text[0] != '\0'));
    assert(ids.len <= 2 * sizeof text); /* a prefix space can double a text of single characters */
    cmi_buf decoded;
    cmi_buf_init(&decoded, 1 << 20);
    for (size_t i = 0; i < ids.len; i++) {
        size_t n;
        assert(cmi_tokenizer_token_bytes(t, ids.data[i], &n) != NULL);
    }
    cmi_ids_push(&ids, cmi_tokenizer_n_ids(t));
    cmi_tokenizer_decode(t, ids.data, ids.len, true, &decoded);
    assert(cmi_utf8_valid_prefix(cmi_buf_cstr(&decoded), decoded.len) == decoded.len);
    cmi_buf_deinit(&decoded);
    cmi_ids_deinit(&ids);
}

static void try_bytes(const char *json, size_t n_bytes)
{
    cmi_tokenizer *t = NULL;
    cmi_error err = {0};
    if (cmi_tokenizer_load_json(&t, json, n_bytes, json, n_bytes, &err) != CMI_OK) {
        assert(t == NULL && strncmp(err.text, "tokenizer", 9) == 0 &&
               strchr(err.text, '\n') == NULL);
        return;
    }
    check_tokenizer(t, CMI_ENCODE_ADDED_TOKENS | CMI_ENCODE_BEGIN);
    check_tokenizer(t, 0);
    cmi_tokenizer_destroy(t);
}

/* Spells every byte as vocabularies do and gives it an id, unless the input has it already. */
static void add_bytes(json_t *vocab)
{
    uint32_t moved = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        bool own = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        char letter[5] = {0};
        cmi_utf8_encode(own ? (uint32_t)byte : moved++, letter);
        if (json_object_get(vocab, letter) == NULL) {
            json_object_set_new(vocab, letter, json_integer(1000 + byte));
        }
    }
}

static int append_json(const char *bytes, size_t n, void *buf)
{
    return cmi_buf_append(buf, bytes, n) ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    try_bytes((const char *)data, n_bytes);
    json_t *root = json_loadb((const char *)data, n_bytes, JSON_ALLOW_NUL, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    cmi_buf completed;
    cmi_buf_init(&completed, 64 << 20);
    if (json_is_object(vocab)) {
        add_bytes(vocab);
        if (json_dump_callback(root, append_json, &completed, 0) == 0) {
            try_bytes(completed.data, completed.len);
        }
    }
    json_decref(root);
    cmi_buf_deinit(&completed);
    return 0;
}
