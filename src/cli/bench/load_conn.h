/* cli/bench/load_conn.h - one connection of the load: sends a request, reads its answer. */
#ifndef CMI_CLI_BENCH_LOAD_CONN_H
#define CMI_CLI_BENCH_LOAD_CONN_H

#include "cli/bench/load_answer.h"
#include "cli/bench/load_target.h"

typedef struct cmi_load_conn {
    int fd; /* -1: none */
    bool is_connected;
    bool was_used;      /* it has carried a request before the one that runs */
    bool has_answer;    /* bytes of the answer have come */
    bool wants_write;   /* what epoll was last told */
    cmi_buf out;        /* the request */
    size_t n_sent;      /* bytes of it */
    size_t request_idx; /* SIZE_MAX: it is idle */
    size_t idle_idx;    /* its place among the idle ones, if it is */
    cmi_load_answer answer;
} cmi_load_conn;

void cmi_load_conn_init(cmi_load_conn *conn);
void cmi_load_conn_deinit(cmi_load_conn *conn);

/* Begins to connect. False, with a line in why (at least 128 bytes): it failed at once. */
CMI_NODISCARD bool cmi_load_conn_open(cmi_load_conn *conn, const cmi_load_target *target, char *why,
                                      size_t why_size);
void cmi_load_conn_close(cmi_load_conn *conn);

typedef enum cmi_load_conn_state {
    CMI_LOAD_CONN_WAITING, /* for the system to take or give more */
    CMI_LOAD_CONN_OVER,    /* the request is, and its record says how */
    CMI_LOAD_CONN_STALE,   /* the server had closed a used connection: send the request again */
} cmi_load_conn_state;

/* Goes on after an event of epoll (events: EPOLLIN, EPOLLOUT, ..); epoch_ns is the run's start.
 * scratch is any memory to read into. */
CMI_NODISCARD cmi_load_conn_state cmi_load_conn_go_on(cmi_load_conn *conn, uint32_t events,
                                                      uint64_t epoch_ns, char *scratch,
                                                      size_t scratch_bytes);

#endif
