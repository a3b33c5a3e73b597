#include "server/server_internal.h"

#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"
#include "server/http_service.h"

/* Answers are small, but for /tokenize of a body of the largest size. */
#define MAX_REPLY_BYTES ((size_t)256 << 20)

/* An ill-behaved callee must not lead to an answer without a status. */
static enum MHD_Result reply_error(cmi_http_request *req, cmi_api_error *err)
{
    if (err->http_status < 400 || err->http_status > 599) {
        cmi_http_error_set(err, 500, "The server failed without a reason.");
    }
    return cmi_http_reply_error(req, err);
}

static uint64_t now_unix_s(void)
{
    return cmi_clock_unix_ns() / 1000000000;
}

static enum MHD_Result reply_not_ready(cmi_http_request *req)
{
    cmi_api_error err;
    cmi_http_error_set(&err, 503,
                       atomic_load(&req->server->stopping)
                           ? "The server is stopping and takes no more requests."
                           : "The server is not ready: the model is being loaded.");
    return cmi_http_reply_error(req, &err);
}

static enum MHD_Result run_version(cmi_http_request *req)
{
    cmi_buf body;
    cmi_buf_init(&body, 256);
    cmi_buf_str(&body, "{\"version\":\"" CMI_VERSION "\"}");
    return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
}

/* Those of a router, whose number stays; other engines have none. */
static void write_ranks(const cmi_metrics *metrics, cmi_engine *engine, cmi_buf *out)
{
    const uint32_t n = cmi_engine_ranks_get(engine, NULL, 0);
    if (n > 0) {
        cmi_engine_rank *ranks = cmi_alloc(n, sizeof *ranks);
        (void)cmi_engine_ranks_get(engine, ranks, n);
        cmi_metrics_write_ranks(metrics, ranks, n, out);
        cmi_free(ranks);
    }
}

static enum MHD_Result run_metrics(cmi_http_request *req)
{
    cmi_engine *engine = atomic_load(&req->server->engine);
    cmi_engine_info info;
    cmi_engine_stats stats;
    if (engine != NULL) {
        cmi_engine_info_get(engine, &info);
        cmi_engine_stats_get(engine, &stats);
    }
    cmi_buf body;
    cmi_buf_init(&body, MAX_REPLY_BYTES);
    cmi_metrics_write(&req->server->metrics, engine == NULL ? NULL : &info,
                      engine == NULL ? NULL : &stats, &body);
    if (engine != NULL) {
        write_ranks(&req->server->metrics, engine, &body);
    }
    return cmi_http_reply_body(req, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static enum MHD_Result run_models(cmi_http_request *req, const cmi_api *api)
{
    cmi_buf body;
    cmi_buf_init(&body, MAX_REPLY_BYTES);
    cmi_api_models(api, &body);
    return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
}

/* One entry of the list of models, by its id. */
static enum MHD_Result run_model(cmi_http_request *req, const cmi_api *api)
{
    const char *id = req->path + cmi_http_route_get(req->route)->n_prefix;
    cmi_buf body;
    cmi_buf_init(&body, MAX_REPLY_BYTES);
    cmi_api_models(api, &body);
    json_t *list = json_loadb(cmi_buf_cstr(&body), body.len, 0, NULL);
    cmi_buf_clear(&body);
    size_t i;
    json_t *model;
    json_array_foreach(json_object_get(list, "data"), i, model)
    {
        const char *model_id = json_string_value(json_object_get(model, "id"));
        if (model_id != NULL && strcmp(model_id, id) == 0) {
            size_t n = json_dumpb(model, NULL, 0, JSON_COMPACT);
            char *to = cmi_buf_reserve(&body, n);
            body.len = to == NULL ? 0 : json_dumpb(model, to, n, JSON_COMPACT);
            break;
        }
    }
    json_decref(list);
    if (body.len > 0) {
        return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
    }
    cmi_buf_deinit(&body);
    cmi_api_error err;
    cmi_http_error_set(&err, 404, "The model `%s` does not exist.", id);
    return cmi_http_reply_error(req, &err);
}

static enum MHD_Result run_text(cmi_http_request *req, const cmi_api *api)
{
    const char *text = cmi_buf_cstr(&req->body);
    cmi_buf body;
    cmi_buf_init(&body, MAX_REPLY_BYTES);
    cmi_api_error err = {0};
    cmi_status st = req->route == CMI_ROUTE_TOKENIZE
                        ? cmi_api_tokenize(api, text, req->body.len, now_unix_s(), &body, &err)
                        : cmi_api_detokenize(api, text, req->body.len, &body, &err);
    if (st == CMI_OK && !body.overflow) {
        return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
    }
    cmi_buf_deinit(&body);
    return reply_error(req, &err);
}

static const char *request_header(const cmi_http_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

static cmi_status read_service(const cmi_http_request *req, cmi_api_service *service_out,
                               cmi_api_error *err)
{
    const cmi_http_service_headers headers = {
        .ttft_ms = request_header(req, "x-llm-d-slo-ttft-ms"),
        .tpot_ms = request_header(req, "x-llm-d-slo-tpot-ms"),
        .timeout_ms = request_header(req, "x-request-timeout-ms"),
        .fairness_id = request_header(req, "x-llm-d-inference-fairness-id"),
        .authorization = request_header(req, "Authorization"),
    };
    *service_out = req->server->opt.service;
    return cmi_http_service_read(&headers, service_out, err);
}

/* A refusal that can be known by the body's length and the headers is made before the body is
 * parsed: when many come it has to be quick. */
static cmi_status ask_for_room(const cmi_http_request *req, const cmi_api *api,
                               const cmi_api_service *service, cmi_api_error *err)
{
    const cmi_admission_request asked = {.n_prompt = cmi_api_body_tokens(api, req->body.len),
                                         .max_tokens = 1,
                                         .ttft_ns = service->ttft_us * UINT64_C(1000),
                                         .tpot_ns = service->tpot_us * UINT64_C(1000)};
    cmi_admission_verdict verdict;
    if (cmi_engine_has_room(atomic_load(&req->server->engine), &asked, &verdict)) {
        return CMI_OK;
    }
    cmi_http_error_set_refused(err, verdict,
                               "Too much is running or waiting here for another request of this "
                               "kind; try again.");
    return CMI_ERR_NO_CAPACITY;
}

/* Makes a job of the request and gives it to the engine. */
static cmi_status start_job(cmi_http_request *req, const cmi_api *api, bool *is_stream_out,
                            cmi_api_error *err)
{
    cmi_server *server = req->server;
    const uint64_t whole_ns = cmi_clock_monotonic_ns();
    cmi_api_service service;
    cmi_status st = read_service(req, &service, err);
    if (st == CMI_OK) {
        st = ask_for_room(req, api, &service, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    req->exchange = cmi_exchange_acquire(server->exchanges, req->connection, req->id, whole_ns);
    if (req->exchange == NULL) {
        cmi_http_error_set(err, 429, "Too many requests are waiting; try again.");
        return CMI_ERR_NO_CAPACITY;
    }
    cmi_api_job *job = NULL;
    st = cmi_api_job_create(&job, api,
                            req->route == CMI_ROUTE_COMPLETIONS ? CMI_API_COMPLETIONS
                                                                : CMI_API_CHAT_COMPLETIONS,
                            cmi_buf_cstr(&req->body), req->body.len,
                            cmi_exchange_number(req->exchange), now_unix_s(), err);
    if (st != CMI_OK) {
        return st;
    }
    service.age_us =
        (uint32_t)CMI_MIN((cmi_clock_monotonic_ns() - whole_ns) / 1000, (uint64_t)UINT32_MAX);
    cmi_api_job_set_service(job, &service);
    *is_stream_out = cmi_api_job_is_stream(job);
    return cmi_exchange_submit(req->exchange, job, err);
}

/* Called once with the whole request, then each time the connection was resumed. */
static enum MHD_Result run_job(cmi_http_request *req, const cmi_api *api)
{
    cmi_api_error err = {0};
    if (req->exchange == NULL) {
        bool is_stream = false;
        if (start_job(req, api, &is_stream, &err) != CMI_OK) {
            return reply_error(req, &err);
        }
        if (is_stream) {
            return cmi_http_reply_stream(req, req->exchange);
        }
    }
    cmi_buf body = {0};
    switch (cmi_exchange_take(req->exchange, &body, &err)) {
    case CMI_EXCHANGE_SUSPENDED:
        return MHD_YES;
    case CMI_EXCHANGE_READY:
        if (err.http_status == 0) {
            return cmi_http_reply_body(req, 200, CMI_HTTP_JSON, &body);
        }
        cmi_buf_deinit(&body);
        return reply_error(req, &err);
    case CMI_EXCHANGE_GONE:
        break;
    }
    return MHD_NO;
}

enum MHD_Result cmi_http_endpoint_run(cmi_http_request *req)
{
    cmi_server *server = req->server;
    const cmi_api *api = atomic_load(&server->api);
    bool ready = atomic_load(&server->ready) && api != NULL;
    if (req->method == CMI_HTTP_OPTIONS) {
        return cmi_http_reply_preflight(req);
    }
    switch (req->route) {
    case CMI_ROUTE_HEALTH:
    case CMI_ROUTE_LIVENESS:
    case CMI_ROUTE_PING:
        return cmi_http_reply_empty(req, 200);
    case CMI_ROUTE_READINESS:
    case CMI_ROUTE_READY:
        return ready ? cmi_http_reply_empty(req, 200) : reply_not_ready(req);
    case CMI_ROUTE_VERSION:
        return run_version(req);
    case CMI_ROUTE_METRICS:
        return run_metrics(req);
    default:
        break;
    }
    if (req->route == CMI_ROUTE_ABORT_REQUEST) { /* also while the server drains */
        return cmi_http_admin_abort(req);
    }
    if (!ready && req->exchange == NULL) { /* a running job ends well */
        return reply_not_ready(req);
    }
    switch (req->route) {
    case CMI_ROUTE_FLUSH_CACHE:
    case CMI_ROUTE_RESET_PREFIX_CACHE:
        return cmi_http_admin_flush(req);
    case CMI_ROUTE_MODELS:
        return run_models(req, api);
    case CMI_ROUTE_MODEL:
        return run_model(req, api);
    case CMI_ROUTE_TOKENIZE:
    case CMI_ROUTE_DETOKENIZE:
        return run_text(req, api);
    case CMI_ROUTE_CHAT_COMPLETIONS:
    case CMI_ROUTE_COMPLETIONS:
        return run_job(req, api);
    default:
        return MHD_NO;
    }
}
