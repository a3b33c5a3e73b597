/* server/api_internal.h - what the files api*.c share.
 *
 * A job's way: api_request.c makes it from the body (api_fields.c and api_lists.c read the fields,
 * api_messages.c and api_prompt.c make token ids); api_job.c takes the events, turns tokens into
 * text and asks api_chat.c or api_completion.c to write it in their endpoint's shape. */
#ifndef CMI_SERVER_API_INTERNAL_H
#define CMI_SERVER_API_INTERNAL_H

#include <jansson.h>

#include "server/api.h"
#include "server/api_fields.h"
#include "server/api_logprobs.h"
#include "server/stop_strings.h"
#include "text/answer_parser.h"
#include "text/detokenizer.h"

/* Of one choice's text, or of all its logprobs. */
#define CMI_API_MAX_TEXT_BYTES ((size_t)1 << 28)

struct cmi_api {
    cmi_api_options opt; /* its strings are copies */
    char **model_names;
    size_t longest_token_bytes;
};

/* What is drawn from (id_seed, the job's number): streams of the generator, in the upper half of
 * its counter; the lower half tells choices and calls apart. */
enum { CMI_API_DRAW_ID = 1, CMI_API_DRAW_SEED, CMI_API_DRAW_CALL };

/* ---- reading requests ---- */

/* Fill in err, blaming param (NULL: none). A 400 returns CMI_ERR_INVALID, a 404 CMI_ERR_NOT_FOUND.
 * The arguments may be a client's: what is no plain text in them is replaced. */
CMI_PRINTF(4, 5)
cmi_status cmi_api_refuse_as(cmi_api_error *err, int http_status, const char *param,
                             const char *fmt, ...);
#define cmi_api_refuse(err, param, ...) cmi_api_refuse_as((err), 400, (param), __VA_ARGS__)

/* An error of another kind, as HTTP shows a status of the engine or of text/. */
cmi_status cmi_api_fail(cmi_api_error *err, cmi_status st, const char *message);

/* Parses a body, which must be an object, and checks its "model". The caller decrefs *root_out. */
CMI_NODISCARD cmi_status cmi_api_parse_body(const cmi_api *api, const char *body, size_t n_bytes,
                                            json_t **root_out, cmi_api_error *err);

/* One prompt of a job, before it is copied into the requests of its choices. */
typedef struct cmi_api_prompt {
    cmi_ids ids;
    char *echo; /* chat: what `echo` puts before the answer; or NULL */
    size_t n_echo_bytes;
    bool hide_first;   /* ids[0] is a begin token that the client did not write */
    bool show_special; /* the prompt was text, so its special tokens are shown as text */
    bool in_reasoning; /* the answer begins inside <think> */
} cmi_api_prompt;

void cmi_api_prompt_deinit(cmi_api_prompt *prompt);

/* Checks messages and tools in place and gives them the one form that templates see: roles system,
 * user, assistant, tool; content as one string, or null beside tool calls. */
CMI_NODISCARD cmi_status cmi_api_messages_normalize(json_t *root, cmi_api_error *err);
CMI_NODISCARD cmi_status cmi_api_tools_check(json_t *root, cmi_api_error *err);

/* The checked tools; NULL when there are none, or tool_choice "none" hides them from the model. */
const json_t *cmi_api_tools_shown(const json_t *root);

/* root's messages, normalized, through the chat template to ids. */
CMI_NODISCARD cmi_status cmi_api_chat_prompt(const cmi_api *api, const json_t *root,
                                             const cmi_api_params *params, uint64_t now_unix_s,
                                             cmi_api_prompt *prompt_out, cmi_api_error *err);

/* A prompt given as text, or as an array of ids. param names it in errors. */
CMI_NODISCARD cmi_status cmi_api_text_prompt(const cmi_api *api, const json_t *value,
                                             bool add_special_tokens, const char *param,
                                             cmi_api_prompt *prompt_out, cmi_api_error *err);

/* "stop", "stop_token_ids", "logit_bias". set is zeroed before; the caller ends it either way. */
CMI_NODISCARD cmi_status cmi_api_read_stop(const json_t *root, cmi_stop_set *set,
                                           cmi_api_error *err);
CMI_NODISCARD cmi_status cmi_api_read_cache_salt(const json_t *root,
                                                 uint8_t salt_out[CMI_CACHE_SALT_BYTES],
                                                 cmi_api_error *err);
cmi_status cmi_api_read_stop_token_ids(const json_t *root, uint32_t vocab_size, cmi_ids *ids_out,
                                       cmi_api_error *err);
CMI_NODISCARD cmi_status cmi_api_read_logit_bias(const json_t *root, uint32_t vocab_size,
                                                 cmi_logit_bias bias_out[CMI_MAX_LOGIT_BIAS],
                                                 uint32_t *n_out, cmi_api_error *err);

/* What the answer must look like. */
typedef struct cmi_api_format {
    char *tree; /* [n_bytes] owned; NULL: anything */
    size_t n_bytes;
    const char *field; /* of the request, that asked for it */
    uint32_t n_start_ids;
    uint32_t start_ids[CMI_MAX_GRAMMAR_START_IDS];
    bool must_begin;
} cmi_api_format;

/* response_format, structured_outputs and its older names, tool_choice, strict tools. in_reasoning:
 * the answer begins so. Messages and tools were checked. format is zeroed before; the caller ends
 * it either way. */
CMI_NODISCARD cmi_status cmi_api_format_read(const cmi_api *api, const json_t *root,
                                             const cmi_api_params *params, bool is_chat,
                                             bool in_reasoning, cmi_api_format *format,
                                             cmi_api_error *err);
void cmi_api_format_deinit(cmi_api_format *format);

/* A node of a tree; takes no reference away. */
json_t *cmi_api_node(const char *kind, const json_t *value);

/* Tool calls as nodes of a tree. */
typedef struct cmi_api_calls {
    bool bound;        /* the nodes are there */
    bool forced;       /* the answer must be calls */
    uint32_t begin_id; /* the token that opens them */
    json_t *whole;     /* owned */
    json_t *rest;      /* owned: all behind begin_id */
} cmi_api_calls;

/* has_format: the text has a format, beside which any call must be one that can be told from it.
 * calls is zeroed before; the caller ends it either way. */
CMI_NODISCARD cmi_status cmi_api_calls_read(const cmi_api *api, const json_t *root,
                                            const cmi_api_params *params, bool has_format,
                                            cmi_api_calls *calls, cmi_api_error *err);
void cmi_api_calls_deinit(cmi_api_calls *calls);

/* An array of token ids below vocab_size. */
CMI_NODISCARD cmi_status cmi_api_read_ids(const json_t *array, uint32_t vocab_size,
                                          const char *param, cmi_ids *ids_out, cmi_api_error *err);

/* ---- answering them ---- */

typedef enum cmi_api_finish {
    CMI_API_FINISH_NONE,
    CMI_API_FINISH_STOP,
    CMI_API_FINISH_LENGTH,
    CMI_API_FINISH_TOOL_CALLS,
} cmi_api_finish;

typedef struct cmi_api_choice {
    uint32_t idx;
    cmi_request *request;
    const cmi_api_prompt *prompt;
    bool opened;    /* its first chunk was written */
    bool text_done; /* nothing more will be shown; later tokens are ignored */
    bool ended;     /* its FINISHED event came */
    cmi_api_finish finish;
    int64_t stop_token_id; /* the client's stop token that ended it; -1: none */
    int stop_string;       /* the index of the stop string that ended it; -1: none */
    uint32_t n_output_tokens, n_reasoning_tokens, n_cached_tokens;

    cmi_detokenizer detokenizer;
    cmi_stop_matcher matcher;
    cmi_answer_parser parser; /* chat */
    uint32_t n_calls;

    cmi_detokenizer echo_detokenizer;
    cmi_buf echo; /* completions: the prompt as it is shown */
    cmi_api_logprobs logprobs;
    size_t n_decoded;  /* bytes of text so far, echo included */
    size_t n_chars;    /* the same in code points */
    size_t n_released; /* bytes that cannot be part of a stop string any more */

    cmi_buf content, reasoning, calls; /* of an answer that is not streamed; calls is JSON */
} cmi_api_choice;

struct cmi_api_job {
    const cmi_api *api;
    cmi_api_endpoint endpoint;
    cmi_api_params params;
    cmi_stop_set stops;
    cmi_api_format format;
    uint8_t cache_salt[CMI_CACHE_SALT_BYTES];
    char id[48];
    uint64_t number;
    uint64_t created_unix_s;
    bool tools;          /* tool calls are looked for */
    bool discard_output; /* max_tokens 0: the token that an engine must be asked for is dropped */
    cmi_api_prompt *prompts;
    uint32_t n_prompts;
    uint32_t n_choices; /* n for each prompt, the prompt's index first */
    uint32_t n_open;
    cmi_api_choice *choices;
    cmi_buf head;              /* how each of its JSON objects begins, up to "choices": */
    cmi_buf decoded, released; /* scratch */
};

/* The two shapes. open: before a choice's first token; text: more of its text; close: its text is
 * over and its finish known. Of a stream they append events to out; otherwise they keep the text
 * for body, which comes last. */
void cmi_api_chat_open(cmi_api_job *job, cmi_api_choice *choice, cmi_buf *out);
void cmi_api_chat_text(cmi_api_job *job, cmi_api_choice *choice, const cmi_buf *text, cmi_buf *out);
void cmi_api_chat_close(cmi_api_job *job, cmi_api_choice *choice, cmi_buf *out);
void cmi_api_chat_body(cmi_api_job *job, cmi_buf *out);

void cmi_api_completion_open(cmi_api_job *job, cmi_api_choice *choice, cmi_buf *out);
void cmi_api_completion_text(cmi_api_job *job, cmi_api_choice *choice, const cmi_buf *text,
                             cmi_buf *out);
void cmi_api_completion_close(cmi_api_job *job, cmi_api_choice *choice, cmi_buf *out);
void cmi_api_completion_body(cmi_api_job *job, cmi_buf *out);

/* A prompt token with its logprob, for echo. */
void cmi_api_completion_prompt_token(cmi_api_choice *choice, const cmi_event *event);

/* Parts that both shapes have (api_write.c). */
void cmi_api_write_head(cmi_api_job *job);
void cmi_api_write_chunk_begin(const cmi_api_job *job, const cmi_api_choice *choice, cmi_buf *out);
void cmi_api_write_chunk_end(const cmi_api_job *job, cmi_buf *out);
void cmi_api_write_finish(const cmi_api_job *job, const cmi_api_choice *choice, cmi_buf *out);
void cmi_api_write_body_begin(const cmi_api_job *job, cmi_buf *out);
void cmi_api_write_body_end(const cmi_api_job *job, cmi_buf *out);
void cmi_api_write_stream_end(const cmi_api_job *job, cmi_buf *out);

/* Bytes that do not continue a UTF-8 sequence: characters, of valid text. */
size_t cmi_api_count_chars(const char *text, size_t n_bytes);

#endif
