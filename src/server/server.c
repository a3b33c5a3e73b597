#include "server/server_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/open_files.h"
#include "server/http_listen.h"

#define NS_PER_S UINT64_C(1000000000)

/* After work was cancelled: for the engine to say so and for clients to read their last bytes. */
#define CLOSE_TIMEOUT_NS (3 * NS_PER_S)

enum {
    MAX_CONNECTIONS = 60000,  /* an exchange's index has 16 bits */
    SPARE_DESCRIPTORS = 256,  /* beside connections: model files, epoll sets, logs */
    CONNECTION_BYTES = 32768, /* libmicrohttpd's memory for one; half of it bounds the head */
};

static char *copy_string(const char *s)
{
    return s == NULL ? NULL : cmi_strndup(s, strlen(s));
}

static const char *const *copy_strings(const char *const *from, size_t n)
{
    char **to = cmi_alloc(n, sizeof *to);
    for (size_t i = 0; i < n; i++) {
        to[i] = copy_string(from[i]);
    }
    return (const char *const *)to;
}

static void free_strings(const char *const *strings, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cmi_free((char *)strings[i]);
    }
    cmi_free((void *)strings);
}

static void options_copy(cmi_server_options *to, const cmi_server_options *from)
{
    *to = *from;
    to->host = copy_string(from->host == NULL ? "127.0.0.1" : from->host);
    to->tls_certificate = copy_string(from->tls_certificate);
    to->tls_key = copy_string(from->tls_key);
    to->model_name = copy_string(from->model_name == NULL ? "" : from->model_name);
    to->api_keys = copy_strings(from->api_keys, from->n_api_keys);
    to->admin_api_keys = copy_strings(from->admin_api_keys, from->n_admin_api_keys);
    to->max_body_bytes = from->max_body_bytes == 0 ? (size_t)10 << 20 : from->max_body_bytes;
    to->max_connections = from->max_connections == 0
                              ? 16384
                              : CMI_MIN(from->max_connections, (uint32_t)MAX_CONNECTIONS);
    to->idle_timeout_s = from->idle_timeout_s == 0 ? 60 : from->idle_timeout_s;
    to->slow_timeout_s = from->slow_timeout_s == 0 ? 30 : from->slow_timeout_s;
    to->slow_bytes_per_s = from->slow_bytes_per_s == 0 ? 16384 : from->slow_bytes_per_s;
    to->max_unsent_bytes = from->max_unsent_bytes == 0 ? (size_t)4 << 20 : from->max_unsent_bytes;
    to->ping_interval_ns = from->ping_interval_ns == 0
                               ? 15 * NS_PER_S
                               : CMI_MIN(from->ping_interval_ns, 86400 * NS_PER_S);
    to->n_threads = from->n_threads == 0 ? 4 : CMI_MAX(from->n_threads, 2u);
}

static void options_release(cmi_server_options *opt)
{
    free_strings(opt->api_keys, opt->n_api_keys);
    free_strings(opt->admin_api_keys, opt->n_admin_api_keys);
    cmi_free((char *)opt->host);
    cmi_free((char *)opt->model_name);
    cmi_free((char *)opt->tls_certificate);
    cmi_free((char *)opt->tls_key);
}

static void server_free(cmi_server *server)
{
    cmi_deadline_table_destroy(server->deadlines);
    cmi_exchange_table_destroy(server->exchanges);
    options_release(&server->opt);
    cmi_free(server);
}

/* No older TLS, whatever the system's policy allows. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

static cmi_status daemon_start(cmi_server *server, int listen_fd, cmi_error *err)
{
    const cmi_server_options *opt = &server->opt;
    bool has_tls = opt->tls_certificate != NULL;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (char *)opt->tls_certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (char *)opt->tls_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (char *)TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem items[] = {
        {MHD_OPTION_LISTEN_SOCKET, listen_fd, NULL},
        {MHD_OPTION_THREAD_POOL_SIZE, opt->n_threads, NULL},
        {MHD_OPTION_CONNECTION_LIMIT, opt->max_connections, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, opt->idle_timeout_s, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, NULL},
        {MHD_OPTION_PER_IP_CONNECTION_LIMIT, opt->max_connections_per_address, NULL},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)cmi_deadline_on_connection, server->deadlines},
        {MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t)cmi_http_unescape, NULL},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)cmi_http_on_completed, server},
        {has_tls ? MHD_OPTION_ARRAY : MHD_OPTION_END, 0, tls},
        {MHD_OPTION_END, 0, NULL},
    };
    unsigned flags = (has_tls ? MHD_USE_TLS : 0u) | MHD_USE_EPOLL_INTERNAL_THREAD |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    errno = 0;
    server->daemon = MHD_start_daemon(flags, 0, NULL, NULL, cmi_http_on_request, server,
                                      MHD_OPTION_ARRAY, items, MHD_OPTION_END);
    if (server->daemon == NULL) {
        int error = errno;
        close(listen_fd);
        return cmi_error_set(err, CMI_ERR_IO, "the HTTP server cannot start: %s",
                             error == 0 && has_tls
                                 ? "the certificate and the key do not go together"
                                 : strerror(error));
    }
    return CMI_OK;
}

/* Fewer connections where the system allows fewer descriptors. */
static void limit_connections(cmi_server_options *opt)
{
    uint64_t n_files = cmi_open_files_raise(opt->max_connections + SPARE_DESCRIPTORS);
    uint64_t n_fit = n_files > 2 * SPARE_DESCRIPTORS ? n_files - SPARE_DESCRIPTORS : n_files / 2;
    if (n_fit < opt->max_connections) {
        cmi_log(CMI_LOG_WARN,
                "at most %u connections at once, not %u: raise the limit of open files (ulimit -n)",
                (unsigned)n_fit, opt->max_connections);
        opt->max_connections = (uint32_t)n_fit;
    }
}

cmi_status cmi_server_start(cmi_server **server_out, const cmi_server_options *opt, cmi_error *err)
{
    cmi_server *server = cmi_alloc(1, sizeof *server);
    options_copy(&server->opt, opt);
    limit_connections(&server->opt);
    cmi_metrics_init(&server->metrics, server->opt.model_name);
    server->metrics.names = server->opt.metrics_names;
    int listen_fd = -1;
    if (opt->tls_certificate != NULL && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        server_free(server);
        return cmi_error_set(err, CMI_ERR_UNSUPPORTED, "libmicrohttpd was built without TLS");
    }
    cmi_status st =
        cmi_http_listen(server->opt.host, server->opt.port, &listen_fd, &server->port, err);
    if (st == CMI_OK) {
        cmi_exchange_options exchange_opt = {
            .n_max = server->opt.max_connections,
            .max_unsent_bytes = server->opt.max_unsent_bytes,
            .ping_interval_ns = server->opt.ping_interval_ns,
            .metrics = &server->metrics,
        };
        cmi_deadline_options deadline_opt = {
            .n_max = server->opt.max_connections,
            .idle_ns = server->opt.idle_timeout_s * NS_PER_S,
            .slow_ns = server->opt.slow_timeout_s * NS_PER_S,
            .bytes_per_s = server->opt.slow_bytes_per_s,
            .n_ended = &server->metrics.slow_clients,
        };
        st = cmi_exchange_table_create(&server->exchanges, &exchange_opt, err);
        if (st == CMI_OK) {
            st = cmi_deadline_table_create(&server->deadlines, &deadline_opt, err);
        }
        if (st != CMI_OK) {
            close(listen_fd);
        }
    }
    if (st == CMI_OK) {
        st = daemon_start(server, listen_fd, err);
    }
    if (st != CMI_OK) {
        server_free(server);
        return st;
    }
    *server_out = server;
    return CMI_OK;
}

cmi_status cmi_server_attach(cmi_server *server, const cmi_api *api, cmi_engine *engine,
                             cmi_error *err)
{
    cmi_status st = cmi_exchange_table_attach(server->exchanges, engine, err);
    if (st == CMI_OK) {
        atomic_store(&server->engine, engine);
        atomic_store(&server->api, api);
        atomic_store(&server->ready, true);
    }
    return st;
}

void cmi_server_set_ready(cmi_server *server, bool ready)
{
    atomic_store(&server->ready, ready);
}

uint16_t cmi_server_port(const cmi_server *server)
{
    return server->port;
}

void cmi_server_stop(cmi_server *server, uint64_t timeout_ns)
{
    if (server == NULL) {
        return;
    }
    atomic_store(&server->stopping, true);
    cmi_server_set_ready(server, false);
    uint64_t now_ns = cmi_clock_monotonic_ns();
    if (!cmi_exchange_table_wait_idle(server->exchanges,
                                      now_ns + CMI_MIN(timeout_ns, UINT64_MAX / 2))) {
        cmi_api_error why;
        cmi_http_error_set(&why, 503, "The server was stopped.");
        (void)cmi_exchange_table_abort(server->exchanges, NULL, &why);
        (void)cmi_exchange_table_wait_idle(server->exchanges,
                                           cmi_clock_monotonic_ns() + CLOSE_TIMEOUT_NS);
    }
    cmi_exchange_table_close(server->exchanges);
    MHD_stop_daemon(server->daemon); /* detaches every exchange, closes the listening socket */
    server_free(server);
}
