/* BF16 without the dot product instruction: widened halves of each pair, the odd element first. */
#include "kernels/avx512/attention.h"
#include "kernels/avx512/attn_latent.h"
#include "kernels/avx512/latent_turn_bf16.h"

static inline __m512i operand(__m512i lanes, int phase)
{
    return phase == 0 ? _mm512_and_si512(lanes, _mm512_set1_epi32((int32_t)0xFFFF0000))
                      : _mm512_slli_epi32(lanes, 16);
}

static inline __m512 multiply_add(__m512 sums, __m512i x, __m512i w)
{
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sums);
}

void cmi_attn_scores_bf16_avx512(const cmi_attn_scores_args *args)
{
    scores((attn_kind){2, 2, operand, multiply_add}, args);
}

void cmi_attn_latent_scores_bf16_avx512(const cmi_attn_latent_scores_args *args)
{
    latent_scores((attn_kind){2, 2, operand, multiply_add}, latent_turn_bf16, args);
}

void cmi_attn_values_bf16_avx512(const cmi_attn_values_args *args)
{
    values((attn_kind){2, 2, operand, multiply_add}, args);
}
