/* server/api.h - the OpenAI API without HTTP: JSON bodies in, engine requests out; engine events
 * in, response bytes out.
 *
 * Nothing here knows sockets, threads or clocks (times are arguments), so all of it is tested in
 * memory and fuzzed. A cmi_api is immutable and shared by all threads; a cmi_api_job belongs to one
 * connection at a time. */
#ifndef CMI_SERVER_API_H
#define CMI_SERVER_API_H

#include "base/buf.h"
#include "base/error.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

typedef struct cmi_chat_template cmi_chat_template; /* text/chat_template.h */

/* Defaults for sampling that the model recommends (generation_config.json); NAN or 0: none. */
typedef struct cmi_api_sampling_defaults {
    double temperature, top_p, repetition_penalty;
    uint32_t top_k;
} cmi_api_sampling_defaults;

typedef struct cmi_api_options {
    const char *const *model_names; /* names that clients may use; the first is the answer's */
    size_t n_model_names;
    const char *model_root; /* "root" in /v1/models */
    uint64_t created_unix_s;
    cmi_api_sampling_defaults sampling;
    const cmi_tokenizer *tokenizer;         /* outlives the api */
    const cmi_chat_template *chat_template; /* NULL: chat answers 400 */
    cmi_engine_info engine;
    uint64_t
        id_seed; /* makes ids ("chatcmpl-...") and default seeds unguessable and, in tests, fixed */
} cmi_api_options;

typedef struct cmi_api cmi_api;

CMI_NODISCARD cmi_status cmi_api_create(cmi_api **api_out, const cmi_api_options *opt,
                                        cmi_error *err);
void cmi_api_destroy(cmi_api *api); /* NULL is fine */

/* What a body of so many bytes counts for in a bounded queue before it has been read: the fewest
 * prompt tokens that so much text can be, if each byte of it were written as a JSON escape. Only a
 * body of white space, unused fields, or messages that the template leaves out, has fewer. */
uint64_t cmi_api_body_tokens(const cmi_api *api, size_t n_bytes);

/* An error as HTTP shows it. Written as OpenAI's nested object by cmi_api_error_write. */
typedef struct cmi_api_error {
    int http_status; /* 400, 401, 404, 405, 413, 429, 500, 503 */
    char type[48];   /* "BadRequestError", "NotFoundError", ... as vLLM names them */
    char param[64];  /* "": null */
    char message[512];
    uint32_t retry_after_ms; /* with 429 and 503; 0: a second */
} cmi_api_error;

void cmi_api_error_write(const cmi_api_error *err, cmi_buf *out);

/* The same as the last event of a stream, with the [DONE] behind it. */
void cmi_api_error_write_event(const cmi_api_error *err, cmi_buf *out);

/* Endpoints that compute nothing: request body to response body (200), or an error filled in. The
 * time is for templates that show the date. */
CMI_NODISCARD cmi_status cmi_api_tokenize(const cmi_api *api, const char *body, size_t n_bytes,
                                          uint64_t now_unix_s, cmi_buf *out, cmi_api_error *err);
CMI_NODISCARD cmi_status cmi_api_detokenize(const cmi_api *api, const char *body, size_t n_bytes,
                                            cmi_buf *out, cmi_api_error *err);
void cmi_api_models(const cmi_api *api, cmi_buf *out);

typedef enum cmi_api_endpoint { CMI_API_CHAT_COMPLETIONS, CMI_API_COMPLETIONS } cmi_api_endpoint;

/* One HTTP request: one engine request for each choice of each prompt, and the response they make.
 */
typedef struct cmi_api_job cmi_api_job;

/* Parses, checks, renders the template, tokenizes. number is unique to this job in this process;
 * the engine requests get the ids number * CMI_API_MAX_CHOICES + choice. now_unix_s becomes
 * "created". */
enum { CMI_API_MAX_CHOICES = 128 };
CMI_NODISCARD cmi_status cmi_api_job_create(cmi_api_job **job_out, const cmi_api *api,
                                            cmi_api_endpoint endpoint, const char *body,
                                            size_t n_bytes, uint64_t number, uint64_t now_unix_s,
                                            cmi_api_error *err);
void cmi_api_job_destroy(cmi_api_job *job); /* NULL is fine */

/* How a job is to be served; 0: nothing asked for. */
typedef struct cmi_api_service {
    uint32_t ttft_us, tpot_us; /* targets: arrival to first token, and between tokens */
    uint32_t timeout_ms;       /* by when its requests end, from now on */
    uint32_t age_us;           /* how long ago it arrived */
    uint64_t tenant;           /* whom it counts for; a digest */
} cmi_api_service;

/* For all requests of the job, before they are submitted. */
void cmi_api_job_set_service(cmi_api_job *job, const cmi_api_service *service);

uint32_t cmi_api_job_n_requests(const cmi_api_job *job);
const cmi_request *cmi_api_job_request(const cmi_api_job *job, uint32_t choice);
uint32_t cmi_api_job_n(const cmi_api_job *job); /* the parameter n: choices of each prompt */
bool cmi_api_job_is_stream(const cmi_api_job *job);
/* The request's field that says what the answer must look like, for errors; NULL: none does. */
const char *cmi_api_job_format_field(const cmi_api_job *job);
const char *cmi_api_job_id(const cmi_api_job *job); /* "chatcmpl-..." / "cmpl-..." */

/* Takes one event of one of the job's requests. Appends what can be sent now to out: SSE events of
 * a stream, or the whole JSON body with the last event. *cancel_out: the choice's text is complete
 * (a stop string), the engine should cancel the request; its FINISHED event is still to be passed
 * in.
 * Returns CMI_IN_PROGRESS until every choice has finished, then CMI_OK. A request that failed, or
 * was aborted without *cancel_out, ends the whole job: its error status is returned with err filled
 * in, nothing is appended, and the caller cancels the job's other requests and destroys it. */
CMI_NODISCARD cmi_status cmi_api_job_event(cmi_api_job *job, const cmi_event *event, cmi_buf *out,
                                           bool *cancel_out, cmi_api_error *err);

/* Token counts so far, for logs and metrics. */
typedef struct cmi_api_usage {
    uint32_t n_prompt_tokens, n_output_tokens, n_cached_tokens;
} cmi_api_usage;
cmi_api_usage cmi_api_job_usage(const cmi_api_job *job);

#endif
