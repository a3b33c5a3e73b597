#include "cli/serve_http.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "os/file.h"

#define MAX_PEM_BYTES ((size_t)1 << 20)

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
        {"no-log-requests|disable-log-requests|no-enable-log-requests", NULL,
         "no line in the log for each request that ends", CMI_OPTION_FLAG, &http->no_log_requests,
         0, 0},
        {"log-requests|enable-log-requests", NULL, NULL, CMI_OPTION_FLAG, &http->log_requests, 0,
         0},
        {"metrics-names", "WHOSE", "vllm (the default), sglang or both: the names of /metrics",
         CMI_OPTION_TEXT, &http->metrics_names, 0, 0},
        {"admin-api-key", "KEY",
         "wanted for /flush_cache, /reset_prefix_cache, /abort_request, and\n"
         "good for all else; may be given several times (default:\n"
         "$CMINFER_ADMIN_API_KEY, or as --api-key)",
         CMI_OPTION_LIST, &http->admin_api_keys, 0, 0},
        {"ssl-certfile", "FILE",
         "a certificate with its chain in PEM; the port then speaks TLS\n"
         "1.2 and 1.3 only",
         CMI_OPTION_TEXT, &http->tls_certificate_path, 0, 0},
        {"ssl-keyfile", "FILE", "its key in PEM, without a password", CMI_OPTION_TEXT,
         &http->tls_key_path, 0, 0},
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

static cmi_status read_pem(cmi_buf *out, const char *path, const char *what, cmi_error *err)
{
    cmi_status st = cmi_file_read(out, path, MAX_PEM_BYTES, err);
    if (st == CMI_OK && strstr(cmi_buf_cstr(out), "-----BEGIN ") == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s holds no %s in PEM", path, what);
    }
    return st;
}

/* In the order of the enumeration. */
static const char *const METRICS_NAMES[] = {"vllm", "sglang", "both"};

static size_t metrics_names_find(const cmi_serve_http *http)
{
    size_t i = 0;
    while (http->metrics_names != NULL && i < CMI_LEN(METRICS_NAMES) &&
           strcmp(http->metrics_names, METRICS_NAMES[i]) != 0) {
        i++;
    }
    return i;
}

cmi_status cmi_serve_http_load(cmi_serve_http *http, cmi_error *err)
{
    if (metrics_names_find(http) == CMI_LEN(METRICS_NAMES)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--metrics-names takes vllm, sglang or both, not \"%s\"",
                             http->metrics_names);
    }
    if (http->tls_certificate_path == NULL && http->tls_key_path == NULL) {
        return CMI_OK;
    }
    if (http->tls_certificate_path == NULL || http->tls_key_path == NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--ssl-certfile and --ssl-keyfile go together");
    }
    cmi_status st =
        read_pem(&http->tls_certificate, http->tls_certificate_path, "certificate", err);
    return st != CMI_OK ? st : read_pem(&http->tls_key, http->tls_key_path, "key", err);
}

void cmi_serve_http_deinit(cmi_serve_http *http)
{
    cmi_buf_deinit(&http->tls_certificate);
    cmi_buf_deinit(&http->tls_key);
}

cmi_option_list cmi_serve_http_keys(const cmi_option_list *given, const char *variable,
                                    const char *other_variable)
{
    cmi_option_list keys = *given;
    const char *key = getenv(variable);
    if (key == NULL || key[0] == '\0') {
        key = other_variable == NULL ? NULL : getenv(other_variable);
    }
    if (keys.n_items == 0 && key != NULL && key[0] != '\0') {
        keys.items[keys.n_items++] = key;
    }
    return keys;
}

void cmi_serve_http_apply(cmi_serve_http *http, cmi_server_options *server)
{
    if (http->tls_key.len > 0) {
        server->tls_certificate = cmi_buf_cstr(&http->tls_certificate);
        server->tls_key = cmi_buf_cstr(&http->tls_key);
    }
    http->admin_keys = cmi_serve_http_keys(&http->admin_api_keys, "CMINFER_ADMIN_API_KEY", NULL);
    server->admin_api_keys = http->admin_keys.items;
    server->n_admin_api_keys = http->admin_keys.n_items;
    server->metrics_names = (cmi_metrics_names)metrics_names_find(http);
    server->no_request_log = http->no_log_requests;
    server->max_connections = http->max_connections;
    server->max_connections_per_address = http->max_connections_per_address;
    server->idle_timeout_s = http->idle_timeout_s;
    server->slow_timeout_s = http->slow_timeout_s;
    server->max_unsent_bytes = (size_t)http->stream_buffer_kib << 10;
    server->ping_interval_ns = http->ping_interval_s * UINT64_C(1000000000);
}
