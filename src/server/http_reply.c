#include "server/server_internal.h"

#include <stdio.h>

#include "base/alloc.h"

/* What one call of the stream's reader can give at most. */
#define STREAM_BLOCK_BYTES 8192

static const char *request_header(const cmi_http_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

/* Puts the headers that every answer has on response, queues it, and lets go of it. */
static enum MHD_Result queue(cmi_http_request *req, int status, struct MHD_Response *response)
{
    if (response == NULL) {
        return MHD_NO; /* out of memory: the connection is closed */
    }
    MHD_add_response_header(response, "X-Request-Id", req->id);
    if (atomic_load(&req->server->stopping)) {
        MHD_add_response_header(response, "Connection", "close");
    }
    if (request_header(req, "Origin") != NULL) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", "*");
        MHD_add_response_header(response, "Access-Control-Expose-Headers", "X-Request-Id");
    }
    enum MHD_Result result = MHD_queue_response(req->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    if (result == MHD_YES) {
        req->status = status;
    }
    return result;
}

/* The same for an answer that is all there, so that its client has to take it. */
static enum MHD_Result queue_whole(cmi_http_request *req, int status, struct MHD_Response *response,
                                   uint64_t n_body_bytes)
{
    cmi_deadline_set_transfer(req->deadline, n_body_bytes);
    return queue(req, status, response);
}

static struct MHD_Response *response_create(const char *content_type, cmi_buf *body)
{
    char *data = body->data;
    size_t n = body->len;
    *body = (cmi_buf){.max = body->max};
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(n, data, cmi_free);
    if (response == NULL) {
        cmi_free(data);
    } else if (content_type != NULL) {
        MHD_add_response_header(response, "Content-Type", content_type);
    }
    return response;
}

enum MHD_Result cmi_http_reply_body(cmi_http_request *req, int status, const char *content_type,
                                    cmi_buf *body)
{
    uint64_t n_bytes = body->len;
    return queue_whole(req, status, response_create(content_type, body), n_bytes);
}

enum MHD_Result cmi_http_reply_empty(cmi_http_request *req, int status)
{
    return queue_whole(req, status,
                       MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT), 0);
}

static const char *allowed_methods(const cmi_http_request *req)
{
    switch (cmi_http_route_get(req->route)->method) {
    case CMI_HTTP_GET:
        return "GET, HEAD, OPTIONS";
    case CMI_HTTP_POST:
        return "POST, OPTIONS";
    default:
        return "GET, HEAD, POST, OPTIONS";
    }
}

/* In whole seconds, as HTTP has it. */
static void add_retry_after(struct MHD_Response *response, uint32_t retry_after_ms)
{
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", CMI_MAX(CMI_DIV_UP(retry_after_ms, 1000u), 1u));
    MHD_add_response_header(response, "Retry-After", seconds);
}

enum MHD_Result cmi_http_reply_error(cmi_http_request *req, const cmi_api_error *err)
{
    cmi_buf body;
    cmi_buf_init(&body, 16384);
    cmi_api_error_write(err, &body);
    struct MHD_Response *response = response_create(CMI_HTTP_JSON, &body);
    if (response != NULL) {
        switch (err->http_status) {
        case 401:
            MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
            break;
        case 405:
            MHD_add_response_header(response, "Allow", allowed_methods(req));
            break;
        case 429:
        case 503:
            add_retry_after(response, err->retry_after_ms);
            break;
        default:
            break;
        }
    }
    return queue_whole(req, err->http_status, response, 0);
}

enum MHD_Result cmi_http_reply_stream(cmi_http_request *req, cmi_exchange *ex)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, cmi_exchange_read, ex, NULL);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", "text/event-stream; charset=utf-8");
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* nginx must not collect */
    }
    return queue(req, 200, response);
}

enum MHD_Result cmi_http_reply_preflight(cmi_http_request *req)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response != NULL) {
        MHD_add_response_header(response, "Allow", allowed_methods(req));
        MHD_add_response_header(response, "Access-Control-Allow-Methods", allowed_methods(req));
        MHD_add_response_header(response, "Access-Control-Max-Age", "600");
        /* "*" would not cover Authorization, so what is asked for is allowed by name. */
        const char *wanted = request_header(req, "Access-Control-Request-Headers");
        if (wanted != NULL) {
            MHD_add_response_header(response, "Access-Control-Allow-Headers", wanted);
        }
    }
    return queue_whole(req, 204, response, 0);
}
