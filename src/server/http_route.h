/* server/http_route.h - which paths there are and what each accepts. Pure; any thread. */
#ifndef CMI_SERVER_HTTP_ROUTE_H
#define CMI_SERVER_HTTP_ROUTE_H

#include "base/compiler.h"

typedef enum cmi_http_method {
    CMI_HTTP_GET, /* HEAD too: libmicrohttpd leaves the body out */
    CMI_HTTP_POST,
    CMI_HTTP_OPTIONS,
    CMI_HTTP_OTHER,
    CMI_N_HTTP_METHODS,
} cmi_http_method;

typedef enum cmi_http_route_id {
    CMI_ROUTE_CHAT_COMPLETIONS,
    CMI_ROUTE_COMPLETIONS,
    CMI_ROUTE_MODELS,
    CMI_ROUTE_MODEL,
    CMI_ROUTE_TOKENIZE,
    CMI_ROUTE_DETOKENIZE,
    CMI_ROUTE_HEALTH,
    CMI_ROUTE_LIVENESS,
    CMI_ROUTE_PING,
    CMI_ROUTE_READINESS,
    CMI_ROUTE_READY,
    CMI_ROUTE_VERSION,
    CMI_ROUTE_METRICS,
    CMI_ROUTE_FLUSH_CACHE,
    CMI_ROUTE_RESET_PREFIX_CACHE,
    CMI_ROUTE_ABORT_REQUEST,
    CMI_ROUTE_NONE, /* every other path */
    CMI_N_HTTP_ROUTES,
} cmi_http_route_id;

/* Whose key opens a path (http_auth.c). */
typedef enum cmi_http_access {
    CMI_HTTP_ACCESS_USER,
    CMI_HTTP_ACCESS_ADMIN,
    CMI_HTTP_ACCESS_OPEN,
} cmi_http_access;

typedef struct cmi_http_route {
    const char *path; /* what metrics and logs call it */
    size_t n_prefix;  /* not 0: every path whose first n_prefix bytes are those of path */
    cmi_http_method method;
    cmi_http_access access;
    bool probe; /* asked for every few seconds by machines; not worth a log line */
} cmi_http_route;

cmi_http_method cmi_http_method_find(const char *method);
const char *cmi_http_method_name(cmi_http_method method);

/* path: unescaped, without the query. CMI_ROUTE_NONE when nothing is there. */
cmi_http_route_id cmi_http_route_find(const char *path);
const cmi_http_route *cmi_http_route_get(cmi_http_route_id id);

#endif
