/* The instruction rounds as base/dtype.h says, NaNs and subnormal numbers included. */
#include "kernels/avx512/lanes.h"

void cmi_round_bf16_avx512_bf16(const float *x, uint32_t n, cmi_bf16 *y)
{
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
        _mm256_mask_storeu_epi16(y + i, mask, (__m256i)rounded);
    }
}
