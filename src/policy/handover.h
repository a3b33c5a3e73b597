/* policy/handover.h - how a stored prompt gets from a prefill instance into the pages of a decode
 * instance (paper section 4.3.3), as two state machines and nothing else.
 *
 * The decode side reserves pages and asks; the prefill side gets the request, computes it, puts
 * each layer's slice of each page as soon as it is final, then a record with the checksums and the
 * first token, then a signal.
 *
 *     receive  IDLE --ask--> WAITING --sent--> ASKED --arrived--> IDLE
 *                            |  ^                |  \
 *              IDLE <--drop--+  +--ended, lost,--+   +--drop--> LEAVING --ended, arrived,--> IDLE
 *                                  damaged                               lost
 *
 *     send     FREE --asked--> FETCHING --fetched--> RUNNING --put_all--> CLOSING --flushed--+
 *                                 |                     |                                    |
 *                               stop                  stop                                   v
 *                                 v                     v                   FREE <--over-- ENDING
 *                              LEAVING <---------- (its flush) --flushed-----------^
 *
 * The rules that keep pages safe:
 *  - Pages of the decode side are somebody else's from sent to arrived, ended or lost, and no
 *    request ends its hold on them in between. A drop in ASKED therefore waits in LEAVING.
 *  - Whoever puts holds its own pages until a flush has ended, whatever has become of the request.
 *  - A transfer has a number that is never used again, and messages with another are ignored.
 *
 * Death of the prefill side (lost) asks another one for the same pages: the request need not know.
 * Death of the decode side (stop) ends the work on the prefill side. Pure; any thread. */
#ifndef CMI_POLICY_HANDOVER_H
#define CMI_POLICY_HANDOVER_H

#include "base/compiler.h"

typedef enum cmi_receive_state {
    CMI_RECEIVE_IDLE,
    CMI_RECEIVE_WAITING, /* for a prefill instance that can be asked */
    CMI_RECEIVE_ASKED,   /* one may write the pages */
    CMI_RECEIVE_LEAVING, /* it has been told to stop, and has not said that it did */
    CMI_RECEIVE_N_STATES,
} cmi_receive_state;

typedef enum cmi_receive_event {
    CMI_RECEIVE_ASK,     /* the engine has reserved pages */
    CMI_RECEIVE_SENT,    /* a prefill instance has been asked */
    CMI_RECEIVE_ARRIVED, /* signal seen */
    CMI_RECEIVE_DAMAGED, /* signal seen, but a checksum does not fit */
    CMI_RECEIVE_ENDED,   /* the prefill instance will not write: it refused, or has stopped */
    CMI_RECEIVE_LOST,    /* the prefill instance is gone */
    CMI_RECEIVE_DROP,    /* the engine wants no more of it, or nobody could be asked in time */
    CMI_RECEIVE_N_EVENTS,
} cmi_receive_event;

typedef enum cmi_send_state {
    CMI_SEND_FREE,
    CMI_SEND_FETCHING, /* the request is on its way here */
    CMI_SEND_RUNNING,  /* it is the engine's; pages are put as they become final */
    CMI_SEND_CLOSING,  /* all is put and signalled, the last flush runs */
    CMI_SEND_LEAVING,  /* to end early: nothing new is put, a flush or the fetch runs */
    CMI_SEND_ENDING,   /* the engine was told to end it */
    CMI_SEND_N_STATES,
} cmi_send_state;

typedef enum cmi_send_event {
    CMI_SEND_ASKED,
    CMI_SEND_FETCHED, /* and the engine took it */
    CMI_SEND_PUT_ALL,
    CMI_SEND_STOP,    /* the decode side drops it or is gone, or the request cannot be had */
    CMI_SEND_FLUSHED, /* no operation touches our memory any more; or there never was one */
    CMI_SEND_OVER,    /* the engine has ended it, or never had it */
    CMI_SEND_N_EVENTS,
} cmi_send_event;

/* The state after the event; ..._N_STATES where the event cannot happen. An event that changes
 * nothing gives the state as it was. */
cmi_receive_state cmi_receive_next_state(cmi_receive_state state, cmi_receive_event event);
cmi_send_state cmi_send_next_state(cmi_send_state state, cmi_send_event event);

#endif
