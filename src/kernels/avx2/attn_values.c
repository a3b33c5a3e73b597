/* O = alpha O + P V. A tile of 6 rows by 16 columns of O stays in registers along t; each row of V
 * is read once per tile, and each p is broadcast to the tile's two registers of that row. */
#include "kernels/avx2/lanes.h"

enum { TILE_ROWS = 6, TILE_VECTORS = 2 };

static inline __m256 load_values(const void *v, size_t row_at, size_t col, size_t n_cols,
                                 const bool bf16)
{
    return bf16 ? lanes_load_bf16((const cmi_bf16 *)v + row_at, col, n_cols)
                : lanes_load((const float *)v + row_at, col, n_cols);
}

/* Columns from n_cols on count as zeros and are not written. */
static CMI_ALWAYS_INLINE void attn_tile(const cmi_attn_values_args *args, size_t row, size_t col,
                                        const uint32_t n_rows, const uint32_t n_vectors,
                                        const size_t n_cols, const bool bf16)
{
    const float *p = args->p + row * args->p_stride;
    float *o = args->o + row * args->o_stride;
    __m256 acc[TILE_ROWS][TILE_VECTORS];
    for (uint32_t r = 0; r < n_rows; r++) {
        __m256 alpha = _mm256_set1_ps(args->alpha[row + r]);
        for (uint32_t i = 0; i < n_vectors; i++) {
            __m256 old = lanes_load(o + r * args->o_stride, col + i * LANES_HALF, n_cols);
            acc[r][i] = _mm256_mul_ps(old, alpha);
        }
    }
    for (size_t t = 0; t < args->n_t; t++) {
        __m256 values[TILE_VECTORS];
        for (uint32_t i = 0; i < n_vectors; i++) {
            values[i] =
                load_values(args->v, t * args->v_stride, col + i * LANES_HALF, n_cols, bf16);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            __m256 weight = _mm256_set1_ps(p[r * args->p_stride + t]);
            for (uint32_t i = 0; i < n_vectors; i++) {
                acc[r][i] = _mm256_fmadd_ps(weight, values[i], acc[r][i]);
            }
        }
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            lanes_store(o + r * args->o_stride, col + i * LANES_HALF, n_cols, acc[r][i]);
        }
    }
}

static CMI_ALWAYS_INLINE void attn_rows(const cmi_attn_values_args *args, size_t row,
                                        const uint32_t n_rows, const bool bf16)
{
    const size_t n_cols = args->n_cols, tile_cols = TILE_VECTORS * LANES_HALF;
    size_t col = 0;
    for (; col + tile_cols <= n_cols; col += tile_cols) {
        attn_tile(args, row, col, n_rows, TILE_VECTORS, SIZE_MAX, bf16);
    }
    for (; col < n_cols; col += LANES_HALF) {
        attn_tile(args, row, col, n_rows, 1, n_cols, bf16);
    }
}

static CMI_ALWAYS_INLINE void attn_values(const cmi_attn_values_args *args, const bool bf16)
{
    size_t row = 0;
    for (; row + TILE_ROWS <= args->n_rows; row += TILE_ROWS) {
        attn_rows(args, row, TILE_ROWS, bf16);
    }
    for (; row + 2 <= args->n_rows; row += 2) {
        attn_rows(args, row, 2, bf16);
    }
    for (; row < args->n_rows; row++) {
        attn_rows(args, row, 1, bf16);
    }
}

void cmi_attn_values_f32_avx2(const cmi_attn_values_args *args)
{
    attn_values(args, false);
}

void cmi_attn_values_bf16_avx2(const cmi_attn_values_args *args)
{
    attn_values(args, true);
}
