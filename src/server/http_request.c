/* server/http_request.c - a request as libmicrohttpd delivers it: head, body, end.
 *
 * What is wrong with the head is known before the body has come. The body is then read and thrown
 * away, as far as that is reasonable, because a client that is still sending when the connection
 * closes may never see the answer. Bodies are limited each and together, so that many clients with
 * large ones cannot take the memory of the model.
 *
 * What is not HTTP at all libmicrohttpd answers itself, with 400, 413, 414 or 431 and a closed
 * connection. */
#include "server/server_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rng.h"
#include "os/clock.h"

enum {
    BODIES_AT_ONCE = 32, /* so many of the largest size fit in memory together */
    DRAINED_BODIES = 4,  /* so many times the largest size is read to be polite */
    LARGE_BODY_BYTES = 1 << 20,
};

static const char *header(const cmi_http_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection, MHD_HEADER_KIND, name);
}

/* The client's id if it is 1 .. 128 visible ASCII characters, else one of ours. */
static void request_id_init(cmi_http_request *req)
{
    const char *given = header(req, "X-Request-Id");
    size_t n = given == NULL ? 0 : strlen(given);
    bool usable = n >= 1 && n <= CMI_REQUEST_ID_MAX;
    for (size_t i = 0; usable && i < n; i++) {
        usable = given[i] > ' ' && given[i] <= '~';
    }
    if (usable) {
        memcpy(req->id, given, n + 1);
        return;
    }
    uint32_t words[4];
    cmi_philox4x32(req->server->opt.id_seed, atomic_fetch_add(&req->server->n_ids, 1), 0, words);
    snprintf(req->id, sizeof req->id, "%08" PRIx32 "%08" PRIx32 "%08" PRIx32 "%08" PRIx32, words[0],
             words[1], words[2], words[3]);
}

static void trace_init(cmi_http_request *req)
{
    const char *given = header(req, "traceparent");
    if (given != NULL) {
        (void)cmi_trace_context_parse(&req->trace, given, strlen(given));
    }
}

static void refuse_too_large(cmi_http_request *req)
{
    cmi_http_error_set(&req->refusal, 413, "The request body is larger than %zu bytes.",
                       req->server->opt.max_body_bytes);
}

static enum MHD_Result count_hosts(void *cls, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    (void)value;
    *(unsigned *)cls += strcasecmp(name, "Host") == 0;
    return MHD_YES;
}

/* HTTP/1.1 wants exactly one Host: a proxy may go by another one than this server. */
static void check_host(cmi_http_request *req, const char *version)
{
    unsigned n = 0;
    MHD_get_connection_values(req->connection, MHD_HEADER_KIND, count_hosts, &n);
    if (n > 1 || (n == 0 && strcmp(version, "HTTP/1.0") != 0)) {
        cmi_http_error_set(&req->refusal, 400, "The request must have one Host header, not %u.", n);
    }
}

/* What the head alone says against the request. */
static void check_head(cmi_http_request *req, const char *method)
{
    const cmi_http_route *route = cmi_http_route_get(req->route);
    if (req->method == CMI_HTTP_OPTIONS) {
        return; /* browsers ask without a key whether they may ask with one */
    }
    cmi_http_check_key(req);
    if (req->refusal.http_status != 0) {
        return;
    }
    if (req->route == CMI_ROUTE_NONE) {
        cmi_http_error_set(&req->refusal, 404, "The path %s is not served here.", req->path);
    } else if (req->method != route->method) {
        cmi_http_error_set(&req->refusal, 405, "%s does not take the method %s.", req->path,
                           method);
    }
}

static enum MHD_Result count_framing(void *cls, enum MHD_ValueKind kind, const char *name,
                                     const char *value)
{
    (void)kind;
    (void)value;
    unsigned *n = cls;
    *n += strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0;
    return MHD_YES;
}

/* Two headers that speak of the length may be read differently by a proxy in front of this server,
 * which then takes for a body what is a request here. */
static bool is_framing_clear(const cmi_http_request *req)
{
    unsigned n = 0;
    MHD_get_connection_values(req->connection, MHD_HEADER_KIND, count_framing, &n);
    const char *encoding = header(req, "Transfer-Encoding");
    return n <= 1 && (encoding == NULL || strcasecmp(encoding, "chunked") == 0);
}

static void on_head(cmi_http_request *req, const char *method, const char *version,
                    bool *answer_now_out)
{
    check_head(req, method);
    check_host(req, version);
    size_t max_bytes = req->server->opt.max_body_bytes;
    const char *length = header(req, "Content-Length");
    uint64_t n_announced = length == NULL ? 0 : strtoull(length, NULL, 10);
    bool bad_framing = !is_framing_clear(req);
    if (bad_framing) {
        cmi_http_error_set(&req->refusal, 400,
                           "The length of the body is unclear: send either Content-Length or "
                           "Transfer-Encoding: chunked.");
    } else if (n_announced > max_bytes && req->refusal.http_status == 0) {
        refuse_too_large(req);
    }
    *answer_now_out =
        req->refusal.http_status != 0 &&
        (bad_framing || n_announced > DRAINED_BODIES * max_bytes || header(req, "Expect") != NULL);
}

/* What a large body was parsed into has left its pieces all over this thread's heap. */
static void body_free(cmi_http_request *req)
{
    bool large = req->body.len > LARGE_BODY_BYTES;
    atomic_fetch_sub(&req->server->body_bytes, req->body.len);
    cmi_buf_deinit(&req->body);
    if (large) {
        cmi_alloc_trim();
    }
}

static enum MHD_Result on_body(cmi_http_request *req, const char *bytes, size_t n)
{
    cmi_server *server = req->server;
    req->n_body_bytes += n;
    cmi_deadline_extend(req->deadline, n);
    if (req->n_body_bytes > DRAINED_BODIES * server->opt.max_body_bytes) {
        return MHD_NO; /* a chunked body that goes on and on */
    }
    if (req->refusal.http_status != 0 || req->method != CMI_HTTP_POST) {
        return MHD_YES;
    }
    uint64_t budget = BODIES_AT_ONCE * (uint64_t)server->opt.max_body_bytes;
    if (!cmi_buf_append(&req->body, bytes, n)) {
        refuse_too_large(req);
        body_free(req);
    } else if (atomic_fetch_add(&server->body_bytes, n) + n > budget) {
        cmi_http_error_set(&req->refusal, 503,
                           "Too many large requests are being received at once; try again.");
        body_free(req);
    }
    return MHD_YES;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    return at == NULL ? -1 : (int)(at - digits);
}

size_t cmi_http_unescape(void *cls, struct MHD_Connection *connection, char *s)
{
    (void)cls;
    (void)connection;
    char *to = s;
    for (const char *from = s; *from != '\0';) {
        int high = *from == '%' ? hex_digit(from[1]) : -1;
        int low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low >= 0 && high + low > 0) {
            *to++ = (char)(high * 16 + low);
            from += 3;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return (size_t)(to - s);
}

enum MHD_Result cmi_http_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version,
                                    const char *upload_data, size_t *upload_data_size,
                                    void **con_cls)
{
    cmi_http_request *req = *con_cls;
    if (req == NULL) {
        *con_cls = req = cmi_alloc(1, sizeof *req);
        req->server = cls;
        req->connection = connection;
        req->deadline = cmi_deadline_of(connection);
        req->method = cmi_http_method_find(method);
        req->route = cmi_http_route_find(url);
        req->path = url;
        req->arrival_ns = cmi_clock_monotonic_ns();
        cmi_buf_init(&req->body, req->server->opt.max_body_bytes);
        request_id_init(req);
        trace_init(req);
        bool answer_now;
        on_head(req, method, version, &answer_now);
        cmi_deadline_set_transfer(req->deadline, 0);
        return answer_now ? cmi_http_reply_error(req, &req->refusal) : MHD_YES;
    }
    if (*upload_data_size > 0) {
        enum MHD_Result result = on_body(req, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return result;
    }
    cmi_deadline_clear(req->deadline);
    enum MHD_Result result = req->refusal.http_status != 0
                                 ? cmi_http_reply_error(req, &req->refusal)
                                 : cmi_http_endpoint_run(req);
    body_free(req); /* an answer may be minutes away */
    return result;
}

void cmi_http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                           enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    cmi_http_request *req = *con_cls;
    if (req == NULL) {
        return;
    }
    cmi_exchange_summary summary = {0};
    cmi_exchange_detach(req->exchange, &summary);
    int status = req->status != 0 ? req->status : req->refusal.http_status;
    bool cut_off = code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !summary.complete;
    if (status == 0 || (cut_off && req->refusal.http_status == 0)) {
        status = CMI_HTTP_CLIENT_LEFT;
    }
    cmi_metrics_http(&req->server->metrics, req->method, req->route, status);
    if (!req->server->opt.no_request_log) {
        cmi_http_log_request(req, status, &summary);
    }
    body_free(req);
    cmi_deadline_set_idle(req->deadline);
    cmi_free(req);
    *con_cls = NULL;
}
