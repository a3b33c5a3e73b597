/* tests/server/api_util.h - an api over the bundled model's tokenizer and template, and an engine
 * that says what a test wrote down. */
#ifndef CMI_TESTS_SERVER_API_UTIL_H
#define CMI_TESTS_SERVER_API_UTIL_H

#include "tests/test.h"

#include <jansson.h>

#include "base/ids.h"
#include "server/api.h"

enum {
    API_CREATED = 1700000000,
    API_IMPOSSIBLE_TOKEN = 1279,
    API_JOB_NUMBER = 5,
    API_MAX_MODEL_LEN = 2048
};

typedef struct api_world {
    cmi_tokenizer *tokenizer;
    cmi_chat_template *chat_template;
    cmi_api *api;
} api_world;

extern api_world world;

int api_world_setup(void **state);
int api_world_teardown(void **state);

/* JSON with ' for ", in a static buffer of its own for each of the last few calls. */
const char *api_json(const char *text);

/* What one choice's engine request answers. */
typedef struct api_script {
    const char *text; /* becomes tokens, markup included; NULL: ids */
    const uint32_t *ids;
    size_t n_ids;
    cmi_finish_reason finish; /* NONE: STOP by the end token */
    uint32_t stop_token_id;   /* with STOP; 0: the end token */
    cmi_status status;        /* with ERROR */
    uint32_t n_cached;
} api_script;

typedef struct api_run {
    cmi_api_job *job;
    cmi_status status; /* of job_create, or of the last event */
    cmi_api_error err;
    cmi_buf out;
    bool cancelled; /* some choice was */
    cmi_api_usage usage;
} api_run;

/* Creates a job from a body in api_json's form and plays the script to each of its choices, one
 * token of each in turn. End it with api_run_end. */
api_run api_play(cmi_api_endpoint endpoint, const char *body, const api_script *script);
void api_run_end(api_run *run);

/* The same for a body of any bytes. */
api_run api_play_bytes(cmi_api_endpoint endpoint, const char *body, size_t n_bytes,
                       const api_script *script);

/* The objects of a stream, [DONE] checked and left out; or the body. The caller decrefs. */
json_t *api_chunks(const api_run *run);
json_t *api_body(const api_run *run);

/* Fails, showing both, unless value equals the JSON (api_json's form). */
void api_assert_json(const json_t *value, const char *expected);

/* One line for what a choice of a stream adds up to: R{reasoning}C{content}T0{name}A0{arguments}..,
 * what is empty left out, then the finish and stop reasons. Reads the shapes of both endpoints;
 * "reasoning" must equal "reasoning_content". */
void api_describe_stream(const api_run *run, uint32_t choice, cmi_buf *out);

/* The same line from an answer that was not streamed. */
void api_describe_body(const api_run *run, uint32_t choice, cmi_buf *out);

/* Logprobs that the scripted engine gives. */
float api_logprob(uint32_t token_id);

/* Token ids of text; the caller ends them. The second: a token for each byte. */
cmi_ids api_ids(const char *text, size_t n_bytes);
cmi_ids api_byte_ids(const char *text, size_t n_bytes);

#endif
