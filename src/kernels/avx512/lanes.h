/* kernels/avx512/lanes.h - the tree over 16 lanes (kernels/ref/lanes.h), for one sum and for 16. */
#ifndef CMI_KERNELS_AVX512_LANES_H
#define CMI_KERNELS_AVX512_LANES_H

#include <immintrin.h>

#include "kernels/internal.h"
#include "kernels/ref/lanes.h"

/* The first n of 16 lanes, n from 0 to 16. */
static inline __mmask16 lanes_first(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* The mask of what is left of n elements from i on. */
static inline __mmask16 lanes_left(size_t i, size_t n)
{
    return n - i >= CMI_LANES ? (__mmask16)0xFFFF : lanes_first(n - i);
}

/* BF16 widened to float32; 0 where the mask is. */
static inline __m512 lanes_load_bf16(__mmask16 mask, const cmi_bf16 *x)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline float lanes_sum(__m512 lanes)
{
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* From a's and b's lanes: [a0+a8 .. a7+a15, b0+b8 .. b7+b15]. */
static inline __m512 lanes_halve_8(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}

/* From two of those: one sum's four lanes in each quarter. */
static inline __m512 lanes_halve_4(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

/* From two of those: in each quarter two lanes of a's sum and two of b's. */
static inline __m512 lanes_halve_2(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
}

/* From two of those: in each quarter one sum of each of the four. */
static inline __m512 lanes_halve_1(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
}

/* Lane c of the result is the sum of lanes[c]; quarter q of a vector gets sums of 4 columns, so the
 * columns go in by quarters: 0, 4, 8, 12 meet in one vector. */
static inline __m512 lanes_sum_16(const float lanes[][CMI_LANES])
{
    __m512 quarters[4];
    for (size_t c = 0; c < 4; c++) {
        __m512 a = lanes_halve_8(_mm512_load_ps(lanes[c]), _mm512_load_ps(lanes[c + 4]));
        __m512 b = lanes_halve_8(_mm512_load_ps(lanes[c + 8]), _mm512_load_ps(lanes[c + 12]));
        quarters[c] = lanes_halve_4(a, b);
    }
    return lanes_halve_1(lanes_halve_2(quarters[0], quarters[1]),
                         lanes_halve_2(quarters[2], quarters[3]));
}

#endif
