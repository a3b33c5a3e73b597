/* cli/serve_http.h - the options of `cminfer serve` that concern HTTP only. */
#ifndef CMI_CLI_SERVE_HTTP_H
#define CMI_CLI_SERVE_HTTP_H

#include "base/buf.h"
#include "cli/options.h"
#include "server/server.h"

/* Numbers: 0 is the server's default. */
typedef struct cmi_serve_http {
    uint32_t max_connections, max_connections_per_address;
    uint32_t idle_timeout_s, slow_timeout_s;
    uint32_t stream_buffer_kib;
    uint32_t ping_interval_s;
    const char *metrics_names; /* NULL: vLLM's */
    bool log_requests;         /* the default; taken so that others' command lines work */
    bool no_log_requests;
    cmi_option_list admin_api_keys;
    cmi_option_list admin_keys; /* the same, or the environment's */
    const char *tls_certificate_path, *tls_key_path;
    cmi_buf tls_certificate, tls_key; /* what is in these files */
} cmi_serve_http;

enum { CMI_SERVE_OPTIONS_MAX = 96 };

/* Appends rows that are stored in http to a table of CMI_SERVE_OPTIONS_MAX rows, before its end
 * mark. */
void cmi_serve_http_append(cmi_option *table, cmi_serve_http *http);

/* Reads the files that options name. CMI_ERR_INVALID: one without the other, or --metrics-names has
 * none of its values.
 * CMI_ERR_BAD_DATA: no PEM. Else as cmi_file_read. */
CMI_NODISCARD cmi_status cmi_serve_http_load(cmi_serve_http *http, cmi_error *err);
void cmi_serve_http_deinit(cmi_serve_http *http); /* zeroed is fine */

/* The keys that were given; if none were, that of the first of these variables that has one. */
cmi_option_list cmi_serve_http_keys(const cmi_option_list *given, const char *variable,
                                    const char *other_variable);

/* Puts what was given into the server's options; pointers are borrowed. */
void cmi_serve_http_apply(cmi_serve_http *http, cmi_server_options *server);

#endif
