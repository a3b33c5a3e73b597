/* ep/rank_wire.h - what the ranks of an instance tell each other beside rows (docs/WIRE.md): where
 * they are to be written to, and that a pass begins. Pure; any thread. */
#ifndef CMI_EP_RANK_WIRE_H
#define CMI_EP_RANK_WIRE_H

#include "cluster/frame.h"
#include "fabric/fabric.h"

enum {
    CMI_EP_MAX_STREAMS = 2,
    CMI_EP_MAX_REGIONS = CMI_EP_MAX_STREAMS + 1, /* and the stage exchange's */
    CMI_EP_FRAME_CALL = CMI_FRAME_EP,
    CMI_EP_FRAME_COUNTS,
    CMI_EP_FRAME_ROUND,
    CMI_EP_MAX_COUNTS = 256, /* of a frame */
    CMI_EP_MAX_FRAME = CMI_FRAME_HEAD_BYTES + 64 + 4 * CMI_EP_MAX_COUNTS,
    CMI_EP_MAX_HELLO = 16 + CMI_EP_MAX_REGIONS * (2 + CMI_FABRIC_MAX_RKEY),
};

/* The blob of a rank in its gang. */
typedef struct cmi_ep_hello {
    uint64_t model; /* a hash of all that ranks of one instance have in common */
    uint32_t n_regions;
    cmi_rkey regions[CMI_EP_MAX_REGIONS]; /* of the streams, then of stages */
} cmi_ep_hello;

/* A pass begins that all ranks are to join. */
typedef struct cmi_ep_call {
    uint64_t sequence; /* of its first exchange */
    uint32_t pass;     /* which: the caller's */
} cmi_ep_call;

/* Rows that a rank has sent to experts first .. first + n - 1 of a layer, in a window of passes. */
typedef struct cmi_ep_counts {
    uint32_t layer, first, n; /* n: 1 .. CMI_EP_MAX_COUNTS */
    bool is_busy;             /* it was moving experts when the window ended */
    const uint8_t *counts;    /* in the frame; see cmi_ep_count_at */
} cmi_ep_counts;

/* How far a rank is with moving experts: rounds of the view. It switches once for each that it has
 * loaded, and before it loads the next. */
typedef struct cmi_ep_round {
    uint32_t n_loaded, n_switched;
} cmi_ep_round;

size_t cmi_ep_write_hello(uint8_t out[CMI_EP_MAX_HELLO], const cmi_ep_hello *hello);
CMI_NODISCARD bool cmi_ep_read_hello(const void *bytes, size_t n_bytes, cmi_ep_hello *hello_out);

void cmi_ep_write_call(cmi_le_writer *w, const cmi_ep_call *call);
CMI_NODISCARD bool cmi_ep_read_call(const cmi_frame *frame, cmi_ep_call *call_out);

void cmi_ep_write_counts(cmi_le_writer *w, const cmi_ep_counts *head, const uint32_t *counts);
CMI_NODISCARD bool cmi_ep_read_counts(const cmi_frame *frame, cmi_ep_counts *counts_out);
static inline uint32_t cmi_ep_count_at(const cmi_ep_counts *counts, uint32_t i)
{
    return cmi_le_load32(counts->counts + 4 * (size_t)i);
}

void cmi_ep_write_round(cmi_le_writer *w, const cmi_ep_round *round);
CMI_NODISCARD bool cmi_ep_read_round(const cmi_frame *frame, cmi_ep_round *round_out);

#endif
