#include "kernels/neon/lanes.h"

enum { COMBINE_VECTORS = 8 }; /* chains that run side by side */

static CMI_ALWAYS_INLINE float32x4_t load_row(const void *row, size_t i, size_t n, const bool bf16)
{
    return bf16 ? lanes_load_bf16(row, i, n) : lanes_load(row, i, n);
}

/* The columns from col on, all of which exist unless n_vectors is 1. */
static CMI_ALWAYS_INLINE void combine_columns(const cmi_combine_args *args, size_t col, size_t n,
                                              const uint32_t n_vectors, const bool bf16)
{
    float32x4_t sums[COMBINE_VECTORS];
    for (uint32_t v = 0; v < n_vectors; v++) {
        sums[v] = vdupq_n_f32(0.0f);
    }
    for (size_t i = 0; i < args->n_rows; i++) {
        const float32x4_t weight = vdupq_n_f32(args->weights[i]);
        for (uint32_t v = 0; v < n_vectors; v++) {
            float32x4_t value = load_row(args->rows[i], col + v * LANES_QUARTER, n, bf16);
            sums[v] = vfmaq_f32(sums[v], weight, value);
        }
    }
    for (uint32_t v = 0; v < n_vectors; v++) {
        const size_t c = col + v * LANES_QUARTER;
        lanes_store(args->x, c, n, vaddq_f32(lanes_load(args->x, c, n), sums[v]));
    }
}

static CMI_ALWAYS_INLINE void combine(const cmi_combine_args *args, const bool bf16)
{
    const size_t tile = COMBINE_VECTORS * LANES_QUARTER;
    size_t col = 0;
    for (; col + tile <= args->n; col += tile) {
        combine_columns(args, col, SIZE_MAX, COMBINE_VECTORS, bf16);
    }
    for (; col < args->n; col += LANES_QUARTER) {
        combine_columns(args, col, args->n, 1, bf16);
    }
}

void cmi_combine_f32_neon(const cmi_combine_args *args)
{
    combine(args, false);
}

void cmi_combine_bf16_neon(const cmi_combine_args *args)
{
    combine(args, true);
}
