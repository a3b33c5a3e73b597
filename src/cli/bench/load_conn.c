#include "cli/bench/load_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "os/clock.h"

enum { MAX_REQUEST_BYTES = 1 << 30 };

void cmi_load_conn_init(cmi_load_conn *conn)
{
    *conn = (cmi_load_conn){.fd = -1, .request_idx = SIZE_MAX, .idle_idx = SIZE_MAX};
    cmi_buf_init(&conn->out, MAX_REQUEST_BYTES);
    cmi_load_answer_init(&conn->answer);
}

void cmi_load_conn_deinit(cmi_load_conn *conn)
{
    cmi_load_conn_close(conn);
    cmi_buf_deinit(&conn->out);
    cmi_load_answer_deinit(&conn->answer);
}

bool cmi_load_conn_open(cmi_load_conn *conn, const cmi_load_target *target, char *why,
                        size_t why_size)
{
    const struct sockaddr *address = (const struct sockaddr *)&target->address;
    conn->is_connected = conn->was_used = conn->has_answer = conn->wants_write = false;
    conn->n_sent = 0;
    conn->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (conn->fd >= 0) {
        (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (connect(conn->fd, address, target->address_bytes) == 0 || errno == EINPROGRESS) {
            return true;
        }
    }
    snprintf(why, why_size, "cannot connect: %s", strerror(errno));
    cmi_load_conn_close(conn);
    return false;
}

void cmi_load_conn_close(cmi_load_conn *conn)
{
    if (conn->fd >= 0) {
        close(conn->fd);
        conn->fd = -1;
    }
}

static cmi_load_conn_state fail(cmi_load_conn *conn, const char *what, int error, uint64_t now_ns)
{
    if (conn->was_used && !conn->has_answer) {
        return CMI_LOAD_CONN_STALE;
    }
    char line[160];
    snprintf(line, sizeof line, "%s: %s", what, strerror(error));
    cmi_load_record_fail(conn->answer.record, CMI_LOAD_CONNECTION, line);
    conn->answer.record->end_ns = now_ns;
    return CMI_LOAD_CONN_OVER;
}

static cmi_load_conn_state send_more(cmi_load_conn *conn, uint64_t epoch_ns)
{
    while (conn->n_sent < conn->out.len) {
        ssize_t n = send(conn->fd, conn->out.data + conn->n_sent, conn->out.len - conn->n_sent,
                         MSG_NOSIGNAL);
        if (n >= 0) {
            conn->n_sent += (size_t)n;
        } else if (errno == EAGAIN || errno == EINTR) {
            return CMI_LOAD_CONN_WAITING;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            /* An answer (413, 429) may have come before the request was taken: read it. */
            conn->n_sent = conn->out.len;
        } else {
            return fail(conn, "cannot send", errno, cmi_clock_monotonic_ns() - epoch_ns);
        }
    }
    return CMI_LOAD_CONN_WAITING;
}

static cmi_load_conn_state receive_more(cmi_load_conn *conn, uint64_t epoch_ns, char *scratch,
                                        size_t scratch_bytes)
{
    for (;;) {
        ssize_t n = recv(conn->fd, scratch, scratch_bytes, 0);
        int error = errno;
        uint64_t now_ns = cmi_clock_monotonic_ns() - epoch_ns;
        if (n < 0 && (error == EAGAIN || error == EINTR)) {
            return CMI_LOAD_CONN_WAITING;
        }
        if (n < 0) {
            return fail(conn, "connection lost", error, now_ns);
        }
        if (n == 0) {
            if (conn->was_used && !conn->has_answer) {
                return CMI_LOAD_CONN_STALE;
            }
            cmi_load_answer_end(&conn->answer, now_ns);
            return CMI_LOAD_CONN_OVER;
        }
        conn->has_answer = true;
        if (cmi_load_answer_feed(&conn->answer, scratch, (size_t)n, now_ns)) {
            return CMI_LOAD_CONN_OVER;
        }
        if ((size_t)n < scratch_bytes) {
            return CMI_LOAD_CONN_WAITING; /* epoll tells when there is more */
        }
    }
}

/* The outcome of a connect that did not block. */
static cmi_load_conn_state finish_connect(cmi_load_conn *conn, uint64_t epoch_ns)
{
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0) {
        error = errno;
    }
    conn->is_connected = error == 0;
    return error == 0 ? CMI_LOAD_CONN_WAITING
                      : fail(conn, "cannot connect", error, cmi_clock_monotonic_ns() - epoch_ns);
}

cmi_load_conn_state cmi_load_conn_go_on(cmi_load_conn *conn, uint32_t events, uint64_t epoch_ns,
                                        char *scratch, size_t scratch_bytes)
{
    cmi_load_conn_state state = CMI_LOAD_CONN_WAITING;
    if (!conn->is_connected) {
        state = finish_connect(conn, epoch_ns);
    }
    if (state == CMI_LOAD_CONN_WAITING && conn->n_sent < conn->out.len) {
        state = send_more(conn, epoch_ns);
    }
    if (state == CMI_LOAD_CONN_WAITING && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        state = receive_more(conn, epoch_ns, scratch, scratch_bytes);
    }
    return state;
}
