/* BF16 with the dot product instruction, which is a pair's step: see kernels/attention.h. */
#include "kernels/avx512/attention.h"
#include "kernels/avx512/attn_latent.h"
#include "kernels/avx512/latent_turn_bf16.h"

static inline __m512i operand(__m512i lanes, int phase)
{
    (void)phase;
    return lanes;
}

static inline __m512 multiply_add(__m512 sums, __m512i x, __m512i w)
{
    return _mm512_dpbf16_ps(sums, (__m512bh)x, (__m512bh)w);
}

#define KIND                                                                                       \
    ((attn_kind){.p = 2,                                                                           \
                 .rows = 6,                                                                        \
                 .vectors = 4,                                                                     \
                 .latent_rows = 8,                                                                 \
                 .latent_vectors = 1,                                                              \
                 .operand = operand,                                                               \
                 .multiply_add = multiply_add})

void cmi_attn_scores_bf16_avx512_bf16(const cmi_attn_scores_args *args)
{
    scores(KIND, args);
}

void cmi_attn_latent_scores_bf16_avx512_bf16(const cmi_attn_latent_scores_args *args)
{
    latent_scores(KIND, latent_turn_bf16, args);
}

void cmi_attn_values_bf16_avx512_bf16(const cmi_attn_values_args *args)
{
    values(KIND, args);
}
