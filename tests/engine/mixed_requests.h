/* tests/engine/mixed_requests.h - requests of every kind, and what came of them. */
#ifndef CMI_TESTS_ENGINE_MIXED_REQUESTS_H
#define CMI_TESTS_ENGINE_MIXED_REQUESTS_H

#include "engine/engine.h"

enum { MAX_PROMPT = 210, MAX_OUTPUT = 40, DEADLINE_MS = 120000 };

typedef struct answer {
    uint32_t tokens[MAX_OUTPUT];
    float logprobs[MAX_OUTPUT];
    uint32_t top_ids[MAX_OUTPUT];
    float prompt_logprob_sum;
    uint32_t n_tokens, n_prompt_tokens, finish_reason;
    uint32_t n_ends;
} answer;

/* A number below n that only the request and the question decide. */
uint32_t draw(uint64_t request, uint64_t what, uint32_t n);

/* Request i, whose id is i. */
cmi_request *make_request(uint32_t i, uint32_t vocab_size);

/* Requests 0 .. n - 1. */
void submit_all(cmi_engine *engine, uint32_t n, uint32_t vocab_size, bool backwards);

/* Until n more requests have ended. answers: [ids]. */
void collect(cmi_engine *engine, answer *answers, uint32_t n);

#endif
