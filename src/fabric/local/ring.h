/* fabric/local/ring.h - messages from one writer to one reader through shared memory.
 *
 * A record is eight bytes of length and the message, rounded up to eight. `tail` counts the bytes
 * ever written, `head` those ever read; a record may lie over the end. A writer that dies in a
 * record leaves none: tail is stored behind it. Nothing that the other side has written is trusted:
 * a reader of nonsense says so and stops.
 *
 * Each side has a cmi_ring of its own over the same cmi_ring_shared; its thread is the fabric's. */
#ifndef CMI_FABRIC_LOCAL_RING_H
#define CMI_FABRIC_LOCAL_RING_H

#include <stdatomic.h>

#include "base/status.h"

typedef struct cmi_ring_shared {
    _Atomic uint64_t tail CMI_ALIGNED(CMI_CACHE_LINE); /* the writer's */
    _Atomic uint64_t head CMI_ALIGNED(CMI_CACHE_LINE); /* the reader's */
    _Atomic uint32_t wants_room;                       /* the writer waits for head to move */
    uint8_t bytes[] CMI_ALIGNED(CMI_CACHE_LINE);
} cmi_ring_shared;

typedef struct cmi_ring {
    cmi_ring_shared *shared;
    uint32_t n_bytes;       /* of shared->bytes, a power of two */
    uint32_t message_bytes; /* longest message */
    uint64_t at;            /* own position: tail of a writer, head of a reader */
    uint64_t other;         /* what the other's was when last looked at */
} cmi_ring;

static inline size_t cmi_ring_shared_bytes(uint32_t n_bytes)
{
    return CMI_ROUND_UP(sizeof(cmi_ring_shared) + n_bytes, CMI_CACHE_LINE);
}

/* shared has cmi_ring_shared_bytes(n_bytes), zeroed when the first side begins. */
void cmi_ring_init(cmi_ring *ring, void *shared, uint32_t n_bytes, uint32_t message_bytes);

/* n_bytes is 1 .. message_bytes. CMI_ERR_NO_CAPACITY: full; wants_room is set. */
CMI_NODISCARD cmi_status cmi_ring_write(cmi_ring *ring, const void *message, uint32_t n_bytes);

/* The writer whose last write found no room: the reader has read something since. */
bool cmi_ring_has_moved(const cmi_ring *ring);

/* The reader: something is there, or was written that is nonsense. */
bool cmi_ring_has_message(const cmi_ring *ring);

/* CMI_IN_PROGRESS: none. CMI_ERR_BAD_DATA: nonsense. was_wanted_out: the writer waits for room. */
CMI_NODISCARD cmi_status cmi_ring_read(cmi_ring *ring, void *buffer, size_t *n_bytes_out,
                                       bool *was_wanted_out);

#endif
