#include "kernels/avx512/attention.h"
#include "kernels/avx512/attn_latent.h"

static inline __m512i operand(__m512i lanes, int phase)
{
    (void)phase;
    return lanes;
}

static inline __m512 multiply_add(__m512 sums, __m512i x, __m512i w)
{
    return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sums);
}

#define KIND                                                                                       \
    ((attn_kind){.p = 1,                                                                           \
                 .rows = 6,                                                                        \
                 .vectors = 4,                                                                     \
                 .latent_rows = 8,                                                                 \
                 .latent_vectors = 1,                                                              \
                 .operand = operand,                                                               \
                 .multiply_add = multiply_add})

void cmi_attn_scores_f32_avx512(const cmi_attn_scores_args *args)
{
    scores(KIND, args);
}

/* Tokens are a line apart. Slow, but float32 is there to check the others. */
static inline void turn(const void *latent, size_t t, size_t lane, __m512i keys[LATENT_TURN])
{
    const float *lines = (const float *)latent + cmi_value_tile_at(1, t, lane);
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_slli_epi32(first, 4);
    for (size_t i = 0; i < LATENT_TURN; i++) {
        keys[i] = _mm512_i32gather_epi32(index, lines + i, sizeof(float));
    }
}

void cmi_attn_latent_scores_f32_avx512(const cmi_attn_latent_scores_args *args)
{
    latent_scores(KIND, turn, args);
}

void cmi_attn_values_f32_avx512(const cmi_attn_values_args *args)
{
    values(KIND, args);
}
