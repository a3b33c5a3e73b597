/* fabric/local/ring.c - see ring.h.
 *
 * Positions are stored and loaded seq_cst where a sleeper depends on it: a writer stores tail, then
 * asks whether the reader sleeps; a reader says that it sleeps, then looks at tail (sleep.c). The
 * same holds for wants_room and head. Elsewhere acquire and release would do. */
#include "fabric/local/ring.h"

#include <string.h>

enum { HEAD_BYTES = 8 };

void cmi_ring_init(cmi_ring *ring, void *shared, uint32_t n_bytes, uint32_t message_bytes)
{
    *ring = (cmi_ring){.shared = shared, .n_bytes = n_bytes, .message_bytes = message_bytes};
}

static uint64_t record_bytes(uint64_t n_bytes)
{
    return HEAD_BYTES + CMI_ROUND_UP(n_bytes, (uint64_t)8);
}

static void copy_in(cmi_ring *ring, uint64_t at, const void *from, size_t n)
{
    size_t begin = at & (ring->n_bytes - 1);
    size_t first = CMI_MIN(n, ring->n_bytes - begin);
    memcpy(ring->shared->bytes + begin, from, first);
    memcpy(ring->shared->bytes, (const uint8_t *)from + first, n - first);
}

static void copy_out(const cmi_ring *ring, uint64_t at, void *to, size_t n)
{
    size_t begin = at & (ring->n_bytes - 1);
    size_t first = CMI_MIN(n, ring->n_bytes - begin);
    memcpy(to, ring->shared->bytes + begin, first);
    memcpy((uint8_t *)to + first, ring->shared->bytes, n - first);
}

/* A reader that claims to have read what was not written gets no room. */
static bool fits(const cmi_ring *ring, uint64_t head, uint64_t n)
{
    uint64_t used = ring->at - head;
    return used <= ring->n_bytes && n <= ring->n_bytes - used;
}

cmi_status cmi_ring_write(cmi_ring *ring, const void *message, uint32_t n_bytes)
{
    uint64_t n = record_bytes(n_bytes);
    if (!fits(ring, ring->other, n)) {
        ring->other = atomic_load_explicit(&ring->shared->head, memory_order_acquire);
    }
    if (!fits(ring, ring->other, n)) {
        atomic_store(&ring->shared->wants_room, 1);
        ring->other = atomic_load(&ring->shared->head);
    }
    if (!fits(ring, ring->other, n)) {
        return CMI_ERR_NO_CAPACITY;
    }
    uint64_t head = n_bytes;
    copy_in(ring, ring->at, &head, HEAD_BYTES);
    copy_in(ring, ring->at + HEAD_BYTES, message, n_bytes);
    ring->at += n;
    atomic_store(&ring->shared->tail, ring->at);
    return CMI_OK;
}

bool cmi_ring_has_moved(const cmi_ring *ring)
{
    return atomic_load(&ring->shared->head) != ring->other;
}

bool cmi_ring_has_message(const cmi_ring *ring)
{
    return atomic_load(&ring->shared->tail) != ring->at;
}

cmi_status cmi_ring_read(cmi_ring *ring, void *buffer, size_t *n_bytes_out, bool *was_wanted_out)
{
    *was_wanted_out = false;
    if (ring->other == ring->at) {
        ring->other = atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
    }
    uint64_t there = ring->other - ring->at;
    if (there == 0) {
        return CMI_IN_PROGRESS;
    }
    uint64_t n_bytes = 0;
    if (there < HEAD_BYTES || there > ring->n_bytes) {
        return CMI_ERR_BAD_DATA;
    }
    copy_out(ring, ring->at, &n_bytes, HEAD_BYTES);
    if (n_bytes == 0 || n_bytes > ring->message_bytes || record_bytes(n_bytes) > there) {
        return CMI_ERR_BAD_DATA;
    }
    copy_out(ring, ring->at + HEAD_BYTES, buffer, n_bytes);
    ring->at += record_bytes(n_bytes);
    atomic_store(&ring->shared->head, ring->at);
    if (atomic_load(&ring->shared->wants_room) != 0) {
        *was_wanted_out = atomic_exchange(&ring->shared->wants_room, 0) != 0;
    }
    *n_bytes_out = n_bytes;
    return CMI_OK;
}
