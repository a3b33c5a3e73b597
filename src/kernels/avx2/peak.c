#include <immintrin.h>

#include "kernels/internal.h"
#include "kernels/x86_peak.h"

#define ZERO(n) "vpxor %%ymm" n ", %%ymm" n ", %%ymm" n "\n\t"

/* vpmaddubsw, vpmaddwd and an addition. (gemm_i8 needs a fourth instruction for the sign.) */
#define STEP_I8(n)                                                                                 \
    "vpmaddubsw %2, %1, %%ymm10\n\t"                                                               \
    "vpmaddwd %3, %%ymm10, %%ymm10\n\t"                                                            \
    "vpaddd %%ymm10, %%ymm" n ", %%ymm" n "\n\t"
#define STEP_F32(n) "vfmadd231ps %2, %1, %%ymm" n "\n\t"

uint64_t cmi_peak_i8_avx2(uint64_t n_rounds)
{
    const __m256i x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
    uint64_t left = n_rounds;
    if (left > 0) {
        CMI_PEAK_LOOP_AVX2(left, ZERO, STEP_I8, x, w, ones);
    }
    return n_rounds * CMI_PEAK_CHAINS_AVX2 * sizeof x * 2;
}

uint64_t cmi_peak_f32_avx2(uint64_t n_rounds)
{
    const __m256 x = _mm256_set1_ps(0.25f), w = _mm256_set1_ps(0.75f);
    uint64_t left = n_rounds;
    if (left > 0) {
        CMI_PEAK_LOOP_AVX2(left, ZERO, STEP_F32, x, w, w);
    }
    return n_rounds * CMI_PEAK_CHAINS_AVX2 * (sizeof x / sizeof(float)) * 2;
}

uint64_t cmi_peak_read_avx2(const void *memory, size_t n_bytes)
{
    enum { LINES = 2 };
    const size_t n = n_bytes / 2 / sizeof(__m256i);
    const __m256i *a = memory, *b = a + n;
    __m256i sums[2 * LINES];
    for (uint32_t l = 0; l < 2 * LINES; l++) {
        sums[l] = _mm256_setzero_si256();
    }
    for (size_t i = 0; i < n; i += LINES) {
        for (uint32_t l = 0; l < LINES; l++) {
            sums[l] = _mm256_add_epi64(sums[l], _mm256_load_si256(a + i + l));
            sums[LINES + l] = _mm256_add_epi64(sums[LINES + l], _mm256_load_si256(b + i + l));
        }
    }
    CMI_ALIGNED(32) uint64_t words[4];
    __m256i sum =
        _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    _mm256_store_si256((__m256i *)words, sum);
    return words[0] + words[1] + words[2] + words[3];
}
