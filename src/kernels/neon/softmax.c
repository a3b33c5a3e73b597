#include "kernels/neon/lanes.h"
#include "kernels/neon/exp.h"

/* p[t .. t + 3] = exp(x[t ..] - max), and zeros from n on. */
static CMI_ALWAYS_INLINE float32x4_t exp_quarter(const float *x, size_t t, size_t n,
                                                 float32x4_t max, float *p)
{
    const uint32x4_t index = {0, 1, 2, 3};
    float32x4_t e = exp_f32(vsubq_f32(lanes_load(x, t, n), max));
    if (t + LANES_QUARTER > n) {
        uint32x4_t is_left = vcltq_u32(index, vdupq_n_u32(t < n ? (uint32_t)(n - t) : 0));
        e = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(e), is_left));
    }
    if (p != NULL) {
        lanes_store(p, t, n, e);
    }
    return e;
}

/* p[t] = exp(x[t] - max), and their sum. p may be x, or NULL if only the sum is wanted. */
static CMI_ALWAYS_INLINE float exp_sum(const float *x, uint32_t n, float max, float *p)
{
    const float32x4_t shift = vdupq_n_f32(max);
    float32x4_t lanes[LANES_REGISTERS];
    for (size_t q = 0; q < LANES_REGISTERS; q++) {
        lanes[q] = vdupq_n_f32(0.0f);
    }
    for (size_t t = 0; t < n; t += CMI_LANES) {
        for (size_t q = 0; q < LANES_REGISTERS; q++) {
            lanes[q] = vaddq_f32(lanes[q], exp_quarter(x, t + q * LANES_QUARTER, n, shift, p));
        }
    }
    return lanes_sum(lanes);
}

/* x[i .. i + 3], with -infinity from n on. */
static inline float32x4_t load_for_max(const float *x, size_t i, size_t n)
{
    if (i + LANES_QUARTER <= n) {
        return vld1q_f32(x + i);
    }
    float tail[LANES_QUARTER] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    memcpy(tail, x + i, (n - i) * sizeof *x);
    return vld1q_f32(tail);
}

void cmi_max_sum_exp_neon(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    float32x4_t max_lanes = vdupq_n_f32(-INFINITY);
    for (size_t i = 0; i < n; i += LANES_QUARTER) {
        max_lanes = vmaxq_f32(max_lanes, load_for_max(z, i, n));
    }
    const float max = vmaxvq_f32(max_lanes) + 0.0f; /* a zero is +0 */
    *sum_out = exp_sum(z, n, max, NULL);
    *max_out = max;
}
