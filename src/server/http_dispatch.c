/* server/http_dispatch.c - the dispatcher: the one thread that waits for engine and clients.
 *
 * Its epoll set holds the engine's event descriptor, a wake-up, and the socket of every client that
 * waits for an answer, because libmicrohttpd does not look at the sockets of connections that are
 * suspended. A client that closes, or only shuts down its sending side, counts as gone: its
 * requests are cancelled at once. Events of epoll carry the exchange's number, not a pointer or a
 * descriptor, so one that comes late for a closed and reused descriptor finds nobody.
 *
 * The clock is looked at only while there are streams. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "os/clock.h"
#include "server/http_error.h"
#include "server/http_exchange_internal.h"
#include "server/sse.h"

enum {
    EPOLL_BATCH = 64,
    EVENT_BATCH = 32,
    PING_CHECKS = 5, /* per ping interval */
};

static bool epoll_arm(int epoll_fd, int fd, uint32_t events, uint64_t name)
{
    struct epoll_event event = {.events = events, .data.u64 = name};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void cmi_dispatch_watch(cmi_exchange *ex)
{
    ex->watched =
        epoll_arm(ex->table->epoll_fd, ex->fd, EPOLLRDHUP | EPOLLONESHOT, cmi_exchange_number(ex));
    if (!ex->watched) {
        cmi_log(CMI_LOG_WARN, "a client's socket cannot be watched for its leaving: %s",
                strerror(errno));
    }
}

void cmi_dispatch_unwatch(cmi_exchange *ex)
{
    if (ex->watched) {
        (void)epoll_ctl(ex->table->epoll_fd, EPOLL_CTL_DEL, ex->fd, NULL);
        ex->watched = false;
    }
}

void cmi_dispatch_wake(cmi_exchange_table *table)
{
    (void)!write(table->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* Engine times are of the same clock; a time that did not happen is 0. */
static void observe_span(cmi_metrics *m, cmi_histogram_id id, uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns != 0 && to_ns >= from_ns) {
        cmi_metrics_observe(m, id, to_ns - from_ns);
    }
}

static void observe_token(cmi_exchange *ex, cmi_exchange_choice *choice, const cmi_event *event)
{
    cmi_metrics *m = ex->table->opt.metrics;
    if (choice->last_token_ns != 0) {
        observe_span(m, CMI_HISTOGRAM_ITL, choice->last_token_ns, event->now_ns);
    } else {
        observe_span(m, CMI_HISTOGRAM_TTFT, ex->arrival_ns, event->now_ns);
        if (ex->summary.ttft_ns == 0) {
            ex->summary.ttft_ns = event->now_ns - ex->arrival_ns;
            ex->summary.queue_ns = event->started_ns - event->submitted_ns;
            ex->summary.prefill_ns = event->now_ns - event->started_ns;
            ex->first_token_ns = event->now_ns;
        }
    }
    choice->last_token_ns = event->now_ns;
}

static void observe_finished(cmi_exchange *ex, uint32_t choice_idx, const cmi_event *event)
{
    cmi_metrics *m = ex->table->opt.metrics;
    const cmi_exchange_choice *choice = &ex->choices[choice_idx];
    uint32_t n_output = event->n_output_tokens;
    cmi_finish_reason reason = (cmi_finish_reason)event->finish_reason;
    if (reason == CMI_FINISH_ABORT && choice->stopped) {
        reason = CMI_FINISH_STOP;
    }
    ex->summary.finish = reason;
    if (ex->first_token_ns != 0) {
        ex->summary.decode_ns = event->now_ns - ex->first_token_ns;
    }
    ex->n_output_max = CMI_MAX(ex->n_output_max, n_output);

    cmi_metrics_finished(m, reason);
    observe_span(m, CMI_HISTOGRAM_E2E, ex->arrival_ns, event->now_ns);
    observe_span(m, CMI_HISTOGRAM_QUEUE, event->submitted_ns, event->started_ns);
    observe_span(m, CMI_HISTOGRAM_INFERENCE, event->started_ns, event->now_ns);
    observe_span(m, CMI_HISTOGRAM_PREFILL, event->started_ns, event->first_token_ns);
    observe_span(m, CMI_HISTOGRAM_DECODE, event->first_token_ns, event->now_ns);
    if (n_output > 1 && choice->last_token_ns >= event->first_token_ns) {
        cmi_metrics_observe(m, CMI_HISTOGRAM_TPOT,
                            (choice->last_token_ns - event->first_token_ns) / (n_output - 1));
    }
    const cmi_request *request = cmi_api_job_request(ex->job, choice_idx);
    cmi_metrics_observe(m, CMI_HISTOGRAM_PROMPT_TOKENS, request->n_prompt_tokens);
    cmi_metrics_observe(m, CMI_HISTOGRAM_GENERATION_TOKENS, n_output);
    cmi_metrics_observe(m, CMI_HISTOGRAM_PARAMS_MAX_TOKENS, request->max_tokens);
    if (ex->n_open == 0) {
        cmi_metrics_observe(m, CMI_HISTOGRAM_MAX_GENERATION_TOKENS, ex->n_output_max);
        cmi_metrics_observe(m, CMI_HISTOGRAM_PARAMS_N, cmi_api_job_n(ex->job));
    }
}

/* Moves what the job has made of an event to where libmicrohttpd's threads read it. */
static void take_output(cmi_exchange *ex, cmi_status st)
{
    cmi_buf *made = &ex->table->scratch;
    if (made->overflow) {
        cmi_api_error why;
        cmi_http_error_set(&why, 500, "The answer is too large to be sent.");
        cmi_exchange_fail(ex, &why);
        return;
    }
    if (!ex->is_stream) {
        if (st == CMI_OK) {
            cmi_buf whole = *made;
            *made = ex->out; /* empty, with the same limit */
            ex->out = whole;
        }
    } else if (made->len > 0) {
        if (!cmi_buf_append(&ex->out, made->data, made->len)) {
            cmi_api_error why;
            cmi_http_error_set(&why, 503, "The client reads too slowly: the stream was ended.");
            cmi_exchange_fail(ex, &why);
            return;
        }
        ex->last_byte_ns = cmi_clock_monotonic_ns();
    }
    if (st == CMI_OK) {
        cmi_exchange_complete(ex);
    }
    if (ex->complete || ex->out.len > 0) {
        cmi_exchange_resume(ex);
    }
}

/* Returns whether the engine is to be told that this choice's text is complete. */
static bool give_to_job(cmi_exchange *ex, cmi_exchange_choice *choice, const cmi_event *event)
{
    bool stopped = false;
    cmi_api_error why = {0};
    cmi_buf_clear(&ex->table->scratch);
    cmi_status st = cmi_api_job_event(ex->job, event, &ex->table->scratch, &stopped, &why);
    if (st < CMI_OK) {
        cmi_exchange_fail(ex, &why);
        return false;
    }
    choice->stopped |= stopped;
    take_output(ex, st);
    return stopped && !ex->complete;
}

static void on_engine_event(cmi_exchange_table *table, const cmi_event *event)
{
    uint64_t number = event->request_id / CMI_API_MAX_CHOICES;
    uint32_t choice_idx = event->request_id % CMI_API_MAX_CHOICES;
    cmi_exchange *ex = cmi_exchange_find_locked(table, number);
    if (ex == NULL) {
        return;
    }
    if (choice_idx >= ex->n_choices || ex->n_open == 0) {
        cmi_exchange_unlock(ex);
        return;
    }
    cmi_exchange_choice *choice = &ex->choices[choice_idx];
    bool was_complete = ex->complete;
    bool cancel_choice = !was_complete && give_to_job(ex, choice, event);
    if (event->type == CMI_EVENT_TOKEN) {
        observe_token(ex, choice, event);
    } else if (event->type == CMI_EVENT_FINISHED) {
        ex->n_open--;
        observe_finished(ex, choice_idx, event);
    }
    uint32_t n_cancel = ex->complete && !was_complete && ex->n_open > 0 ? ex->n_choices : 0;
    cmi_exchange_unlock(ex);
    if (cancel_choice) {
        cmi_engine_cancel(atomic_load(&table->engine), event->request_id);
    }
    cmi_exchange_cancel_all(table, number, n_cancel);
}

static void drain_engine(cmi_exchange_table *table)
{
    cmi_engine *engine = atomic_load(&table->engine);
    uint64_t count;
    (void)!read(cmi_engine_event_fd(engine), &count, sizeof count);
    cmi_event events[EVENT_BATCH];
    size_t n;
    do {
        n = cmi_engine_poll(engine, events, EVENT_BATCH);
        for (size_t i = 0; i < n; i++) {
            on_engine_event(table, &events[i]);
        }
    } while (n > 0);
}

static void on_client_left(cmi_exchange_table *table, uint64_t number)
{
    cmi_exchange *ex = cmi_exchange_find_locked(table, number);
    if (ex == NULL) {
        return;
    }
    uint32_t n_cancel = 0;
    if (ex->connection != NULL && !ex->complete) {
        ex->gone = ex->complete = true;
        n_cancel = ex->n_open > 0 ? ex->n_choices : 0;
        /* Ends a write that libmicrohttpd may be waiting in. The descriptor is the client's: it is
         * closed only after the exchange was detached. */
        (void)shutdown(ex->fd, SHUT_RDWR);
        cmi_exchange_resume(ex);
    }
    cmi_exchange_unlock(ex);
    cmi_exchange_cancel_all(table, number, n_cancel);
}

static void ping_silent_streams(cmi_exchange_table *table, uint64_t now_ns)
{
    for (uint32_t i = 0; i < table->opt.n_max; i++) {
        cmi_exchange *ex = &table->exchanges[i];
        pthread_mutex_lock(&ex->lock);
        if (ex->is_stream && ex->suspended && ex->out.len == 0 &&
            now_ns >= ex->last_byte_ns + table->opt.ping_interval_ns) {
            cmi_sse_ping(&ex->out);
            ex->last_byte_ns = now_ns;
            cmi_exchange_resume(ex);
        }
        cmi_exchange_unlock(ex);
    }
}

static void *dispatch(void *arg)
{
    cmi_exchange_table *table = arg;
    uint64_t check_ns = CMI_MAX(table->opt.ping_interval_ns / PING_CHECKS, UINT64_C(1000000));
    uint64_t next_check_ns = cmi_clock_monotonic_ns() + check_ns;
    struct epoll_event events[EPOLL_BATCH];
    while (!atomic_load(&table->stop)) {
        bool has_streams = atomic_load(&table->n_streams) > 0;
        int timeout_ms = has_streams ? (int)(check_ns / 1000000) : -1;
        int n = epoll_wait(table->epoll_fd, events, EPOLL_BATCH, timeout_ms);
        for (int i = 0; i < n; i++) {
            uint64_t name = events[i].data.u64;
            uint64_t count;
            if (name == CMI_DISPATCH_ENGINE) {
                drain_engine(table);
            } else if (name == CMI_DISPATCH_WAKE) {
                (void)!read(table->wake_fd, &count, sizeof count);
            } else {
                on_client_left(table, name);
            }
        }
        uint64_t now_ns = cmi_clock_monotonic_ns();
        if (has_streams && now_ns >= next_check_ns) {
            ping_silent_streams(table, now_ns);
            next_check_ns = now_ns + check_ns;
        }
    }
    return NULL;
}

cmi_status cmi_dispatch_watch_engine(cmi_exchange_table *table, int fd, cmi_error *err)
{
    if (!epoll_arm(table->epoll_fd, fd, EPOLLIN, CMI_DISPATCH_ENGINE)) {
        return cmi_error_set(err, CMI_ERR_IO, "the engine's events cannot be watched: %s",
                             strerror(errno));
    }
    return CMI_OK;
}

cmi_status cmi_dispatch_start(cmi_exchange_table *table, cmi_error *err)
{
    table->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    table->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (table->epoll_fd < 0 || table->wake_fd < 0 ||
        !epoll_arm(table->epoll_fd, table->wake_fd, EPOLLIN, CMI_DISPATCH_WAKE)) {
        return cmi_error_set(err, CMI_ERR_IO, "the server cannot wait for events: %s",
                             strerror(errno));
    }
    int rc = pthread_create(&table->thread, NULL, dispatch, table);
    if (rc != 0) {
        return cmi_error_set(err, CMI_ERR_IO, "the server cannot start a thread: %s", strerror(rc));
    }
    table->has_thread = true;
    return CMI_OK;
}

void cmi_dispatch_stop(cmi_exchange_table *table)
{
    if (table->has_thread) {
        atomic_store(&table->stop, true);
        cmi_dispatch_wake(table);
        pthread_join(table->thread, NULL);
    }
    if (table->wake_fd >= 0) {
        close(table->wake_fd);
    }
    if (table->epoll_fd >= 0) {
        close(table->epoll_fd);
    }
}
