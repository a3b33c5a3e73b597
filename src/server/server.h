/* server/server.h - the HTTP server: libmicrohttpd around server/api.h, in front of one engine.
 *
 * Threads: a few of libmicrohttpd that read requests, parse them and write answers; one dispatcher
 * (server/http_exchange.h). The functions below are for the thread that started the server.
 *
 * A server may start before its model is loaded: it is alive then, not ready, and answers 503 to
 * what needs the model. */
#ifndef CMI_SERVER_SERVER_H
#define CMI_SERVER_SERVER_H

#include "server/api.h"
#include "server/metrics.h"

typedef struct cmi_server_options {
    const char *host; /* name or address; NULL: 127.0.0.1 */
    uint16_t port;    /* 0: the system picks one */
    /* No key is "". Any of api_keys opens what is not a probe; none: no key is needed. If there are
     * admin_api_keys, paths that change the server for everybody want one of those, which open all
     * else too. */
    const char *const *api_keys;
    size_t n_api_keys;
    const char *const *admin_api_keys;
    size_t n_admin_api_keys;
    /* PEM text: a certificate with its chain, and its key without a password. Both or none. With
     * them the port speaks TLS 1.2 and 1.3 only. */
    const char *tls_certificate, *tls_key;
    const char *model_name; /* the label of the metrics */
    cmi_metrics_names metrics_names;
    bool no_request_log; /* else each request leaves a line when it ends */
    uint64_t id_seed;    /* makes generated X-Request-Ids differ from other processes' */

    /* For requests that say nothing else: targets and timeout. */
    cmi_api_service service;

    /* Limits; 0 takes the default. */
    size_t max_body_bytes;                /* of a request; 10 MiB; beyond it 413 */
    uint32_t max_connections;             /* 16384, 60000 at most; more wait in the listen queue */
    uint32_t max_connections_per_address; /* of a client; more are closed at once; no limit */
    uint32_t idle_timeout_s;   /* until the head of the next request is there, and for a client that
                                  neither sends nor reads when it should; 60 */
    uint32_t slow_timeout_s;   /* for a body, and for what is left of an answer, on top of their
                                  time at the lowest speed; 30 */
    uint32_t slow_bytes_per_s; /* the lowest speed of a client; 16 KiB/s */
    size_t max_unsent_bytes;   /* of one stream, 4 MiB; a client that reads slower gets an error for
                                  its end, and its request is cancelled */
    uint64_t ping_interval_ns; /* of silence in a stream, then a comment goes out; 15 s,
                                  a day at most */
    uint32_t n_threads;        /* of libmicrohttpd, 2 at least; 4 */
} cmi_server_options;

typedef struct cmi_server cmi_server;

/* Listens and answers. Copies what the options point to.
 * CMI_ERR_INVALID: host is no address here. CMI_ERR_IO: the port is taken (err says by whom, where
 * that can be found, and how to choose another) or the system has no descriptors or threads left.
 * CMI_ERR_UNSUPPORTED: libmicrohttpd was built without TLS. */
CMI_NODISCARD cmi_status cmi_server_start(cmi_server **server_out, const cmi_server_options *opt,
                                          cmi_error *err);

/* Gives the server its model, once, and makes it ready. Both outlive the server; only the server
 * polls the engine from now on. */
CMI_NODISCARD cmi_status cmi_server_attach(cmi_server *server, const cmi_api *api,
                                           cmi_engine *engine, cmi_error *err);

/* Readiness as probes see it. A server that is not ready refuses work with 503 and finishes what it
 * has. */
void cmi_server_set_ready(cmi_server *server, bool ready);

uint16_t cmi_server_port(const cmi_server *server);

/* Stops admitting, lets running work finish for at most timeout_ns, ends the rest with an error to
 * its clients, closes all connections. Destroys the server; NULL is fine. */
void cmi_server_stop(cmi_server *server, uint64_t timeout_ns);

#endif
