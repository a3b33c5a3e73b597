/* base/crc32c.h - CRC32C (Castagnoli), the checksum of KV page slices and pool blocks.
 *
 * Found errors, not enemies: every burst of up to 32 bits, any 3 flipped bits in a slice of a
 * page. Any thread. */
#ifndef CMI_BASE_CRC32C_H
#define CMI_BASE_CRC32C_H

#include "base/compiler.h"

/* The checksum of what `crc` was the checksum of, with n bytes behind it; `crc` is 0 at the start.
 * With the processor's instruction 12 GB/s and more on a server of 2023, without it 0.2 to 0.4. */
uint32_t cmi_crc32c(uint32_t crc, const void *bytes, size_t n);

/* The versions behind it, for tests and benchmarks: the table's is first, the best last. */
typedef struct cmi_crc32c_variant {
    const char *name;
    uint32_t (*fn)(uint32_t crc, const void *bytes, size_t n);
    bool (*is_here)(void); /* this processor can run it */
} cmi_crc32c_variant;

extern const cmi_crc32c_variant cmi_crc32c_variants[];
extern const size_t cmi_crc32c_n_variants;

#endif
