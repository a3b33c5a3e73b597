#include "kernels/neon/gemm.h"

static inline float32x4_t operand(uint8x16_t quarter, int i)
{
    (void)i;
    return vreinterpretq_f32_u8(quarter);
}

static inline float32x4_t multiply_add(float32x4_t lanes, float32x4_t x, float32x4_t w)
{
    return vfmaq_f32(lanes, x, w);
}

void cmi_gemm_f32_neon(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(float), 1, operand, multiply_add}, args);
}
