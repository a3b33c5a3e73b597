/* kernels/avx2/transpose.h - 8 registers of 8 lanes, transposed. */
#ifndef CMI_KERNELS_AVX2_TRANSPOSE_H
#define CMI_KERNELS_AVX2_TRANSPOSE_H

#include <immintrin.h>

static inline void transpose_8(__m256i v[8])
{
    __m256i w[8];
    for (int i = 0; i < 8; i += 2) {
        w[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* v[i + j]: lanes j and 4 + j of rows i .. i + 3 */
        v[i] = _mm256_unpacklo_epi64(w[i], w[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(w[i], w[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(w[i + 1], w[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(w[i + 1], w[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        __m256i low = v[j], high = v[j + 4];
        v[j] = _mm256_permute2x128_si256(low, high, 0x20);
        v[j + 4] = _mm256_permute2x128_si256(low, high, 0x31);
    }
}

#endif
