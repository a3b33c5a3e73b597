#include "cli/bench/load_client.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/bench/load_conn.h"
#include "cli/bench/load_random.h"
#include "os/clock.h"

enum {
    MAX_BODY_BYTES = 512 << 20,
    SCRATCH_BYTES = 64 << 10,
    STARTS_A_TURN = 32, /* then answers are looked at: making a long prompt takes time */
    EVENTS_A_TURN = 256,
};

/* What epoll says instead of a connection's index. */
#define TAG_TIMER UINT64_MAX
#define TAG_SIGNAL (UINT64_MAX - 1)

/* A stack of indices of connections. */
typedef struct conn_stack {
    uint32_t *items;
    uint32_t n;
} conn_stack;

typedef struct client {
    const cmi_load_client_options *opt;
    cmi_load_record *records;
    size_t n;            /* requests */
    size_t next;         /* the first that has not started */
    size_t first_open;   /* all before it are over; those behind start later, so time out later */
    size_t first_cancel; /* all before it are over or need not be given up */
    size_t n_over;
    uint32_t n_open;
    uint32_t *conn_of;  /* of each request */
    bool *is_cancelled; /* of each request: to be given up */
    cmi_load_conn **conns;
    uint32_t n_conns;
    conn_stack idle;  /* open, without a request */
    conn_stack spare; /* closed */
    int epoll_fd, timer_fd, signal_fd;
    sigset_t old_mask;
    uint64_t epoch_ns; /* the run's start on the clock */
    uint64_t full_ns;  /* when all slots were taken last, since the start */
    uint64_t armed_ns; /* what the timer is set to; 0: not */
    bool is_stopping;
    char *scratch;
    cmi_buf body;
} client;

static uint64_t now_ns(const client *c)
{
    return cmi_clock_monotonic_ns() - c->epoch_ns;
}

static void watch(client *c, int fd, uint64_t tag, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    (void)epoll_ctl(c->epoll_fd, operation, fd, &event);
}

static void write_request(client *c, size_t idx, cmi_buf *out)
{
    const cmi_load_client_options *opt = c->opt;
    cmi_buf_clear(&c->body);
    cmi_load_prompts_write(opt->prompts, opt->data, idx, &c->body);
    cmi_buf_clear(out);
    cmi_buf_str(out, "POST ");
    cmi_load_target_path(opt->target, opt->endpoint, out);
    cmi_buf_printf(out,
                   " HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                   "Accept: text/event-stream\r\nContent-Length: %zu\r\n%s\r\n",
                   opt->target->authority, c->body.len, opt->headers);
    cmi_buf_append(out, c->body.data, c->body.len);
}

/* A connection that is idle, else one that is to be opened. */
static uint32_t take_conn(client *c)
{
    if (c->idle.n > 0) {
        return c->idle.items[--c->idle.n];
    }
    if (c->spare.n > 0) {
        return c->spare.items[--c->spare.n];
    }
    cmi_load_conn *conn = cmi_alloc(1, sizeof *conn);
    cmi_load_conn_init(conn);
    c->conns[c->n_conns] = conn;
    return c->n_conns++;
}

static void put_away(client *c, uint32_t conn_idx, bool keeps_open)
{
    cmi_load_conn *conn = c->conns[conn_idx];
    conn->request_idx = SIZE_MAX;
    if (keeps_open) {
        conn->idle_idx = c->idle.n;
        c->idle.items[c->idle.n++] = conn_idx;
    } else {
        cmi_load_conn_close(conn);
        c->spare.items[c->spare.n++] = conn_idx;
    }
}

/* The request of this connection is over. */
static void release(client *c, uint32_t conn_idx, uint64_t at_ns)
{
    cmi_load_conn *conn = c->conns[conn_idx];
    if (c->n_open == c->opt->max_concurrency) {
        c->full_ns = at_ns;
    }
    c->n_open--;
    c->n_over++;
    put_away(c, conn_idx,
             conn->fd >= 0 && conn->n_sent == conn->out.len &&
                 cmi_load_answer_keeps_alive(&conn->answer));
}

/* Ends a request from this side. */
static void give_up(client *c, size_t idx, cmi_load_outcome outcome, const char *line)
{
    cmi_load_conn *conn = c->conns[c->conn_of[idx]];
    cmi_load_record *record = &c->records[idx];
    record->end_ns = now_ns(c);
    if (outcome == CMI_LOAD_TIMEOUT && cmi_load_answer_is_done(&conn->answer)) {
        record->outcome = CMI_LOAD_COMPLETED;
    }
    cmi_load_record_fail(record, outcome, line);
    cmi_load_conn_close(conn);
    release(c, c->conn_of[idx], record->end_ns);
}

static bool open_conn(client *c, uint32_t conn_idx)
{
    cmi_load_conn *conn = c->conns[conn_idx];
    char why[128];
    if (!cmi_load_conn_open(conn, c->opt->target, why, sizeof why)) {
        cmi_load_record_fail(conn->answer.record, CMI_LOAD_CONNECTION, why);
        conn->answer.record->end_ns = now_ns(c);
        release(c, conn_idx, conn->answer.record->end_ns);
        return false;
    }
    conn->wants_write = true;
    watch(c, conn->fd, conn_idx, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    return true;
}

static void go_on(client *c, uint32_t conn_idx, uint32_t events)
{
    cmi_load_conn *conn = c->conns[conn_idx];
    cmi_load_record *record = conn->answer.record;
    switch (cmi_load_conn_go_on(conn, events, c->epoch_ns, c->scratch, SCRATCH_BYTES)) {
    case CMI_LOAD_CONN_OVER:
        release(c, conn_idx, record->end_ns);
        return;
    case CMI_LOAD_CONN_STALE:
        cmi_load_conn_close(conn);
        cmi_load_answer_begin(&conn->answer, record, c->opt->keeps_text);
        (void)open_conn(c, conn_idx);
        return;
    case CMI_LOAD_CONN_WAITING:
        break;
    }
    bool wants_write = conn->n_sent < conn->out.len;
    if (wants_write != conn->wants_write) {
        conn->wants_write = wants_write;
        watch(c, conn->fd, conn_idx, EPOLLIN | (wants_write ? EPOLLOUT : 0u), EPOLL_CTL_MOD);
    }
}

static void start(client *c, size_t idx)
{
    cmi_load_record *record = &c->records[idx];
    uint32_t conn_idx = take_conn(c);
    cmi_load_conn *conn = c->conns[conn_idx];
    write_request(c, idx, &conn->out);
    c->conn_of[idx] = conn_idx;
    c->n_open++;
    conn->request_idx = idx;
    record->due_ns = c->opt->data->requests[idx].due_ns;
    record->waited = record->due_ns < c->full_ns;
    record->start_ns = now_ns(c);
    cmi_load_answer_begin(&conn->answer, record, c->opt->keeps_text);
    if (conn->fd < 0) {
        (void)open_conn(c, conn_idx);
    } else {
        conn->was_used = true;
        conn->has_answer = false;
        conn->n_sent = 0;
        go_on(c, conn_idx, 0);
    }
}

static bool can_start(const client *c)
{
    return !c->is_stopping && c->next < c->n && c->n_open < c->opt->max_concurrency;
}

/* True: there are more. */
static bool start_due(client *c)
{
    for (int i = 0; can_start(c) && c->opt->data->requests[c->next].due_ns <= now_ns(c); i++) {
        if (i == STARTS_A_TURN) {
            return true;
        }
        start(c, c->next++);
    }
    return false;
}

static bool is_over(const client *c, size_t idx)
{
    return c->records[idx].outcome != CMI_LOAD_OPEN;
}

/* Gives up what has taken too long, or was to be given up. */
static void expire(client *c)
{
    const cmi_load_client_options *opt = c->opt;
    uint64_t now = now_ns(c);
    for (; c->first_cancel < c->next; c->first_cancel++) {
        bool is_candidate = c->is_cancelled[c->first_cancel] && !is_over(c, c->first_cancel);
        if (is_candidate && c->records[c->first_cancel].start_ns + opt->cancel_delay_ns > now) {
            break;
        }
        if (is_candidate) {
            give_up(c, c->first_cancel, CMI_LOAD_CANCELLED, "cancelled by --cancel-rate");
        }
    }
    for (; c->first_open < c->next; c->first_open++) {
        if (!is_over(c, c->first_open)) {
            if (c->records[c->first_open].start_ns + opt->timeout_ns > now) {
                break;
            }
            give_up(c, c->first_open, CMI_LOAD_TIMEOUT, "no complete answer within --timeout");
        }
    }
}

/* Sets the timer to what comes first: a request that is due, or one that is to be given up. */
static void arm(client *c)
{
    uint64_t at = UINT64_MAX;
    if (can_start(c)) {
        at = c->opt->data->requests[c->next].due_ns;
    }
    if (c->first_cancel < c->next) {
        at = CMI_MIN(at, c->records[c->first_cancel].start_ns + c->opt->cancel_delay_ns);
    }
    if (c->first_open < c->next) {
        at = CMI_MIN(at, c->records[c->first_open].start_ns + c->opt->timeout_ns);
    }
    uint64_t clock_ns = at == UINT64_MAX ? 0 : c->epoch_ns + at;
    if (clock_ns != c->armed_ns) {
        c->armed_ns = clock_ns;
        struct itimerspec when = {.it_value = {.tv_sec = (time_t)(clock_ns / 1000000000u),
                                               .tv_nsec = (long)(clock_ns % 1000000000u)}};
        (void)timerfd_settime(c->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    }
}

static void stop(client *c)
{
    struct signalfd_siginfo info;
    (void)!read(c->signal_fd, &info, sizeof info);
    sigprocmask(SIG_SETMASK, &c->old_mask, NULL); /* the second one ends the process */
    c->is_stopping = true;
    for (size_t i = c->first_open; i < c->next; i++) {
        if (!is_over(c, i)) {
            give_up(c, i, CMI_LOAD_CANCELLED, "interrupted");
        }
    }
}

/* Something came on a connection without a request: its end, or what nobody asked for. */
static void drop_idle(client *c, uint32_t conn_idx)
{
    size_t hole = c->conns[conn_idx]->idle_idx;
    uint32_t last = c->idle.items[--c->idle.n];
    c->idle.items[hole] = last;
    c->conns[last]->idle_idx = hole;
    put_away(c, conn_idx, false);
}

static void take_event(client *c, const struct epoll_event *event)
{
    uint64_t expirations;
    if (event->data.u64 == TAG_TIMER) {
        (void)!read(c->timer_fd, &expirations, sizeof expirations);
        c->armed_ns = 0;
    } else if (event->data.u64 == TAG_SIGNAL) {
        stop(c);
    } else if (c->conns[event->data.u64]->fd < 0) {
        return; /* given up in this turn */
    } else if (c->conns[event->data.u64]->request_idx == SIZE_MAX) {
        drop_idle(c, (uint32_t)event->data.u64);
    } else {
        go_on(c, (uint32_t)event->data.u64, event->events);
    }
}

static cmi_status loop(client *c, cmi_error *err)
{
    struct epoll_event events[EVENTS_A_TURN];
    while (c->n_over < c->n && !(c->is_stopping && c->n_open == 0)) {
        bool has_more = start_due(c);
        expire(c);
        arm(c);
        if (c->n_over == c->n) {
            break;
        }
        int n = epoll_wait(c->epoll_fd, events, EVENTS_A_TURN, has_more ? 0 : -1);
        if (n < 0 && errno != EINTR) {
            return cmi_error_set(err, CMI_ERR_IO, "epoll_wait: %s", strerror(errno));
        }
        for (int i = 0; i < n; i++) {
            take_event(c, &events[i]);
        }
        if (c->opt->progress != NULL) {
            cmi_progress_count(c->opt->progress, c->n_over, c->n);
        }
    }
    return CMI_OK;
}

static void choose_cancelled(client *c)
{
    cmi_load_random random;
    cmi_load_random_init(&random, c->opt->seed, CMI_LOAD_STREAM_CANCELS, 0);
    for (size_t i = 0; i < c->n; i++) {
        c->is_cancelled[i] = cmi_load_random_uniform(&random) < c->opt->cancel_rate;
    }
}

static cmi_status open_all(client *c, cmi_error *err)
{
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &c->old_mask);
    c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    c->signal_fd = signalfd(-1, &interrupt, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->epoll_fd < 0 || c->timer_fd < 0 || c->signal_fd < 0) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot make epoll, timer and signal descriptors: %s",
                             strerror(errno));
    }
    watch(c, c->timer_fd, TAG_TIMER, EPOLLIN, EPOLL_CTL_ADD);
    watch(c, c->signal_fd, TAG_SIGNAL, EPOLLIN, EPOLL_CTL_ADD);
    return CMI_OK;
}

static void close_all(client *c)
{
    const int fds[] = {c->epoll_fd, c->timer_fd, c->signal_fd};
    for (size_t i = 0; i < CMI_LEN(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    for (uint32_t i = 0; i < c->n_conns; i++) {
        cmi_load_conn_deinit(c->conns[i]);
        cmi_free(c->conns[i]);
    }
    sigprocmask(SIG_SETMASK, &c->old_mask, NULL);
    cmi_free(c->conns);
    cmi_free(c->idle.items);
    cmi_free(c->spare.items);
    cmi_free(c->conn_of);
    cmi_free(c->is_cancelled);
    cmi_free(c->scratch);
    cmi_buf_deinit(&c->body);
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

cmi_status cmi_load_client_run(const cmi_load_client_options *opt, cmi_load_record *records,
                               cmi_load_client_result *result_out, cmi_error *err)
{
    size_t n = opt->data->n;
    size_t n_slots = CMI_MIN(n, (size_t)opt->max_concurrency) + 1;
    client c = {.opt = opt, .records = records, .n = n};
    c.conn_of = cmi_alloc(n, sizeof *c.conn_of);
    c.is_cancelled = cmi_alloc(n, sizeof *c.is_cancelled);
    c.conns = cmi_alloc(n_slots, sizeof(cmi_load_conn *));
    c.idle.items = cmi_alloc(n_slots, sizeof *c.idle.items);
    c.spare.items = cmi_alloc(n_slots, sizeof *c.spare.items);
    c.scratch = cmi_alloc(SCRATCH_BYTES, 1);
    cmi_buf_init(&c.body, MAX_BODY_BYTES);
    choose_cancelled(&c);
    cmi_status st = open_all(&c, err);
    uint64_t cpu_before = cpu_ns();
    c.epoch_ns = cmi_clock_monotonic_ns();
    if (st == CMI_OK) {
        st = loop(&c, err);
    }
    *result_out = (cmi_load_client_result){.duration_ns = now_ns(&c),
                                           .cpu_ns = cpu_ns() - cpu_before,
                                           .is_interrupted = c.is_stopping};
    close_all(&c);
    return st;
}
