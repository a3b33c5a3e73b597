/* O = alpha O + P V. A tile of 6 rows by 64 columns of O stays in registers along t; each row of V
 * is read once per tile, and each p is broadcast to the tile's four registers of that row. */
#include "kernels/avx512/lanes.h"

enum { TILE_ROWS = 6, TILE_VECTORS = 4 };

static inline __m512 load_values(const void *v, size_t at, __mmask16 mask, const bool bf16)
{
    return bf16 ? lanes_load_bf16(mask, (const cmi_bf16 *)v + at)
                : _mm512_maskz_loadu_ps(mask, (const float *)v + at);
}

/* mask: the columns of the tile's last register. */
static CMI_ALWAYS_INLINE void attn_tile(const cmi_attn_values_args *args, size_t row, size_t col,
                                        const uint32_t n_rows, const uint32_t n_vectors,
                                        const __mmask16 mask, const bool bf16)
{
    const float *p = args->p + row * args->p_stride;
    float *o = args->o + row * args->o_stride + col;
    __mmask16 masks[TILE_VECTORS];
    __m512 acc[TILE_ROWS][TILE_VECTORS];
    for (uint32_t i = 0; i < n_vectors; i++) {
        masks[i] = i + 1 < n_vectors ? (__mmask16)0xFFFF : mask;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        __m512 alpha = _mm512_set1_ps(args->alpha[row + r]);
        for (uint32_t i = 0; i < n_vectors; i++) {
            __m512 old = _mm512_maskz_loadu_ps(masks[i], o + r * args->o_stride + i * CMI_LANES);
            acc[r][i] = _mm512_mul_ps(old, alpha);
        }
    }
    for (size_t t = 0; t < args->n_t; t++) {
        const size_t at = t * args->v_stride + col;
        __m512 values[TILE_VECTORS];
        for (uint32_t i = 0; i < n_vectors; i++) {
            values[i] = load_values(args->v, at + i * CMI_LANES, masks[i], bf16);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            __m512 weight = _mm512_set1_ps(p[r * args->p_stride + t]);
            for (uint32_t i = 0; i < n_vectors; i++) {
                acc[r][i] = _mm512_fmadd_ps(weight, values[i], acc[r][i]);
            }
        }
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            _mm512_mask_storeu_ps(o + r * args->o_stride + i * CMI_LANES, masks[i], acc[r][i]);
        }
    }
}

static CMI_ALWAYS_INLINE void attn_rows(const cmi_attn_values_args *args, size_t row,
                                        const uint32_t n_rows, const bool bf16)
{
    const size_t n_cols = args->n_cols, tile_cols = TILE_VECTORS * CMI_LANES;
    size_t col = 0;
    for (; col + tile_cols <= n_cols; col += tile_cols) {
        attn_tile(args, row, col, n_rows, TILE_VECTORS, 0xFFFF, bf16);
    }
    for (; col < n_cols; col += CMI_LANES) {
        attn_tile(args, row, col, n_rows, 1, lanes_left(col, n_cols), bf16);
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

void cmi_attn_values_f32_avx512(const cmi_attn_values_args *args)
{
    attn_values(args, false);
}

void cmi_attn_values_bf16_avx512(const cmi_attn_values_args *args)
{
    attn_values(args, true);
}
