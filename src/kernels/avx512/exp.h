/* kernels/avx512/exp.h - exp of 16 floats: the steps of kernels/ref/math.h. */
#ifndef CMI_KERNELS_AVX512_EXP_H
#define CMI_KERNELS_AVX512_EXP_H

#include <immintrin.h>

#include "kernels/ref/math.h"

/* 2^n p(r) of x, which is exp(x) in [CMI_EXP_MIN, CMI_EXP_MAX] and anything elsewhere; zero where
 * the mask is. */
static inline __m512 exp_in_range_ps(__mmask16 mask, __m512 x)
{
    const __m512 round = _mm512_set1_ps(CMI_EXP_ROUND);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(CMI_EXP_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(CMI_EXP_LN2_HI), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(CMI_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(CMI_EXP_C6), r, _mm512_set1_ps(CMI_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(CMI_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(CMI_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(CMI_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(mask, _mm512_castps_si512(p), exponent));
}

/* exp(x) for the lanes of the mask, whose x are at most CMI_EXP_MAX and no NaN; others give 0. */
static inline __m512 exp_masked_ps(__mmask16 mask, __m512 x)
{
    mask = _mm512_mask_cmp_ps_mask(mask, x, _mm512_set1_ps(CMI_EXP_MIN), _CMP_NLT_UQ);
    return exp_in_range_ps(mask, x);
}

static inline __m512 exp_ps(__m512 x)
{
    __m512 y = exp_in_range_ps(0xFFFF, x);
    __mmask16 small = _mm512_cmp_ps_mask(x, _mm512_set1_ps(CMI_EXP_MIN), _CMP_LT_OQ);
    __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(CMI_EXP_MAX), _CMP_GT_OQ);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    y = _mm512_mask_mov_ps(y, small, _mm512_setzero_ps());
    y = _mm512_mask_mov_ps(y, large, _mm512_set1_ps(INFINITY));
    return _mm512_mask_mov_ps(y, nan, x);
}

#endif
