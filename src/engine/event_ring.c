#include "engine/event_ring.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

cmi_status cmi_event_ring_init(cmi_event_ring *ring, uint32_t n_slots, cmi_error *err)
{
    *ring = (cmi_event_ring){.n_slots = n_slots};
    ring->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring->fd < 0) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    }
    ring->events = cmi_alloc(n_slots, sizeof *ring->events);
    pthread_mutex_init(&ring->lock, NULL);
    pthread_cond_init(&ring->room, NULL);
    return CMI_OK;
}

void cmi_event_ring_deinit(cmi_event_ring *ring)
{
    if (ring->events != NULL) {
        close(ring->fd);
        pthread_cond_destroy(&ring->room);
        pthread_mutex_destroy(&ring->lock);
        cmi_free(ring->events);
        *ring = (cmi_event_ring){0};
    }
}

bool cmi_event_ring_push(cmi_event_ring *ring, const cmi_event *event)
{
    pthread_mutex_lock(&ring->lock);
    while (ring->n_used == ring->n_slots && !ring->closed) {
        pthread_cond_wait(&ring->room, &ring->lock);
    }
    bool has_room = ring->n_used < ring->n_slots;
    bool was_empty = ring->n_used == 0;
    if (has_room) {
        ring->events[(ring->head + ring->n_used) % ring->n_slots] = *event;
        ring->n_used++;
    }
    pthread_mutex_unlock(&ring->lock);
    if (was_empty) {
        uint64_t one = 1;
        ssize_t n = write(ring->fd, &one, sizeof one); /* fails only when readable already */
        (void)n;
        if (ring->notify != NULL) {
            ring->notify(ring->notify_arg);
        }
    }
    return has_room;
}

size_t cmi_event_ring_take(cmi_event_ring *ring, cmi_event *events_out, size_t n_max)
{
    pthread_mutex_lock(&ring->lock);
    size_t n = CMI_MIN(n_max, (size_t)ring->n_used);
    for (size_t i = 0; i < n; i++) {
        events_out[i] = ring->events[(ring->head + i) % ring->n_slots];
    }
    ring->head = (uint32_t)((ring->head + n) % ring->n_slots);
    ring->n_used -= (uint32_t)n;
    if (n > 0) {
        pthread_cond_signal(&ring->room);
    }
    pthread_mutex_unlock(&ring->lock);
    return n;
}

void cmi_event_ring_close(cmi_event_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    ring->closed = true;
    pthread_cond_signal(&ring->room);
    pthread_mutex_unlock(&ring->lock);
}
