#include <immintrin.h>

#include "kernels/internal.h"
#include "kernels/x86_peak.h"

#define ZERO(n) "vpxorq %%zmm" n ", %%zmm" n ", %%zmm" n "\n\t"
#define STEP(n) "vdpbf16ps %2, %1, %%zmm" n "\n\t"

uint64_t cmi_peak_bf16_avx512_bf16(uint64_t n_rounds)
{
    const __m512i x = _mm512_set1_epi16(0x3E80), w = _mm512_set1_epi16(0x3F40);
    uint64_t left = n_rounds;
    if (left > 0) {
        CMI_PEAK_LOOP_AVX512(left, ZERO, STEP, x, w);
    }
    return n_rounds * CMI_PEAK_CHAINS_AVX512 * (sizeof x / sizeof(cmi_bf16)) * 2;
}
