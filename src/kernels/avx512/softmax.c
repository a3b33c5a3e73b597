#include <math.h>

#include "kernels/avx512/lanes.h"
#include "kernels/avx512/exp.h"

/* p[t] = exp(x[t] - max), and their sum. p may be x, or NULL if only the sum is wanted. */
static CMI_ALWAYS_INLINE float exp_sum(const float *x, uint32_t n, float max, float *p)
{
    const __m512 shift = _mm512_set1_ps(max);
    __m512 lanes = _mm512_setzero_ps();
    for (size_t t = 0; t < n; t += CMI_LANES) {
        __mmask16 mask = lanes_left(t, n);
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + t), shift));
        lanes = _mm512_mask_add_ps(lanes, mask, lanes, e);
        if (p != NULL) {
            _mm512_mask_storeu_ps(p + t, mask, e);
        }
    }
    return lanes_sum(lanes);
}

float cmi_softmax_block_avx512(float *s, uint32_t n, float scale, float *m, float *l)
{
    const __m512 factor = _mm512_set1_ps(scale);
    __m512 max_lanes = _mm512_set1_ps(*m);
    for (size_t t = 0; t < n; t += CMI_LANES) {
        __mmask16 mask = lanes_left(t, n);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, s + t), factor);
        max_lanes = _mm512_mask_max_ps(max_lanes, mask, max_lanes, x);
        _mm512_mask_storeu_ps(s + t, mask, x);
    }
    const float max = _mm512_reduce_max_ps(max_lanes) + 0.0f;
    const float alpha = cmi_expf_ref(*m - max);
    *l = fmaf(*l, alpha, exp_sum(s, n, max, s));
    *m = max;
    return alpha;
}

void cmi_max_sum_exp_avx512(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    __m512 max_lanes = _mm512_set1_ps(-INFINITY);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        max_lanes =
            _mm512_mask_max_ps(max_lanes, mask, max_lanes, _mm512_maskz_loadu_ps(mask, z + i));
    }
    const float max = _mm512_reduce_max_ps(max_lanes) + 0.0f;
    *sum_out = exp_sum(z, n, max, NULL);
    *max_out = max;
}
