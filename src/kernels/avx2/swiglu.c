#include "kernels/avx2/lanes.h"
#include "kernels/avx2/exp.h"

void cmi_swiglu_avx2(const float *gate, const float *up, uint32_t n, float *y)
{
    const __m256 minus_zero = _mm256_set1_ps(-0.0f);
    for (size_t i = 0; i < n; i += LANES_HALF) {
        __m256 g = lanes_load(gate, i, n);
        __m256 e = exp_ps(_mm256_xor_ps(g, minus_zero));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
        lanes_store(y, i, n, _mm256_mul_ps(silu, lanes_load(up, i, n)));
    }
}
