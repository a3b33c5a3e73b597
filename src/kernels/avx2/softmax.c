#include <math.h>

#include "kernels/avx2/lanes.h"
#include "kernels/avx2/exp.h"

/* p[t .. t + 7] = exp(x[t ..] - max), and zeros from n on. */
static CMI_ALWAYS_INLINE __m256 exp_half(const float *x, size_t t, size_t n, __m256 max, float *p)
{
    __m256 e = exp_ps(_mm256_sub_ps(lanes_load(x, t, n), max));
    if (t + LANES_HALF > n) {
        e = _mm256_and_ps(e, _mm256_castsi256_ps(lanes_left(t, n)));
    }
    if (p != NULL) {
        lanes_store(p, t, n, e);
    }
    return e;
}

/* p[t] = exp(x[t] - max), and their sum. p may be x, or NULL if only the sum is wanted. */
static CMI_ALWAYS_INLINE float exp_sum(const float *x, uint32_t n, float max, float *p)
{
    const __m256 shift = _mm256_set1_ps(max);
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    for (size_t t = 0; t < n; t += CMI_LANES) {
        lo = _mm256_add_ps(lo, exp_half(x, t, n, shift, p));
        hi = _mm256_add_ps(hi, exp_half(x, t + LANES_HALF, n, shift, p));
    }
    return lanes_sum(lo, hi);
}

/* The greatest lane; + 0.0f makes a zero +0. */
static inline float max_of_lanes(__m256 v)
{
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2))) + 0.0f;
}

/* The lanes' maximum with x[t .. t + 7]; what is past n does not count. */
static inline __m256 max_with(__m256 lanes, __m256 x, size_t t, size_t n)
{
    __m256 max = _mm256_max_ps(lanes, x);
    return t + LANES_HALF <= n
               ? max
               : _mm256_blendv_ps(lanes, max, _mm256_castsi256_ps(lanes_left(t, n)));
}

float cmi_softmax_block_avx2(float *s, uint32_t n, float scale, float *m, float *l)
{
    const __m256 factor = _mm256_set1_ps(scale);
    __m256 max_lanes = _mm256_set1_ps(*m);
    for (size_t t = 0; t < n; t += LANES_HALF) {
        __m256 x = _mm256_mul_ps(lanes_load(s, t, n), factor);
        max_lanes = max_with(max_lanes, x, t, n);
        lanes_store(s, t, n, x);
    }
    const float max = max_of_lanes(max_lanes);
    const float alpha = cmi_expf_ref(*m - max);
    *l = fmaf(*l, alpha, exp_sum(s, n, max, s));
    *m = max;
    return alpha;
}

void cmi_max_sum_exp_avx2(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    __m256 max_lanes = _mm256_set1_ps(-INFINITY);
    for (size_t i = 0; i < n; i += LANES_HALF) {
        max_lanes = max_with(max_lanes, lanes_load(z, i, n), i, n);
    }
    const float max = max_of_lanes(max_lanes);
    *sum_out = exp_sum(z, n, max, NULL);
    *max_out = max;
}
