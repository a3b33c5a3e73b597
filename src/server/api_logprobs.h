/* server/api_logprobs.h - logprobs of the tokens whose text is shown, and of no others.
 *
 * A token's entry waits until its text has left the stop-string matcher; then it is written as JSON
 * and goes out with the next chunk, or with the body. One owner: a choice. */
#ifndef CMI_SERVER_API_LOGPROBS_H
#define CMI_SERVER_API_LOGPROBS_H

#include "base/buf.h"
#include "engine/message.h"
#include "text/tokenizer.h"

/* Where a token's text stands in the choice's text. */
typedef struct cmi_api_token_span {
    size_t start, end;  /* bytes; equal when the token completed no character */
    size_t start_chars; /* code points before it */
    bool is_part;       /* it ends inside a character, which comes with a later token */
} cmi_api_token_span;

typedef struct cmi_api_waiting_token {
    cmi_api_token_span span;
    uint32_t token_id;
    float logprob; /* NAN: there is none */
    uint32_t n_top;
    cmi_top_logprob top[CMI_MAX_TOP_LOGPROBS];
} cmi_api_waiting_token;

typedef struct cmi_api_logprobs {
    const cmi_tokenizer *tokenizer; /* NULL: not asked for */
    bool chat;                      /* which of the two shapes */
    uint32_t n_top;
    cmi_api_waiting_token *waiting; /* [first, end) of cap */
    size_t first, end, cap;
    uint32_t n_written; /* entries in the buffers */
    /* comma-separated JSON: chat has all of an entry in `tokens`, completions have four lists */
    cmi_buf tokens, token_logprobs, top_logprobs, text_offset;
} cmi_api_logprobs;

void cmi_api_logprobs_init(cmi_api_logprobs *lp, const cmi_tokenizer *tokenizer, bool chat,
                           uint32_t n_top);
void cmi_api_logprobs_deinit(cmi_api_logprobs *lp); /* zeroed is fine */

void cmi_api_logprobs_add(cmi_api_logprobs *lp, const cmi_event *event,
                          const cmi_api_token_span *span);

/* Text up to n_bytes may be shown: writes the entries of the tokens in it. */
void cmi_api_logprobs_release(cmi_api_logprobs *lp, size_t n_bytes);

/* The text ends after n_bytes: writes the entries of tokens that begin before it, drops others. */
void cmi_api_logprobs_cut(cmi_api_logprobs *lp, size_t n_bytes);

/* Appends the value of "logprobs", null when there is no entry, and empties the buffers. */
void cmi_api_logprobs_take(cmi_api_logprobs *lp, cmi_buf *out);

/* Empties the buffers. */
void cmi_api_logprobs_drop(cmi_api_logprobs *lp);

bool cmi_api_logprobs_overflow(const cmi_api_logprobs *lp);

#endif
