/* server/http_exchange_internal.h - what http_exchange.c and http_dispatch.c share. */
#ifndef CMI_SERVER_HTTP_EXCHANGE_INTERNAL_H
#define CMI_SERVER_HTTP_EXCHANGE_INTERNAL_H

#include <pthread.h>

#include "server/http_deadline.h"
#include "server/http_exchange.h"

/* What the dispatcher keeps of each choice while it runs. */
typedef struct cmi_exchange_choice {
    uint64_t last_token_ns;
    bool stopped; /* cancelled because its text is complete, which is a stop, not an abort */
} cmi_exchange_choice;

struct cmi_exchange {
    cmi_exchange_table *table;
    uint32_t index;

    pthread_mutex_t lock; /* over everything below */
    uint32_t generation;  /* one more with each release */
    bool in_use;          /* from here on all is zeroed with each release */

    /* libmicrohttpd's side */
    struct MHD_Connection *connection; /* NULL: detached */
    int fd;                            /* open while connection is not NULL */
    cmi_deadline *deadline;            /* the connection's */
    const char *request_id;            /* X-Request-Id, while connection is not NULL */
    bool suspended;                    /* exactly then may it be resumed */
    bool watched;                      /* fd is in the dispatcher's epoll set */
    bool gone;                         /* the client has left: close, do not answer */

    /* the engine's side; complete with n_open > 0 means that the rest is being cancelled */
    cmi_api_job *job; /* NULL until submit */
    cmi_exchange_choice *choices;
    uint32_t n_choices, n_open; /* engine requests; those whose FINISHED event is to come */
    bool is_stream;
    bool complete; /* nothing more comes into out; error tells why if it has a status */
    cmi_buf out;   /* of the answer, not read yet */
    cmi_api_error error;

    /* times, ns, monotonic */
    uint64_t arrival_ns, last_byte_ns, first_token_ns;
    cmi_exchange_summary summary;
    uint32_t n_output_max; /* tokens of the longest choice */
};

struct cmi_exchange_table {
    cmi_exchange_options opt;
    cmi_exchange *exchanges;
    _Atomic(cmi_engine *) engine; /* NULL until attached */
    atomic_bool closing;

    pthread_mutex_t lock; /* over the four below; never held together with an exchange's */
    pthread_cond_t idle;
    uint32_t *free_idx; /* a stack */
    uint32_t n_free;

    /* the dispatcher */
    pthread_t thread;
    bool has_thread;
    int epoll_fd, wake_fd;
    atomic_bool stop;
    _Atomic uint32_t n_streams; /* in use; while there are any, the dispatcher looks at its clock */
    cmi_buf scratch;            /* only the dispatcher's: what one event adds */
};

enum { CMI_EXCHANGE_INDEX_BITS = 16 };

/* Names of the two descriptors in the epoll set that are not exchanges; no number is so large. */
#define CMI_DISPATCH_ENGINE (UINT64_MAX - 1)
#define CMI_DISPATCH_WAKE UINT64_MAX

/* The exchange of that number, locked; NULL when it is over. */
cmi_exchange *cmi_exchange_find_locked(cmi_exchange_table *table, uint64_t number);

/* Locked: lets libmicrohttpd call back for a suspended connection; else nothing. */
void cmi_exchange_resume(cmi_exchange *ex);

/* Locked: out is all that the client still gets. */
void cmi_exchange_complete(cmi_exchange *ex);

/* Locked: no more output; a stream gets the error as its last event. */
void cmi_exchange_fail(cmi_exchange *ex, const cmi_api_error *why);

/* Ends the critical section; an exchange with which both sides are done goes back to the table. */
void cmi_exchange_unlock(cmi_exchange *ex);

/* Not locked. */
void cmi_exchange_cancel_all(cmi_exchange_table *table, uint64_t number, uint32_t n_choices);

cmi_status cmi_dispatch_start(cmi_exchange_table *table, cmi_error *err);
void cmi_dispatch_stop(cmi_exchange_table *table); /* also after a failed start */
cmi_status cmi_dispatch_watch_engine(cmi_exchange_table *table, int fd, cmi_error *err);
void cmi_dispatch_wake(cmi_exchange_table *table);

/* Locked: tells the dispatcher of the client's leaving from now on, or not any more. */
void cmi_dispatch_watch(cmi_exchange *ex);
void cmi_dispatch_unwatch(cmi_exchange *ex);

#endif
