#include <math.h>

#include "kernels/avx2/lanes.h"

void cmi_rmsnorm_avx2(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __m256 a = lanes_load(x, i, n), b = lanes_load(x, i + LANES_HALF, n);
        lo = _mm256_fmadd_ps(a, a, lo);
        hi = _mm256_fmadd_ps(b, b, hi);
    }
    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(lanes_sum(lo, hi) / (float)n + eps));
    for (size_t i = 0; i < n; i += LANES_HALF) {
        __m256 v = _mm256_mul_ps(lanes_load(x, i, n), scale);
        lanes_store(y, i, n, _mm256_mul_ps(v, lanes_load(w, i, n)));
    }
}
