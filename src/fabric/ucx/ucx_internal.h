/* fabric/ucx/ucx_internal.h - the backend for networks, and for hosts without memory files: UCX.
 *
 * UCX moves the bytes, by what it finds between two processes (shared memory, TCP, RDMA). What it
 * leaves open is decided here:
 *
 * Connections. Beside each UCX endpoint lies a TCP connection of our own. It carries the handshake
 * (UCX has none that proves anything), the announcements of regions, farewells and beats; and by
 * breaking, at once, the news that a process has died, which UCX tells after seconds, or over
 * shared memory not at all. An endpoint is open when UCX has connected both ways, so that its owner
 * may then pause without keeping the peer's first operations from getting through.
 *
 * Signals are active messages that change the word in the receiver's progress, sent when UCX has
 * flushed the puts before them. Not atomics: UCX 1.13 orders operations by a fence on each of its
 * transports alone, while two puts may take two; it has no maximum; atomics of a network card and
 * of processors need not mix; and one in shared memory wakes nobody. The price is that words change
 * while their owner progresses, as everything does over TCP.
 *
 * Where UCX would emulate puts and gets (over TCP, and where shared memory does not reach), they
 * are carried by active messages of our own: when a peer dies in the middle, the receipt that the
 * emulation owes it fails, and UCX 1.13 ends the process. Ours owe nothing for each put, and are in
 * order with signals, which then need no flush.
 *
 * Messages are active messages into a ring of the receiver's, whose room the sender counts. They
 * and signals are numbered: should UCX ever let one overtake another, the endpoint is lost, not its
 * order. A flush waits for UCX and for the peer's word that it has taken in the signals.
 *
 * A link is a connection with its UCX endpoint, from the first byte until UCX has let go of the
 * last buffer. An endpoint, what handles are of, has one; when it is closed the link ends alone.
 *
 *   wire.c       what is said, pure          handshake.c  until an endpoint is open
 *   table.c      endpoints, links, events    control.c    frames on the TCP connection
 *   ops.c        slots of operations         transfer.c   put, get, signal, flush
 *   carry.c      put and get, carried        message.c    active messages
 *   memory.c     own regions and rkeys       remote.c     the peers'
 *   link.c       UCX endpoints' ends         sleep.c      progress and sleeping
 *   ucx.c        the backend's table, making and ending
 *
 * UCX allocates as it likes, also after a connection is open; what is ours does not. UCX calls back
 * from inside its progress and from inside what is sent to oneself, so callbacks only note what has
 * happened; cmi_ucx_run_links acts on it. Everything belongs to the fabric's owner. */
#ifndef CMI_FABRIC_UCX_UCX_INTERNAL_H
#define CMI_FABRIC_UCX_UCX_INTERNAL_H

#include <ucp/api/ucp.h>

#include "fabric/fabric_internal.h"
#include "fabric/local/ring.h"
#include "fabric/ucx/wire.h"
#include "os/watch.h"

enum {
    CMI_UCX_NONE = UINT32_MAX, /* an index of nothing */
    CMI_UCX_AM_ID = 0,
    CMI_UCX_N_TURNED_AWAY = 8,
    CMI_UCX_N_SERVED = 8, /* carried gets of a link under way */
    CMI_UCX_OUT_BYTES = 4 * CMI_UCX_MAX_FRAME,
};

typedef struct cmi_ucx_fabric cmi_ucx_fabric;

typedef struct cmi_ucx_region {
    enum { REGION_FREE, REGION_LIVE, REGION_DYING } state;
    uint32_t gen;
    uint64_t serial;     /* 1, 2, ... in order of registration */
    uint64_t revoke_seq; /* of a dying one, which peers may still be writing to */
    bool is_callers;     /* memory */
    ucp_mem_h mem;
    uint8_t *bytes;
    uint64_t n_bytes;
} cmi_ucx_region;

typedef struct cmi_ucx_remote {
    uint32_t gen;
    uint32_t link; /* CMI_UCX_NONE: free */
    bool is_revoked;
    uint64_t serial;
    uint64_t address, n_bytes;
    ucp_rkey_h rkey; /* NULL: announced only */
    bool is_carried; /* UCX would emulate */
} cmi_ucx_remote;

typedef enum cmi_ucx_op_state { OP_FREE, OP_UNDER_WAY, OP_DONE } cmi_ucx_op_state;

typedef struct cmi_ucx_op {
    uint32_t gen;
    cmi_ucx_op_state state;
    uint32_t next, prev; /* next: in the free list or in the events; both: on the link */
    uint32_t next_held;  /* of signals that wait for a flush */
    uint32_t link;
    bool has_event;
    bool is_internal; /* a flush of our own, with a slot of the link's */
    bool is_pending;  /* UCX will call back */
    bool is_flushed;  /* of signals and flushes: UCX has flushed what was given before */
    bool is_carried;  /* of puts and gets */
    bool is_asked;    /* of carried gets: the peer knows */
    bool is_over;     /* of carried gets: with status, when the question has gone */
    uint64_t n_moved; /* bytes of a carried one that were given to UCX, or have come */
    bool has_need;
    uint64_t need_acked; /* of a flush with has_need: ends when the peer has taken in so many */
    uint64_t mark;       /* of a flush: the link's n_given when it was given */
    cmi_status status;
    cmi_endpoint_id endpoint;
    uint64_t tag;
    cmi_transfer transfer;
    union {
        cmi_ucx_am_signal signal;
        cmi_ucx_am_get get;
        cmi_ucx_am_data data;
    } am;
    cmi_ucx_fabric *fabric;
} cmi_ucx_op;

/* A carried get of the peer's. */
typedef struct cmi_ucx_served {
    struct cmi_ucx_link *link;
    uint64_t n_left; /* bytes; 0: free, unless it is pending */
    bool is_pending;
    uint64_t serial, from;
    cmi_ucx_am_data am;
} cmi_ucx_served;

typedef enum cmi_ucx_link_state {
    LINK_FREE,
    LINK_DIALS,  /* connector: the kernel connects */
    LINK_HELLO,  /* connector: waits for the challenge */
    LINK_PROVED, /* connector: waits for the welcome */
    LINK_GREETS, /* listener: waits for the hello */
    LINK_ASKED,  /* listener: waits for the proof */
    LINK_WIRES,  /* UCX connects */
    LINK_OPEN,
    LINK_LEAVES, /* was closed here: UCX flushes, the peer has the farewell */
    LINK_ENDED,  /* UCX lets go */
} cmi_ucx_link_state;

/* The TCP connection. */
typedef struct cmi_ucx_control {
    uint8_t in[CMI_UCX_MAX_FRAME], out[CMI_UCX_OUT_BYTES];
    size_t n_in, n_out;
} cmi_ucx_control;

typedef struct cmi_ucx_link {
    cmi_ucx_fabric *fabric;
    uint32_t gen;
    cmi_ucx_link_state state;
    uint32_t endpoint; /* CMI_UCX_NONE: closed */
    uint32_t next;     /* in the free list */
    cmi_endpoint_id id;
    cmi_status status; /* what its operations end with, once it is ENDED or LEAVES */
    bool is_incoming;
    bool is_stirred; /* cmi_ucx_run_links has something to do here */

    int fd; /* -1: none */
    cmi_ucx_control *control;
    uint64_t deadline_ns;    /* of the handshake; of leaving */
    cmi_ucx_hello hello;     /* the connector's */
    cmi_ucx_hello challenge; /* the listener's */
    cmi_ucx_fabric_id peer;  /* once proved */
    uint64_t cookie;         /* own */
    uint64_t peer_cookie;
    uint32_t peer_link;
    char peer_name[CMI_FABRIC_MAX_NAME + 1];
    bool is_wired, has_told_wired, has_heard_wired;

    ucp_ep_h ep;         /* NULL: none, or given back */
    bool is_closing;     /* UCX closes it */
    bool has_let_go;     /* UCX has nothing of it any more */
    uint32_t n_pending;  /* requests that UCX will call back for */
    cmi_status trouble;  /* found in a callback: the link is to end */
    uint64_t trouble_ns; /* when UCX's trouble was seen; its cause may be on the connection */
    bool has_ucx_failed;

    bool has_heard_bye;
    uint64_t bye_seq, bye_ns;
    uint64_t told_serial, heard_serial; /* regions, own and the peer's */
    uint64_t revoke_acked;              /* own revocations that the peer has done */
    uint64_t revoke_heard;              /* the peer's; to be acknowledged when n_revoking is 0 */
    uint32_t n_revoking;                /* flushes behind revocations */
    bool owes_revoked;
    uint64_t beat_ns;      /* when the peer last said something */
    uint64_t told_beat_ns; /* when we did */
    uint64_t peer_hung_ns; /* how long the peer bears silence; 0: for ever */

    /* operations */
    uint32_t first_op, last_op;     /* not ended, in the order they were given */
    uint32_t first_held, last_held; /* signals */
    uint32_t n_ops;
    uint64_t n_given;
    bool is_dirty;      /* puts since the last flush that was begun */
    bool is_unsettled;  /* operations since the last flush that ended */
    cmi_status failure; /* the first without an event since the last flush */

    /* active messages */
    uint64_t seq_out, signal_seq; /* the last sent; the last signal's or carried put's */
    uint64_t acked, synced;       /* numbered ones that the peer has taken in; was asked about */
    uint64_t seq_in;              /* numbered ones taken in */
    uint8_t *ring_memory;
    cmi_ring in, in_writer;
    uint32_t ring_bytes, message_bytes;
    uint64_t out_tail, out_head; /* bytes of the peer's ring: sent, read */
    uint64_t told_head;
    uint8_t *stage; /* messages that UCX has not copied yet */
    size_t stage_bytes, n_staged;
    uint32_t n_sending;
    bool is_blocked, has_room; /* the last send found no room; there may be some now */
    bool wants_room, peer_wants_room, wants_ack, owes_ack;
    bool is_noting;
    cmi_ucx_am_note note;

    bool has_rdma;    /* UCX has it for this peer */
    bool has_ungiven; /* carried puts of which UCX has not all */
    uint32_t n_asked; /* own carried gets that the peer knows of */
    bool has_unasked; /* there are others */
    bool has_served;  /* some of the peer's are not over */
    cmi_ucx_served served[CMI_UCX_N_SERVED];
} cmi_ucx_link;

typedef struct cmi_ucx_endpoint {
    uint32_t gen;
    uint32_t link; /* CMI_UCX_NONE: free */
    uint32_t next, next_event;
    bool has_open_event, has_lost_event; /* not yet polled */
    bool is_shown;                       /* its OPEN was polled */
} cmi_ucx_endpoint;

struct cmi_ucx_fabric {
    cmi_fabric base;
    cmi_watch watch;
    cmi_ucx_fabric_id id;
    char name[CMI_FABRIC_MAX_NAME + 1];
    uint8_t key[CMI_PROOF_BYTES];
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    int listen_fd;
    int turned_away[CMI_UCX_N_TURNED_AWAY]; /* were told that there is no room; closed later */
    uint32_t n_turned_away;

    ucp_context_h context;
    ucp_worker_h worker;
    ucp_address_t *worker_address;
    size_t n_worker_address;

    cmi_ucx_region *regions; /* twice the option: half of them may be dying */
    cmi_ucx_remote *remotes;
    cmi_ucx_endpoint *endpoints;
    cmi_ucx_link *links; /* twice the endpoints: half of them may be ending */
    cmi_ucx_op *ops;     /* the option's, and one for each link */
    uint32_t n_links;
    uint32_t free_endpoint, free_link, free_op;
    uint32_t first_done, last_done;                     /* operations with events */
    uint32_t first_event_endpoint, last_event_endpoint; /* endpoints with events */
    uint32_t next_to_receive;                           /* endpoints take turns */
    uint32_t n_endpoints_used, n_links_used;            /* all used ones have a lower index */
    uint32_t n_regions, n_dying;
    uint32_t n_pending; /* requests that UCX will call back for, of all links */
    uint64_t last_serial, last_revoke_seq;
    uint64_t look_ns; /* when the connections were last looked at */
    uint32_t n_since_look;
    bool is_stirred;      /* a link is */
    bool is_remotes_full; /* was logged */
};

static inline cmi_ucx_fabric *cmi_ucx_of(const cmi_fabric *fabric)
{
    return (cmi_ucx_fabric *)(uintptr_t)fabric;
}

static inline void cmi_ucx_stir(cmi_ucx_link *link)
{
    link->is_stirred = true;
    link->fabric->is_stirred = true;
}

/* A request of the link's has been given to UCX, or has come back. */
static inline void cmi_ucx_count_pending(cmi_ucx_link *link, int32_t n)
{
    link->n_pending += (uint32_t)n;
    link->fabric->n_pending += (uint32_t)n;
}

/* ---- table.c ---- */

cmi_ucx_link *cmi_ucx_find_link(const cmi_ucx_fabric *f, cmi_endpoint_id id); /* NULL: none */
uint32_t cmi_ucx_link_idx(const cmi_ucx_fabric *f, const cmi_ucx_link *link);

/* A link with an endpoint. NULL: no room. */
CMI_NODISCARD cmi_ucx_link *cmi_ucx_take_link(cmi_ucx_fabric *f);
bool cmi_ucx_may_have_room(const cmi_ucx_fabric *f); /* there is, or will be without a close */
void cmi_ucx_free_endpoint(cmi_ucx_fabric *f, cmi_ucx_link *link); /* its link goes on alone */
void cmi_ucx_free_link(cmi_ucx_fabric *f, cmi_ucx_link *link);
void cmi_ucx_add_open_event(cmi_ucx_fabric *f, const cmi_ucx_link *link);
void cmi_ucx_add_lost_event(cmi_ucx_fabric *f, const cmi_ucx_link *link);
cmi_status cmi_ucx_get_info(const cmi_fabric *fabric, cmi_endpoint_id id,
                            cmi_endpoint_info *info_out);
bool cmi_ucx_poll(cmi_fabric *fabric, cmi_fabric_event *event_out);

/* ---- link.c ---- */

/* Makes the UCX endpoint and says hello over it. */
CMI_NODISCARD cmi_status cmi_ucx_wire(cmi_ucx_link *link, const cmi_ucx_entrance *entrance);

/* Ends what is not yet ended; an incoming one that was never open leaves no trace. Not from a
 * callback: there, set trouble and stir. */
void cmi_ucx_lose(cmi_ucx_link *link, cmi_status why);
void cmi_ucx_close(cmi_fabric *fabric, cmi_endpoint_id id);
void cmi_ucx_drop(cmi_fabric *fabric, cmi_endpoint_id id);

/* Acts on what callbacks have noted, and on deadlines. */
void cmi_ucx_run_link(cmi_ucx_link *link, uint64_t now_ns);
void cmi_ucx_run_links(cmi_ucx_fabric *f, uint64_t now_ns);

cmi_status cmi_ucx_status(ucs_status_t st);

/* ---- handshake.c and control.c ---- */

cmi_status cmi_ucx_listen(cmi_fabric *fabric, const char *address, cmi_error *err);
cmi_status cmi_ucx_connect(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                           cmi_endpoint_id *endpoint_out);
void cmi_ucx_accept(cmi_ucx_fabric *f);
void cmi_ucx_finish_dial(cmi_ucx_link *link);
void cmi_ucx_hear_handshake(cmi_ucx_link *link, const cmi_ucx_news *news);

/* CMI_ERR_NO_CAPACITY: the peer reads too little. CMI_ERR_PEER. */
cmi_status cmi_ucx_tell(cmi_ucx_link *link, const cmi_ucx_news *news);
void cmi_ucx_send_rest(cmi_ucx_link *link);
void cmi_ucx_read_control(cmi_ucx_link *link); /* may lose it */

/* ---- ops.c ---- */

CMI_NODISCARD cmi_ucx_op *cmi_ucx_take_op(cmi_ucx_link *link, const cmi_transfer *transfer,
                                          cmi_op *user_op);             /* NULL: no room */
CMI_NODISCARD cmi_ucx_op *cmi_ucx_take_internal_op(cmi_ucx_link *link); /* NULL: under way */
void cmi_ucx_end_op(cmi_ucx_link *link, cmi_ucx_op *op, cmi_status st);
void cmi_ucx_end_ops(cmi_ucx_link *link); /* those that UCX does not have */
bool cmi_ucx_poll_op(cmi_ucx_fabric *f, cmi_fabric_event *event_out);
void cmi_ucx_hold(cmi_ucx_link *link, cmi_ucx_op *op); /* a signal */
void cmi_ucx_unhold(cmi_ucx_link *link);               /* the first */

/* ---- transfer.c ---- */

cmi_status cmi_ucx_check(const cmi_fabric *fabric, cmi_endpoint_id id,
                         const cmi_transfer *transfer);
cmi_status cmi_ucx_begin(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_transfer *transfer,
                         cmi_op *op);
cmi_status cmi_ucx_take_failure(cmi_fabric *fabric, cmi_endpoint_id id);
bool cmi_ucx_is_settled(cmi_fabric *fabric, cmi_endpoint_id id);
void cmi_ucx_run_ops(cmi_ucx_link *link);

/* UCX is done with a request of the operation's: CMI_OK, or what the operation ends with. */
cmi_status cmi_ucx_settle_request(cmi_ucx_link *link, cmi_ucx_op *op, ucs_status_t st);

/* ---- carry.c ---- */

void cmi_ucx_look_at_lanes(cmi_ucx_link *link); /* sets has_rdma */
void cmi_ucx_carry(cmi_ucx_link *link, cmi_ucx_op *op);
bool cmi_ucx_is_given(const cmi_ucx_link *link, const cmi_ucx_op *op); /* carried puts before it */
cmi_status cmi_ucx_take_put(cmi_ucx_link *link, const cmi_ucx_am_view *view);
cmi_status cmi_ucx_take_get(cmi_ucx_link *link, const cmi_ucx_am_get *get);
cmi_status cmi_ucx_take_got(cmi_ucx_link *link, const cmi_ucx_am_view *view);
void cmi_ucx_run_carried(cmi_ucx_link *link);
bool cmi_ucx_is_serving(const cmi_ucx_link *link, uint64_t serial); /* UCX reads the region */

/* ---- message.c ---- */

void cmi_ucx_make_rings(cmi_ucx_link *link);
void cmi_ucx_free_rings(cmi_ucx_link *link);
cmi_status cmi_ucx_set_am_handler(cmi_ucx_fabric *f);
/* The bytes are UCX's until it calls back; so is the header of PUT and GOT (else NULL). */
ucs_status_ptr_t cmi_ucx_send_am(cmi_ucx_link *link, const cmi_ucx_am_data *header,
                                 const void *bytes, size_t n, ucp_send_nbx_callback_t done,
                                 void *arg);
void cmi_ucx_run_notes(cmi_ucx_link *link);
void cmi_ucx_send_note(cmi_ucx_link *link);
cmi_status cmi_ucx_send(cmi_fabric *fabric, cmi_endpoint_id id, const void *message,
                        size_t n_bytes);
bool cmi_ucx_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                     size_t *n_bytes_out);
bool cmi_ucx_has_message(const cmi_ucx_fabric *f);
bool cmi_ucx_has_room(const cmi_ucx_fabric *f);

/* ---- memory.c ---- */

cmi_status cmi_ucx_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                         cmi_region_id *region_out, cmi_error *err);
cmi_status cmi_ucx_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                            cmi_region_id *region_out, cmi_error *err);
void cmi_ucx_deregister(cmi_fabric *fabric, cmi_region_id id);
void *cmi_ucx_region_memory(cmi_fabric *fabric, cmi_region_id id);
cmi_status cmi_ucx_get_rkey(cmi_fabric *fabric, cmi_region_id id, cmi_rkey *rkey_out);
void cmi_ucx_free_regions(cmi_ucx_fabric *f); /* all, whoever has them */
void cmi_ucx_bury_regions(cmi_ucx_fabric *f); /* dying ones that nobody writes to any more */
void cmi_ucx_announce(cmi_ucx_link *link);    /* regions that the peer has not heard of */

/* Bytes, and a word, of a region; NULL: no such region, or outside. */
uint8_t *cmi_ucx_find_bytes(const cmi_ucx_fabric *f, uint64_t serial, uint64_t offset,
                            uint64_t n_bytes);
_Atomic uint64_t *cmi_ucx_find_word(const cmi_ucx_fabric *f, uint64_t serial, uint64_t offset);

/* ---- remote.c ---- */

cmi_status cmi_ucx_open_rkey(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_rkey *rkey,
                             cmi_remote_id *remote_out);
cmi_ucx_remote *cmi_ucx_find_remote(const cmi_ucx_fabric *f, const cmi_ucx_link *link,
                                    cmi_remote_id id); /* NULL: none */
void cmi_ucx_hear_region(cmi_ucx_link *link, uint64_t serial);
void cmi_ucx_hear_revoke(cmi_ucx_link *link, uint64_t serial, uint64_t seq);
void cmi_ucx_run_revoked(cmi_ucx_link *link);
void cmi_ucx_forget_remotes(cmi_ucx_link *link);

/* ---- sleep.c ---- */

enum { CMI_UCX_WATCH_LINK, CMI_UCX_WATCH_LISTENER, CMI_UCX_WATCH_WORKER };
uint64_t cmi_ucx_watch_key(const cmi_ucx_link *link, uint32_t kind); /* NULL: of none */

bool cmi_ucx_progress(cmi_fabric *fabric, uint64_t now_ns);
void cmi_ucx_look(cmi_ucx_fabric *f, uint64_t now_ns);
void cmi_ucx_sleep(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait);
bool cmi_ucx_is_busy(cmi_fabric *fabric);
void cmi_ucx_wake(cmi_fabric *fabric);

#endif
