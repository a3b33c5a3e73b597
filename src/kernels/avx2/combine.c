#include "kernels/avx2/lanes.h"

enum { COMBINE_VECTORS = 4 }; /* chains that run side by side */

static CMI_ALWAYS_INLINE __m256 load_row(const void *row, size_t i, size_t n, const bool bf16)
{
    return bf16 ? lanes_load_bf16(row, i, n) : lanes_load(row, i, n);
}

/* The columns from col on, all of which exist unless n_vectors is 1. */
static CMI_ALWAYS_INLINE void combine_columns(const cmi_combine_args *args, size_t col,
                                              const uint32_t n_vectors, const bool bf16)
{
    __m256 sums[COMBINE_VECTORS];
    for (uint32_t v = 0; v < n_vectors; v++) {
        sums[v] = _mm256_setzero_ps();
    }
    for (size_t i = 0; i < args->n_rows; i++) {
        __m256 weight = _mm256_set1_ps(args->weights[i]);
        for (uint32_t v = 0; v < n_vectors; v++) {
            __m256 value = load_row(args->rows[i], col + v * LANES_HALF, args->n, bf16);
            sums[v] = _mm256_fmadd_ps(weight, value, sums[v]);
        }
    }
    for (uint32_t v = 0; v < n_vectors; v++) {
        const size_t c = col + v * LANES_HALF;
        lanes_store(args->x, c, args->n, _mm256_add_ps(lanes_load(args->x, c, args->n), sums[v]));
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
