#include "kernels/neon/lanes.h"
#include "kernels/neon/exp.h"
#include "kernels/ref/attention.h"

/* Which of the keys t .. t + 3 are in begin .. end - 1. */
static inline uint32x4_t visible(uint32_t t, uint32_t begin, uint32_t end)
{
    const uint32x4_t key = vaddq_u32(vdupq_n_u32(t), (uint32x4_t){0, 1, 2, 3});
    return vandq_u32(vcgeq_u32(key, vdupq_n_u32(begin)), vcltq_u32(key, vdupq_n_u32(end)));
}

static float row_max(const float *s, uint32_t begin, uint32_t end, float scale)
{
    const float32x4_t none = vdupq_n_f32(-INFINITY);
    float32x4_t max = none;
    for (uint32_t t = begin / LANES_QUARTER * LANES_QUARTER; t < end; t += LANES_QUARTER) {
        max = vmaxq_f32(max, vbslq_f32(visible(t, begin, end), vld1q_f32(s + t), none));
    }
    return vmaxvq_f32(max) * scale + 0.0f;
}

/* p[t] = exp(fma(s[t], scale, -m_b)) of the visible keys, the others +0, and the sum before p is
 * rounded. */
static CMI_ALWAYS_INLINE float row_exp(const cmi_attn_softmax_args *args, const float *s, size_t p,
                                       uint32_t end, float m_b, const bool bf16)
{
    const float32x4_t shift = vdupq_n_f32(-m_b);
    float32x4_t lanes[LANES_REGISTERS];
    for (size_t q = 0; q < LANES_REGISTERS; q++) {
        lanes[q] = vdupq_n_f32(0.0f);
    }
    for (uint32_t t = 0; t < args->n_keys; t += CMI_LANES) {
        for (uint32_t q = 0; q < LANES_REGISTERS; q++) {
            const uint32_t at = t + q * LANES_QUARTER;
            float32x4_t e = exp_f32(vfmaq_n_f32(shift, vld1q_f32(s + at), args->scale));
            uint32x4_t bits = vreinterpretq_u32_f32(e);
            e = vreinterpretq_f32_u32(vandq_u32(bits, visible(at, args->n_hidden, end)));
            lanes[q] = vaddq_f32(lanes[q], e);
            if (bf16) {
                vst1_u16((cmi_bf16 *)args->p + p + at, lanes_round_bf16(e));
            } else {
                vst1q_f32((float *)args->p + p + at, e);
            }
        }
    }
    return lanes_sum(lanes);
}

static CMI_ALWAYS_INLINE void softmax(const cmi_attn_softmax_args *args, const bool bf16)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *s = args->s + r * args->s_stride;
        const uint32_t end = args->n_visible[r];
        const float m_b = row_max(s, args->n_hidden, end, args->scale);
        const float l_b = row_exp(args, s, r * args->p_stride, end, m_b, bf16);
        cmi_softmax_merge_ref(m_b, l_b, &args->m[r], &args->l[r], &args->alpha[r], &args->beta[r]);
    }
}

void cmi_attn_softmax_f32_neon(const cmi_attn_softmax_args *args)
{
    softmax(args, false);
}

void cmi_attn_softmax_bf16_neon(const cmi_attn_softmax_args *args)
{
    softmax(args, true);
}

void cmi_attn_merge_neon(const cmi_attn_merge_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *o_b = args->o_b + r * args->o_stride;
        float *o = args->o + r * args->o_stride;
        float alpha, beta;
        cmi_softmax_merge_ref(args->m_b[r], args->l_b[r], &args->m[r], &args->l[r], &alpha, &beta);
        for (size_t c = 0; c < args->n_cols; c += LANES_QUARTER) {
            float32x4_t v = vmulq_n_f32(lanes_load(o, c, args->n_cols), alpha);
            v = vfmaq_n_f32(v, lanes_load(o_b, c, args->n_cols), beta);
            lanes_store(o, c, args->n_cols, v);
        }
    }
}
