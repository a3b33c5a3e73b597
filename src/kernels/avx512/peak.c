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
        CMI_PEAK_LOOP(left, ZERO, STEP, x, w, w);
    }
    return n_rounds * CMI_PEAK_CHAINS * (sizeof x / sizeof(float)) * 2;
}
