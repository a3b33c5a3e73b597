/* grammar/vocab.h - the bytes of every token, laid out for finding those that a grammar allows.
 *
 * Tokens lie in prefix trees, so that what many begin with is tried once. Made once for a model and
 * never changed: any number of threads may use it at once. It takes about 60 bytes a token. */
#ifndef CMI_GRAMMAR_VOCAB_H
#define CMI_GRAMMAR_VOCAB_H

#include "base/error.h"
#include "text/tokenizer.h"

typedef struct cmi_vocab cmi_vocab;

enum {
    CMI_VOCAB_MAX_IDS = 1 << 22,
    CMI_VOCAB_MAX_TOKEN_BYTES = 256, /* a longer token is never allowed by a grammar */
};

typedef struct cmi_vocab_token {
    const char *bytes; /* NULL: never part of a text (special, or a hole) */
    size_t n_bytes;    /* a token without bytes is never allowed either */
    bool is_marker;    /* no text, whatever its bytes: allowed where a grammar names its id */
} cmi_vocab_token;

/* Copies what it needs of tokens[0..n_ids), whose index is the id. end_ids (each < n_ids) end a
 * text: they are allowed exactly where a grammar is complete, whatever their bytes. The caller
 * destroys *vocab_out, which is set only on success. O(bytes log n_ids).
 * CMI_ERR_TOO_LARGE: over CMI_VOCAB_MAX_IDS. CMI_ERR_INVALID: an end id is none of the ids. */
CMI_NODISCARD cmi_status cmi_vocab_create(cmi_vocab **vocab_out, const cmi_vocab_token *tokens,
                                          uint32_t n_ids, const uint32_t *end_ids,
                                          uint32_t n_end_ids, cmi_error *err);

/* The same of a tokenizer's tokens but its special ones; those that are added are markers, so that
 * no text between quotes holds the markup of calls. n_ids may be larger than the tokenizer's,
 * as a model's vocabulary can be padded; ids from n_ids on are left out. */
CMI_NODISCARD cmi_status cmi_vocab_from_tokenizer(cmi_vocab **vocab_out,
                                                  const cmi_tokenizer *tokenizer, uint32_t n_ids,
                                                  const uint32_t *end_ids, uint32_t n_end_ids,
                                                  cmi_error *err);

void cmi_vocab_destroy(cmi_vocab *vocab); /* NULL is fine; after the grammars that use it */

uint32_t cmi_vocab_n_end_ids(const cmi_vocab *vocab);
const uint32_t *cmi_vocab_end_ids(const cmi_vocab *vocab);

/* Whether a grammar may name it. */
bool cmi_vocab_is_marker(const cmi_vocab *vocab, uint32_t id);

uint32_t cmi_vocab_n_ids(const cmi_vocab *vocab);

/* 32-bit words of a mask: bit id % 32 of word id / 32 says whether id is allowed. */
uint32_t cmi_vocab_mask_words(const cmi_vocab *vocab);

#endif
