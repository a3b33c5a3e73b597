/* cli/chat.h - conversations for the commands that talk to a model without a server. */
#ifndef CMI_CLI_CHAT_H
#define CMI_CLI_CHAT_H

#include <jansson.h>

#include "base/ids.h"
#include "cli/commands.h"
#include "engine/disaggregation.h"
#include "grammar/vocab.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

/* A model with its texts, and an engine that serves it. */
typedef struct cmi_chat {
    cmi_instance *instance; /* NULL: other processes compute (cli/serve_ranks.h) */
    cmi_generation_config generation;
    cmi_engine *engine;
    cmi_disaggregation *apart; /* owns both where prefill and decode are apart; else NULL */
    cmi_tokenizer *tokenizer;
    cmi_vocab *vocab; /* NULL: the model has no end token, and no answer can be bound */
    cmi_chat_template *chat_template;
    uint64_t n_requests;
} cmi_chat;

/* chat_template: a file or the text of a template instead of the model's own; may be NULL. */
CMI_NODISCARD cmi_status cmi_chat_open(cmi_chat *chat, const cmi_model_options *opt,
                                       const char *chat_template, const cmi_engine_options *engine,
                                       cmi_error *err);

/* The part of it that needs no engine: tokenizer, vocabulary, template. */
CMI_NODISCARD cmi_status cmi_chat_open_texts(cmi_chat *chat, const char *dir,
                                             const char *chat_template,
                                             const cmi_model_config *config, cmi_error *err);
void cmi_chat_close(cmi_chat *chat); /* zeroed is fine */

/* Asked after every token; false cancels the answer. */
typedef bool cmi_chat_token_fn(void *arg, uint32_t token_id);

/* What to ask, and how to sample: prompt, counts and id of head are filled in. */
typedef struct cmi_chat_question {
    const json_t *messages;
    const json_t *tools;  /* may be NULL */
    const json_t *kwargs; /* for the template; may be NULL */
    cmi_request head;
    cmi_chat_token_fn *on_token; /* may be NULL */
    void *on_token_arg;
} cmi_chat_question;

typedef struct cmi_chat_answer {
    cmi_ids ids; /* with the end token; append-only, the caller deinits it */
    cmi_finish_reason finish_reason;
    uint32_t n_prompt_tokens;
    bool in_reasoning; /* the prompt ended inside <think> */
    uint64_t started_ns, first_token_ns, finished_ns;
} cmi_chat_answer;

/* Renders, tokenizes, generates, and waits for the end. answer is initialized here. max_tokens of
 * the head is cut to what the context holds. */
CMI_NODISCARD cmi_status cmi_chat_ask(cmi_chat *chat, const cmi_chat_question *question,
                                      cmi_chat_answer *answer, cmi_error *err);

#endif
