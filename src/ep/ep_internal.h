/* ep/ep_internal.h - the state that dispatch.c and combine.c share. */
#ifndef CMI_EP_EP_INTERNAL_H
#define CMI_EP_EP_INTERNAL_H

#include "ep/ep.h"

typedef struct cmi_ep_target { /* a rank, as one that rows are sent to */
    cmi_ep_peer peer;
    uint8_t *memory; /* its region, or NULL: by put */
    uint32_t n_rows, n_pairs;
    uint32_t last_row; /* that was listed; so that a row is listed once */
    uint32_t *rows;    /* [max_rows] those that go there, ascending */
    uint8_t *heads;    /* [CMI_EP_WINDOWS][layout.messages] */
    uint8_t *head;     /* of them: head and pairs, as they will lie in the window */
} cmi_ep_target;

typedef struct cmi_ep_arrival { /* a pair, sorted by expert */
    uint16_t source;
    uint32_t message, pair_idx;
} cmi_ep_arrival;

typedef struct cmi_ep {
    cmi_exchange base;
    cmi_ep_layout layout;
    cmi_ep_options opt;
    uint8_t *region; /* own */
    uint64_t sequence;
    uint64_t deadline_ns; /* of the wait at hand */
    uint64_t arrived_ns;  /* when the last receive had all */
    cmi_ep_counters counters;
    uint32_t culprit;
    bool has_puts; /* some rank is reached by put */
    cmi_ep_target *targets;
    uint32_t *first_copy;     /* [n_ranks + 1] of the copies that the team does, rank by rank */
    uint8_t *messages;        /* [max_rows][message_bytes] packed, for puts */
    const uint8_t **packed;   /* [max_rows] each row's message: there, or in the own window */
    cmi_ep_arrival *arrivals; /* [max_arrivals] */
    uint32_t n_arrivals;
    /* of the call at hand, for the team */
    const cmi_exchange_rows *rows;
    const cmi_exchange_arrivals *into;
    size_t row_bytes;
    const uint8_t *results;
} cmi_ep;

static inline cmi_ep *cmi_ep_of(cmi_exchange *exchange)
{
    return (cmi_ep *)exchange; /* it begins with one */
}

static inline bool cmi_ep_is_there(const cmi_ep *ep, uint32_t rank)
{
    return !ep->targets[rank].peer.is_away;
}

/* Lets the options' look see to what else happens, and finds out who is lost. */
cmi_status cmi_ep_look_around(cmi_ep *ep);

/* What a call ends with: notes whose fault an error is. */
cmi_status cmi_ep_blame(cmi_ep *ep, uint32_t rank, cmi_status st);

/* Accepted, with progress while there is no room. */
cmi_status cmi_ep_put(cmi_ep *ep, uint32_t rank, const void *local, size_t offset, size_t n_bytes);

/* The flag at offset of a rank's region becomes the sequence number, behind all that was put or
 * written there. */
cmi_status cmi_ep_raise(cmi_ep *ep, uint32_t rank, size_t offset);

/* Until the flag at offset of the own region has the sequence number; the time is counted. */
cmi_status cmi_ep_await(cmi_ep *ep, uint32_t source, size_t offset);

/* Whether puts of before have failed that are over by now. */
cmi_status cmi_ep_check(cmi_ep *ep);

cmi_status cmi_ep_send(cmi_exchange *exchange, const cmi_exchange_rows *rows);
cmi_status cmi_ep_receive(cmi_exchange *exchange, const cmi_exchange_arrivals *arrivals);
cmi_status cmi_ep_send_back(cmi_exchange *exchange, const void *results);
cmi_status cmi_ep_receive_back(cmi_exchange *exchange, const void **results_out,
                               size_t *stride_out);
void cmi_ep_progress(cmi_exchange *exchange);

#endif
