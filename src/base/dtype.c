#include "base/dtype.h"

size_t cmi_dtype_bytes(cmi_dtype t)
{
    switch (t) {
    case CMI_DTYPE_F32:
        return 4;
    case CMI_DTYPE_F16:
    case CMI_DTYPE_BF16:
        return 2;
    case CMI_DTYPE_F8_E4M3:
    case CMI_DTYPE_I8:
        return 1;
    case CMI_DTYPE_OTHER:
        break;
    }
    return 0;
}

const char *cmi_dtype_name(cmi_dtype t)
{
    static const char *const names[] = {"f32", "f16", "bf16", "f8_e4m3", "int8", "other"};
    return names[t];
}

float cmi_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = h >> 10 & 31u;
    uint32_t fraction = h & 0x3FFu;
    if (exponent == 31) {
        return cmi_f32_from_bits(sign | 0x7F800000u | fraction << 13);
    }
    if (exponent == 0) {
        /* subnormal halves are normal floats: fraction * 2^-24, exact */
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    return cmi_f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

float cmi_f8e4m3_to_f32(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80u) << 24;
    uint32_t exponent = b >> 3 & 15u;
    uint32_t fraction = b & 7u;
    if (exponent == 15 && fraction == 7) {
        return cmi_f32_from_bits(sign | 0x7FC00000u);
    }
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-9f;
        return sign ? -value : value;
    }
    return cmi_f32_from_bits(sign | (exponent + 120) << 23 | fraction << 20);
}
