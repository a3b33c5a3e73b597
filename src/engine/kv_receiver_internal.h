/* engine/kv_receiver_internal.h - what kv_receiver.c (thread, life), kv_receiver_seats.c (a
 * transfer's way) and kv_receiver_peers.c (connections and messages) share. */
#ifndef CMI_ENGINE_KV_RECEIVER_INTERNAL_H
#define CMI_ENGINE_KV_RECEIVER_INTERNAL_H

#include <assert.h>
#include <pthread.h>

#include "engine/engine.h"
#include "engine/kv_receiver.h"
#include "policy/routing.h"

typedef struct cmi_receive_seat {
    cmi_receive_state state;
    uint64_t transfer; /* of the last ask; 0: none */
    uint32_t peer;
    uint32_t n_pages, n_bytes, n_tokens;
    uint64_t word_before; /* of the ask */
    uint64_t retry_ns;    /* not to be asked for before */
    uint64_t deadline_ns; /* for somebody to be asked */
    uint32_t n_damaged;   /* transfers of this ask */
    bool is_done;         /* the peer has said so; its signal follows */
    bool is_told;         /* the peer, that it was dropped */
} cmi_receive_seat;

typedef struct cmi_prefill_peer {
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    cmi_endpoint_id endpoint;
    bool has_endpoint; /* connected, or on the way */
    uint64_t retry_ns;
} cmi_prefill_peer;

typedef struct cmi_receive_command {
    uint32_t seat;
    bool is_drop;
} cmi_receive_command;

struct cmi_kv_receiver {
    cmi_fabric *fabric;
    uint64_t patience_ns;
    cmi_region_id pages_region, boxes_region;
    uint8_t *pages, *boxes;
    cmi_engine *engine;
    cmi_handover_box box;
    cmi_handover_shape shape;
    uint32_t n_seats;
    pthread_t thread;
    bool has_thread;
    /* the thread's */
    cmi_receive_seat *seats;
    uint64_t n_transfers;
    cmi_prefill_peer peers[CMI_HANDOVER_MAX_PEERS];
    cmi_prefill_load loads[CMI_HANDOVER_MAX_PEERS];
    uint32_t n_peers;
    cmi_receive_command *taken; /* [2 * n_seats] */
    cmi_handover_message message;

    pthread_mutex_t lock;          /* guards everything below */
    cmi_receive_command *commands; /* [2 * n_seats]: an ask and a drop of each at most */
    uint32_t n_commands;
    bool stopping;
    cmi_handover_stats stats;
};

/* ---- kv_receiver_seats.c ---- */

static inline void cmi_receive_move_on(cmi_receive_seat *seat, cmi_receive_event event)
{
    seat->state = cmi_receive_next_state(seat->state, event);
    assert(seat->state != CMI_RECEIVE_N_STATES);
}

static inline uint8_t *cmi_receive_box(const cmi_kv_receiver *r, uint32_t seat)
{
    return r->boxes + seat * r->box.n_bytes;
}

static inline const _Atomic uint64_t *cmi_receive_word(const cmi_kv_receiver *r, uint32_t seat)
{
    return (const _Atomic uint64_t *)cmi_receive_box(r, seat);
}

/* The seat of a transfer that is not over; UINT32_MAX: none. */
uint32_t cmi_receive_find(const cmi_kv_receiver *r, uint64_t transfer);

/* Asks for all seats that wait, as far as somebody can be asked, and gives up on those that have
 * waited for too long. */
void cmi_receive_ask_all(cmi_kv_receiver *r);

/* The engine wants no more of the seat. */
void cmi_receive_drop(cmi_kv_receiver *r, uint32_t seat);

/* A drop is told as soon as the ring has room; until then the transfer goes on in vain. */
void cmi_receive_tell_drops(cmi_kv_receiver *r);

/* Takes what is signalled. Returns whether a signal is still to come. */
bool cmi_receive_look_at_words(cmi_kv_receiver *r);

/* The seat's record is signalled. */
void cmi_receive_arrive(cmi_kv_receiver *r, uint32_t seat);

/* The seat is nobody else's any more. The engine is told if the ask is over with that; otherwise
 * somebody else is to be asked, or it ends with `failure`. */
void cmi_receive_leave_peer(cmi_kv_receiver *r, uint32_t seat, cmi_receive_event event,
                            cmi_status failure);

/* ---- kv_receiver_peers.c ---- */

void cmi_receive_connect_peers(cmi_kv_receiver *r);
void cmi_receive_poll_messages(cmi_kv_receiver *r);
void cmi_receive_poll_events(cmi_kv_receiver *r);

#endif
