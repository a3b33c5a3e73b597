/* Kernels that treat every element alone: round_bf16, widen_bf16, axpy, rope, swiglu. What is left
 * at the end of a row goes through the reference, whose steps are the same. */
#include "kernels/neon/lanes.h"
#include "kernels/neon/exp.h"

void cmi_round_bf16_neon(const float *x, uint32_t n, cmi_bf16 *y)
{
    size_t i = 0;
    for (; i + 2 * LANES_QUARTER <= n; i += 2 * LANES_QUARTER) {
        uint16x4_t lo = lanes_round_bf16(vld1q_f32(x + i));
        uint16x4_t hi = lanes_round_bf16(vld1q_f32(x + i + LANES_QUARTER));
        vst1q_u16(y + i, vcombine_u16(lo, hi));
    }
    cmi_round_bf16_ref(x + i, n - (uint32_t)i, y + i);
}

void cmi_widen_bf16_neon(const cmi_bf16 *x, uint32_t n, float *y)
{
    size_t i = 0;
    for (; i + 2 * LANES_QUARTER <= n; i += 2 * LANES_QUARTER) {
        uint16x8_t narrow = vld1q_u16(x + i);
        vst1q_f32(y + i, lanes_widen(vget_low_u16(narrow)));
        vst1q_f32(y + i + LANES_QUARTER, lanes_widen(vget_high_u16(narrow)));
    }
    cmi_widen_bf16_ref(x + i, n - (uint32_t)i, y + i);
}

void cmi_axpy_neon(float a, const float *x, uint32_t n, float *y)
{
    const float32x4_t factor = vdupq_n_f32(a);
    size_t i = 0;
    for (; i + LANES_QUARTER <= n; i += LANES_QUARTER) {
        vst1q_f32(y + i, vfmaq_f32(vld1q_f32(y + i), factor, vld1q_f32(x + i)));
    }
    cmi_axpy_ref(a, x + i, n - (uint32_t)i, y + i);
}

void cmi_rope_neon(float *x, const float *cos, const float *sin, uint32_t n_pairs)
{
    size_t i = 0;
    for (; i + LANES_QUARTER <= n_pairs; i += LANES_QUARTER) {
        float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
        float32x4x2_t ab = vld2q_f32(x + 2 * i);
        float32x4_t a = ab.val[0], b = ab.val[1];
        ab.val[0] = vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c);
        ab.val[1] = vfmaq_f32(vmulq_f32(b, c), a, s);
        vst2q_f32(x + 2 * i, ab);
    }
    cmi_rope_ref(x + 2 * i, cos + i, sin + i, n_pairs - (uint32_t)i);
}

void cmi_swiglu_neon(const float *gate, const float *up, uint32_t n, float *y)
{
    size_t i = 0;
    for (; i + LANES_QUARTER <= n; i += LANES_QUARTER) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t e = exp_f32(vnegq_f32(g));
        float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e));
        vst1q_f32(y + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    cmi_swiglu_ref(gate + i, up + i, n - (uint32_t)i, y + i);
}
