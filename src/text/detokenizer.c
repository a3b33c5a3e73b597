#include "text/detokenizer.h"

#include <string.h>

#include "base/utf8.h"

#define REPLACEMENT "\xEF\xBF\xBD"

cmi_detokenizer cmi_detokenizer_start(const cmi_tokenizer *tokenizer, bool skip_special_tokens)
{
    return (cmi_detokenizer){.tokenizer = tokenizer, .skip_special_tokens = skip_special_tokens};
}

/* Bytes at p that begin a sequence and are replaced together: as many as could still have become
 * one, at least 1. The n bytes there begin no valid sequence. */
static size_t maximal_part(const char *p, size_t n)
{
    uint32_t cp;
    size_t length = 1;
    while (length < 3 && length < n && cmi_utf8_next(p, length + 1, &cp) == 0) {
        length++;
    }
    return length;
}

/* Writes what is decided of the n bytes at p and returns how many bytes, 0 to 3, are not. */
static size_t write_text(const char *p, size_t n, cmi_buf *out)
{
    size_t at = 0;
    while (at < n) {
        size_t valid = cmi_utf8_valid_prefix(p + at, n - at);
        cmi_buf_append(out, p + at, valid);
        at += valid;
        uint32_t cp;
        if (at < n && cmi_utf8_next(p + at, n - at, &cp) == 0) {
            break;
        }
        if (at < n) {
            cmi_buf_str(out, REPLACEMENT);
            at += maximal_part(p + at, n - at);
        }
    }
    return n - at;
}

void cmi_detokenizer_push(cmi_detokenizer *d, uint32_t id, cmi_buf *out)
{
    size_t n;
    const char *bytes = cmi_tokenizer_token_bytes(d->tokenizer, id, &n);
    if (d->skip_special_tokens && cmi_tokenizer_is_special(d->tokenizer, id)) {
        return;
    }
    /* Held bytes and a few of the token's decide what becomes of the held ones. */
    while (d->n_held > 0 && n > 0) {
        char joint[4];
        memcpy(joint, d->held, d->n_held);
        joint[d->n_held] = *bytes;
        size_t n_joint = d->n_held + 1u;
        size_t n_left = write_text(joint, n_joint, out);
        memcpy(d->held, joint + n_joint - n_left, n_left);
        d->n_held = (uint8_t)n_left;
        bytes++;
        n--;
    }
    if (n > 0) {
        size_t n_left = write_text(bytes, n, out);
        memcpy(d->held, bytes + n - n_left, n_left);
        d->n_held = (uint8_t)n_left;
    }
}

void cmi_detokenizer_finish(cmi_detokenizer *d, cmi_buf *out)
{
    if (d->n_held > 0) {
        cmi_buf_str(out, REPLACEMENT);
        d->n_held = 0;
    }
}

void cmi_tokenizer_decode(const cmi_tokenizer *tokenizer, const uint32_t *ids, size_t n_ids,
                          bool skip_special_tokens, cmi_buf *out)
{
    cmi_detokenizer d = cmi_detokenizer_start(tokenizer, skip_special_tokens);
    for (size_t i = 0; i < n_ids; i++) {
        cmi_detokenizer_push(&d, ids[i], out);
    }
    cmi_detokenizer_finish(&d, out);
}
