/* cli/bench/load_prompt.h - the bodies of requests, with prompts of a wanted length.
 *
 * Prompts are random words, or random token ids. A word is " " and lower-case letters: with a
 * tokenizer the words are those that are one token wherever they stand, so that a prompt of n words
 * has n tokens; without one they are common English words, and only the server knows the count.
 * Blocks of a trace with equal ids have equal text, and so have all shared prefixes. */
#ifndef CMI_CLI_BENCH_LOAD_PROMPT_H
#define CMI_CLI_BENCH_LOAD_PROMPT_H

#include "cli/bench/load_data.h"
#include "text/tokenizer.h"

typedef struct cmi_load_prompts_options {
    const cmi_tokenizer *tokenizer; /* NULL: none */
    bool is_chat;                   /* /v1/chat/completions */
    bool token_ids;                 /* instead of text; not with is_chat */
    uint32_t vocab_size;            /* of token ids without a tokenizer */
    uint32_t prefix_tokens;         /* that all prompts share */
    uint64_t seed;
    const char *model;
    bool ignore_eos;
    double temperature;     /* negative: the server's */
    const char *extra_body; /* a JSON object whose fields are added, or replace ours; NULL: none */
} cmi_load_prompts_options;

typedef struct cmi_load_prompts {
    cmi_load_prompts_options opt;
    char **words; /* each with the space before it, or ",123" where token ids are sent */
    uint32_t n_words;
    uint32_t n_begin; /* tokens that the server puts before a text */
    bool has_max;     /* the extra body says how many tokens */
    char *tail;       /* the fields that all requests have, without braces */
} cmi_load_prompts;

/* CMI_ERR_INVALID: the extra body is of no use. CMI_ERR_UNSUPPORTED: the tokenizer has no words
 * that are one token each. Deinit it also after an error. */
CMI_NODISCARD cmi_status cmi_load_prompts_init(cmi_load_prompts *prompts,
                                               const cmi_load_prompts_options *opt, cmi_error *err);
void cmi_load_prompts_deinit(cmi_load_prompts *prompts); /* zeroed is fine */

/* Appends the JSON body of request idx. */
void cmi_load_prompts_write(const cmi_load_prompts *prompts, const cmi_load_data *data, size_t idx,
                            cmi_buf *out);

#endif
