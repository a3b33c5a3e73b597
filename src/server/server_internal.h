/* server/server_internal.h - what the http_*.c files share. */
#ifndef CMI_SERVER_SERVER_INTERNAL_H
#define CMI_SERVER_SERVER_INTERNAL_H

#include <microhttpd.h>

#include "server/http_deadline.h"
#include "server/http_error.h"
#include "server/http_exchange.h"
#include "server/http_route.h"
#include "server/metrics.h"
#include "server/server.h"
#include "server/trace_context.h"

enum {
    CMI_REQUEST_ID_MAX = 128,
    CMI_HTTP_CLIENT_LEFT = 499, /* a status only in logs and metrics; nginx' number for it */
};

struct cmi_server {
    cmi_server_options opt; /* without zeros; strings are owned */
    uint16_t port;
    struct MHD_Daemon *daemon;
    cmi_exchange_table *exchanges;
    cmi_deadline_table *deadlines;
    cmi_metrics metrics;

    _Atomic(const cmi_api *) api; /* NULL until attached; written before ready */
    _Atomic(cmi_engine *) engine;
    atomic_bool ready;
    atomic_bool stopping;        /* for good: clients should go to another server */
    _Atomic uint64_t n_ids;      /* generated request ids so far */
    _Atomic uint64_t body_bytes; /* held by all requests that are being read */
};

/* One HTTP request, from its head to the end of its answer. Belongs to the libmicrohttpd thread of
 * its connection. */
typedef struct cmi_http_request {
    cmi_server *server;
    struct MHD_Connection *connection;
    cmi_deadline *deadline; /* of the connection */
    cmi_http_method method;
    cmi_http_route_id route;
    const char *path;                /* libmicrohttpd's, unescaped */
    char id[CMI_REQUEST_ID_MAX + 1]; /* X-Request-Id */
    cmi_trace_context trace;         /* the client's, or none */
    uint64_t arrival_ns;             /* the head was there; monotonic */
    uint64_t n_body_bytes;           /* received, kept or not */
    cmi_buf body;
    cmi_api_error refusal;  /* known before the body was read; http_status 0: none */
    cmi_exchange *exchange; /* NULL: not a request for the engine */
    int status;             /* answered; 0: not yet */
} cmi_http_request;

/* libmicrohttpd's callbacks (http_request.c). */
enum MHD_Result cmi_http_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version,
                                    const char *upload_data, size_t *upload_data_size,
                                    void **con_cls);
/* Decodes %XX in place, returns the length. %00 stays as it is: "/version%00x" is not "/version".
 */
size_t cmi_http_unescape(void *cls, struct MHD_Connection *connection, char *s);
void cmi_http_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                           enum MHD_RequestTerminationCode code);

/* Refuses a request without the key that its path wants (http_auth.c). */
void cmi_http_check_key(cmi_http_request *req);

/* http_admin.c */
enum MHD_Result cmi_http_admin_flush(cmi_http_request *req); /* the server is ready */
enum MHD_Result cmi_http_admin_abort(cmi_http_request *req);

/* http_log.c */
void cmi_http_log_request(const cmi_http_request *req, int status, const cmi_exchange_summary *s);

/* Runs the endpoint once the whole request is there, and again each time its connection was
 * resumed (http_endpoints.c). */
enum MHD_Result cmi_http_endpoint_run(cmi_http_request *req);

/* Answers (http_reply.c). body is taken over. All return what the callback should return. */
enum MHD_Result cmi_http_reply_empty(cmi_http_request *req, int status);
enum MHD_Result cmi_http_reply_body(cmi_http_request *req, int status, const char *content_type,
                                    cmi_buf *body);
enum MHD_Result cmi_http_reply_error(cmi_http_request *req, const cmi_api_error *err);
enum MHD_Result cmi_http_reply_stream(cmi_http_request *req, cmi_exchange *ex);
enum MHD_Result cmi_http_reply_preflight(cmi_http_request *req);

#define CMI_HTTP_JSON "application/json"

#endif
