/* BF16 without the dot product instruction: widened halves of each pair, the odd element first. */
#include "kernels/avx512/attention.h"
#include "kernels/avx512/attn_latent.h"
#include "kernels/avx512/latent_turn_bf16.h"

/* Of a pair of columns or tokens in each lane. */
static inline __m512i operand(__m512i lanes, int phase)
{
    return phase == 0 ? _mm512_and_si512(lanes, _mm512_set1_epi32((int32_t)0xFFFF0000))
                      : _mm512_slli_epi32(lanes, 16);
}

/* gcc 12 moves and spills the sums of the intrinsic; as an operand that is read and written a sum
 * stays in its register. */
static inline __m512 multiply_add(__m512 sums, __m512i x, __m512i w)
{
#if defined(__clang__)
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sums);
#else
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
    return sums;
#endif
}

#define KIND                                                                                       \
    ((attn_kind){.p = 2,                                                                           \
                 .rows = 12,                                                                       \
                 .vectors = 2,                                                                     \
                 .latent_rows = 12,                                                                \
                 .latent_vectors = 2,                                                              \
                 .is_wide = true,                                                                  \
                 .operand = operand,                                                               \
                 .multiply_add = multiply_add})

void cmi_attn_scores_bf16_avx512(const cmi_attn_scores_args *args)
{
    scores(KIND, args);
}

void cmi_attn_latent_scores_bf16_avx512(const cmi_attn_latent_scores_args *args)
{
    latent_scores(KIND, latent_turn_bf16, args);
}

void cmi_attn_values_bf16_avx512(const cmi_attn_values_args *args)
{
    values(KIND, args);
}
