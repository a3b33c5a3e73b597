/* cluster/gang.h - this process as one of the ranks of an instance: connected to all the others,
 * and agreed with them on who is there.
 *
 * A gang drives the machine of policy/gang.h, which says what is promised, over a fabric: it
 * connects to every rank below its own (those above connect to it), tells them what it has to tell
 * (a blob: rkeys, capacities), beats, and notices who is lost. The layer above sees a row of
 * phases:
 *
 *     FORMING, TOO_FEW --> READY --> STOPPING --> FORMING, or LEFT_OUT, SUPERSEDED
 *
 *     READY      act in the view, with its ranks' endpoints and blobs
 *     STOPPING   end what runs, flush, make buffers ready for the next view; then cmi_gang_stopped
 *     TOO_FEW    wait or end; the gang goes on trying
 *     LEFT_OUT   others went on without this rank: cmi_gang_rejoin
 *     SUPERSEDED another process was started as this rank: end
 *
 * No phase passes unseen: STOPPING lasts until cmi_gang_stopped. From then on the ranks of the next
 * view may write into this one's regions, and before they have said the same, none is READY in it.
 * What a lost rank has put may still arrive for a moment on networks that cannot stop it; so data
 * carries its view's epoch or a count that does.
 *
 * All ranks must be called often: a rank that is not polled for silent_ns is lost to the others.
 * The fabric's events, messages and endpoints are the gang's; its regions are the caller's, and so
 * is the end of operations, which poll hands on. Nothing is allocated after create.
 * Thread: the fabric's owner. */
#ifndef CMI_CLUSTER_GANG_H
#define CMI_CLUSTER_GANG_H

#include "cluster/frame.h"
#include "cluster/gang_wire.h"
#include "cluster/membership.h"
#include "fabric/fabric.h"
#include "policy/gang.h"

typedef struct cmi_gang cmi_gang;

typedef struct cmi_gang_options {
    const char *name; /* of the instance; all its ranks have the same */
    /* Both are the caller's and outlive the gang. The fabric listens, takes messages of
     * CMI_GANG_MAX_FRAME bytes, and has endpoints for twice the ranks. The members are the ranks in
     * the order of slots; addresses that are not known are learned from slot 0, whose must be. This
     * one is announced. */
    cmi_fabric *fabric;
    cmi_membership *membership;
    const void *blob; /* for the others, at most CMI_GANG_MAX_BLOB bytes; copied */
    size_t blob_bytes;
    uint64_t connect_ns; /* an attempt to connect, and the greeting behind it, take no longer */
    uint64_t redial_ns;  /* between attempts */
    /* n_slots and self are the membership's; generation 0: by the clock. */
    cmi_gang_machine_options machine;
} cmi_gang_options;

/* Fills in times. The caller sets name, fabric, membership, blob, machine.min_ranks. */
void cmi_gang_options_default(cmi_gang_options *opt);

/* CMI_ERR_INVALID: an option. */
CMI_NODISCARD cmi_status cmi_gang_create(cmi_gang **gang_out, const cmi_gang_options *opt,
                                         cmi_error *err);

/* Closes all its endpoints: the others know at once. NULL is fine. */
void cmi_gang_destroy(cmi_gang *gang);

/* ---- getting on ---- */

typedef struct cmi_gang_event {
    enum { CMI_GANG_DONE, CMI_GANG_FRAME } kind;
    cmi_fabric_event done; /* DONE: an operation on an endpoint of the view has ended */
    uint32_t rank;         /* FRAME: who sent it, in the view that is READY */
    cmi_frame frame;       /* FRAME: of its epoch; valid until the next call */
} cmi_gang_event;

/* Does what is due, without waiting. True: and something is for the caller; call again. Frames of
 * other epochs, and of types below CMI_FRAME_EP, are never for the caller. */
CMI_NODISCARD bool cmi_gang_poll(cmi_gang *gang, cmi_gang_event *event_out);

/* Sleeps until there is something to poll or due, at most until the deadline (of the fabric's
 * clock). */
void cmi_gang_sleep(cmi_gang *gang, uint64_t deadline_ns);

/* ---- phases and views ---- */

/* Changes in poll, stopped and rejoin only. */
cmi_gang_phase cmi_gang_get_phase(const cmi_gang *gang);
uint32_t cmi_gang_n_seen(const cmi_gang *gang); /* living ranks, this one included */

typedef struct cmi_gang_rank {
    uint32_t slot;
    uint64_t generation;
    cmi_endpoint_id endpoint; /* zeroed: this process; of nothing, once the rank is lost */
    const void *blob;
    size_t blob_bytes;
} cmi_gang_rank;

typedef struct cmi_gang_view {
    uint64_t epoch;
    uint32_t n_ranks, rank;     /* ranks in the order of slots; rank is this process */
    const cmi_gang_rank *ranks; /* [n_ranks] */
} cmi_gang_view;

/* NULL: neither READY nor STOPPING. Else valid, and the same, until that ends. */
const cmi_gang_view *cmi_gang_get_view(const cmi_gang *gang);

/* See STOPPING. Only there (asserted). */
void cmi_gang_stopped(cmi_gang *gang);

/* In LEFT_OUT (asserted): begins anew with a higher generation, and another blob. CMI_ERR_INVALID:
 * the blob is too long; nothing has changed. */
CMI_NODISCARD cmi_status cmi_gang_rejoin(cmi_gang *gang, const void *blob, size_t blob_bytes,
                                         cmi_error *err);

/* ---- messages of the layer above ---- */

/* In READY (asserted). type: CMI_FRAME_EP or above; frame: as much room as cmi_frame_begin was
 * given, whose writer w is. CMI_ERR_NO_CAPACITY: call poll, then again. CMI_ERR_TOO_LARGE: it did
 * not fit. Else why the rank's endpoint is lost. */
CMI_NODISCARD cmi_status cmi_gang_send(cmi_gang *gang, uint32_t rank, uint16_t type, uint8_t *frame,
                                       const cmi_le_writer *w);

/* ---- counters ---- */

typedef struct cmi_gang_counters {
    uint64_t n_views;          /* installed */
    uint64_t n_left_out;       /* or superseded */
    uint64_t n_links, n_lost;  /* ranks that were reached, and lost again */
    uint64_t n_bad_frames;     /* that ended their links */
    uint64_t n_unknown_frames; /* of a newer minor version, passed over */
    uint64_t n_stale_frames;   /* of another epoch, or of nobody in the view */
    uint64_t last_reform_ns;   /* from the end of the view before to the last one */
} cmi_gang_counters;

void cmi_gang_get_counters(const cmi_gang *gang, cmi_gang_counters *counters_out);

#endif
