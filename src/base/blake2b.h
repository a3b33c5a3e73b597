/* base/blake2b.h - BLAKE2b with 256 bits (RFC 7693), keyed or not, over input in parts.
 *
 * The digest depends on the bytes, not on how they were cut into parts. libsodium computes it,
 * without sodium_init, which would open a source of random numbers to choose code that is 15 %
 * faster; kernels/blake2b.h is for many long messages. No allocation, no system call. A state
 * belongs to one thread; different states may be used by different threads. */
#ifndef CMI_BASE_BLAKE2B_H
#define CMI_BASE_BLAKE2B_H

#include "base/compiler.h"

enum {
    CMI_BLAKE2B_BYTES = 32,
    CMI_BLAKE2B_KEY_BYTES_MAX = 64,
    CMI_BLAKE2B_STATE_BYTES = 384,
};

typedef struct cmi_blake2b {
    CMI_ALIGNED(64) uint8_t state[CMI_BLAKE2B_STATE_BYTES];
} cmi_blake2b;

/* key_bytes 0: no key, and key may be NULL. At most CMI_BLAKE2B_KEY_BYTES_MAX. */
void cmi_blake2b_init(cmi_blake2b *h, const void *key, size_t key_bytes);
void cmi_blake2b_update(cmi_blake2b *h, const void *bytes, size_t n_bytes); /* n_bytes may be 0 */

/* Ends the digest and wipes h; another begins with cmi_blake2b_init. */
void cmi_blake2b_final(cmi_blake2b *h, uint8_t digest_out[CMI_BLAKE2B_BYTES]);

#endif
