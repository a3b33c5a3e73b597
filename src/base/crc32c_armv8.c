/* base/crc32c_armv8.c - with Arm's CRC32C instructions. */
#include "base/crc32c_internal.h"

#include <arm_acle.h>

uint32_t cmi_crc32c_armv8(uint32_t crc, const void *bytes, size_t n)
{
    uint32_t reg = ~crc;
    const uint8_t *at = bytes;
    CMI_CRC32C_BODY(reg, at, n, __crc32cd, __crc32cb)
    return ~reg;
}
