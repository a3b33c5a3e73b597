/* kernels/neon/exp.h - exp of 4 floats: the steps of kernels/ref/math.h. */
#ifndef CMI_KERNELS_NEON_EXP_H
#define CMI_KERNELS_NEON_EXP_H

#include <arm_neon.h>

#include "kernels/ref/math.h"

static inline float32x4_t exp_f32(float32x4_t x)
{
    const float32x4_t round = vdupq_n_f32(CMI_EXP_ROUND);
    float32x4_t t = vfmaq_f32(round, x, vdupq_n_f32(CMI_EXP_LOG2E));
    float32x4_t n = vsubq_f32(t, round);
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(CMI_EXP_LN2_HI));
    r = vfmsq_f32(r, n, vdupq_n_f32(CMI_EXP_LN2_LO));
    float32x4_t p = vfmaq_f32(vdupq_n_f32(CMI_EXP_C5), vdupq_n_f32(CMI_EXP_C6), r);
    p = vfmaq_f32(vdupq_n_f32(CMI_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(CMI_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(CMI_EXP_C2), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    uint32x4_t bits =
        vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23));

    uint32x4_t small = vcltq_f32(x, vdupq_n_f32(CMI_EXP_MIN));
    uint32x4_t large = vcgtq_f32(x, vdupq_n_f32(CMI_EXP_MAX));
    uint32x4_t number = vceqq_f32(x, x);
    float32x4_t y = vreinterpretq_f32_u32(vbicq_u32(bits, small));
    y = vbslq_f32(large, vdupq_n_f32(INFINITY), y);
    return vbslq_f32(number, y, x);
}

#endif
