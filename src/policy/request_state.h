/* policy/request_state.h - the states of a request inside an instance, and what moves it on.
 *
 * Where one instance does both halves:
 *
 *     FREE --arrive--> QUEUED --admit--> PREFILL --prompt_done--> DECODE --finish--> FREE
 *                        ^                  |                        |
 *                        +-----preempt------+-------preempt----------+
 *
 * Where prefill and decode are two instances (paper section 4.2), a request has a state in each.
 * The decode side is asked, and asks a prefill side in turn:
 *
 *     decode   QUEUED --reserve--> RECEIVE --received--> DECODE ...
 *                                     |
 *                                     +--leave--> DRAIN --drained--> FREE
 *     prefill  QUEUED --admit--> PREFILL --hand_over--> SEND --finish--> FREE
 *
 *   RECEIVE  its pages are reserved, and a prefill instance may write them at any time
 *   DRAIN    the request has ended, but not yet the right of the prefill instance to write
 *   SEND     the prompt is stored, and its pages are being put into those of the decode side
 *
 * What goes on inside RECEIVE and SEND is in policy/handover.h.
 *
 * There is one way back: whoever loses its pages, or later its rank or node, waits again with the
 * tokens that it has, runs its prompt through prefill and its generated tokens through decode, and
 * has the same bits. FINISH ends a request from any state but those in which somebody else may
 * write its pages, RECEIVE and DRAIN.
 *
 * Pure; any thread. */
#ifndef CMI_POLICY_REQUEST_STATE_H
#define CMI_POLICY_REQUEST_STATE_H

#include "base/compiler.h"

typedef enum cmi_request_state {
    CMI_REQUEST_FREE, /* the slot holds no request */
    CMI_REQUEST_QUEUED,
    CMI_REQUEST_PREFILL, /* prompt rows are left to run */
    CMI_REQUEST_DECODE,  /* all generated tokens but perhaps some are stored; the next follows */
    CMI_REQUEST_SEND,
    CMI_REQUEST_RECEIVE,
    CMI_REQUEST_DRAIN,
    CMI_REQUEST_N_STATES,
} cmi_request_state;

typedef enum cmi_request_event {
    CMI_REQUEST_ARRIVE,
    CMI_REQUEST_ADMIT,
    CMI_REQUEST_PROMPT_DONE,
    CMI_REQUEST_HAND_OVER,
    CMI_REQUEST_RESERVE,
    CMI_REQUEST_RECEIVED,
    CMI_REQUEST_LEAVE,
    CMI_REQUEST_DRAINED,
    CMI_REQUEST_PREEMPT,
    CMI_REQUEST_FINISH,
    CMI_REQUEST_N_EVENTS,
} cmi_request_event;

/* The state after the event; CMI_REQUEST_N_STATES where the event cannot happen. */
cmi_request_state cmi_request_next_state(cmi_request_state state, cmi_request_event event);

/* "queued", ... */
const char *cmi_request_state_name(cmi_request_state state);

#endif
