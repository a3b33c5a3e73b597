#include <math.h>

#include "kernels/avx512/lanes.h"

void cmi_rmsnorm_avx512(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    __m512 lanes = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_left(i, n), x + i);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(lanes_sum(lanes) / (float)n + eps));
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
        v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, w + i));
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}
