#include <immintrin.h>

#include "kernels/internal.h"
#include "kernels/x86_peak.h"

#define ZERO(n) "vpxorq %%zmm" n ", %%zmm" n ", %%zmm" n "\n\t"
#define STEP(n) "vfmadd231ps %2, %1, %%zmm" n "\n\t"

uint64_t cmi_peak_f32_avx512(uint64_t n_rounds)
{
    const __m512 x = _mm512_set1_ps(0.25f), w = _mm512_set1_ps(0.75f);
    uint64_t left = n_rounds;
    if (left > 0) {
        CMI_PEAK_LOOP_AVX512(left, ZERO, STEP, x, w);
    }
    return n_rounds * CMI_PEAK_CHAINS_AVX512 * (sizeof x / sizeof(float)) * 2;
}

/* Unsigned, so that it may wrap: _mm512_reduce_add_epi64 adds signed numbers. */
static uint64_t sum_words(__m512i words)
{
    CMI_ALIGNED(64) uint64_t values[8];
    _mm512_store_si512(values, words);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < CMI_LEN(values); i++) {
        sum += values[i];
    }
    return sum;
}

/* Of memory: four streams of 64-byte loads. */
static uint64_t read_far(const __m512i *memory, size_t n)
{
    enum { STREAMS = 4, LINES = 2 };
    __m512i sums[STREAMS];
    for (uint32_t s = 0; s < STREAMS; s++) {
        sums[s] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < n / STREAMS; i += LINES) {
        for (uint32_t s = 0; s < STREAMS; s++) {
            const __m512i *at = memory + s * (n / STREAMS) + i;
            for (uint32_t l = 0; l < LINES; l++) {
                sums[s] = _mm512_add_epi64(sums[s], _mm512_load_si512(at + l));
            }
        }
    }
    for (uint32_t s = 1; s < STREAMS; s++) {
        sums[0] = _mm512_add_epi64(sums[0], sums[s]);
    }
    return sum_words(sums[0]);
}

/* Of a cache. */
static uint64_t read_near(const __m512i *a, const __m512i *b, size_t n)
{
    enum { LINES = 4 };
    __m512i sums[2 * LINES];
    for (uint32_t l = 0; l < 2 * LINES; l++) {
        sums[l] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < n; i += LINES) {
        for (uint32_t l = 0; l < LINES; l++) {
            sums[l] = _mm512_add_epi64(sums[l], _mm512_load_si512(a + i + l));
            sums[LINES + l] = _mm512_add_epi64(sums[LINES + l], _mm512_load_si512(b + i + l));
        }
    }
    for (uint32_t l = 1; l < 2 * LINES; l++) {
        sums[0] = _mm512_add_epi64(sums[0], sums[l]);
    }
    return sum_words(sums[0]);
}

uint64_t cmi_peak_read_avx512(const void *memory, size_t n_bytes)
{
    const uint8_t *half = (const uint8_t *)memory + n_bytes / 2;
    if (n_bytes > 1 << 20) {
        return read_far(memory, n_bytes / sizeof(__m512i));
    }
    return read_near(memory, (const __m512i *)(const void *)half, n_bytes / 2 / sizeof(__m512i));
}
