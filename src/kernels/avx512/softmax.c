#include <math.h>

#include "kernels/avx512/lanes.h"
#include "kernels/avx512/exp.h"

void cmi_max_sum_exp_avx512(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    __m512 max_lanes = _mm512_set1_ps(-INFINITY);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        max_lanes =
            _mm512_mask_max_ps(max_lanes, mask, max_lanes, _mm512_maskz_loadu_ps(mask, z + i));
    }
    const float max = _mm512_reduce_max_ps(max_lanes) + 0.0f;
    const __m512 shift = _mm512_set1_ps(max);
    __m512 lanes = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, z + i), shift);
        lanes = _mm512_add_ps(lanes, exp_masked_ps(mask, x));
    }
    *sum_out = lanes_sum(lanes);
    *max_out = max;
}
