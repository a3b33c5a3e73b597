/* BF16 as widened halves of each pair, the odd element first. */
#include "kernels/avx2/gemm.h"

/* The upper halves of two elements' 32 bits. */
#define ODD_PAIR (int64_t)0xFFFF0000FFFF0000

static inline __m256 operand(__m256i block, int phase)
{
    /* volatile: a mask that stayed in a register would drive one of the tile's sums into memory (57
     * instead of 87 GFLOP/s). */
    static const volatile __m256i odds = {ODD_PAIR, ODD_PAIR, ODD_PAIR, ODD_PAIR};
    const __m256i odd = odds;
    return _mm256_castsi256_ps(phase == 0 ? _mm256_and_si256(block, odd)
                                          : _mm256_slli_epi32(block, 16));
}

void cmi_gemm_bf16_avx2(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(cmi_bf16), 2, operand}, args);
}
