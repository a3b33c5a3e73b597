/* base/crc32c_internal.h - the versions of the checksum and what they share. */
#ifndef CMI_BASE_CRC32C_INTERNAL_H
#define CMI_BASE_CRC32C_INTERNAL_H

#include <string.h>

#include "base/crc32c.h"

/* Bytes of each of the three streams that a version with an instruction works on side by side: the
 * instruction takes three cycles and one can start in each. Long enough that joining two streams
 * (about 50 cycles) is a tenth of the work, and three of them are a twelfth of a KV page's slice.
 */
enum { CMI_CRC32C_STREAM_BYTES = 4096 };

uint32_t cmi_crc32c_table(uint32_t crc, const void *bytes, size_t n);
uint32_t cmi_crc32c_sse42(uint32_t crc, const void *bytes, size_t n);
uint32_t cmi_crc32c_armv8(uint32_t crc, const void *bytes, size_t n);

/* The register after CMI_CRC32C_STREAM_BYTES zeros. */
uint32_t cmi_crc32c_skip_stream(uint32_t reg);

/* The loop of every version with an instruction. STEP8(reg, word) takes 8 bytes and STEP1(reg,
 * byte) one; both expand where they stand, so that the file's own flags apply. */
#define CMI_CRC32C_BODY(reg, at, n, STEP8, STEP1)                                                  \
    while (n >= 3 * (size_t)CMI_CRC32C_STREAM_BYTES) {                                             \
        uint32_t second = 0, third = 0;                                                            \
        for (size_t i = 0; i < CMI_CRC32C_STREAM_BYTES; i += 8) {                                  \
            uint64_t words[3];                                                                     \
            memcpy(&words[0], at + i, 8);                                                          \
            memcpy(&words[1], at + CMI_CRC32C_STREAM_BYTES + i, 8);                                \
            memcpy(&words[2], at + 2 * (size_t)CMI_CRC32C_STREAM_BYTES + i, 8);                    \
            reg = STEP8(reg, words[0]);                                                            \
            second = STEP8(second, words[1]);                                                      \
            third = STEP8(third, words[2]);                                                        \
        }                                                                                          \
        reg = cmi_crc32c_skip_stream(reg) ^ second;                                                \
        reg = cmi_crc32c_skip_stream(reg) ^ third;                                                 \
        at += 3 * (size_t)CMI_CRC32C_STREAM_BYTES;                                                 \
        n -= 3 * (size_t)CMI_CRC32C_STREAM_BYTES;                                                  \
    }                                                                                              \
    for (; n >= 8; at += 8, n -= 8) {                                                              \
        uint64_t word;                                                                             \
        memcpy(&word, at, 8);                                                                      \
        reg = STEP8(reg, word);                                                                    \
    }                                                                                              \
    for (; n > 0; at++, n--) {                                                                     \
        reg = STEP1(reg, *at);                                                                     \
    }

#endif
