/* server/api_fields.h - the fields of a request that are one plain value, as a table.
 *
 * A row is the field's whole rule: its name, its type, its range, who knows it. null is the same as
 * absent, for every field. */
#ifndef CMI_SERVER_API_FIELDS_H
#define CMI_SERVER_API_FIELDS_H

#include <jansson.h>
#include <math.h>

#include "server/api.h"

/* Who reads a field. */
enum {
    CMI_API_IN_CHAT = 1,
    CMI_API_IN_COMPLETIONS = 2,
    CMI_API_IN_TOKENIZE = 4,
    CMI_API_IN_ANSWERS = CMI_API_IN_CHAT | CMI_API_IN_COMPLETIONS,
    CMI_API_IN_TEMPLATE = CMI_API_IN_CHAT | CMI_API_IN_TOKENIZE,
    CMI_API_IN_ALL = CMI_API_IN_ANSWERS | CMI_API_IN_TOKENIZE,
};

/* kind: BOOL, INT and NUMBER in [min, max], POSITIVE in (0, max] where a float32 counts.
 *
 * repetition_penalty divides logits, so its range keeps them finite. */
#define CMI_API_FIELD_TABLE(X)                                                                     \
    /* name in JSON, member, C type, kind, endpoints, min, max */                                  \
    X("stream", stream, bool, BOOL, ANSWERS, 0, 0)                                                 \
    X("n", n, int64_t, INT, ANSWERS, 1, CMI_API_MAX_CHOICES)                                       \
    X("best_of", best_of, int64_t, INT, ANSWERS, 1, CMI_API_MAX_CHOICES)                           \
    X("max_tokens", max_tokens, int64_t, INT, ANSWERS, 0, INT32_MAX)                               \
    X("max_completion_tokens", max_completion_tokens, int64_t, INT, ANSWERS, 0, INT32_MAX)         \
    X("min_tokens", min_tokens, int64_t, INT, ANSWERS, 0, INT32_MAX)                               \
    X("seed", seed, int64_t, INT, ANSWERS, -INFINITY, INFINITY)                                    \
    X("temperature", temperature, double, NUMBER, ANSWERS, 0, 2)                                   \
    X("top_p", top_p, double, POSITIVE, ANSWERS, 0, 1)                                             \
    X("top_k", top_k, int64_t, INT, ANSWERS, -1, INT32_MAX)                                        \
    X("min_p", min_p, double, NUMBER, ANSWERS, 0, 1)                                               \
    X("frequency_penalty", frequency_penalty, double, NUMBER, ANSWERS, -2, 2)                      \
    X("presence_penalty", presence_penalty, double, NUMBER, ANSWERS, -2, 2)                        \
    X("repetition_penalty", repetition_penalty, double, NUMBER, ANSWERS, 0.01, 100)                \
    X("ignore_eos", ignore_eos, bool, BOOL, ANSWERS, 0, 0)                                         \
    X("skip_special_tokens", skip_special_tokens, bool, BOOL, ANSWERS, 0, 0)                       \
    X("include_stop_str_in_output", include_stop_string, bool, BOOL, ANSWERS, 0, 0)                \
    X("echo", echo, bool, BOOL, ANSWERS, 0, 0)                                                     \
    X("priority", priority, int64_t, INT, ANSWERS, INT32_MIN, INT32_MAX)                           \
    X("speculative", speculative, bool, BOOL, ANSWERS, 0, 0)                                       \
    X("num_speculative_tokens", max_drafts, int64_t, INT, ANSWERS, 0, CMI_MAX_DRAFTS)              \
    X("user", user, bool, STRING, ANSWERS, 0, 0)                                                   \
    X("logprobs", n_logprobs, int64_t, INT, COMPLETIONS, 0, CMI_MAX_TOP_LOGPROBS)                  \
    X("logprobs", logprobs, bool, BOOL, CHAT, 0, 0)                                                \
    X("top_logprobs", top_logprobs, int64_t, INT, CHAT, 0, CMI_MAX_TOP_LOGPROBS)                   \
    X("parallel_tool_calls", parallel_tool_calls, bool, BOOL, CHAT, 0, 0)                          \
    X("include_reasoning", include_reasoning, bool, BOOL, CHAT, 0, 0)                              \
    X("add_special_tokens", add_special_tokens, bool, BOOL, ALL, 0, 0)                             \
    X("add_generation_prompt", add_generation_prompt, bool, BOOL, TEMPLATE, 0, 0)                  \
    X("continue_final_message", continue_final_message, bool, BOOL, TEMPLATE, 0, 0)                \
    X("return_token_strs", return_token_strs, bool, BOOL, TOKENIZE, 0, 0)

#define CMI_API_FIELD_MEMBER(json, member, type, kind, endpoints, min, max) type member;
#define CMI_API_FIELD_GIVEN(json, member, type, kind, endpoints, min, max) bool member;

/* The values; `given` says which of them the client sent. */
typedef struct cmi_api_params {
    CMI_API_FIELD_TABLE(CMI_API_FIELD_MEMBER)
    struct {
        CMI_API_FIELD_TABLE(CMI_API_FIELD_GIVEN)
    } given;
    bool include_usage, continuous_usage; /* of stream_options */
} cmi_api_params;

#undef CMI_API_FIELD_MEMBER
#undef CMI_API_FIELD_GIVEN

/* Reads every field that the endpoint (one of CMI_API_IN_...) knows from root over the defaults
 * that are in *params, and checks what they have to do with each other. */
CMI_NODISCARD cmi_status cmi_api_fields_read(const json_t *root, int endpoint,
                                             cmi_api_params *params, cmi_api_error *err);

/* Refuses what is asked for with fields that this server knows and cannot honour. */
CMI_NODISCARD cmi_status cmi_api_fields_refuse(const json_t *root, cmi_api_error *err);

#endif
