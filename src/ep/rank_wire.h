/* ep/rank_wire.h - what the ranks of an instance tell each other beside rows (docs/WIRE.md): where
 * they are to be written to, and that a pass begins. Pure; any thread. */
#ifndef CMI_EP_RANK_WIRE_H
#define CMI_EP_RANK_WIRE_H

#include "cluster/frame.h"
#include "fabric/fabric.h"

enum {
    CMI_EP_MAX_STREAMS = 2,
    CMI_EP_FRAME_CALL = CMI_FRAME_EP,
    CMI_EP_MAX_FRAME = CMI_FRAME_HEAD_BYTES + 64,
    CMI_EP_MAX_HELLO = 16 + CMI_EP_MAX_STREAMS * (2 + CMI_FABRIC_MAX_RKEY),
};

/* The blob of a rank in its gang. */
typedef struct cmi_ep_hello {
    uint64_t model; /* a hash of all that ranks of one instance have in common */
    uint32_t n_streams;
    cmi_rkey regions[CMI_EP_MAX_STREAMS];
} cmi_ep_hello;

/* A pass begins that all ranks are to join. */
typedef struct cmi_ep_call {
    uint64_t sequence; /* of its first exchange */
    uint32_t pass;     /* which: the caller's */
} cmi_ep_call;

size_t cmi_ep_write_hello(uint8_t out[CMI_EP_MAX_HELLO], const cmi_ep_hello *hello);
CMI_NODISCARD bool cmi_ep_read_hello(const void *bytes, size_t n_bytes, cmi_ep_hello *hello_out);

void cmi_ep_write_call(cmi_le_writer *w, const cmi_ep_call *call);
CMI_NODISCARD bool cmi_ep_read_call(const cmi_frame *frame, cmi_ep_call *call_out);

#endif
