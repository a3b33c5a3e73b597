/* BF16 as widened halves of each pair, the odd element first. */
#include "kernels/avx2/gemm.h"

static inline __m256 operand(__m256i block, int phase)
{
    const __m256i odd = _mm256_set1_epi32((int32_t)0xFFFF0000);
    return _mm256_castsi256_ps(phase == 0 ? _mm256_and_si256(block, odd)
                                          : _mm256_slli_epi32(block, 16));
}

void cmi_gemm_bf16_avx2(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(cmi_bf16), 2, operand}, args);
}
