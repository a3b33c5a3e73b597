/* kernels/avx2/round_bf16.h - cmi_bf16_from_f32 (base/dtype.h) on 8 floats. */
#ifndef CMI_KERNELS_AVX2_ROUND_BF16_H
#define CMI_KERNELS_AVX2_ROUND_BF16_H

#include <immintrin.h>

/* u: the floats' bits. The results are in the upper halves of the elements. */
static inline __m256i round_bf16(__m256i u)
{
    const __m256i exponent_bits = _mm256_set1_epi32(0x7F800000);
    const __m256i magnitude_bits = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i is_even_last = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i rounded =
        _mm256_add_epi32(u, _mm256_add_epi32(is_even_last, _mm256_set1_epi32(0x7FFF)));

    __m256i magnitude = _mm256_and_si256(u, magnitude_bits);
    __m256i nan = _mm256_cmpgt_epi32(magnitude, exponent_bits);
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x00400000));
    rounded = _mm256_blendv_epi8(rounded, quiet, nan);

    __m256i zero = _mm256_cmpeq_epi32(_mm256_and_si256(u, exponent_bits), _mm256_setzero_si256());
    return _mm256_andnot_si256(_mm256_and_si256(zero, magnitude_bits), rounded);
}

/* 16 floats as BF16, in order. */
static inline __m256i round_bf16_pack(__m256i first, __m256i second)
{
    __m256i a = _mm256_srli_epi32(round_bf16(first), 16);
    __m256i b = _mm256_srli_epi32(round_bf16(second), 16);
    /* pack works in each half of the register */
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
}

#endif
