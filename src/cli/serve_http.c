#include "cli/serve_http.h"

#include <assert.h>

void cmi_serve_http_append(cmi_option *table, cmi_serve_http *http)
{
    const cmi_option rows[] = {
        {"max-connections", "N",
         "clients' connections at once, as far as ulimit -n allows; more\n"
         "wait to be accepted (default 16384)",
         CMI_OPTION_UINT, &http->max_connections, 4, 60000},
        {"max-connections-per-address", "N",
         "of them from one address; more are closed (default: no limit)", CMI_OPTION_UINT,
         &http->max_connections_per_address, 1, 60000},
        {"idle-timeout", "SECONDS",
         "until the head of a connection's next request is there\n"
         "(default 60)",
         CMI_OPTION_UINT, &http->idle_timeout_s, 1, 86400},
        {"slow-client-timeout", "SECONDS",
         "for a body to come, or the rest of an answer to be taken, beside\n"
         "a second for each 16 KiB (default 30)",
         CMI_OPTION_UINT, &http->slow_timeout_s, 1, 86400},
        {"stream-buffer-kib", "N",
         "of a stream that its client has not taken; then it ends with an\n"
         "error (default 4096)",
         CMI_OPTION_UINT, &http->stream_buffer_kib, 16, 1 << 20},
        {"sse-ping-interval", "SECONDS",
         "of silence, until a comment is sent to keep a stream open\n"
         "(default 15)",
         CMI_OPTION_UINT, &http->ping_interval_s, 1, 86400},
        {0},
    };
    size_t n = 0;
    while (table[n].names != NULL) {
        n++;
    }
    assert(n + CMI_LEN(rows) <= CMI_SERVE_OPTIONS_MAX);
    for (size_t i = 0; i < CMI_LEN(rows); i++) {
        table[n + i] = rows[i];
    }
}

void cmi_serve_http_apply(const cmi_serve_http *http, cmi_server_options *server)
{
    server->max_connections = http->max_connections;
    server->max_connections_per_address = http->max_connections_per_address;
    server->idle_timeout_s = http->idle_timeout_s;
    server->slow_timeout_s = http->slow_timeout_s;
    server->max_unsent_bytes = (size_t)http->stream_buffer_kib << 10;
    server->ping_interval_ns = http->ping_interval_s * UINT64_C(1000000000);
}
