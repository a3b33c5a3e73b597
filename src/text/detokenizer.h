/* text/detokenizer.h - token ids to text, one at a time, in whole UTF-8 sequences only.
 *
 * A token's bytes may end inside a character; those bytes are held back until the next token
 * completes them. Bytes that cannot be UTF-8 become U+FFFD, one for each maximal part of a
 * sequence, as in Python's bytes.decode('utf-8', errors='replace'). What a run of pushes and the
 * finish append is the same however the run is cut. A small value without heap memory; one owner.
 */
#ifndef CMI_TEXT_DETOKENIZER_H
#define CMI_TEXT_DETOKENIZER_H

#include "base/buf.h"
#include "text/tokenizer.h"

typedef struct cmi_detokenizer {
    const cmi_tokenizer *tokenizer; /* borrowed */
    bool skip_special_tokens;
    uint8_t n_held; /* bytes of an unfinished sequence, 0 .. 3 */
    char held[3];
} cmi_detokenizer;

cmi_detokenizer cmi_detokenizer_start(const cmi_tokenizer *tokenizer, bool skip_special_tokens);

/* Appends the text that id completes. An id that is no token adds nothing. When out is full,
 * out->overflow is set and text is lost. */
void cmi_detokenizer_push(cmi_detokenizer *d, uint32_t id, cmi_buf *out);

/* Ends the run: appends U+FFFD when bytes are held. d may then start another run. */
void cmi_detokenizer_finish(cmi_detokenizer *d, cmi_buf *out);

/* All of it at once. */
void cmi_tokenizer_decode(const cmi_tokenizer *tokenizer, const uint32_t *ids, size_t n_ids,
                          bool skip_special_tokens, cmi_buf *out);

#endif
