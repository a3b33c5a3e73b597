#include "kernels/avx512/lanes.h"
#include "kernels/avx512/exp.h"

void cmi_swiglu_avx512(const float *gate, const float *up, uint32_t n, float *y)
{
    const __m512 minus_zero = _mm512_set1_ps(-0.0f);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 e = exp_ps(_mm512_xor_ps(g, minus_zero));
        __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
        __m512 v = _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i));
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}
