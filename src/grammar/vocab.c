/* grammar/vocab.c - see vocab.h. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "grammar/vocab_internal.h"

/* Characters of a plain token, 0 for any other. */
static uint32_t plain_chars(const uint8_t *bytes, size_t n_bytes)
{
    uint32_t n_chars = 0;
    for (size_t at = 0; at < n_bytes; n_chars++) {
        uint32_t cp = 0;
        int n = cmi_utf8_next((const char *)bytes + at, n_bytes - at, &cp);
        if (n <= 0 || cp < 0x20 || cp == '"' || cp == '\\') {
            return 0;
        }
        at += (size_t)n;
    }
    return n_chars;
}

/* A token whose bytes cannot be text; its first would otherwise begin a marker. */
static bool has_marker_byte(const cmi_vocab_token *token)
{
    return memchr(token->bytes, CMI_MARKER_BYTE, token->n_bytes) != NULL;
}

static cmi_status copy_tokens(cmi_vocab *v, const cmi_vocab_token *tokens, cmi_error *err)
{
    size_t n_total = 0;
    for (uint32_t id = 0; id < v->n_ids; id++) {
        size_t n = tokens[id].is_marker ? CMI_MARKER_BYTES : tokens[id].n_bytes;
        n_total += n <= CMI_VOCAB_MAX_TOKEN_BYTES ? n : 0;
    }
    v->text = cmi_try_alloc(n_total, 1);
    v->bytes = cmi_try_alloc(v->n_ids, sizeof *v->bytes);
    v->n_bytes = cmi_try_alloc(v->n_ids, sizeof *v->n_bytes);
    v->same_bytes = cmi_try_alloc(v->n_ids, sizeof *v->same_bytes);
    v->plain = cmi_try_alloc((size_t)v->n_words * (CMI_PLAIN_MAX_CHARS + 1), sizeof *v->plain);
    if (v->text == NULL || v->bytes == NULL || v->n_bytes == NULL || v->same_bytes == NULL ||
        v->plain == NULL) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "vocabulary of %u tokens: out of memory",
                             v->n_ids);
    }
    size_t at = 0;
    for (uint32_t id = 0; id < v->n_ids; id++) {
        size_t n = tokens[id].n_bytes;
        v->same_bytes[id] = CMI_TRIE_NO_TOKEN;
        if (tokens[id].is_marker) {
            cmi_marker_spell(id, v->text + at);
            v->bytes[id] = v->text + at;
            v->n_bytes[id] = CMI_MARKER_BYTES;
            at += CMI_MARKER_BYTES;
        } else if (tokens[id].bytes != NULL && n > 0 && n <= CMI_VOCAB_MAX_TOKEN_BYTES &&
                   !has_marker_byte(&tokens[id])) {
            memcpy(v->text + at, tokens[id].bytes, n);
            v->bytes[id] = v->text + at;
            v->n_bytes[id] = (uint16_t)n;
            at += n;
        }
    }
    return CMI_OK;
}

/* An end token ends the text and is never part of it. */
static cmi_status set_end_ids(cmi_vocab *v, const uint32_t *end_ids, uint32_t n, cmi_error *err)
{
    v->end_ids = cmi_alloc(n, sizeof *v->end_ids);
    v->n_end_ids = n;
    for (uint32_t i = 0; i < n; i++) {
        if (end_ids[i] >= v->n_ids) {
            return cmi_error_set(err, CMI_ERR_INVALID, "end token %u is none of the %u tokens",
                                 end_ids[i], v->n_ids);
        }
        v->end_ids[i] = end_ids[i];
        v->bytes[end_ids[i]] = NULL;
    }
    return CMI_OK;
}

static int compare_ids(const void *a, const void *b, void *vocab)
{
    const cmi_vocab *v = vocab;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    size_t n = CMI_MIN(v->n_bytes[x], v->n_bytes[y]);
    int order = memcmp(v->bytes[x], v->bytes[y], n);
    if (order == 0) {
        order = (v->n_bytes[x] > v->n_bytes[y]) - (v->n_bytes[x] < v->n_bytes[y]);
    }
    return order != 0 ? order : (x > y) - (x < y);
}

/* The tree of the sorted ids; nodes may be NULL to count them only. */
static uint32_t lay_out(cmi_vocab *v, const uint32_t *ids, uint32_t n_ids, cmi_trie_node *nodes)
{
    uint32_t open[CMI_VOCAB_MAX_TOKEN_BYTES]; /* the nodes on the path to the last token */
    uint32_t n_open = 0, n_nodes = 0;
    const uint8_t *last = NULL;
    for (uint32_t i = 0; i < n_ids; i++) {
        const uint8_t *bytes = v->bytes[ids[i]];
        uint32_t n = v->n_bytes[ids[i]], common = 0;
        while (common < n_open && common < n && bytes[common] == last[common]) {
            common++;
        }
        if (common == n && n_open == n) { /* the same bytes again */
            v->same_bytes[ids[i - 1]] = ids[i];
            if (nodes != NULL) {
                nodes[open[n - 1]].token |= CMI_TRIE_SHARED;
            }
            continue;
        }
        for (; n_open > common; n_open--) {
            if (nodes != NULL) {
                nodes[open[n_open - 1]].skip = n_nodes;
            }
        }
        for (; n_open < n; n_open++) {
            if (nodes != NULL) {
                nodes[n_nodes] =
                    (cmi_trie_node){.token = n_open + 1 == n ? ids[i] : CMI_TRIE_NO_TOKEN,
                                    .depth = (uint16_t)(n_open + 1),
                                    .byte = bytes[n_open]};
            }
            open[n_open] = n_nodes++;
        }
        last = bytes;
    }
    while (nodes != NULL && n_open > 0) {
        nodes[open[--n_open]].skip = n_nodes;
    }
    return n_nodes;
}

static bool build_trie(cmi_vocab *v, cmi_trie *trie, const uint32_t *ids, uint32_t n_ids)
{
    trie->n_nodes = lay_out(v, ids, n_ids, NULL);
    trie->nodes = cmi_try_alloc(trie->n_nodes, sizeof *trie->nodes);
    return trie->nodes != NULL && lay_out(v, ids, n_ids, trie->nodes) == trie->n_nodes;
}

static void set_plain(cmi_vocab *v, uint32_t id, uint32_t n_chars)
{
    for (uint32_t k = n_chars; k <= CMI_PLAIN_MAX_CHARS; k++) {
        v->plain[(size_t)k * v->n_words + id / 32] |= 1u << id % 32;
    }
}

static cmi_status build_tries(cmi_vocab *v, cmi_error *err)
{
    uint32_t *ids = cmi_try_alloc(v->n_ids, sizeof *ids);
    uint32_t *odd = cmi_try_alloc(v->n_ids, sizeof *odd);
    bool ok = ids != NULL && odd != NULL;
    uint32_t n = 0, n_odd = 0;
    for (uint32_t id = 0; ok && id < v->n_ids; id++) {
        if (v->bytes[id] != NULL) {
            ids[n++] = id;
        }
    }
    if (ok) {
        qsort_r(ids, n, sizeof *ids, compare_ids, v);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t n_chars = plain_chars(v->bytes[ids[i]], v->n_bytes[ids[i]]);
            if (n_chars >= 1 && n_chars <= CMI_PLAIN_MAX_CHARS) {
                set_plain(v, ids[i], n_chars);
            } else {
                odd[n_odd++] = ids[i];
            }
        }
        ok = build_trie(v, &v->all, ids, n) && build_trie(v, &v->odd, odd, n_odd);
    }
    cmi_free(ids);
    cmi_free(odd);
    return ok ? CMI_OK
              : cmi_error_set(err, CMI_ERR_NO_MEMORY, "vocabulary of %u tokens: out of memory",
                              v->n_ids);
}

cmi_status cmi_vocab_create(cmi_vocab **vocab_out, const cmi_vocab_token *tokens, uint32_t n_ids,
                            const uint32_t *end_ids, uint32_t n_end_ids, cmi_error *err)
{
    if (n_ids > CMI_VOCAB_MAX_IDS || n_end_ids > n_ids) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "vocabulary of %u tokens: at most %d", n_ids,
                             CMI_VOCAB_MAX_IDS);
    }
    cmi_vocab *v = cmi_alloc(1, sizeof *v);
    v->n_ids = n_ids;
    v->n_words = CMI_DIV_UP(n_ids, 32);
    cmi_status st = copy_tokens(v, tokens, err);
    if (st == CMI_OK) {
        st = set_end_ids(v, end_ids, n_end_ids, err);
    }
    if (st == CMI_OK) {
        st = build_tries(v, err);
    }
    if (st != CMI_OK) {
        cmi_vocab_destroy(v);
        return st;
    }
    *vocab_out = v;
    return CMI_OK;
}

cmi_status cmi_vocab_from_tokenizer(cmi_vocab **vocab_out, const cmi_tokenizer *tokenizer,
                                    uint32_t n_ids, const uint32_t *end_ids, uint32_t n_end_ids,
                                    cmi_error *err)
{
    cmi_vocab_token *tokens =
        n_ids > CMI_VOCAB_MAX_IDS ? NULL : cmi_try_alloc(n_ids, sizeof *tokens);
    if (tokens == NULL) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "vocabulary of %u tokens: at most %d", n_ids,
                             CMI_VOCAB_MAX_IDS);
    }
    uint32_t n_known = CMI_MIN(n_ids, cmi_tokenizer_n_ids(tokenizer));
    for (uint32_t id = 0; id < n_known; id++) {
        if (!cmi_tokenizer_is_special(tokenizer, id)) {
            tokens[id].bytes = cmi_tokenizer_token_bytes(tokenizer, id, &tokens[id].n_bytes);
            tokens[id].is_marker = cmi_tokenizer_is_added(tokenizer, id);
        }
    }
    cmi_status st = cmi_vocab_create(vocab_out, tokens, n_ids, end_ids, n_end_ids, err);
    cmi_free(tokens);
    return st;
}

void cmi_vocab_destroy(cmi_vocab *vocab)
{
    if (vocab == NULL) {
        return;
    }
    cmi_free(vocab->end_ids);
    cmi_free(vocab->same_bytes);
    cmi_free(vocab->bytes);
    cmi_free(vocab->n_bytes);
    cmi_free(vocab->text);
    cmi_free(vocab->all.nodes);
    cmi_free(vocab->odd.nodes);
    cmi_free(vocab->plain);
    cmi_free(vocab);
}

uint32_t cmi_vocab_n_end_ids(const cmi_vocab *vocab)
{
    return vocab->n_end_ids;
}

const uint32_t *cmi_vocab_end_ids(const cmi_vocab *vocab)
{
    return vocab->end_ids;
}

bool cmi_vocab_is_marker(const cmi_vocab *vocab, uint32_t id)
{
    return id < vocab->n_ids && vocab->bytes[id] != NULL && vocab->bytes[id][0] == CMI_MARKER_BYTE;
}

uint32_t cmi_vocab_n_ids(const cmi_vocab *vocab)
{
    return vocab->n_ids;
}

uint32_t cmi_vocab_mask_words(const cmi_vocab *vocab)
{
    return vocab->n_words;
}
