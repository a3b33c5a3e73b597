#include "kernels/avx512/lanes.h"

enum { COMBINE_VECTORS = 4 }; /* chains that run side by side */

static CMI_ALWAYS_INLINE __m512 load_row(const void *row, size_t at, __mmask16 mask,
                                         const bool bf16)
{
    return bf16 ? lanes_load_bf16(mask, (const cmi_bf16 *)row + at)
                : _mm512_maskz_loadu_ps(mask, (const float *)row + at);
}

/* mask: the columns of the last vector. */
static CMI_ALWAYS_INLINE void combine_columns(const cmi_combine_args *args, size_t col,
                                              const uint32_t n_vectors, __mmask16 mask,
                                              const bool bf16)
{
    __m512 sums[COMBINE_VECTORS];
    for (uint32_t v = 0; v < n_vectors; v++) {
        sums[v] = _mm512_setzero_ps();
    }
    for (size_t i = 0; i < args->n_rows; i++) {
        __m512 weight = _mm512_set1_ps(args->weights[i]);
        for (uint32_t v = 0; v < n_vectors; v++) {
            sums[v] = _mm512_fmadd_ps(
                weight, load_row(args->rows[i], col + v * CMI_LANES, mask, bf16), sums[v]);
        }
    }
    for (uint32_t v = 0; v < n_vectors; v++) {
        float *x = args->x + col + v * CMI_LANES;
        _mm512_mask_storeu_ps(x, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x), sums[v]));
    }
}

static CMI_ALWAYS_INLINE void combine(const cmi_combine_args *args, const bool bf16)
{
    size_t col = 0;
    for (; col + COMBINE_VECTORS * CMI_LANES <= args->n; col += COMBINE_VECTORS * CMI_LANES) {
        combine_columns(args, col, COMBINE_VECTORS, 0xFFFF, bf16);
    }
    for (; col < args->n; col += CMI_LANES) {
        combine_columns(args, col, 1, lanes_left(col, args->n), bf16);
    }
}

void cmi_combine_f32_avx512(const cmi_combine_args *args)
{
    combine(args, false);
}

void cmi_combine_bf16_avx512(const cmi_combine_args *args)
{
    combine(args, true);
}
