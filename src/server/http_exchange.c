/* server/http_exchange.c - the table of exchanges, and libmicrohttpd's side of each.
 *
 * Suspending. MHD_suspend_connection is called only in libmicrohttpd's own callbacks and only with
 * the exchange locked, which sets `suspended`; MHD_resume_connection only by whoever finds
 * `suspended` set under the same lock, and clears it. So a resume never comes before its suspend
 * (libmicrohttpd would lose it), never twice, and never for a connection that is closed: a
 * suspended one is not closed by libmicrohttpd. */
#include "server/http_exchange_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "os/clock.h"
#include "server/api_internal.h"
#include "server/http_error.h"

/* A whole answer with 20 logprobs for each of 160,000 tokens fits. */
#define MAX_ANSWER_BYTES ((size_t)1 << 30)

/* Room behind a full stream for the error that ends it. */
#define ERROR_EVENT_BYTES ((size_t)8192)

cmi_status cmi_exchange_table_create(cmi_exchange_table **table_out,
                                     const cmi_exchange_options *opt, cmi_error *err)
{
    assert(opt->n_max >= 1 && opt->n_max < 1u << CMI_EXCHANGE_INDEX_BITS);
    cmi_exchange_table *table = cmi_alloc(1, sizeof *table);
    table->opt = *opt;
    table->exchanges = cmi_alloc(opt->n_max, sizeof *table->exchanges);
    table->free_idx = cmi_alloc(opt->n_max, sizeof *table->free_idx);
    for (uint32_t i = 0; i < opt->n_max; i++) {
        cmi_exchange *ex = &table->exchanges[i];
        ex->table = table;
        ex->index = i;
        ex->fd = -1;
        pthread_mutex_init(&ex->lock, NULL);
        table->free_idx[i] = opt->n_max - 1 - i; /* the lowest on top */
    }
    table->n_free = opt->n_max;
    pthread_mutex_init(&table->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&table->idle, &attr);
    pthread_condattr_destroy(&attr);
    cmi_buf_init(&table->scratch, MAX_ANSWER_BYTES);
    cmi_status st = cmi_dispatch_start(table, err);
    if (st != CMI_OK) {
        cmi_exchange_table_destroy(table);
        return st;
    }
    *table_out = table;
    return CMI_OK;
}

/* Gives back what one use of the slot held. */
static void exchange_reset(cmi_exchange *ex)
{
    cmi_api_job_destroy(ex->job);
    cmi_free(ex->choices);
    cmi_buf_deinit(&ex->out);
}

void cmi_exchange_table_destroy(cmi_exchange_table *table)
{
    if (table == NULL) {
        return;
    }
    cmi_dispatch_stop(table);
    for (uint32_t i = 0; i < table->opt.n_max; i++) {
        assert(table->exchanges[i].connection == NULL);
        exchange_reset(&table->exchanges[i]);
        pthread_mutex_destroy(&table->exchanges[i].lock);
    }
    pthread_cond_destroy(&table->idle);
    pthread_mutex_destroy(&table->lock);
    cmi_buf_deinit(&table->scratch);
    cmi_free(table->exchanges);
    cmi_free(table->free_idx);
    cmi_free(table);
}

cmi_status cmi_exchange_table_attach(cmi_exchange_table *table, cmi_engine *engine, cmi_error *err)
{
    atomic_store(&table->engine, engine);
    return cmi_dispatch_watch_engine(table, cmi_engine_event_fd(engine), err);
}

cmi_exchange *cmi_exchange_acquire(cmi_exchange_table *table, struct MHD_Connection *connection,
                                   const char *request_id, uint64_t arrival_ns)
{
    pthread_mutex_lock(&table->lock);
    cmi_exchange *ex =
        table->n_free == 0 ? NULL : &table->exchanges[table->free_idx[--table->n_free]];
    pthread_mutex_unlock(&table->lock);
    if (ex == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&ex->lock);
    ex->in_use = true;
    ex->connection = connection;
    ex->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    ex->deadline = cmi_deadline_of(connection);
    ex->request_id = request_id;
    ex->arrival_ns = arrival_ns;
    pthread_mutex_unlock(&ex->lock);
    return ex;
}

uint64_t cmi_exchange_number(const cmi_exchange *ex)
{
    return (uint64_t)ex->generation << CMI_EXCHANGE_INDEX_BITS | ex->index;
}

cmi_exchange *cmi_exchange_find_locked(cmi_exchange_table *table, uint64_t number)
{
    uint32_t index = number & ((1u << CMI_EXCHANGE_INDEX_BITS) - 1);
    if (index >= table->opt.n_max) {
        return NULL;
    }
    cmi_exchange *ex = &table->exchanges[index];
    pthread_mutex_lock(&ex->lock);
    if (ex->in_use && cmi_exchange_number(ex) == number) {
        return ex;
    }
    pthread_mutex_unlock(&ex->lock);
    return NULL;
}

void cmi_exchange_unlock(cmi_exchange *ex)
{
    if (!ex->in_use || ex->connection != NULL || ex->n_open > 0) {
        pthread_mutex_unlock(&ex->lock);
        return;
    }
    cmi_exchange_table *table = ex->table;
    if (ex->is_stream) {
        atomic_fetch_sub(&table->n_streams, 1);
    }
    exchange_reset(ex);
    memset((char *)ex + offsetof(cmi_exchange, in_use), 0,
           sizeof *ex - offsetof(cmi_exchange, in_use));
    ex->fd = -1;
    ex->generation++;
    pthread_mutex_unlock(&ex->lock);

    pthread_mutex_lock(&table->lock);
    table->free_idx[table->n_free++] = ex->index;
    if (table->n_free == table->opt.n_max) {
        pthread_cond_broadcast(&table->idle);
    }
    pthread_mutex_unlock(&table->lock);
}

void cmi_exchange_cancel_all(cmi_exchange_table *table, uint64_t number, uint32_t n_choices)
{
    cmi_engine *engine = atomic_load(&table->engine);
    for (uint32_t i = 0; i < n_choices; i++) {
        cmi_engine_cancel(engine, number * CMI_API_MAX_CHOICES + i);
    }
}

cmi_status cmi_exchange_submit(cmi_exchange *ex, cmi_api_job *job, cmi_api_error *err)
{
    cmi_exchange_table *table = ex->table;
    cmi_engine *engine = atomic_load(&table->engine);
    /* Read here: once the first request is submitted, the dispatcher works on the job. */
    const cmi_request *requests[CMI_API_MAX_CHOICES];
    uint32_t n = cmi_api_job_n_requests(job);
    assert(n >= 1 && n <= CMI_API_MAX_CHOICES);
    for (uint32_t i = 0; i < n; i++) {
        requests[i] = cmi_api_job_request(job, i);
    }
    const char *format_field = cmi_api_job_format_field(job); /* a literal */
    pthread_mutex_lock(&ex->lock);
    if (ex->complete) { /* aborted before it began */
        *err = ex->error;
        cmi_exchange_unlock(ex);
        cmi_api_job_destroy(job);
        return CMI_ERR_CLOSED;
    }
    ex->job = job;
    ex->choices = cmi_alloc(n, sizeof *ex->choices);
    ex->n_choices = ex->n_open = n;
    ex->is_stream = cmi_api_job_is_stream(job);
    cmi_buf_init(&ex->out, ex->is_stream ? table->opt.max_unsent_bytes : MAX_ANSWER_BYTES);
    ex->last_byte_ns = cmi_clock_monotonic_ns();
    if (ex->is_stream && atomic_fetch_add(&table->n_streams, 1) == 0) {
        cmi_dispatch_wake(table); /* it slept without a deadline */
    }
    cmi_dispatch_watch(ex);
    uint64_t number = cmi_exchange_number(ex);
    cmi_exchange_unlock(ex);

    cmi_status st = CMI_OK;
    cmi_error why = {0};
    cmi_admission_verdict verdict = {.reason = CMI_ADMISSION_OK};
    uint32_t n_submitted = 0;
    while (n_submitted < n && st == CMI_OK) {
        st = cmi_engine_offer(engine, requests[n_submitted], &verdict, &why);
        n_submitted += st == CMI_OK;
    }

    pthread_mutex_lock(&ex->lock);
    if (st != CMI_OK) {
        ex->n_open -= n - n_submitted;
        ex->complete = true;
    }
    /* Also when the client left, or the table was told to abort, between two submits. */
    bool cancel = ex->complete && ex->n_open > 0;
    cmi_exchange_unlock(ex);
    if (cancel) {
        cmi_exchange_cancel_all(table, number, n);
    }
    if (st == CMI_ERR_NO_CAPACITY) {
        cmi_http_error_set_refused(err, verdict, why.text);
    } else if (st == CMI_ERR_BAD_DATA && format_field != NULL) {
        (void)cmi_api_refuse(err, format_field, "%s: %s.", format_field, why.text);
    } else if (st != CMI_OK) {
        cmi_http_error_set(err, cmi_http_status_from(st), "%s",
                           why.text[0] != '\0' ? why.text : cmi_status_text(st));
    }
    return st;
}

static void suspend(cmi_exchange *ex)
{
    ex->suspended = true;
    MHD_suspend_connection(ex->connection);
}

void cmi_exchange_resume(cmi_exchange *ex)
{
    if (ex->suspended) {
        ex->suspended = false;
        MHD_resume_connection(ex->connection);
    }
}

cmi_exchange_answer cmi_exchange_take(cmi_exchange *ex, cmi_buf *body_out, cmi_api_error *err_out)
{
    cmi_exchange_answer answer = CMI_EXCHANGE_SUSPENDED;
    pthread_mutex_lock(&ex->lock);
    if (ex->gone) {
        answer = CMI_EXCHANGE_GONE;
    } else if (ex->complete) {
        *body_out = ex->out;
        *err_out = ex->error;
        cmi_buf_init(&ex->out, MAX_ANSWER_BYTES);
        answer = CMI_EXCHANGE_READY;
    } else if (atomic_load(&ex->table->closing)) {
        answer = CMI_EXCHANGE_GONE;
    } else {
        suspend(ex);
    }
    cmi_exchange_unlock(ex);
    return answer;
}

ssize_t cmi_exchange_read(void *cls, uint64_t pos, char *out, size_t max_bytes)
{
    (void)pos;
    cmi_exchange *ex = cls;
    ssize_t result = 0;
    pthread_mutex_lock(&ex->lock);
    if (ex->gone) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (ex->out.len > 0) {
        size_t n = CMI_MIN(max_bytes, ex->out.len);
        memcpy(out, ex->out.data, n);
        cmi_buf_consume(&ex->out, n);
        result = (ssize_t)n;
    } else if (ex->complete) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (atomic_load(&ex->table->closing)) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else {
        suspend(ex);
    }
    cmi_exchange_unlock(ex);
    return result;
}

void cmi_exchange_complete(cmi_exchange *ex)
{
    ex->complete = true;
    if (ex->is_stream && ex->connection != NULL) { /* an answer that is no stream is sent later */
        cmi_deadline_set_transfer(ex->deadline, ex->out.len);
    }
}

void cmi_exchange_fail(cmi_exchange *ex, const cmi_api_error *why)
{
    ex->summary.error_status = why->http_status;
    if (ex->is_stream) {
        ex->out.max = ex->out.len + ERROR_EVENT_BYTES;
        cmi_api_error_write_event(why, &ex->out);
    } else {
        cmi_buf_deinit(&ex->out);
        ex->error = *why;
    }
    cmi_exchange_complete(ex);
    cmi_exchange_resume(ex);
}

void cmi_exchange_detach(cmi_exchange *ex, cmi_exchange_summary *summary_out)
{
    if (ex == NULL) {
        return;
    }
    cmi_exchange_table *table = ex->table;
    pthread_mutex_lock(&ex->lock);
    assert(!ex->suspended);
    cmi_dispatch_unwatch(ex);
    ex->connection = NULL;
    *summary_out = ex->summary;
    if (ex->job != NULL) {
        summary_out->usage = cmi_api_job_usage(ex->job);
    }
    summary_out->complete = ex->complete && !ex->gone;
    ex->complete = true;
    uint64_t number = cmi_exchange_number(ex);
    uint32_t n_cancel = ex->n_open > 0 ? ex->n_choices : 0;
    cmi_exchange_unlock(ex);
    cmi_exchange_cancel_all(table, number, n_cancel);
}

/* Locked. */
static bool has_id(const cmi_exchange *ex, const char *id)
{
    return id == NULL || (ex->connection != NULL && strcmp(ex->request_id, id) == 0) ||
           (ex->job != NULL && strcmp(cmi_api_job_id(ex->job), id) == 0);
}

size_t cmi_exchange_table_abort(cmi_exchange_table *table, const char *id, const cmi_api_error *why)
{
    size_t n_aborted = 0;
    for (uint32_t i = 0; i < table->opt.n_max; i++) {
        cmi_exchange *ex = &table->exchanges[i];
        pthread_mutex_lock(&ex->lock);
        uint64_t number = cmi_exchange_number(ex);
        uint32_t n_cancel = 0;
        if (ex->in_use && !ex->complete && has_id(ex, id)) {
            n_aborted++;
            n_cancel = ex->n_choices;
            cmi_exchange_fail(ex, why);
        }
        cmi_exchange_unlock(ex);
        cmi_exchange_cancel_all(table, number, n_cancel);
    }
    return n_aborted;
}

void cmi_exchange_table_close(cmi_exchange_table *table)
{
    atomic_store(&table->closing, true); /* read under each exchange's lock before it suspends */
    for (uint32_t i = 0; i < table->opt.n_max; i++) {
        pthread_mutex_lock(&table->exchanges[i].lock);
        cmi_exchange_resume(&table->exchanges[i]);
        cmi_exchange_unlock(&table->exchanges[i]);
    }
}

bool cmi_exchange_table_wait_idle(cmi_exchange_table *table, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000),
                             .tv_nsec = (long)(deadline_ns % 1000000000)};
    pthread_mutex_lock(&table->lock);
    int rc = 0;
    while (table->n_free < table->opt.n_max && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&table->idle, &table->lock, &until);
    }
    bool idle = table->n_free == table->opt.n_max;
    pthread_mutex_unlock(&table->lock);
    return idle;
}
