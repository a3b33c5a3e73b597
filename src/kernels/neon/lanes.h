/* kernels/neon/lanes.h - the tree over 16 lanes (kernels/ref/lanes.h) in four registers, and the
 * ends of arrays. */
#ifndef CMI_KERNELS_NEON_LANES_H
#define CMI_KERNELS_NEON_LANES_H

#include <arm_neon.h>
#include <string.h>

#include "kernels/internal.h"
#include "kernels/ref/lanes.h"

enum {
    LANES_QUARTER = CMI_LANES / 4, /* floats of one register */
    LANES_REGISTERS = 4,           /* that hold the lanes */
};

/* x[i .. i + 3], with zeros from n on. */
static inline float32x4_t lanes_load(const float *x, size_t i, size_t n)
{
    if (i + LANES_QUARTER <= n) {
        return vld1q_f32(x + i);
    }
    float tail[LANES_QUARTER] = {0};
    if (i < n) {
        memcpy(tail, x + i, (n - i) * sizeof *x);
    }
    return vld1q_f32(tail);
}

/* Those of y[i .. i + 3] that are before n. */
static inline void lanes_store(float *y, size_t i, size_t n, float32x4_t v)
{
    if (i + LANES_QUARTER <= n) {
        vst1q_f32(y + i, v);
    } else if (i < n) {
        float tail[LANES_QUARTER];
        vst1q_f32(tail, v);
        memcpy(y + i, tail, (n - i) * sizeof *y);
    }
}

static inline float32x4_t lanes_widen(uint16x4_t narrow)
{
    return vreinterpretq_f32_u32(vshll_n_u16(narrow, 16));
}

/* x[i .. i + 3] widened to float32, with zeros from n on. */
static inline float32x4_t lanes_load_bf16(const cmi_bf16 *x, size_t i, size_t n)
{
    if (i + LANES_QUARTER <= n) {
        return lanes_widen(vld1_u16(x + i));
    }
    cmi_bf16 tail[LANES_QUARTER] = {0};
    if (i < n) {
        memcpy(tail, x + i, (n - i) * sizeof *x);
    }
    return lanes_widen(vld1_u16(tail));
}

/* cmi_bf16_from_f32 of each. */
static inline uint16x4_t lanes_round_bf16(float32x4_t v)
{
    const uint32x4_t exponent_bits = vdupq_n_u32(0x7F800000u);
    uint32x4_t u = vreinterpretq_u32_f32(v);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));

    uint32x4_t magnitude = vandq_u32(u, vdupq_n_u32(0x7FFFFFFFu));
    uint32x4_t nan = vcgtq_u32(magnitude, exponent_bits);
    rounded = vbslq_u32(nan, vorrq_u32(u, vdupq_n_u32(0x00400000u)), rounded);

    uint32x4_t is_zero = vcltq_u32(magnitude, vdupq_n_u32(0x00800000u)); /* or subnormal */
    rounded = vbslq_u32(is_zero, vandq_u32(u, vdupq_n_u32(0x80000000u)), rounded);
    return vshrn_n_u32(rounded, 16);
}

/* The four registers' lanes l, l + 4, l + 8, l + 12 as the tree adds them. */
static inline float32x4_t lanes_halve_twice(float32x4_t a, float32x4_t b, float32x4_t c,
                                            float32x4_t d)
{
    return vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
}

/* Lanes 0 and 2, 1 and 3 of a, then of b. */
static inline float32x4_t lanes_halve_pairs(float32x4_t a, float32x4_t b)
{
    float64x2_t a2 = vreinterpretq_f64_f32(a), b2 = vreinterpretq_f64_f32(b);
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a2, b2)),
                     vreinterpretq_f32_f64(vzip2q_f64(a2, b2)));
}

static inline float lanes_sum(const float32x4_t lanes[LANES_REGISTERS])
{
    float32x4_t s4 = lanes_halve_twice(lanes[0], lanes[1], lanes[2], lanes[3]);
    float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

static inline float32x4_t lanes_load_halved(const float *lanes)
{
    return lanes_halve_twice(vld1q_f32(lanes), vld1q_f32(lanes + 4), vld1q_f32(lanes + 8),
                             vld1q_f32(lanes + 12));
}

/* Element c is the sum of lanes[c]. */
static inline float32x4_t lanes_sum_4(const float lanes[][CMI_LANES])
{
    float32x4_t ab = lanes_halve_pairs(lanes_load_halved(lanes[0]), lanes_load_halved(lanes[1]));
    float32x4_t cd = lanes_halve_pairs(lanes_load_halved(lanes[2]), lanes_load_halved(lanes[3]));
    return vaddq_f32(vuzp1q_f32(ab, cd), vuzp2q_f32(ab, cd));
}

#endif
