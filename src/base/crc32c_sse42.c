/* base/crc32c_sse42.c - with x86's CRC32 instruction. */
#include "base/crc32c_internal.h"

#include <nmmintrin.h>

#define STEP8(reg, word) ((uint32_t)_mm_crc32_u64(reg, word))

uint32_t cmi_crc32c_sse42(uint32_t crc, const void *bytes, size_t n)
{
    uint32_t reg = ~crc;
    const uint8_t *at = bytes;
    CMI_CRC32C_BODY(reg, at, n, STEP8, _mm_crc32_u8)
    return ~reg;
}
