/* fabric/local/local_internal.h - the backend for threads and processes of one host.
 *
 * Who moves the bytes: the fabric that puts or gets, with memcpy, since every peer's regions are
 * mapped here (share.h). A socket between both (os/local_socket.h) carries the handshake, the
 * descriptors of regions, farewells, and by breaking, the news that a process has died. Messages go
 * through a ring for each direction (ring.h). A fabric that sleeps says so in its header, a share
 * that its peers have, and whoever then has something for it rings its bell (os/watch.h).
 *
 *   share.c      memory that several have in hand          handshake.c  until an endpoint is open
 *   ring.c       messages                                  control.c    the socket behind that
 *   table.c      endpoints, events, their ends             transfer.c   operations
 *   memory.c     regions and rkeys                         sleep.c      watching and waking
 *   local.c      the backend's table, making and ending
 *
 * Everything here belongs to the fabric's owner but for shares, rings and headers, whose other side
 * is another fabric, and local_fabric.watch.bell_fd. */
#ifndef CMI_FABRIC_LOCAL_LOCAL_INTERNAL_H
#define CMI_FABRIC_LOCAL_LOCAL_INTERNAL_H

#include "fabric/fabric_internal.h"
#include "fabric/local/ring.h"
#include "fabric/local/share.h"
#include "fabric/local/wire.h"
#include "os/watch.h"

enum { CMI_LOCAL_NONE = UINT32_MAX }; /* an index of nothing */

/* The share of a fabric that its peers have. Each line has its own writers. */
typedef struct cmi_local_header {
    _Atomic uint32_t is_sleeping CMI_ALIGNED(CMI_CACHE_LINE); /* set by the owner, taken by peers */
    _Atomic uint32_t n_beats CMI_ALIGNED(CMI_CACHE_LINE);     /* the owner's progress */
} cmi_local_header;

typedef struct cmi_local_region {
    uint32_t gen;
    uint64_t serial; /* 1, 2, ... in order of registration; 0: free */
    cmi_share *share;
} cmi_local_region;

typedef struct cmi_local_remote {
    uint32_t gen;
    uint32_t endpoint; /* CMI_LOCAL_NONE: free */
    uint64_t serial;
    cmi_share_token token;
    uint64_t n_bytes;
    cmi_share *share; /* NULL: cannot be reached from this process */
} cmi_local_remote;

typedef enum cmi_local_op_state { OP_FREE, OP_QUEUED, OP_DONE } cmi_local_op_state;

typedef struct cmi_local_op {
    uint32_t gen;
    cmi_local_op_state state;
    uint32_t next; /* in the free list, in an endpoint's queue, or in the events */
    bool has_event;
    cmi_status status;
    cmi_endpoint_id endpoint;
    cmi_transfer transfer;
    uint64_t done_bytes;
    uint64_t tag;
} cmi_local_op;

typedef enum cmi_local_state {
    ENDPOINT_FREE,
    ENDPOINT_DIALS,  /* connector: the listener's backlog was full */
    ENDPOINT_HELLO,  /* connector: waits for the challenge */
    ENDPOINT_PROVED, /* connector: waits for the welcome */
    ENDPOINT_GREETS, /* listener: waits for the hello */
    ENDPOINT_ASKED,  /* listener: waits for the proof */
    ENDPOINT_OPEN,
    ENDPOINT_LOST,
} cmi_local_state;

typedef struct cmi_local_endpoint {
    uint32_t gen;
    cmi_local_state state;
    cmi_status status; /* why it is lost */
    bool is_incoming;
    bool has_open_event, has_lost_event; /* not yet polled */
    bool is_shown;                       /* its OPEN was polled */
    bool is_blocked;                     /* the last send found the ring full */
    uint32_t next;                       /* in the free list */
    uint32_t next_event;                 /* in the list of endpoints with events */

    int fd, process_fd, peer_bell_fd; /* -1: none */
    uint64_t deadline_ns;             /* of the handshake */
    char address[CMI_LOCAL_NAME_BYTES];
    cmi_local_hello hello;     /* the connector's */
    cmi_local_hello challenge; /* the listener's */
    cmi_local_fabric_id peer;  /* once open */
    char peer_name[CMI_FABRIC_MAX_NAME + 1];

    cmi_share *rings_share, *peer_share;
    cmi_local_header *peer_header;
    cmi_ring in, out;
    uint64_t told_serial;  /* own regions up to this one were announced */
    uint64_t heard_serial; /* the peer's */
    uint32_t seen_beats;
    uint64_t beat_ns;      /* when they changed */
    uint64_t peer_hung_ns; /* how long the peer bears a fabric without beats; 0: for ever */

    uint32_t first_op, last_op; /* the queue */
    uint32_t n_ops;
    cmi_status failure; /* the first without an event since the last flush */
} cmi_local_endpoint;

typedef struct cmi_local_fabric {
    cmi_fabric base;
    cmi_watch watch;
    cmi_local_fabric_id id;
    char name[CMI_FABRIC_MAX_NAME + 1];
    uint8_t key[CMI_PROOF_BYTES];
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    int listen_fd;
    cmi_share *header_share;
    cmi_local_header *header;

    cmi_local_region *regions;
    cmi_local_remote *remotes;
    cmi_local_endpoint *endpoints;
    cmi_local_op *ops;
    uint32_t free_endpoint, free_op;
    uint32_t first_done, last_done;                     /* operations with events */
    uint32_t first_event_endpoint, last_event_endpoint; /* endpoints with events */
    uint32_t next_to_receive;                           /* endpoints take turns */
    uint32_t n_endpoints_used;                          /* all used ones have a lower index */
    uint32_t n_queued;                                  /* operations */
    uint32_t n_blocked;                                 /* endpoints */
    uint64_t last_serial;
    uint64_t look_ns; /* when the sockets were last looked at */
    uint32_t n_since_look;
    bool is_remotes_full; /* was logged */
} cmi_local_fabric;

static inline cmi_local_fabric *cmi_local_of(const cmi_fabric *fabric)
{
    return (cmi_local_fabric *)(uintptr_t)fabric;
}

/* ---- table.c ---- */

/* NULL: such a handle is of nothing. */
cmi_local_endpoint *cmi_local_find_endpoint(const cmi_local_fabric *f, cmi_endpoint_id id);
uint32_t cmi_local_endpoint_idx(const cmi_local_fabric *f, const cmi_local_endpoint *ep);
cmi_endpoint_id cmi_local_endpoint_id(const cmi_local_fabric *f, const cmi_local_endpoint *ep);

CMI_NODISCARD cmi_local_endpoint *cmi_local_take_endpoint(cmi_local_fabric *f); /* NULL: none */
void cmi_local_free_endpoint(cmi_local_fabric *f, cmi_local_endpoint *ep);

/* The handshake is complete. */
void cmi_local_opened(cmi_local_fabric *f, cmi_local_endpoint *ep);

/* Ends what is not yet lost; an incoming one that was never open is freed. */
void cmi_local_lose(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_status why);

void cmi_local_close(cmi_fabric *fabric, cmi_endpoint_id id);
void cmi_local_drop(cmi_fabric *fabric, cmi_endpoint_id id);
cmi_status cmi_local_get_info(const cmi_fabric *fabric, cmi_endpoint_id id,
                              cmi_endpoint_info *info_out);
bool cmi_local_poll(cmi_fabric *fabric, cmi_fabric_event *event_out);

/* ---- memory.c ---- */

cmi_status cmi_local_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                           cmi_region_id *region_out, cmi_error *err);
cmi_status cmi_local_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                              cmi_region_id *region_out, cmi_error *err);
void cmi_local_deregister(cmi_fabric *fabric, cmi_region_id id);
void *cmi_local_region_memory(cmi_fabric *fabric, cmi_region_id id);
cmi_status cmi_local_get_rkey(cmi_fabric *fabric, cmi_region_id id, cmi_rkey *rkey_out);
cmi_status cmi_local_open_rkey(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_rkey *rkey,
                               cmi_remote_id *remote_out);
void *cmi_local_remote_memory(cmi_fabric *fabric, cmi_endpoint_id endpoint, cmi_remote_id id);

/* Tells the peer of regions that it has not heard of. */
void cmi_local_announce(cmi_local_fabric *f, cmi_local_endpoint *ep);

/* The peer tells of a region (fd -1: without a file), or takes one back. */
void cmi_local_hear_region(cmi_local_fabric *f, cmi_local_endpoint *ep,
                           const cmi_local_region_news *news, int fd);
void cmi_local_hear_revoke(cmi_local_fabric *f, const cmi_local_endpoint *ep, uint64_t serial);
void cmi_local_forget_remotes(cmi_local_fabric *f, const cmi_local_endpoint *ep);

/* ---- handshake.c and control.c ---- */

cmi_status cmi_local_listen(cmi_fabric *fabric, const char *address, cmi_error *err);
cmi_status cmi_local_connect(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                             cmi_endpoint_id *endpoint_out);
void cmi_local_dial(cmi_local_fabric *f, cmi_local_endpoint *ep);
void cmi_local_accept(cmi_local_fabric *f);

/* Takes the next step of the handshake. The descriptors are the callee's. */
void cmi_local_hear_handshake(cmi_local_fabric *f, cmi_local_endpoint *ep,
                              const cmi_local_news *news, cmi_local_datagram *datagram);

cmi_status cmi_local_tell(const cmi_local_endpoint *ep, const cmi_local_news *news, const int *fds,
                          uint32_t n_fds);
void cmi_local_read_socket(cmi_local_fabric *f, cmi_local_endpoint *ep);

/* ---- transfer.c ---- */

cmi_status cmi_local_check(const cmi_fabric *fabric, cmi_endpoint_id id,
                           const cmi_transfer *transfer);
cmi_status cmi_local_begin(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_transfer *transfer,
                           cmi_op *op);
cmi_status cmi_local_take_failure(cmi_fabric *fabric, cmi_endpoint_id id);
bool cmi_local_is_settled(cmi_fabric *fabric, cmi_endpoint_id id);
void cmi_local_run_queues(cmi_local_fabric *f);
void cmi_local_end_ops(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_status st);
cmi_status cmi_local_send(cmi_fabric *fabric, cmi_endpoint_id id, const void *message,
                          size_t n_bytes);
bool cmi_local_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                       size_t *n_bytes_out);

/* ---- sleep.c ---- */

enum { CMI_LOCAL_WATCH_SOCKET, CMI_LOCAL_WATCH_PROCESS, CMI_LOCAL_WATCH_LISTENER };
uint64_t cmi_local_watch_key(const cmi_local_fabric *f, const cmi_local_endpoint *ep,
                             uint32_t kind);

bool cmi_local_progress(cmi_fabric *fabric, uint64_t now_ns);
void cmi_local_sleep(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait);
bool cmi_local_is_busy(cmi_fabric *fabric);
void cmi_local_wake(cmi_fabric *fabric);

/* Rings the peer's bell if it sleeps, after what it waits for has been stored (seq_cst). */
void cmi_local_nudge(const cmi_local_endpoint *ep);

#endif
