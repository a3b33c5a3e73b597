/* cli/serve_http.h - the options of `cminfer serve` that concern HTTP only. */
#ifndef CMI_CLI_SERVE_HTTP_H
#define CMI_CLI_SERVE_HTTP_H

#include "cli/options.h"
#include "server/server.h"

/* Numbers: 0 is the server's default. */
typedef struct cmi_serve_http {
    uint32_t max_connections, max_connections_per_address;
    uint32_t idle_timeout_s, slow_timeout_s;
    uint32_t stream_buffer_kib;
    uint32_t ping_interval_s;
} cmi_serve_http;

enum { CMI_SERVE_OPTIONS_MAX = 96 };

/* Appends rows that are stored in http to a table of CMI_SERVE_OPTIONS_MAX rows, before its end
 * mark. */
void cmi_serve_http_append(cmi_option *table, cmi_serve_http *http);

/* Puts what was given into the server's options; pointers are borrowed. */
void cmi_serve_http_apply(const cmi_serve_http *http, cmi_server_options *server);

#endif
