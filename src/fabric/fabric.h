/* fabric/fabric.h - memory of other processes: put, get, signal, small messages.
 *
 * A fabric is one place in a cluster. It owns regions, memory that others may reach, and endpoints,
 * connections to other fabrics. A region has an rkey, bytes that can be sent to anyone; whoever has
 * opened it on an endpoint to the region's fabric may put and get there; over shared memory without
 * that fabric's help, over networks while it calls progress now and then.
 * The way of expert parallelism, of KV hand-off and of the memory pool is always the same: put,
 * put, put, signal; and on the other side wait for the signal's word.
 *
 * Order. Operations of one endpoint run beside each other. What is promised:
 *   - a signal changes its word after all puts and signals that its endpoint was given before;
 *   - whoever has seen the word's new value sees the bytes of those puts;
 *   - a flush is done when all operations before it are, and what they wrote can be seen;
 *   - messages of an endpoint arrive once and in order. They have no order with anything else.
 * Nothing else is: puts and gets happen piecewise, and may overtake each other and the signals
 * before them.
 *
 * Completion. An operation that was accepted (CMI_OK) ends with exactly one event if it was given a
 * cmi_op, and with none otherwise; without one, its failure is told by the endpoint's next flush.
 * Until then its local bytes are the fabric's. Done means for a get that the bytes are here; for a
 * put that the local bytes may be changed, not that the other side has them: only a flush, or the
 * word of a later signal, tells that. Operations advance inside cmi_fabric_progress and the calls
 * that wait.
 *
 * Failure. An endpoint whose peer has closed it (CMI_ERR_CLOSED), has died, or hangs for longer
 * than the options allow (both CMI_ERR_PEER) is lost: one event says so, all its operations end
 * with that status, and so do all later calls. Nothing waits for a lost peer. A peer that was
 * killed is noticed within milliseconds of progress; a host that is gone, after seconds, or
 * hung_after_ns. Every call that waits has a deadline, in ns of the fabric's clock.
 *
 * Limits. All tables have the sizes of the options and nothing is allocated after a connection is
 * made. A call that finds no room returns CMI_ERR_NO_CAPACITY and has changed nothing; call
 * progress and poll, and try again. Handles are an index and a generation: one whose thing is gone
 * gives CMI_ERR_NOT_FOUND. A zeroed handle is of nothing.
 *
 * Thread: a fabric and all that belongs to it have one owner, the only thread that may call in
 * here, but for what says otherwise. Words may be read by any thread with cmi_word_load. */
#ifndef CMI_FABRIC_FABRIC_H
#define CMI_FABRIC_FABRIC_H

#include <stdatomic.h>

#include "base/error.h"

typedef struct cmi_fabric cmi_fabric;

typedef struct cmi_region_id {
    uint32_t idx, gen;
} cmi_region_id;

typedef struct cmi_remote_id { /* a peer's region, on one endpoint */
    uint32_t idx, gen;
} cmi_remote_id;

typedef struct cmi_endpoint_id {
    uint32_t idx, gen;
} cmi_endpoint_id;

typedef struct cmi_op_id {
    uint32_t idx, gen;
} cmi_op_id;

enum {
    CMI_FABRIC_PROTOCOL = 1, /* of handshake and rings; both sides must have the same */
    CMI_FABRIC_MIN_SECRET = 16,
    CMI_FABRIC_MAX_SECRET = 1024,
    CMI_FABRIC_MAX_NAME = 63,
    CMI_FABRIC_MAX_ADDRESS = 127,
    CMI_FABRIC_MAX_MESSAGE = 1 << 16,
    CMI_FABRIC_MAX_RKEY = 254,
    CMI_FABRIC_MIN_HUNG_NS = 10000000,
};

/* ---- a fabric ---- */

typedef struct cmi_fabric_options {
    const char *name;      /* for log lines on both sides, at most CMI_FABRIC_MAX_NAME bytes */
    const uint8_t *secret; /* of the cluster; both sides prove that they know it */
    size_t secret_bytes;   /* CMI_FABRIC_MIN_SECRET .. CMI_FABRIC_MAX_SECRET */
    uint32_t version;      /* of what the caller sends; both sides must have the same */

    uint32_t n_endpoints;   /* 1 .. 65536, lost ones that are not closed included */
    uint32_t n_regions;     /* 1 .. 65536, of this fabric */
    uint32_t n_remotes;     /* 1 .. 2^20, regions of all peers together */
    uint32_t n_ops;         /* 1 .. 2^20, begun or with an event that was not polled */
    uint32_t message_bytes; /* 1 .. CMI_FABRIC_MAX_MESSAGE, the longest to send and receive */
    uint32_t ring_bytes;    /* of the messages on their way to an endpoint; a power of two up to
                             * 2^28, at least four times as long as the longest message */

    uint64_t handshake_ns;  /* a peer that says less than is due for so long is refused; 0: 2 s */
    uint64_t hung_after_ns; /* a peer that makes no progress for so long is lost; 0: never. At least
                             * CMI_FABRIC_MIN_HUNG_NS, and more than the longest pause between calls
                             * of progress */
    uint64_t spin_ns;       /* how long a wait burns a processor before it sleeps */

    uint64_t (*now_ns)(void *arg); /* NULL: the monotonic clock */
    void *now_arg;
} cmi_fabric_options;

/* Fills in limits for a process with a handful of peers. The caller sets name, secret, version. */
void cmi_fabric_options_default(cmi_fabric_options *opt);

/* A fabric for threads and processes of this host ("local:..." addresses).
 * CMI_ERR_INVALID: an option. CMI_ERR_IO, CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_fabric_create_local(cmi_fabric **fabric_out,
                                                 const cmi_fabric_options *opt, cmi_error *err);

/* A fabric for processes of any host ("ucx:HOST:PORT" addresses), by UCX: shared memory, TCP or
 * RDMA, as it finds them and as its own environment variables (UCX_...) say. The secret keeps
 * strangers from connecting; the bytes themselves are neither encrypted nor signed, and UCX's ports
 * are open to whoever reaches them, so its network is to be trusted. Its operations and waits may
 * need the peer's progress to advance. CMI_ERR_INVALID: an option. CMI_ERR_IO, CMI_ERR_NO_MEMORY.
 */
CMI_NODISCARD cmi_status cmi_fabric_create_ucx(cmi_fabric **fabric_out,
                                               const cmi_fabric_options *opt, cmi_error *err);

/* kind: "local" or "ucx". */
CMI_NODISCARD cmi_status cmi_fabric_create(cmi_fabric **fabric_out, const char *kind,
                                           const cmi_fabric_options *opt, cmi_error *err);

/* Closes every endpoint; operations end without events. NULL is fine. A ucx fabric takes up to a
 * tenth of a second for peers to hear of it. */
void cmi_fabric_destroy(cmi_fabric *fabric);

uint64_t cmi_fabric_now_ns(const cmi_fabric *fabric);
uint64_t cmi_fabric_after_ns(const cmi_fabric *fabric, uint64_t ns); /* now + ns, saturating */

/* ---- memory ---- */

/* Zeroed memory of the fabric that all peers can reach, at a page or huge page; physical memory is
 * taken at once, where the calling thread's policy says (os/topology.h). It lives until it is
 * deregistered. what names it in error lines. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_fabric_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                                          cmi_region_id *region_out, cmi_error *err);

/* Makes memory of the caller's a region; it must live until it is deregistered. Only alloc's memory
 * can be reached by other processes over a local fabric: opening such an rkey there is
 * CMI_ERR_UNSUPPORTED. Networks reach both. */
CMI_NODISCARD cmi_status cmi_fabric_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                                             cmi_region_id *region_out, cmi_error *err);

/* When it returns nobody touches memory of the caller's any more, and alloc's memory is freed once
 * peers have let go of it. Their operations end with CMI_ERR_NOT_FOUND; one that is given while the
 * news is on its way may still be told CMI_OK. */
void cmi_fabric_deregister(cmi_fabric *fabric, cmi_region_id region);

void *cmi_region_memory(cmi_fabric *fabric, cmi_region_id region); /* NULL: no such region */

typedef struct cmi_rkey {
    uint16_t n_bytes; /* of bytes, the rest is not to be sent */
    uint8_t bytes[CMI_FABRIC_MAX_RKEY];
} cmi_rkey;

/* CMI_ERR_NOT_FOUND. CMI_ERR_TOO_LARGE: a network has so many devices that UCX's part of it does
 * not fit; a log line says what to set. */
CMI_NODISCARD cmi_status cmi_region_get_rkey(cmi_fabric *fabric, cmi_region_id region,
                                             cmi_rkey *rkey_out);

/* ---- endpoints ---- */

/* Takes connections at an address: "local:NAME", or "local:" for a fresh name; "ucx:HOST:PORT" of
 * this host, port 0 for a free one, HOST 0.0.0.0 or [::] for all its addresses. Once.
 * CMI_ERR_CLOSED: somebody has that name or port. */
CMI_NODISCARD cmi_status cmi_fabric_listen(cmi_fabric *fabric, const char *address, cmi_error *err);

/* Where this fabric listens, what others connect to; "" when it does not. Where it listens at all
 * addresses of its host, others must put one of them in HOST's place. */
const char *cmi_fabric_address(const cmi_fabric *fabric);

/* Begins to connect. CMI_EVENT_OPEN follows when both sides have proved to know the secret, or else
 * CMI_EVENT_LOST: CMI_ERR_DENIED (secret), CMI_ERR_UNSUPPORTED (a version), CMI_ERR_NO_CAPACITY
 * (the peer has no room), CMI_ERR_NOT_FOUND (nobody there), CMI_ERR_TIMEOUT, CMI_ERR_PEER.
 * CMI_ERR_INVALID: such an address cannot be. CMI_ERR_NO_CAPACITY: too many endpoints. A HOST that
 * is a name is looked up in this call, however long that takes. */
CMI_NODISCARD cmi_status cmi_fabric_connect(cmi_fabric *fabric, const char *address,
                                            uint64_t deadline_ns, cmi_endpoint_id *endpoint_out);

/* Ends the handle. The peer sees CMI_ERR_CLOSED; operations not yet done end with
 * CMI_ERR_CANCELLED, so flush before. A handle of nothing is fine. */
void cmi_endpoint_close(cmi_fabric *fabric, cmi_endpoint_id endpoint);

typedef struct cmi_endpoint_info {
    cmi_status status; /* CMI_OK when open, CMI_IN_PROGRESS while connecting, else why it is lost */
    char peer_name[CMI_FABRIC_MAX_NAME + 1]; /* not to be trusted before it is open */
    bool is_incoming;                        /* the peer has connected, not this fabric */
    uint32_t message_bytes;                  /* longest message that both sides take */
    uint32_t n_ops;                          /* accepted and not yet done */
} cmi_endpoint_info;

CMI_NODISCARD cmi_status cmi_endpoint_get_info(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                               cmi_endpoint_info *info_out);

/* Opens an rkey on an endpoint to the region's fabric; again gives the same handle. It ends with
 * the endpoint. CMI_ERR_NOT_FOUND: no such region there. CMI_ERR_NO_CAPACITY: not announced yet, or
 * n_remotes is too small. CMI_ERR_UNSUPPORTED: see register. CMI_ERR_BAD_DATA: not an rkey. */
CMI_NODISCARD cmi_status cmi_endpoint_open_rkey(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                                const cmi_rkey *rkey, cmi_remote_id *remote_out);

/* Where this process can read and write a peer's region itself, without put and get: NULL where it
 * cannot, as over networks and under faults. Valid until the endpoint is closed. What any thread
 * wrote there before a signal is given (and ordered before that call) comes before the signal's
 * word changes, as puts do. */
void *cmi_remote_memory(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote_id remote);

/* ---- operations ---- */

typedef struct cmi_remote {
    cmi_remote_id id;
    uint64_t offset; /* bytes from the region's begin */
} cmi_remote;

typedef struct cmi_op {
    uint64_t tag; /* comes back in the event */
    cmi_op_id id; /* set when the operation is accepted */
} cmi_op;

typedef enum cmi_signal {
    CMI_SIGNAL_ADD, /* word += operand, modulo 2^64 */
    CMI_SIGNAL_MAX, /* word = max(word, operand): for sequence numbers. All MAX of a word come from
                     * one endpoint, since networks have no such operation */
} cmi_signal;

/* op may be NULL: no event. CMI_ERR_INVALID: outside of the region; or for signals, not at a
 * multiple of 8. CMI_ERR_NOT_FOUND: no such endpoint or remote. CMI_ERR_NO_CAPACITY, also while the
 * endpoint is connecting. Else why the endpoint is lost. Local bytes may lie anywhere; those in a
 * region save networks a copy. */
CMI_NODISCARD cmi_status cmi_endpoint_put(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                          const void *local, cmi_remote to, size_t n_bytes,
                                          cmi_op *op);
CMI_NODISCARD cmi_status cmi_endpoint_get(cmi_fabric *fabric, cmi_endpoint_id endpoint, void *local,
                                          cmi_remote from, size_t n_bytes, cmi_op *op);
CMI_NODISCARD cmi_status cmi_endpoint_signal(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                             cmi_remote word, cmi_signal kind, uint64_t operand,
                                             cmi_op *op);

/* Ends when all operations before it have. Its event has the first failure of those without events
 * since the last flush. op is not NULL. */
CMI_NODISCARD cmi_status cmi_endpoint_flush(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                            cmi_op *op);

/* Copies a message (1 .. message_bytes of the endpoint) into the peer's ring.
 * CMI_ERR_NO_CAPACITY: the ring is full; a sleep of this fabric ends when there is room again.
 * CMI_ERR_TOO_LARGE. */
CMI_NODISCARD cmi_status cmi_endpoint_send(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                           const void *message, size_t n_bytes);

/* Copies the next message of any endpoint into buffer, which has at least the option's
 * message_bytes. Endpoints take turns, from when their CMI_EVENT_OPEN was polled. What a peer sent
 * before it was lost can still be received until its endpoint is closed. False: none is there. */
CMI_NODISCARD bool cmi_fabric_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out,
                                      void *buffer, size_t *n_bytes_out);

/* ---- getting on ---- */

typedef enum cmi_event_kind {
    CMI_EVENT_OPEN, /* an endpoint can be used: one that was begun here, or is_incoming */
    CMI_EVENT_LOST, /* an endpoint is lost, status says why; to be closed */
    CMI_EVENT_DONE, /* an operation has ended with status */
} cmi_event_kind;

typedef struct cmi_fabric_event {
    cmi_event_kind kind;
    cmi_status status;
    cmi_endpoint_id endpoint;
    cmi_op_id op;     /* of DONE */
    uint64_t tag;     /* of DONE: the operation's */
    bool is_incoming; /* of OPEN */
} cmi_fabric_event;

/* Moves operations and connections on, without waiting. True: there is more to do at once. */
bool cmi_fabric_progress(cmi_fabric *fabric);

/* Takes the next event. Does not progress. False: none. */
CMI_NODISCARD bool cmi_fabric_poll(cmi_fabric *fabric, cmi_fabric_event *event_out);

typedef struct cmi_wait {
    const _Atomic uint64_t *word; /* in a region of this fabric */
    uint64_t at_least;
    uint64_t deadline_ns;
    cmi_endpoint_id from; /* whose loss ends the wait; zeroed: nobody's */
} cmi_wait;

/* Progresses until the word has the value: spins, then sleeps. Signals end the sleep; a put over
 * the word need not. CMI_ERR_TIMEOUT, or why `from` is lost; the word is looked at last. */
CMI_NODISCARD cmi_status cmi_fabric_wait(cmi_fabric *fabric, const cmi_wait *wait);

/* Progresses until all operations of the endpoint have ended; returns what a flush's event would
 * say. CMI_ERR_TIMEOUT: they go on. */
CMI_NODISCARD cmi_status cmi_endpoint_flush_wait(cmi_fabric *fabric, cmi_endpoint_id endpoint,
                                                 uint64_t deadline_ns);

/* Progresses until there is an event, a message, room in a ring that was full, or a wake; or until
 * the deadline. May return early, but need not for a signal: wait is for words. */
void cmi_fabric_sleep(cmi_fabric *fabric, uint64_t deadline_ns);

/* Ends the fabric's sleep, or its next one. Any thread, while the fabric exists. */
void cmi_fabric_wake(cmi_fabric *fabric);

/* Acquire: bytes that were put before the signal that gave this value can be read. Any thread. */
static inline uint64_t cmi_word_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

/* ---- counters ---- */

typedef struct cmi_fabric_counters {
    uint64_t n_puts, put_bytes;
    uint64_t n_gets, get_bytes;
    uint64_t n_signals, n_flushes;
    uint64_t n_sent, sent_bytes;
    uint64_t n_received, received_bytes;
    uint64_t n_refused; /* calls that returned CMI_ERR_NO_CAPACITY */
    uint64_t n_failed;  /* operations that were accepted and ended with an error */
    uint64_t n_sleeps;
    uint64_t n_opened, n_lost; /* endpoints */
} cmi_fabric_counters;

/* Since the fabric was made; what was accepted counts. Any thread, while the fabric exists. */
void cmi_fabric_get_counters(const cmi_fabric *fabric, cmi_fabric_counters *counters_out);

#endif
