/* cluster/gang_wire.h - what the ranks of a gang say to each other, as frames (docs/WIRE.md).
 *
 * A link begins with a HELLO from each side. Then the machine's messages (policy/gang.h), and what
 * slot 0 has heard of where others are. Pure; any thread. */
#ifndef CMI_CLUSTER_GANG_WIRE_H
#define CMI_CLUSTER_GANG_WIRE_H

#include "cluster/frame.h"
#include "cluster/membership.h"
#include "policy/gang.h"

enum {
    CMI_GANG_MAX_BLOB = 2048,
    CMI_GANG_MAX_FRAME = CMI_FRAME_HEAD_BYTES + 256 + CMI_GANG_MAX_BLOB,
};

typedef enum cmi_gang_frame_type {
    CMI_GANG_FRAME_MACHINE = CMI_FRAME_GANG, /* + cmi_gang_message_kind */
    CMI_GANG_FRAME_HELLO = CMI_FRAME_GANG + 0x10,
    CMI_GANG_FRAME_GOODBYE,
    CMI_GANG_FRAME_MEMBER,
} cmi_gang_frame_type;

typedef struct cmi_gang_hello {
    uint32_t slot, n_slots;
    uint64_t generation;
    uint64_t gang; /* a hash of the gang's name */
    char address[CMI_MEMBER_MAX_ADDRESS + 1];
    uint16_t n_blob;
    uint8_t blob[CMI_GANG_MAX_BLOB];
} cmi_gang_hello;

typedef enum cmi_gang_goodbye_reason {
    CMI_GANG_GOODBYE_OTHER_GANG = 1, /* another name, or number of slots */
    CMI_GANG_GOODBYE_SUPERSEDED,     /* another process has the slot, of this generation */
} cmi_gang_goodbye_reason;

typedef struct cmi_gang_goodbye {
    uint32_t reason; /* those that are not known here are as OTHER_GANG */
    uint64_t generation;
} cmi_gang_goodbye;

typedef struct cmi_gang_member { /* where a slot's process is */
    uint32_t slot;
    uint64_t generation;
    char address[CMI_MEMBER_MAX_ADDRESS + 1];
} cmi_gang_member;

/* Each writes a frame into out and returns its bytes. */
size_t cmi_gang_write_message(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_message *message);
size_t cmi_gang_write_hello(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_hello *hello);
size_t cmi_gang_write_goodbye(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_goodbye *goodbye);
size_t cmi_gang_write_member(uint8_t out[CMI_GANG_MAX_FRAME], const cmi_gang_member *member);

/* False: the payload is not one of the frame's type. Fields are in their C type's range; whether
 * they make sense, the reader's owner says. */
CMI_NODISCARD bool cmi_gang_read_message(const cmi_frame *frame, cmi_gang_message *message_out);
CMI_NODISCARD bool cmi_gang_read_hello(const cmi_frame *frame, cmi_gang_hello *hello_out);
CMI_NODISCARD bool cmi_gang_read_goodbye(const cmi_frame *frame, cmi_gang_goodbye *goodbye_out);
CMI_NODISCARD bool cmi_gang_read_member(const cmi_frame *frame, cmi_gang_member *member_out);

#endif
