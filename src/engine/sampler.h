/* engine/sampler.h - from logits to a token.
 *
 * The token is a function of the logits' bits, the request, and what was said so far. Randomness is
 * Philox of (seed, position), so batch, retry and node play no part. Sums run in a fixed order;
 * ties go to the lower id.
 *
 * A sampler is scratch memory, sized by the vocabulary at init; sampling allocates nothing and
 * leaves nothing behind. Thread: one at a time; each worker has its own. */
#ifndef CMI_ENGINE_SAMPLER_H
#define CMI_ENGINE_SAMPLER_H

#include "engine/message.h"
#include "kernels/kernels.h"

typedef struct cmi_sampler {
    uint32_t vocab_size;
    const cmi_kernels *kernels;
    float *logits;      /* [vocab_size] working copy */
    uint32_t *heap;     /* [vocab_size] token ids, largest logit at the root */
    uint32_t *n_output; /* [vocab_size] times a token was generated; zero between calls */
    bool *is_penalized; /* [vocab_size] false between calls */
    uint32_t *kept;     /* [vocab_size] survivors of the filters, in order */
    const cmi_request *request;
} cmi_sampler;

/* What a token is sampled from. */
typedef struct cmi_sample {
    const cmi_request *request;
    const float *logits;    /* [vocab_size] */
    uint64_t position;      /* of the token: picks the noise, with the request's seed */
    const uint32_t *output; /* [n_output] what the request has generated */
    uint32_t n_output;
    const uint32_t *banned; /* [n_banned] must not come: end tokens before min_tokens */
    uint32_t n_banned;
    const uint32_t *allowed; /* a bit for each token that may come; NULL: all */
} cmi_sample;

void cmi_sampler_init(cmi_sampler *sampler, uint32_t vocab_size, const cmi_kernels *kernels);
void cmi_sampler_deinit(cmi_sampler *sampler); /* NULL or zeroed is fine */

/* The token behind prompt and output. O(vocab_size), with penalties also O(prompt and output). */
uint32_t cmi_sampler_sample(cmi_sampler *sampler, const cmi_sample *sample);

/* The lowest token id with the largest logit. */
uint32_t cmi_sampler_arg_max(const float *logits, uint32_t vocab_size);

/* The n largest logits, descending, ties by lower id. O(vocab_size * n), and seldom more than
 * O(vocab_size) for a small n. */
void cmi_sampler_top(const float *logits, uint32_t vocab_size, uint32_t n, uint32_t *token_ids_out);

/* ln of the sum over the vocabulary of exp(logit): a logprob is the logit minus this. */
float cmi_sampler_log_sum_exp(const cmi_kernels *kernels, const float *logits, uint32_t vocab_size);

#endif
