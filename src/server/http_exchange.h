/* server/http_exchange.h - HTTP requests that wait for the engine.
 *
 * An exchange joins three things that live and end apart: a request of libmicrohttpd, an API job,
 * and the job's engine requests. libmicrohttpd's threads create and detach exchanges and read
 * answers out of them; one thread of the table, the dispatcher, takes the engine's events, turns
 * them into answer bytes, watches the sockets for clients that leave, and sends keep-alives. An
 * exchange is over when libmicrohttpd has detached it and the last FINISHED event has come,
 * whichever is later.
 *
 * The table has a fixed number of exchanges, each with its own lock, never two taken at once. A
 * number (generation and index) names an exchange to the engine and to epoll, so an event that
 * comes late finds nobody instead of the next user of the slot. No lock is held while the engine is
 * called. */
#ifndef CMI_SERVER_HTTP_EXCHANGE_H
#define CMI_SERVER_HTTP_EXCHANGE_H

#include <microhttpd.h>

#include "server/api.h"
#include "server/metrics.h"

typedef struct cmi_exchange cmi_exchange;
typedef struct cmi_exchange_table cmi_exchange_table;

typedef struct cmi_exchange_options {
    uint32_t n_max;            /* 1 .. 65535 */
    size_t max_unsent_bytes;   /* of a stream whose client does not read; then the job is ended */
    uint64_t ping_interval_ns; /* a comment goes into a stream that was silent for so long */
    cmi_metrics *metrics;      /* outlives the table */
} cmi_exchange_options;

/* Starts the dispatcher. CMI_ERR_IO: the system has no thread or descriptor left. */
CMI_NODISCARD cmi_status cmi_exchange_table_create(cmi_exchange_table **table_out,
                                                   const cmi_exchange_options *opt, cmi_error *err);

/* Ends the dispatcher. Every exchange must have been detached; events that have not come yet are
 * no longer waited for. NULL is fine. */
void cmi_exchange_table_destroy(cmi_exchange_table *table);

/* From now on the table polls this engine. Once, before the first cmi_exchange_submit. */
CMI_NODISCARD cmi_status cmi_exchange_table_attach(cmi_exchange_table *table, cmi_engine *engine,
                                                   cmi_error *err);

/* Ends every exchange of this id (the answer's, or X-Request-Id; NULL: any) that has no complete
 * answer yet: the client gets why, as the status of its answer or as the last event of its stream,
 * and the engine is told to stop. Returns how many. */
size_t cmi_exchange_table_abort(cmi_exchange_table *table, const char *id,
                                const cmi_api_error *why);

/* From now on no connection is suspended and every suspended one is resumed, to be closed: what
 * libmicrohttpd wants before it is stopped. */
void cmi_exchange_table_close(cmi_exchange_table *table);

/* Waits until no exchange is in use. False: deadline_ns (monotonic) came first. */
bool cmi_exchange_table_wait_idle(cmi_exchange_table *table, uint64_t deadline_ns);

/* The following are for libmicrohttpd's threads, inside its callbacks for the connection. */

/* NULL when all are in use. request_id: X-Request-Id, which stays until cmi_exchange_detach.
 * arrival_ns: monotonic, when the request came. */
cmi_exchange *cmi_exchange_acquire(cmi_exchange_table *table, struct MHD_Connection *connection,
                                   const char *request_id, uint64_t arrival_ns);

/* For cmi_api_job_create. */
uint64_t cmi_exchange_number(const cmi_exchange *ex);

/* Takes the job and gives its requests to the engine. On an error (err filled in: 429, 503, 500)
 * none of them goes on. Once per exchange. */
CMI_NODISCARD cmi_status cmi_exchange_submit(cmi_exchange *ex, cmi_api_job *job,
                                             cmi_api_error *err);

typedef enum cmi_exchange_answer {
    CMI_EXCHANGE_SUSPENDED, /* not there yet; the connection is suspended and will be resumed */
    CMI_EXCHANGE_READY,     /* body_out holds it (the caller deinits), or err_out has a status */
    CMI_EXCHANGE_GONE,      /* nobody waits for one: close the connection */
} cmi_exchange_answer;

/* The whole answer of a job that is not a stream. */
cmi_exchange_answer cmi_exchange_take(cmi_exchange *ex, cmi_buf *body_out, cmi_api_error *err_out);

/* The next bytes of a stream; an MHD_ContentReaderCallback with the exchange as cls. */
ssize_t cmi_exchange_read(void *cls, uint64_t pos, char *out, size_t max_bytes);

/* What a log line says. Times in ns, 0: did not happen. */
typedef struct cmi_exchange_summary {
    cmi_api_usage usage;
    cmi_finish_reason finish; /* of the choice that ended last; CMI_FINISH_NONE: none did */
    int error_status;         /* 0: none. A stream's head has said 200 before */
    /* In the queue, and from there to the first token, of the choice that has the first; from there
     * to the end of the last; from the arrival to the first token. */
    uint64_t queue_ns, prefill_ns, decode_ns, ttft_ns;
    bool complete; /* the whole answer was made (it may be an error) */
} cmi_exchange_summary;

/* libmicrohttpd is done with the request, and the connection's socket is still open. Work that goes
 * on is cancelled. ex must not be used any more. NULL is fine. */
void cmi_exchange_detach(cmi_exchange *ex, cmi_exchange_summary *summary_out);

#endif
