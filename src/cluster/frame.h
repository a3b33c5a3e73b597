/* cluster/frame.h - the head of every message between processes of a cluster (docs/WIRE.md).
 *
 *     at 0   u32  magic, "CMIF"
 *        4   u8   major version, u8 minor version
 *        6   u16  type
 *        8   u32  bytes of payload behind the head
 *       12   u32  CRC32C of the head, with 0 here, and the payload
 *       16   u64  epoch of the sender's view; 0: of none
 *       24        payload
 *
 * A peer of another major version is not talked to. A newer minor version may have types that are
 * not known here, which are passed over, and payloads with more behind what is known, which is not
 * read; from a peer of this or an older minor version both are errors. Pure; any thread. */
#ifndef CMI_CLUSTER_FRAME_H
#define CMI_CLUSTER_FRAME_H

#include "base/le.h"
#include "base/status.h"

enum {
    CMI_FRAME_MAGIC = 0x46494D43, /* "CMIF" in bytes */
    CMI_FRAME_MAJOR = 1,
    CMI_FRAME_MINOR = 0,
    CMI_FRAME_HEAD_BYTES = 24,
};

/* Each part of the program has 256 types. */
enum {
    CMI_FRAME_GANG = 0x0100, /* cluster/gang_wire.h */
    CMI_FRAME_EP = 0x0200,   /* the parts that use a gang */
};

typedef struct cmi_frame {
    uint8_t minor; /* the sender's */
    uint16_t type;
    uint64_t epoch;
    const uint8_t *payload;
    uint32_t n_bytes; /* of the payload */
} cmi_frame;

/* Where a payload is written: behind the head in buffer, which has n_bytes. */
cmi_le_writer cmi_frame_begin(uint8_t *buffer, size_t n_bytes);

/* Writes the head before what the writer has written. Returns the bytes of the frame; 0: it did not
 * fit. */
size_t cmi_frame_end(uint8_t *buffer, const cmi_le_writer *w, uint16_t type, uint64_t epoch);

/* Checks a whole message, of which the payload stays a part. CMI_ERR_BAD_DATA: no frame, cut, or
 * damaged. CMI_ERR_UNSUPPORTED: of another major version. */
CMI_NODISCARD cmi_status cmi_frame_read(const void *bytes, size_t n_bytes, cmi_frame *frame_out);

/* A reader at the payload's begin. */
static inline cmi_le_reader cmi_frame_reader(const cmi_frame *frame)
{
    return (cmi_le_reader){frame->payload, frame->payload + frame->n_bytes, false};
}

/* The reader has found what it read, and no more is there than there may be. */
static inline bool cmi_frame_is_read(const cmi_frame *frame, const cmi_le_reader *r)
{
    return !r->is_bad && (r->at == r->end || frame->minor > CMI_FRAME_MINOR);
}

#endif
