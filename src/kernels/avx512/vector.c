/* Kernels that treat every element alone: widen_bf16, axpy, rope. */
#include "kernels/avx512/lanes.h"

void cmi_widen_bf16_avx512(const cmi_bf16 *x, uint32_t n, float *y)
{
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        _mm512_mask_storeu_ps(y + i, mask, lanes_load_bf16(mask, x + i));
    }
}

void cmi_axpy_avx512(float a, const float *x, uint32_t n, float *y)
{
    const __m512 factor = _mm512_set1_ps(a);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        v = _mm512_fmadd_ps(factor, v, _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}

void cmi_rope_avx512(float *x, const float *cos, const float *sin, uint32_t n_pairs)
{
    const __m512i cos_sin =
        _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i sin_cos =
        _mm512_setr_epi32(16, 0, 17, 1, 18, 2, 19, 3, 20, 4, 21, 5, 22, 6, 23, 7);
    for (size_t i = 0; i < n_pairs; i += CMI_LANES / 2) {
        __mmask16 mask = lanes_left(2 * i, 2 * (size_t)n_pairs);
        __mmask8 pair_mask = (__mmask8)lanes_left(i, n_pairs);
        __m512 c = _mm512_castps256_ps512(_mm256_maskz_loadu_ps(pair_mask, cos + i));
        __m512 s = _mm512_castps256_ps512(_mm256_maskz_loadu_ps(pair_mask, sin + i));
        __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);
        __m512 a = _mm512_moveldup_ps(v), b = _mm512_movehdup_ps(v);
        /* even lanes a cos - b sin, odd lanes a sin + b cos */
        v = _mm512_fmaddsub_ps(a, _mm512_permutex2var_ps(c, cos_sin, s),
                               _mm512_mul_ps(b, _mm512_permutex2var_ps(c, sin_cos, s)));
        _mm512_mask_storeu_ps(x + 2 * i, mask, v);
    }
}
