/* kernels/avx2/exp.h - exp of 8 floats: the steps of kernels/ref/math.h. */
#ifndef CMI_KERNELS_AVX2_EXP_H
#define CMI_KERNELS_AVX2_EXP_H

#include <immintrin.h>

#include "kernels/ref/math.h"

static inline __m256 exp_ps(__m256 x)
{
    const __m256 round = _mm256_set1_ps(CMI_EXP_ROUND);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(CMI_EXP_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(CMI_EXP_LN2_HI), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(CMI_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(CMI_EXP_C6), r, _mm256_set1_ps(CMI_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(CMI_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(CMI_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(CMI_EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i bits =
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    __m256 y = _mm256_castsi256_ps(bits);

    __m256 small = _mm256_cmp_ps(x, _mm256_set1_ps(CMI_EXP_MIN), _CMP_LT_OQ);
    __m256 large = _mm256_cmp_ps(x, _mm256_set1_ps(CMI_EXP_MAX), _CMP_GT_OQ);
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    y = _mm256_andnot_ps(small, y);
    y = _mm256_blendv_ps(y, _mm256_set1_ps(INFINITY), large);
    return _mm256_blendv_ps(y, x, nan);
}

#endif
