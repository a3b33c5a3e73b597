/* engine/router_internal.h - what router.c (calls from any thread) and router_links.c (its thread)
 * share. */
#ifndef CMI_ENGINE_ROUTER_INTERNAL_H
#define CMI_ENGINE_ROUTER_INTERNAL_H

#include <pthread.h>

#include "engine/engine_calls.h"
#include "engine/event_ring.h"
#include "engine/grammar_cache.h"
#include "engine/link_wire.h"
#include "engine/router.h"
#include "policy/routing.h"

enum { CMI_ROUTER_NOBODY = UINT32_MAX };

typedef struct cmi_router_slot {
    cmi_request *request; /* owned; NULL: free */
    uint32_t *output;     /* [max_output] owned: the tokens so far */
    uint32_t n_output, max_output;
    uint32_t n_prompt_events; /* that came */
    uint32_t n_pages;         /* of KV, when it is complete */
    uint32_t rank;            /* that has it; CMI_ROUTER_NOBODY: it waits for one */
    uint32_t attempt;         /* with the slot's index its number on links */
    uint32_t next;            /* of a queue */
    uint64_t submitted_ns, started_ns, first_token_ns, unplaced_ns;
    bool is_cancelled; /* lock */
    bool is_cancel_told;
} cmi_router_slot;

typedef struct cmi_router_queue { /* of slots; bounded by their number */
    uint32_t first, last, n;
} cmi_router_queue;

enum { CMI_ROUTER_GIFTS = 64 };

typedef struct cmi_router_gift { /* a request that a rank may not have told of yet */
    uint32_t n_tokens, n_pages;
} cmi_router_gift;

typedef enum cmi_router_link_state {
    CMI_ROUTER_AWAY,       /* to be connected to at redial_ns */
    CMI_ROUTER_CONNECTING, /* or it has not said hello */
    CMI_ROUTER_UP,
} cmi_router_link_state;

typedef struct cmi_router_link {
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    /* the router thread's */
    cmi_endpoint_id endpoint;
    uint64_t redial_ns;
    cmi_router_queue to_send;
    cmi_request *sending; /* owned: of to_send's first, as it is sent; NULL: not begun */
    uint32_t n_sent_bytes;
    bool owes_flush;
    /* lock */
    cmi_router_link_state state;
    uint64_t full_until_ns; /* it has refused: not asked before */
    cmi_link_hello hello;
    cmi_link_load told;
    uint64_t n_given;                        /* requests, since hello */
    cmi_router_gift gifts[CMI_ROUTER_GIFTS]; /* the last ones, by n_given % CMI_ROUTER_GIFTS */
    cmi_engine_stats counted;                /* of processes that had this place before */
} cmi_router_link;

typedef struct cmi_router {
    cmi_engine_base base;
    cmi_fabric *fabric;
    cmi_event_ring ring;
    pthread_t thread;
    bool has_thread;
    uint32_t n_ranks, n_slots;
    uint64_t patience_ns;
    const cmi_vocab *vocab;
    cmi_grammar_cache *grammars;
    /* the router thread's */
    cmi_router_slot *slots; /* [n_slots] */
    uint32_t *ended;        /* [n_slots] that end without a rank's word */
    bool owes_cancels;
    uint8_t in[CMI_LINK_MESSAGE_BYTES], out[CMI_LINK_MESSAGE_BYTES];

    pthread_mutex_t lock;   /* guards everything below, and what says so above */
    pthread_cond_t changed; /* n_open has */
    cmi_router_link *links; /* [n_ranks] */
    uint32_t *free_slots;   /* a stack */
    uint32_t n_free_slots;
    uint32_t *inbox; /* [n_slots] oldest first */
    uint32_t n_inbox;
    cmi_router_queue unplaced; /* changed by the router's thread only */
    uint32_t turn;
    uint32_t n_cancelled; /* not looked at yet */
    cmi_admission_queue bounds;
    uint64_t n_refused[CMI_ADMISSION_N_REASONS];
    bool flush_asked, stopping;
    cmi_link_hello info; /* of the first that said hello */
    bool has_info;
    cmi_router_stats stats;
} cmi_router;

/* router_links.c */
void *cmi_router_main(void *router);

/* How loaded ranks are, to choose from; locked. loads: [n_ranks]. */
void cmi_router_loads(const cmi_router *router, uint64_t now_ns, cmi_rank_load *loads);

/* ---- router_queue.c: lists of slots, linked by next ---- */
void cmi_router_queue_push(cmi_router *router, cmi_router_queue *queue, uint32_t idx);
void cmi_router_queue_remove(cmi_router *router, cmi_router_queue *queue, uint32_t idx);

#endif
