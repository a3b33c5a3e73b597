/* engine/output_grammar.h - where a request's output stands in its grammar, and what may come next.
 *
 * Made when the request comes, so that steps allocate nothing; it moves with the tokens that were
 * sampled, each once: a preempted request finds it where it left it. The mask is that of the
 * position behind the output, made as soon as the output has got there, so that a grammar that
 * allows nothing more is known with the token that led there.
 *
 * Thread: one at a time, the worker that samples for the request. */
#ifndef CMI_ENGINE_OUTPUT_GRAMMAR_H
#define CMI_ENGINE_OUTPUT_GRAMMAR_H

#include "engine/grammar_cache.h"
#include "engine/message.h"
#include "grammar/matcher.h"

typedef struct cmi_output_grammar {
    cmi_shared_grammar *shared;
    uint32_t n_started; /* start tokens that have come */
    uint32_t n_words;   /* of the mask */
    bool has_begun;
    cmi_matcher matcher; /* behind the output */
    uint32_t mask[];     /* [n_words] once it has begun */
} cmi_output_grammar;

/* What a token has done to the text. */
typedef enum cmi_output_step {
    CMI_OUTPUT_GOES_ON,
    CMI_OUTPUT_ENDED,  /* an end token behind a complete text */
    CMI_OUTPUT_FAILED, /* no token may follow, or this one must not have come */
} cmi_output_step;

/* *og_out stays NULL for a request without a grammar. The caller closes it.
 * CMI_ERR_BAD_DATA: the grammar cannot be kept to (err says). CMI_ERR_NO_CAPACITY: no memory for it
 * now. */
CMI_NODISCARD cmi_status cmi_output_grammar_open(cmi_output_grammar **og_out,
                                                 cmi_grammar_cache *cache, const cmi_vocab *vocab,
                                                 const cmi_request *request, cmi_error *err);
void cmi_output_grammar_close(cmi_output_grammar *og, cmi_grammar_cache *cache); /* NULL is fine */

/* The next token of the output. */
cmi_output_step cmi_output_grammar_step(cmi_output_grammar *og, const cmi_request *request,
                                        uint32_t token_id);

/* The tokens that may come next; NULL: any. og may be NULL. */
const uint32_t *cmi_output_grammar_mask(const cmi_output_grammar *og);

/* Whether the mask allows a token that is none of these. */
bool cmi_output_grammar_allows_beside(const cmi_output_grammar *og, const uint32_t *token_ids,
                                      uint32_t n);

/* What may follow behind n >= 1 drafts, with scratch for a matcher that lives from the first of
 * them to the last: mask_out, or NULL when anything may. */
const uint32_t *cmi_output_grammar_draft_mask(const cmi_output_grammar *og,
                                              const cmi_request *request, cmi_matcher *ahead,
                                              const uint32_t *drafts, uint32_t n,
                                              uint32_t *mask_out);

#endif
