/* kernels/blake2b.h - BLAKE2b-256 (RFC 7693, no key) of many messages of one length at a time.
 *
 * One message is a chain of dependent steps, which leaves most of a processor idle. Variants put
 * a message into each lane of a vector. The reference is base/blake2b.h. */
#ifndef CMI_KERNELS_BLAKE2B_H
#define CMI_KERNELS_BLAKE2B_H

#include "base/compiler.h"

enum { CMI_BLAKE2B_BLOCK_BYTES = 128, CMI_BLAKE2B_DIGEST_BYTES = 32 };

/* digests[i] = BLAKE2b-256(head, then the n_bytes at data + i * stride). */
typedef struct cmi_blake2b_args {
    const uint8_t *head; /* [CMI_BLAKE2B_BLOCK_BYTES], the first block of every message */
    const uint8_t *data;
    size_t stride, n_bytes; /* stride may be anything; n_bytes >= 0 */
    uint32_t n_messages;    /* variants are at their best with a multiple of 8 */
    uint8_t *digests;       /* [n_messages][CMI_BLAKE2B_DIGEST_BYTES] */
} cmi_blake2b_args;
typedef void cmi_blake2b_fn(const cmi_blake2b_args *args);

#endif
