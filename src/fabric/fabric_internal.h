/* fabric/fabric_internal.h - what a backend is, and what all of them share.
 *
 * The calls of fabric.h check what can be checked without knowing the backend, count, and go
 * through the table; those that wait are made of the others (fabric.c). A backend begins with a
 * cmi_fabric.
 */
#ifndef CMI_FABRIC_FABRIC_INTERNAL_H
#define CMI_FABRIC_FABRIC_INTERNAL_H

#include "fabric/fabric.h"

typedef struct cmi_transfer { /* one operation, as it is given */
    enum { CMI_OP_PUT, CMI_OP_GET, CMI_OP_SIGNAL, CMI_OP_FLUSH } kind;
    cmi_remote remote; /* zeroed for a flush */
    uint8_t *local;    /* not written by a put */
    uint64_t n_bytes;  /* 8 for a signal */
    uint64_t operand;
    cmi_signal signal;
} cmi_transfer;

/* As the calls of the same names, with their arguments checked. */
typedef struct cmi_fabric_backend {
    void (*destroy)(cmi_fabric *fabric);

    cmi_status (*alloc)(cmi_fabric *fabric, size_t n_bytes, const char *what,
                        cmi_region_id *region_out, cmi_error *err);
    cmi_status (*register_memory)(cmi_fabric *fabric, void *memory, size_t n_bytes,
                                  cmi_region_id *region_out, cmi_error *err);
    void (*deregister)(cmi_fabric *fabric, cmi_region_id region);
    void *(*region_memory)(cmi_fabric *fabric, cmi_region_id region);
    cmi_status (*get_rkey)(cmi_fabric *fabric, cmi_region_id region, cmi_rkey *rkey_out);

    cmi_status (*listen)(cmi_fabric *fabric, const char *address, cmi_error *err);
    const char *(*address)(const cmi_fabric *fabric);
    cmi_status (*connect)(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                          cmi_endpoint_id *endpoint_out);
    void (*close)(cmi_fabric *fabric, cmi_endpoint_id endpoint);
    void (*drop)(cmi_fabric *fabric, cmi_endpoint_id endpoint); /* as if the peer had died */
    cmi_status (*get_info)(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                           cmi_endpoint_info *info_out);
    cmi_status (*open_rkey)(cmi_fabric *fabric, cmi_endpoint_id endpoint, const cmi_rkey *rkey,
                            cmi_remote_id *remote_out);
    /* NULL: a backend that maps no peer's memory */
    void *(*remote_memory)(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote_id remote);

    cmi_status (*check)(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                        const cmi_transfer *transfer); /* what begin would refuse for ever */
    cmi_status (*begin)(cmi_fabric *fabric, cmi_endpoint_id endpoint, const cmi_transfer *transfer,
                        cmi_op *op);
    cmi_status (*take_failure)(cmi_fabric *fabric, cmi_endpoint_id endpoint); /* as flush says it */
    /* All operations of the endpoint have ended, and what they wrote can be seen. Begins what is
     * needed for that. */
    bool (*is_settled)(cmi_fabric *fabric, cmi_endpoint_id endpoint);
    cmi_status (*send)(cmi_fabric *fabric, cmi_endpoint_id endpoint, const void *message,
                       size_t n_bytes);
    bool (*receive)(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                    size_t *n_bytes_out);

    bool (*progress)(cmi_fabric *fabric, uint64_t now_ns);
    bool (*poll)(cmi_fabric *fabric, cmi_fabric_event *event_out);
    /* Sleeps until the deadline or until something happens, and does not sleep if it has: with a
     * wait, that its word has the value; else, what ends cmi_fabric_sleep. May return early. */
    void (*sleep)(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait);
    bool (*is_busy)(cmi_fabric *fabric); /* something that ends cmi_fabric_sleep is there */
    void (*wake)(cmi_fabric *fabric);    /* any thread */
} cmi_fabric_backend;

/* X(name): written by the owner, read by any thread; relaxed, for each is a number of its own. */
#define CMI_FABRIC_COUNTERS(X)                                                                     \
    X(n_puts)                                                                                      \
    X(put_bytes)                                                                                   \
    X(n_gets)                                                                                      \
    X(get_bytes)                                                                                   \
    X(n_signals)                                                                                   \
    X(n_flushes)                                                                                   \
    X(n_sent)                                                                                      \
    X(sent_bytes)                                                                                  \
    X(n_received)                                                                                  \
    X(received_bytes)                                                                              \
    X(n_refused)                                                                                   \
    X(n_failed)                                                                                    \
    X(n_sleeps)                                                                                    \
    X(n_opened)                                                                                    \
    X(n_lost)

struct cmi_fabric {
    const cmi_fabric_backend *backend;
    cmi_fabric_options opt; /* name and secret are not kept here */
    _Atomic bool is_woken;  /* since the last sleep has ended */
    struct {
#define CMI_FABRIC_COUNTER_FIELD(name) _Atomic uint64_t name;
        CMI_FABRIC_COUNTERS(CMI_FABRIC_COUNTER_FIELD)
#undef CMI_FABRIC_COUNTER_FIELD
    } counters;
};

static inline void cmi_fabric_count(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

/* Checks the options and fills in what has a default. */
CMI_NODISCARD cmi_status cmi_fabric_init(cmi_fabric *fabric, const cmi_fabric_backend *backend,
                                         const cmi_fabric_options *opt, cmi_error *err);

static inline bool cmi_wait_is_over(const cmi_wait *wait)
{
    /* seq_cst: a sleeper looks after it has said that it sleeps (local/sleep.c) */
    return atomic_load(wait->word) >= wait->at_least;
}

#endif
