/* kernels/avx2/lanes.h - the tree over 16 lanes (kernels/ref/lanes.h), and masks for tails. */
#ifndef CMI_KERNELS_AVX2_LANES_H
#define CMI_KERNELS_AVX2_LANES_H

#include <immintrin.h>
#include <string.h>

#include "kernels/internal.h"
#include "kernels/ref/lanes.h"

enum { LANES_HALF = CMI_LANES / 2 }; /* floats of one register */

/* Selects the first n of 8 floats, n from 0 to 8. */
static inline __m256i lanes_first(size_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), index);
}

/* The mask of what is left of n elements from i on; nothing once i has passed n. */
static inline __m256i lanes_left(size_t i, size_t n)
{
    return lanes_first(i >= n ? 0 : CMI_MIN(n - i, (size_t)LANES_HALF));
}

/* x[i .. i + 7], with zeros from n on. A tail is copied rather than loaded under a mask: QEMU 7.2
 * reads behind the mask, and tails are rare. */
static inline __m256 lanes_load(const float *x, size_t i, size_t n)
{
    if (i + LANES_HALF <= n) {
        return _mm256_loadu_ps(x + i);
    }
    __m256 tail = _mm256_setzero_ps();
    if (i < n) {
        memcpy(&tail, x + i, (n - i) * sizeof *x);
    }
    return tail;
}

/* Those of y[i .. i + 7] that are before n. */
static inline void lanes_store(float *y, size_t i, size_t n, __m256 v)
{
    if (i + LANES_HALF <= n) {
        _mm256_storeu_ps(y + i, v);
    } else {
        _mm256_maskstore_ps(y + i, lanes_left(i, n), v);
    }
}

/* x[i .. i + 7] widened to float32, with zeros from n on; i < n. */
static inline __m256 lanes_load_bf16(const cmi_bf16 *x, size_t i, size_t n)
{
    __m128i narrow = _mm_setzero_si128();
    if (i + LANES_HALF <= n) {
        narrow = _mm_loadu_si128((const __m128i *)(x + i));
    } else {
        memcpy(&narrow, x + i, (n - i) * sizeof *x);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* The sum of lanes 0-7 (lo) and 8-15 (hi). */
static inline float lanes_sum(__m256 lo, __m256 hi)
{
    __m256 s8 = _mm256_add_ps(lo, hi);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

/* The greatest of 8 lanes; of zeros of both signs, one. */
static inline float lanes_max(__m256 v)
{
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* lanes[c] and lanes[c + 4], halved twice: four lanes of c's sum, then four of c + 4's. */
static inline __m256 lanes_halve_8_4(const float lanes[][CMI_LANES], size_t c)
{
    __m256 a = _mm256_add_ps(_mm256_load_ps(lanes[c]), _mm256_load_ps(lanes[c] + LANES_HALF));
    __m256 b =
        _mm256_add_ps(_mm256_load_ps(lanes[c + 4]), _mm256_load_ps(lanes[c + 4] + LANES_HALF));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* In each half of the register two lanes of a's sum, then two of b's. */
static inline __m256 lanes_halve_2(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
}

/* Element c is the sum of lanes[c]. The lanes are aligned to 32 bytes. */
static inline __m256 lanes_sum_8(const float lanes[][CMI_LANES])
{
    __m256 ab = lanes_halve_2(lanes_halve_8_4(lanes, 0), lanes_halve_8_4(lanes, 1));
    __m256 cd = lanes_halve_2(lanes_halve_8_4(lanes, 2), lanes_halve_8_4(lanes, 3));
    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x88), _mm256_shuffle_ps(ab, cd, 0xDD));
}

#endif
