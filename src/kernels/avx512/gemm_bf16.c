/* BF16 without the dot product instruction: widened halves of each pair, the odd element first. */
#include "kernels/avx512/gemm.h"

static inline __m512i operand(__m512i block, int phase)
{
    return phase == 0 ? _mm512_and_si512(block, _mm512_set1_epi32((int32_t)0xFFFF0000))
                      : _mm512_slli_epi32(block, 16);
}

static inline __m512 multiply_add(__m512 lanes, __m512i x, __m512i w)
{
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), lanes);
}

void cmi_gemm_bf16_avx512(const cmi_gemm_args *args)
{
    gemm((gemm_kind){sizeof(cmi_bf16), 2, operand, multiply_add}, args);
}
