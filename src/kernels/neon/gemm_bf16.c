/* BF16 without BF16 instructions: the halves of each pair widened, the odd element first. */
#include "kernels/neon/gemm.h"

static inline float32x4_t operand(uint8x16_t quarter, int i)
{
    uint32x4_t pairs = vreinterpretq_u32_u8(quarter);
    return vreinterpretq_f32_u32(i == 0 ? vandq_u32(pairs, vdupq_n_u32(0xFFFF0000u))
                                        : vshlq_n_u32(pairs, 16));
}

static inline float32x4_t multiply_add(float32x4_t lanes, float32x4_t x, float32x4_t w)
{
    return vfmaq_f32(lanes, x, w);
}

void cmi_gemm_bf16_neon(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(cmi_bf16), 2, operand, multiply_add}, args);
}
