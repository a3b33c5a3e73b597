#include "kernels/avx2/lanes.h"

enum { COMBINE_VECTORS = 4 }; /* chains that run side by side */

static CMI_ALWAYS_INLINE __m256 load_row(const void *row, size_t i, size_t n, const bool whole,
                                         const bool bf16)
{
    if (!whole) {
        return bf16 ? lanes_load_bf16(row, i, n) : lanes_load(row, i, n);
    }
    if (!bf16) {
        return _mm256_loadu_ps((const float *)row + i);
    }
    __m128i narrow = _mm_loadu_si128((const __m128i *)((const cmi_bf16 *)row + i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

/* The columns from col on; if there is more than one vector, all of them exist. */
static CMI_ALWAYS_INLINE void combine_columns(const cmi_combine_args *args, size_t col,
                                              const uint32_t n_vectors, const bool bf16)
{
    const bool whole = n_vectors > 1;
    __m256 sums[COMBINE_VECTORS];
    for (uint32_t v = 0; v < n_vectors; v++) {
        sums[v] = _mm256_setzero_ps();
    }
    for (size_t i = 0; i < args->n_rows; i++) {
        __m256 weight = _mm256_set1_ps(args->weights[i]);
        for (uint32_t v = 0; v < n_vectors; v++) {
            const size_t c = col + v * LANES_HALF;
            __m256 value = load_row(args->rows[i], c, args->n, whole, bf16);
            sums[v] = _mm256_fmadd_ps(weight, value, sums[v]);
        }
    }
    for (uint32_t v = 0; v < n_vectors; v++) {
        const size_t c = col + v * LANES_HALF;
        __m256 x = _mm256_add_ps(load_row(args->x, c, args->n, whole, false), sums[v]);
        if (whole) {
            _mm256_storeu_ps(args->x + c, x);
        } else {
            lanes_store(args->x, c, args->n, x);
        }
    }
}

static CMI_ALWAYS_INLINE void combine(const cmi_combine_args *args, const bool bf16)
{
    size_t col = 0;
    for (; col + COMBINE_VECTORS * LANES_HALF <= args->n; col += COMBINE_VECTORS * LANES_HALF) {
        combine_columns(args, col, COMBINE_VECTORS, bf16);
    }
    for (; col < args->n; col += LANES_HALF) {
        combine_columns(args, col, 1, bf16);
    }
}

void cmi_combine_f32_avx2(const cmi_combine_args *args)
{
    combine(args, false);
}

void cmi_combine_bf16_avx2(const cmi_combine_args *args)
{
    combine(args, true);
}
