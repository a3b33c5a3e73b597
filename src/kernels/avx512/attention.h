/* kernels/avx512/attention.h - the two products of attention for one kind of operand.
 *
 * Both have one shape. A register holds a lane of 16 tokens or columns, which lies in the tile as
 * it is multiplied; the other operand, a lane of q or p, is the same for all of them and is
 * broadcast as it is loaded. A register tile of 6 rows by 4 registers makes 24 multiply-adds of 10
 * loads, so the tile may come from the second-level cache. To enter and leave one costs as much as
 * 5 steps: 85 % of the peak with 32 steps, 94 % with 96 (Zen 4, BF16). So scores are summed over
 * all inputs and values over a block of 256 tokens in one go.
 *
 * A kind is a constant of each caller, and everything is inlined into it. */
#ifndef CMI_KERNELS_AVX512_ATTENTION_H
#define CMI_KERNELS_AVX512_ATTENTION_H

#include "kernels/avx512/lanes.h"

enum {
    ATTN_ROWS = 6,
    ATTN_VECTORS = 4,
    ATTN_ROWS_MAX = 8,
    ATTN_VECTOR_BYTES = 64,
    ATTN_UNROLL = 4
};

typedef struct attn_kind {
    uint32_t p;                                                /* values of a lane */
    int n_phases;                                              /* multiply-adds of a lane: 1 or 2 */
    __m512i (*operand)(__m512i lanes, int phase);              /* what they multiply */
    __m512 (*multiply_add)(__m512 sums, __m512i x, __m512i w); /* sums + x * w */
} attn_kind;

/* Where the registers of a tile lie: from one step to the next, and beside each other. */
typedef struct attn_shape {
    size_t step_bytes, vector_bytes;
} attn_shape;

typedef __m512 attn_sums[ATTN_ROWS_MAX][ATTN_VECTORS];

static CMI_ALWAYS_INLINE void attn_clear(attn_sums sums, const uint32_t n_rows,
                                         const uint32_t n_vectors)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            sums[r][i] = _mm512_setzero_ps();
        }
    }
}

static CMI_ALWAYS_INLINE void attn_step(const attn_kind kind, const attn_shape shape,
                                        attn_sums sums, const char *x, size_t x_row_bytes,
                                        const char *w, const uint32_t n_rows,
                                        const uint32_t n_vectors)
{
    for (int phase = 0; phase < kind.n_phases; phase++) {
        __m512i lanes[ATTN_VECTORS];
        for (uint32_t i = 0; i < n_vectors; i++) {
            lanes[i] = kind.operand(_mm512_load_si512(w + i * shape.vector_bytes), phase);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            int32_t lane;
            memcpy(&lane, x + r * x_row_bytes, sizeof lane);
            const __m512i same = kind.operand(_mm512_set1_epi32(lane), phase);
            for (uint32_t i = 0; i < n_vectors; i++) {
                sums[r][i] = kind.multiply_add(sums[r][i], same, lanes[i]);
            }
        }
    }
}

/* What is prefetched meanwhile: n_bytes at every ATTN_UNROLL steps, from at on. */
typedef struct attn_ahead {
    const char *at;
    size_t n_bytes;
} attn_ahead;

static const attn_ahead attn_nothing_ahead = {NULL, 0};

/* Adds n_steps lanes of each row of x times n_steps registers of w. */
static CMI_ALWAYS_INLINE void attn_add(const attn_kind kind, const attn_shape shape, attn_sums sums,
                                       const char *x, size_t x_row_bytes, const char *w,
                                       uint32_t n_steps, attn_ahead ahead, const uint32_t n_rows,
                                       const uint32_t n_vectors)
{
    uint32_t step = 0;
    for (; step + ATTN_UNROLL <= n_steps; step += ATTN_UNROLL) {
        for (size_t b = 0; b < ahead.n_bytes; b += ATTN_VECTOR_BYTES) {
            _mm_prefetch(ahead.at + b, _MM_HINT_T1);
        }
        ahead.at += ahead.n_bytes;
        for (uint32_t i = 0; i < ATTN_UNROLL; i++) {
            attn_step(kind, shape, sums, x, x_row_bytes, w, n_rows, n_vectors);
            x += CMI_ATTN_LANE_BYTES;
            w += shape.step_bytes;
        }
    }
    for (; step < n_steps; step++) {
        attn_step(kind, shape, sums, x, x_row_bytes, w, n_rows, n_vectors);
        x += CMI_ATTN_LANE_BYTES;
        w += shape.step_bytes;
    }
}

#define ATTN_CASE(n, tile, ...)                                                                    \
    case n:                                                                                        \
        tile(__VA_ARGS__, n);                                                                      \
        break;
/* Calls tile with n_rows, which is at most ATTN_ROWS, as a constant. */
#define ATTN_ROW_TILE(n_rows, tile, ...)                                                           \
    switch (n_rows) {                                                                              \
        ATTN_CASE(1, tile, __VA_ARGS__)                                                            \
        ATTN_CASE(2, tile, __VA_ARGS__)                                                            \
        ATTN_CASE(3, tile, __VA_ARGS__)                                                            \
        ATTN_CASE(4, tile, __VA_ARGS__)                                                            \
        ATTN_CASE(5, tile, __VA_ARGS__)                                                            \
        ATTN_CASE(6, tile, __VA_ARGS__)                                                            \
    }

/* ---- scores -------------------------------------------------------------------------------------
 */

/* A row tile against the keys from t on. */
static CMI_ALWAYS_INLINE void scores_tile(const attn_kind kind, const cmi_attn_scores_args *args,
                                          size_t row, uint32_t t, const uint32_t n_vectors,
                                          const uint32_t n_rows)
{
    static const attn_shape shape = {CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES, ATTN_VECTOR_BYTES};
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const char *q = (const char *)args->q + row * q_row_bytes;
    const char *k = (const char *)args->k + t * (size_t)CMI_ATTN_LANE_BYTES;
    float *s = args->s + row * args->s_stride + t;
    attn_sums sums;
    attn_clear(sums, n_rows, n_vectors);
    attn_add(kind, shape, sums, q, q_row_bytes, k, args->n_k / kind.p, attn_nothing_ahead, n_rows,
             n_vectors);
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            _mm512_storeu_ps(s + r * args->s_stride + i * CMI_LANES, sums[r][i]);
        }
    }
}

static CMI_ALWAYS_INLINE void scores_rows(const attn_kind kind, const cmi_attn_scores_args *args,
                                          size_t row, const uint32_t n_rows)
{
    uint32_t t = 0;
    for (; t + ATTN_VECTORS * CMI_LANES <= args->n_keys; t += ATTN_VECTORS * CMI_LANES) {
        scores_tile(kind, args, row, t, ATTN_VECTORS, n_rows);
    }
    for (; t < args->n_keys; t += CMI_LANES) {
        scores_tile(kind, args, row, t, 1, n_rows);
    }
}

static CMI_ALWAYS_INLINE void scores(const attn_kind kind, const cmi_attn_scores_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)ATTN_ROWS);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, scores_rows, kind, args, row)
        row += n_rows;
    }
}

/* ---- values -------------------------------------------------------------------------------------
 */

/* A row tile against the columns from col on; mask: those of the last register. */
static CMI_ALWAYS_INLINE void values_tile(const attn_kind kind, const cmi_attn_values_args *args,
                                          size_t row, size_t col, const uint32_t n_vectors,
                                          const __mmask16 mask, const uint32_t n_rows)
{
    const attn_shape shape = {ATTN_VECTOR_BYTES,
                              (size_t)ATTN_VECTOR_BYTES * (CMI_ATTN_TILE / kind.p)};
    const size_t p_row_bytes = args->p_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const char *p = (const char *)args->p + row * p_row_bytes;
    float *o = args->o + row * args->o_stride + col;
    attn_sums sums;
    attn_clear(sums, n_rows, n_vectors);
    for (uint32_t t = 0; t < args->n_t; t += CMI_ATTN_TILE) {
        const uint32_t n_t = CMI_MIN(args->n_t - t, (uint32_t)CMI_ATTN_TILE);
        const char *v = args->v[t / CMI_ATTN_TILE];
        attn_add(kind, shape, sums, p + t / kind.p * (size_t)CMI_ATTN_LANE_BYTES, p_row_bytes,
                 v + col / CMI_LANES * shape.vector_bytes, n_t / kind.p, attn_nothing_ahead, n_rows,
                 n_vectors);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m512 alpha = _mm512_set1_ps(args->alpha[row + r]);
        const __m512 beta = _mm512_set1_ps(args->beta[row + r]);
        for (uint32_t i = 0; i < n_vectors; i++) {
            const __mmask16 lanes = i + 1 < n_vectors ? (__mmask16)0xFFFF : mask;
            float *at = o + r * args->o_stride + i * CMI_LANES;
            __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, at), alpha);
            _mm512_mask_storeu_ps(at, lanes, _mm512_fmadd_ps(sums[r][i], beta, old));
        }
    }
}

static CMI_ALWAYS_INLINE void values_rows(const attn_kind kind, const cmi_attn_values_args *args,
                                          size_t row, const uint32_t n_rows)
{
    const size_t n_cols = args->n_cols, tile_cols = ATTN_VECTORS * CMI_LANES;
    size_t col = 0;
    for (; col + tile_cols <= n_cols; col += tile_cols) {
        values_tile(kind, args, row, col, ATTN_VECTORS, 0xFFFF, n_rows);
    }
    for (; col < n_cols; col += CMI_LANES) {
        values_tile(kind, args, row, col, 1, lanes_left(col, n_cols), n_rows);
    }
}

static CMI_ALWAYS_INLINE void values(const attn_kind kind, const cmi_attn_values_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)ATTN_ROWS);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, values_rows, kind, args, row)
        row += n_rows;
    }
}

#endif
