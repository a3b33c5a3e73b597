/* engine/kv_sender_internal.h - what kv_sender.c (thread, life), kv_sender_pages.c (a
 * transfer's way) and kv_sender_peers.c (connections) share. */
#ifndef CMI_ENGINE_KV_SENDER_INTERNAL_H
#define CMI_ENGINE_KV_SENDER_INTERNAL_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/kv_sender.h"

/* A decode instance. */
typedef struct cmi_decode_peer {
    cmi_endpoint_id endpoint; /* gen 0: free */
    cmi_remote_id pages, boxes;
    uint32_t n_seats;
    bool is_welcome; /* its shape is ours, its memory is open */
} cmi_decode_peer;

/* How much of a complete transfer's end has been given to the fabric. */
typedef enum cmi_send_tail {
    CMI_SEND_TAIL_CHECKSUMS,
    CMI_SEND_TAIL_RECORD,
    CMI_SEND_TAIL_SIGNAL,
    CMI_SEND_TAIL_NOTE,
    CMI_SEND_TAIL_FLUSH,
    CMI_SEND_TAIL_DONE,
} cmi_send_tail;

typedef struct cmi_send {
    cmi_send_state state;
    uint32_t generation; /* of this place in the table */
    uint64_t transfer;   /* the decode side's number */
    cmi_endpoint_id endpoint;
    cmi_remote_id pages, boxes;
    uint32_t seat;
    uint32_t n_pages, n_bytes; /* of the order */
    uint8_t *order;            /* owned: page ids there, then the request */
    uint32_t *checksums;       /* owned [n_pages][n_layers] */
    uint32_t n_sent;           /* pages, in all layers */
    uint32_t range_end;        /* pages n_sent .. range_end - 1 are being put */
    uint32_t layer, page;      /* the next slice of them */
    cmi_send_tail tail;
    cmi_op op;                       /* the fetch, then the last flush */
    uint32_t n_events, n_events_due; /* of the prompt, taken from the engine */
    bool is_flushing, is_in_engine;
    cmi_status end; /* what ENDED will say; CMI_OK: nothing, it was put */
    /* the lock's */
    uint32_t *source; /* owned [n_pages] page ids here */
    uint32_t n_ready; /* pages that are final in all layers */
    uint32_t n_step;  /* and those that the step at hand makes so */
    bool is_complete;
    cmi_handover_record record;
} cmi_send;

struct cmi_kv_sender {
    cmi_fabric *fabric;
    cmi_engine *engine;
    cmi_handover_shape shape;
    cmi_handover_box box;
    const uint8_t *pages;
    pthread_t thread;
    bool has_thread;
    /* the thread's */
    cmi_decode_peer peers[CMI_HANDOVER_MAX_PEERS];
    cmi_send *sends; /* [n_sends] */
    uint32_t n_sends;
    uint32_t *active; /* [n_active] those that are not free */
    uint32_t n_active;
    cmi_handover_message message;
    cmi_handover_event pending; /* of a prompt, not sent yet; kind 0: none */
    cmi_endpoint_id pending_endpoint;

    _Atomic uint32_t n_layers_done; /* of the step at hand */

    pthread_mutex_t lock; /* guards the parts of sends that say so, and what is below */
    uint32_t *in_step;    /* [n_in_step] sends of the step at hand */
    uint32_t n_in_step;
    bool stopping;
};

/* ---- kv_sender_pages.c ---- */

/* What the engine and the fabric call a transfer. */
static inline uint64_t cmi_send_id(const cmi_kv_sender *s, const cmi_send *send)
{
    return (uint64_t)send->generation << 32 | (uint64_t)(send - s->sends);
}

/* NULL: that one is over. */
cmi_send *cmi_send_find(cmi_kv_sender *s, uint64_t id);

/* Takes a transfer as far as it gets now. Returns whether it should be looked at again soon. */
bool cmi_send_advance(cmi_kv_sender *s, cmi_send *send);

/* The transfer ends early; why is for the decode side. */
void cmi_send_end_early(cmi_send *send, cmi_status why);

/* Its operation has ended. */
void cmi_send_on_done(cmi_kv_sender *s, cmi_send *send, cmi_status st);

void cmi_send_move_on(cmi_send *send, cmi_send_event event);

/* ---- kv_sender_peers.c ---- */

void cmi_send_poll_fabric(cmi_kv_sender *s);
void cmi_send_poll_messages(cmi_kv_sender *s);
void cmi_send_free(cmi_send *send); /* what it owns */

#endif
