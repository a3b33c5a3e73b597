/* base/dtype.h - element types of tensors, and the conversions that define their values.
 *
 * float32 <-> bfloat16 rounds to nearest even and, like the AVX-512 BF16 instructions, reads and
 * writes subnormal numbers as zero of the same sign. */
#ifndef CMI_BASE_DTYPE_H
#define CMI_BASE_DTYPE_H

#include <string.h>

#include "base/compiler.h"

typedef enum cmi_dtype {
    CMI_DTYPE_F32,
    CMI_DTYPE_F16,
    CMI_DTYPE_BF16,
    CMI_DTYPE_F8_E4M3,
    CMI_DTYPE_I8,
    CMI_DTYPE_OTHER, /* known to a file format, used by no weight */
} cmi_dtype;

typedef uint16_t cmi_bf16; /* the upper half of a float32 */

static inline uint32_t cmi_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float cmi_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float cmi_bf16_to_f32(cmi_bf16 b)
{
    return cmi_f32_from_bits((uint32_t)b << 16);
}

static inline cmi_bf16 cmi_bf16_from_f32(float x)
{
    uint32_t u = cmi_f32_bits(x);
    uint32_t exponent = u & 0x7F800000u;
    if (exponent == 0) {
        return (cmi_bf16)(u >> 16 & 0x8000u);
    }
    if (exponent == 0x7F800000u && (u & 0x007FFFFFu) != 0) {
        return (cmi_bf16)(u >> 16 | 0x0040u); /* a quiet NaN with the same sign and payload top */
    }
    return (cmi_bf16)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

/* Bytes of one element; 0 for CMI_DTYPE_OTHER. */
size_t cmi_dtype_bytes(cmi_dtype t);

/* "f32", "bf16", ...; static text. */
const char *cmi_dtype_name(cmi_dtype t);

/* Exact values of IEEE half precision and of OCP FP8 e4m3 (no infinity; 0x7F and 0xFF are NaN). */
float cmi_f16_to_f32(uint16_t h);
float cmi_f8e4m3_to_f32(uint8_t b);

#endif
