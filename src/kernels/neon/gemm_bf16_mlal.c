/* BF16 with the widening multiply-add (FEAT_BF16): BFMLALT takes the odd elements, BFMLALB the even
 * ones, each a fused multiply-add that rounds and flushes as FPCR says, so the two are our lane's
 * step. BFDOT and BFMMLA would do more at once, but they round to odd in between: other bits. */
#include "kernels/neon/gemm.h"

static inline float32x4_t operand(uint8x16_t quarter, int i)
{
    (void)i;
    return vreinterpretq_f32_u8(quarter);
}

static inline float32x4_t multiply_add(float32x4_t lanes, float32x4_t x, float32x4_t w)
{
    bfloat16x8_t x_pairs = vreinterpretq_bf16_f32(x), w_pairs = vreinterpretq_bf16_f32(w);
    return vbfmlalbq_f32(vbfmlaltq_f32(lanes, x_pairs, w_pairs), x_pairs, w_pairs);
}

void cmi_gemm_bf16_neon_bf16(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(cmi_bf16), 1, operand, multiply_add}, args);
}
