/* BF16 as widened halves of each pair, the odd element first. */
#include "kernels/avx2/attention.h"
#include "kernels/avx2/attn_latent.h"
#include "kernels/avx2/transpose.h"

static inline __m256 operand(__m256i lanes, int phase)
{
    return _mm256_castsi256_ps(phase == 0
                                   ? _mm256_and_si256(lanes, _mm256_set1_epi32((int32_t)0xFFFF0000))
                                   : _mm256_slli_epi32(lanes, 16));
}

void cmi_attn_scores_bf16_avx2(const cmi_attn_scores_args *args)
{
    scores((attn_kind){2, 2, operand}, args);
}

/* Turned, a register holds a column of 8 pairs of tokens; two columns side by side are the lanes of
 * 16 tokens. lane is a multiple of 8: 16 columns of a line, a half at a time. */
static inline void turn(const void *latent, size_t t, size_t lane, char *lines)
{
    const char *from = (const char *)((const cmi_bf16 *)latent + cmi_value_tile_at(2, t, 2 * lane));
    for (size_t half = 0; half < 2; half++) {
        __m256i v[8];
        for (size_t i = 0; i < 8; i++) {
            v[i] = _mm256_load_si256(
                (const void *)(from + i * ATTN_LINE_BYTES + half * ATTN_VECTOR_BYTES));
        }
        transpose_8(v);
        for (size_t i = 0; i < 8; i += 2) {
            __m256i a = _mm256_unpacklo_epi16(v[i], v[i + 1]); /* tokens 0-3 and 8-11 */
            __m256i b = _mm256_unpackhi_epi16(v[i], v[i + 1]); /* tokens 4-7 and 12-15 */
            char *to = lines + (half * 4 + i / 2) * ATTN_LINE_BYTES;
            _mm256_store_si256((void *)to, _mm256_permute2x128_si256(a, b, 0x20));
            _mm256_store_si256((void *)(to + ATTN_VECTOR_BYTES),
                               _mm256_permute2x128_si256(a, b, 0x31));
        }
    }
}

void cmi_attn_latent_scores_bf16_avx2(const cmi_attn_latent_scores_args *args)
{
    latent_scores((attn_kind){2, 2, operand}, turn, args);
}

void cmi_attn_values_bf16_avx2(const cmi_attn_values_args *args)
{
    values((attn_kind){2, 2, operand}, args);
}
