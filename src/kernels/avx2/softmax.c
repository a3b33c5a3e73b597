#include <math.h>

#include "kernels/avx2/lanes.h"
#include "kernels/avx2/exp.h"

/* exp(z[i .. i + 7] - max), and zeros from n on. */
static inline __m256 exp_half(const float *z, size_t i, size_t n, __m256 max)
{
    __m256 e = exp_ps(_mm256_sub_ps(lanes_load(z, i, n), max));
    return i + LANES_HALF <= n ? e : _mm256_and_ps(e, _mm256_castsi256_ps(lanes_left(i, n)));
}

/* The lanes' maximum with z[i .. i + 7]; what is past n does not count. */
static inline __m256 max_with(__m256 lanes, const float *z, size_t i, size_t n)
{
    __m256 max = _mm256_max_ps(lanes, lanes_load(z, i, n));
    return i + LANES_HALF <= n
               ? max
               : _mm256_blendv_ps(lanes, max, _mm256_castsi256_ps(lanes_left(i, n)));
}

void cmi_max_sum_exp_avx2(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    __m256 max_lanes = _mm256_set1_ps(-INFINITY);
    for (size_t i = 0; i < n; i += LANES_HALF) {
        max_lanes = max_with(max_lanes, z, i, n);
    }
    const float max = lanes_max(max_lanes) + 0.0f;
    const __m256 shift = _mm256_set1_ps(max);
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    for (size_t i = 0; i < n; i += CMI_LANES) {
        lo = _mm256_add_ps(lo, exp_half(z, i, n, shift));
        hi = _mm256_add_ps(hi, exp_half(z, i + LANES_HALF, n, shift));
    }
    *sum_out = lanes_sum(lo, hi);
    *max_out = max;
}
