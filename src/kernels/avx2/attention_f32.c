#include "kernels/avx2/attention.h"
#include "kernels/avx2/attn_latent.h"
#include "kernels/avx2/transpose.h"

static inline __m256 operand(__m256i lanes, int phase)
{
    (void)phase;
    return _mm256_castsi256_ps(lanes);
}

void cmi_attn_scores_f32_avx2(const cmi_attn_scores_args *args)
{
    scores((attn_kind){1, 1, operand}, args);
}

static inline void turn(const void *latent, size_t t, size_t lane, char *lines)
{
    const float *from = (const float *)latent + cmi_value_tile_at(1, t, lane);
    for (size_t half = 0; half < 2; half++) {
        __m256i v[8];
        for (size_t i = 0; i < 8; i++) {
            v[i] = _mm256_load_si256((const void *)(from + (half * 8 + i) * CMI_ATTN_COLS));
        }
        transpose_8(v);
        for (size_t i = 0; i < 8; i++) {
            _mm256_store_si256((void *)(lines + i * ATTN_LINE_BYTES + half * ATTN_VECTOR_BYTES),
                               v[i]);
        }
    }
}

void cmi_attn_latent_scores_f32_avx2(const cmi_attn_latent_scores_args *args)
{
    latent_scores((attn_kind){1, 1, operand}, turn, args);
}

void cmi_attn_values_f32_avx2(const cmi_attn_values_args *args)
{
    values((attn_kind){1, 1, operand}, args);
}
