/* engine/event_ring.h - the bounded ring of events from an engine to its poller.
 *
 * Producer: the engine's thread. Consumer: one polling thread. Full: the producer waits, and is let
 * go when the ring is closed; nothing is dropped before that. */
#ifndef CMI_ENGINE_EVENT_RING_H
#define CMI_ENGINE_EVENT_RING_H

#include <pthread.h>

#include "engine/message.h"

typedef struct cmi_event_ring {
    pthread_mutex_t lock;
    pthread_cond_t room;
    cmi_event *events;
    uint32_t n_slots;
    uint32_t head; /* next to take */
    uint32_t n_used;
    bool closed;
    int fd;                    /* eventfd: readable after a push into the empty ring */
    void (*notify)(void *arg); /* called then, too; NULL: nothing is */
    void *notify_arg;
} cmi_event_ring;

CMI_NODISCARD cmi_status cmi_event_ring_init(cmi_event_ring *ring, uint32_t n_slots,
                                             cmi_error *err);
void cmi_event_ring_deinit(cmi_event_ring *ring); /* zeroed is fine */

/* Waits while the ring is full. False: it is closed, and the event was dropped for want of room. */
bool cmi_event_ring_push(cmi_event_ring *ring, const cmi_event *event);
size_t cmi_event_ring_take(cmi_event_ring *ring, cmi_event *events_out, size_t n_max);

/* From now on a push into the full ring drops instead of waiting. */
void cmi_event_ring_close(cmi_event_ring *ring);

#endif
