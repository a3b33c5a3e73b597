/* engine/sampler.h - from logits to a token.
 *
 * The token is a function of the logits' bits, the request, and what was said so far. Randomness is
 * Philox of (seed, position), so batch, retry and node play no part. Sums run in a fixed order;
 * ties go to the lower id.
 *
 * Memory is sized by the vocabulary at init; sampling allocates nothing. Thread: the engine's. */
#ifndef CMI_ENGINE_SAMPLER_H
#define CMI_ENGINE_SAMPLER_H

#include "engine/message.h"
#include "kernels/kernels.h"

typedef struct cmi_sampler {
    uint32_t vocab_size;
    const cmi_kernels *kernels;
    float *logits;      /* [vocab_size] working copy */
    uint32_t *heap;     /* [vocab_size] token ids, largest logit at the root */
    uint32_t *n_output; /* [vocab_size] times a token was generated */
    bool *in_prompt;    /* [vocab_size] */
    uint32_t *kept;     /* [vocab_size] survivors of the filters, in order */
    const cmi_request *request;
} cmi_sampler;

void cmi_sampler_init(cmi_sampler *sampler, uint32_t vocab_size, const cmi_kernels *kernels);
void cmi_sampler_deinit(cmi_sampler *sampler); /* NULL or zeroed is fine */

/* Starts a request, which outlives its sampling. O(vocab_size). */
void cmi_sampler_begin(cmi_sampler *sampler, const cmi_request *request);

/* Says that token_id was generated. */
void cmi_sampler_accept(cmi_sampler *sampler, uint32_t token_id);

/* The token for the given position. banned: tokens that must not come (end tokens before
 * min_tokens). */
uint32_t cmi_sampler_sample(cmi_sampler *sampler, const float *logits, uint64_t position,
                            const uint32_t *banned, uint32_t n_banned);

/* The lowest token id with the largest logit. */
uint32_t cmi_sampler_arg_max(const float *logits, uint32_t vocab_size);

/* The n largest logits, descending, ties by lower id. O(vocab_size * n), and seldom more than
 * O(vocab_size) for a small n. */
void cmi_sampler_top(const float *logits, uint32_t vocab_size, uint32_t n, uint32_t *token_ids_out);

/* ln of the sum over the vocabulary of exp(logit): a logprob is the logit minus this. */
float cmi_sampler_log_sum_exp(const cmi_kernels *kernels, const float *logits, uint32_t vocab_size);

#endif
