#include "server/http_route.h"

#include <string.h>

static const cmi_http_route ROUTES[CMI_N_HTTP_ROUTES] = {
    [CMI_ROUTE_CHAT_COMPLETIONS] = {"/v1/chat/completions", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_USER,
                                    false},
    [CMI_ROUTE_COMPLETIONS] = {"/v1/completions", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_MODELS] = {"/v1/models", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_MODEL] = {"/v1/models/{model}", sizeof "/v1/models/" - 1, CMI_HTTP_GET,
                         CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_TOKENIZE] = {"/tokenize", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_DETOKENIZE] = {"/detokenize", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_HEALTH] = {"/health", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_OPEN, true},
    [CMI_ROUTE_LIVENESS] = {"/liveness", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_OPEN, true},
    [CMI_ROUTE_PING] = {"/ping", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_OPEN, true},
    [CMI_ROUTE_READINESS] = {"/readiness", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_OPEN, true},
    [CMI_ROUTE_READY] = {"/ready", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_OPEN, true},
    [CMI_ROUTE_VERSION] = {"/version", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_USER, false},
    [CMI_ROUTE_METRICS] = {"/metrics", 0, CMI_HTTP_GET, CMI_HTTP_ACCESS_USER, true},
    [CMI_ROUTE_FLUSH_CACHE] = {"/flush_cache", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_ADMIN, false},
    [CMI_ROUTE_RESET_PREFIX_CACHE] = {"/reset_prefix_cache", 0, CMI_HTTP_POST,
                                      CMI_HTTP_ACCESS_ADMIN, false},
    [CMI_ROUTE_ABORT_REQUEST] = {"/abort_request", 0, CMI_HTTP_POST, CMI_HTTP_ACCESS_ADMIN, false},
    [CMI_ROUTE_NONE] = {"none", 0, CMI_HTTP_OTHER, CMI_HTTP_ACCESS_USER, false},
};

static const char *const METHOD_NAMES[CMI_N_HTTP_METHODS] = {
    [CMI_HTTP_GET] = "GET",
    [CMI_HTTP_POST] = "POST",
    [CMI_HTTP_OPTIONS] = "OPTIONS",
    [CMI_HTTP_OTHER] = "OTHER",
};

cmi_http_method cmi_http_method_find(const char *method)
{
    if (strcmp(method, "HEAD") == 0) {
        return CMI_HTTP_GET;
    }
    for (int i = 0; i < CMI_HTTP_OTHER; i++) {
        if (strcmp(method, METHOD_NAMES[i]) == 0) {
            return (cmi_http_method)i;
        }
    }
    return CMI_HTTP_OTHER;
}

const char *cmi_http_method_name(cmi_http_method method)
{
    return METHOD_NAMES[method];
}

cmi_http_route_id cmi_http_route_find(const char *path)
{
    for (int i = 0; i < CMI_ROUTE_NONE; i++) {
        const cmi_http_route *route = &ROUTES[i];
        bool found = route->n_prefix == 0 ? strcmp(path, route->path) == 0
                                          : strncmp(path, route->path, route->n_prefix) == 0 &&
                                                path[route->n_prefix] != '\0';
        if (found) {
            return (cmi_http_route_id)i;
        }
    }
    return CMI_ROUTE_NONE;
}

const cmi_http_route *cmi_http_route_get(cmi_http_route_id id)
{
    return &ROUTES[id];
}
