/* kernels/avx2/attention.h - the two products of attention for one kind of operand.
 *
 * Both have one shape. Two registers hold a lane of 16 tokens or columns, which lies in the tile as
 * it is multiplied; the other operand, a lane of q or p, is the same for all of them and is
 * broadcast as it is loaded. A register tile of 6 rows by 2 registers keeps its sums in registers
 * over all steps. A kind is a constant of each caller, and everything is inlined into it. */
#ifndef CMI_KERNELS_AVX2_ATTENTION_H
#define CMI_KERNELS_AVX2_ATTENTION_H

#include "kernels/avx2/lanes.h"

enum { ATTN_ROWS = 6, ATTN_VECTORS = 2, ATTN_LINE_BYTES = 64, ATTN_VECTOR_BYTES = 32 };

typedef struct attn_kind {
    uint32_t p;                                  /* values of a lane */
    int n_phases;                                /* multiply-adds of a lane: 1 or 2 */
    __m256 (*operand)(__m256i lanes, int phase); /* what they multiply */
} attn_kind;

typedef __m256 attn_sums[ATTN_ROWS][ATTN_VECTORS];

static CMI_ALWAYS_INLINE void attn_clear(attn_sums sums, const uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < ATTN_VECTORS; i++) {
            sums[r][i] = _mm256_setzero_ps();
        }
    }
}

/* Adds n_steps lanes of each row of x times n_steps lines of w. */
static CMI_ALWAYS_INLINE void attn_add(const attn_kind kind, attn_sums sums, const char *x,
                                       size_t x_row_bytes, const char *w, size_t w_step_bytes,
                                       uint32_t n_steps, const uint32_t n_rows)
{
    for (uint32_t step = 0; step < n_steps; step++) {
        for (int phase = 0; phase < kind.n_phases; phase++) {
            __m256 lanes[ATTN_VECTORS];
            for (uint32_t i = 0; i < ATTN_VECTORS; i++) {
                const char *from = w + i * (size_t)ATTN_VECTOR_BYTES;
                lanes[i] = kind.operand(_mm256_load_si256((const __m256i *)from), phase);
            }
            for (uint32_t r = 0; r < n_rows; r++) {
                int32_t lane;
                memcpy(&lane, x + r * x_row_bytes, sizeof lane);
                const __m256 same = kind.operand(_mm256_set1_epi32(lane), phase);
                for (uint32_t i = 0; i < ATTN_VECTORS; i++) {
                    sums[r][i] = _mm256_fmadd_ps(same, lanes[i], sums[r][i]);
                }
            }
        }
        x += CMI_ATTN_LANE_BYTES;
        w += w_step_bytes;
    }
}

/* Calls tile with n_rows, which is at most ATTN_ROWS, as a constant. */
#define ATTN_ROW_TILE(n_rows, tile, ...)                                                           \
    switch (n_rows) {                                                                              \
    case 1:                                                                                        \
        tile(__VA_ARGS__, 1);                                                                      \
        break;                                                                                     \
    case 2:                                                                                        \
        tile(__VA_ARGS__, 2);                                                                      \
        break;                                                                                     \
    case 3:                                                                                        \
        tile(__VA_ARGS__, 3);                                                                      \
        break;                                                                                     \
    case 4:                                                                                        \
        tile(__VA_ARGS__, 4);                                                                      \
        break;                                                                                     \
    case 5:                                                                                        \
        tile(__VA_ARGS__, 5);                                                                      \
        break;                                                                                     \
    default:                                                                                       \
        tile(__VA_ARGS__, ATTN_ROWS);                                                              \
        break;                                                                                     \
    }

/* A row tile against 16 keys from t on. */
static CMI_ALWAYS_INLINE void scores_tile(const attn_kind kind, const cmi_attn_scores_args *args,
                                          size_t row, uint32_t t, const uint32_t n_rows)
{
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const char *q = (const char *)args->q + row * q_row_bytes;
    const char *k = (const char *)args->k + t * (size_t)CMI_ATTN_LANE_BYTES;
    float *s = args->s + row * args->s_stride + t;
    attn_sums sums;
    attn_clear(sums, n_rows);
    attn_add(kind, sums, q, q_row_bytes, k, CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES, args->n_k / kind.p,
             n_rows);
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_storeu_ps(s + r * args->s_stride, sums[r][0]);
        _mm256_storeu_ps(s + r * args->s_stride + LANES_HALF, sums[r][1]);
    }
}

static CMI_ALWAYS_INLINE void scores(const attn_kind kind, const cmi_attn_scores_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)ATTN_ROWS);
    for (uint32_t t = 0; t < args->n_keys; t += CMI_LANES) {
        uint32_t row = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
            ATTN_ROW_TILE(n_rows, scores_tile, kind, args, row, t)
            row += n_rows;
        }
    }
}

/* A row tile against 16 columns from col on. */
static CMI_ALWAYS_INLINE void values_tile(const attn_kind kind, const cmi_attn_values_args *args,
                                          size_t row, size_t col, const uint32_t n_rows)
{
    const size_t p_row_bytes = args->p_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const size_t block_bytes = (size_t)ATTN_LINE_BYTES * (CMI_ATTN_TILE / kind.p);
    const char *p = (const char *)args->p + row * p_row_bytes;
    attn_sums sums;
    attn_clear(sums, n_rows);
    for (uint32_t t = 0; t < args->n_t; t += CMI_ATTN_TILE) {
        const uint32_t n_t = CMI_MIN(args->n_t - t, (uint32_t)CMI_ATTN_TILE);
        const char *v = (const char *)args->v[t / CMI_ATTN_TILE] + col / CMI_LANES * block_bytes;
        attn_add(kind, sums, p + t / kind.p * (size_t)CMI_ATTN_LANE_BYTES, p_row_bytes, v,
                 ATTN_LINE_BYTES, n_t / kind.p, n_rows);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        float *o = args->o + (row + r) * args->o_stride;
        const __m256 alpha = _mm256_set1_ps(args->alpha[row + r]);
        const __m256 beta = _mm256_set1_ps(args->beta[row + r]);
        for (uint32_t i = 0; i < ATTN_VECTORS; i++) {
            const size_t at = col + i * LANES_HALF;
            __m256 old = _mm256_mul_ps(lanes_load(o, at, args->n_cols), alpha);
            lanes_store(o, at, args->n_cols, _mm256_fmadd_ps(sums[r][i], beta, old));
        }
    }
}

static CMI_ALWAYS_INLINE void values(const attn_kind kind, const cmi_attn_values_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)ATTN_ROWS);
    for (size_t col = 0; col < args->n_cols; col += CMI_LANES) {
        uint32_t row = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
            ATTN_ROW_TILE(n_rows, values_tile, kind, args, row, col)
            row += n_rows;
        }
    }
}

#endif
