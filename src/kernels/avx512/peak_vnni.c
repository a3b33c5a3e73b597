#include <immintrin.h>

#include "kernels/internal.h"
#include "kernels/x86_peak.h"

#define ZERO(n) "vpxorq %%zmm" n ", %%zmm" n ", %%zmm" n "\n\t"
#define STEP(n) "vpdpbusd %2, %1, %%zmm" n "\n\t"

uint64_t cmi_peak_i8_avx512_vnni(uint64_t n_rounds)
{
    const __m512i x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        CMI_PEAK_LOOP_AVX512(left, ZERO, STEP, x, w);
    }
    return n_rounds * CMI_PEAK_CHAINS_AVX512 * sizeof x * 2;
}
