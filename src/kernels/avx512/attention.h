/* kernels/avx512/attention.h - the two products of attention for one kind of operand.
 *
 * Both have one shape. A register holds a lane of 16 tokens or columns, which lies in the tile as
 * it is multiplied; the other operand, a lane of q or p, is the same for all of them and is
 * broadcast as it is loaded. A register tile of 6 rows by 4 registers makes 24 multiply-adds of 10
 * loads, so the tile may come from the second-level cache. To enter and leave one costs as much as
 * 5 steps: 85 % of the peak with 32 steps, 94 % with 96 (Zen 4, BF16). So scores are summed over
 * all inputs and values over a block of 256 tokens in one go.
 *
 * BF16 by float32 multiply-adds has to widen both operands, on the units that multiply. Rows of q
 * and p are widened once, into a buffer in the first-level cache; registers of the tile are widened
 * as they are loaded, which 12 rows by 2 registers make 4 of 52 instructions of a lane.
 *
 * A kind is a constant of each caller, and everything is inlined into it. */
#ifndef CMI_KERNELS_AVX512_ATTENTION_H
#define CMI_KERNELS_AVX512_ATTENTION_H

#include "kernels/avx512/lanes.h"

enum {
    ATTN_ROWS_MAX = 12, /* of any kind's register tile */
    ATTN_VECTORS_MAX = 4,
    ATTN_VECTOR_BYTES = 64,
    ATTN_UNROLL = 4,
    ATTN_NEAR_STEPS = 8,    /* prefetched into the first-level cache, where w is a stream for it */
    ATTN_WIDE_VALUES = 256, /* of a row that are widened at a time: 12 rows are 12 KiB */
};

/* rows by vectors: a register tile. */
typedef struct attn_kind {
    uint32_t p;                                                /* values of a lane */
    uint32_t rows, vectors;                                    /* at most, of scores and values */
    uint32_t latent_rows, latent_vectors;                      /* of scores against latent rows */
    bool is_wide;                                              /* BF16 as float32, odd, then even */
    __m512i (*operand)(__m512i lanes, int phase);              /* what of w they multiply */
    __m512 (*multiply_add)(__m512 sums, __m512i x, __m512i w); /* sums + x * w */
} attn_kind;

/* Rows of q or p: as they are, or widened. */
typedef struct attn_rows {
    const char *at;
    size_t row_bytes;
} attn_rows;

/* Bytes of a lane of such a row. */
static CMI_ALWAYS_INLINE size_t attn_lane_bytes(const attn_kind kind)
{
    return kind.is_wide ? kind.p * sizeof(float) : CMI_ATTN_LANE_BYTES;
}

/* n BF16 values as float32; to has room for the next multiple of 16. */
static CMI_ALWAYS_INLINE void attn_widen(const char *from, size_t n, float *to)
{
    for (size_t i = 0; i < n; i += CMI_LANES) {
        const __mmask16 mask = lanes_left(i, n);
        __m256i v = _mm256_maskz_loadu_epi16(mask, from + i * sizeof(cmi_bf16));
        _mm512_storeu_si512(to + i, _mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
    }
}

/* n_rows rows of n values, in buffer [n_rows][buffer_values] if they have to be widened. */
static CMI_ALWAYS_INLINE attn_rows attn_rows_of(const attn_kind kind, const char *x,
                                                size_t x_row_bytes, uint32_t n_rows, size_t n,
                                                float *buffer, size_t buffer_values)
{
    if (!kind.is_wide) {
        return (attn_rows){x, x_row_bytes};
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        attn_widen(x + r * x_row_bytes, n, buffer + r * buffer_values);
    }
    return (attn_rows){(const char *)buffer, buffer_values * sizeof *buffer};
}

/* Where the registers of a tile lie: from one step to the next, and beside each other. */
typedef struct attn_shape {
    size_t step_bytes, vector_bytes;
} attn_shape;

typedef __m512 attn_sums[ATTN_ROWS_MAX][ATTN_VECTORS_MAX];

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
                                        attn_sums sums, attn_rows x, const char *w,
                                        const uint32_t n_rows, const uint32_t n_vectors)
{
    for (int phase = 0; phase < (kind.is_wide ? 2 : 1); phase++) {
        const char *lane_at = x.at + (kind.is_wide && phase == 0 ? sizeof(float) : 0);
        __m512i lanes[ATTN_VECTORS_MAX];
        for (uint32_t i = 0; i < n_vectors; i++) {
            lanes[i] = kind.operand(_mm512_load_si512(w + i * shape.vector_bytes), phase);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            int32_t lane;
            memcpy(&lane, lane_at + r * x.row_bytes, sizeof lane);
            const __m512i same = _mm512_set1_epi32(lane);
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
                                       attn_rows x, const char *w, uint32_t n_steps,
                                       attn_ahead ahead, const uint32_t n_rows,
                                       const uint32_t n_vectors)
{
    uint32_t step = 0;
    for (; step + ATTN_UNROLL <= n_steps; step += ATTN_UNROLL) {
        for (size_t b = 0; b < ahead.n_bytes; b += ATTN_VECTOR_BYTES) {
            _mm_prefetch(ahead.at + b, _MM_HINT_T1);
        }
        ahead.at += ahead.n_bytes;
        for (uint32_t i = 0; i < ATTN_UNROLL; i++) {
            for (uint32_t v = 0; kind.is_wide && v < n_vectors; v++) {
                _mm_prefetch(w + v * shape.vector_bytes + ATTN_NEAR_STEPS * shape.step_bytes,
                             _MM_HINT_T0);
            }
            attn_step(kind, shape, sums, x, w, n_rows, n_vectors);
            x.at += attn_lane_bytes(kind);
            w += shape.step_bytes;
        }
    }
    for (; step < n_steps; step++) {
        attn_step(kind, shape, sums, x, w, n_rows, n_vectors);
        x.at += attn_lane_bytes(kind);
        w += shape.step_bytes;
    }
}

#define ATTN_CASE(n, rows_max, tile, ...)                                                          \
    case n:                                                                                        \
        if (n <= rows_max) {                                                                       \
            tile(__VA_ARGS__, n);                                                                  \
        }                                                                                          \
        break;
/* Calls tile with n_rows, which is at most rows_max, as a constant. */
#define ATTN_ROW_TILE(n_rows, rows_max, tile, ...)                                                 \
    switch (n_rows) {                                                                              \
        ATTN_CASE(1, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(2, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(3, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(4, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(5, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(6, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(7, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(8, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(9, rows_max, tile, __VA_ARGS__)                                                  \
        ATTN_CASE(10, rows_max, tile, __VA_ARGS__)                                                 \
        ATTN_CASE(11, rows_max, tile, __VA_ARGS__)                                                 \
        ATTN_CASE(12, rows_max, tile, __VA_ARGS__)                                                 \
    }

/* ---- scores -------------------------------------------------------------------------------------
 */

/* Inputs of all rows of a tile: a piece of K, which goes on with the sums of the one before. */
typedef struct scores_piece {
    attn_rows q;
    uint32_t lane, n_lanes;
} scores_piece;

/* A row tile against the keys from t on. */
static CMI_ALWAYS_INLINE void scores_tile(const attn_kind kind, const cmi_attn_scores_args *args,
                                          const scores_piece *piece, size_t row, uint32_t t,
                                          const uint32_t n_vectors, const uint32_t n_rows)
{
    static const attn_shape shape = {CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES, ATTN_VECTOR_BYTES};
    const char *k =
        (const char *)args->k + t * (size_t)CMI_ATTN_LANE_BYTES + piece->lane * shape.step_bytes;
    float *s = args->s + row * args->s_stride + t;
    attn_sums sums;
    attn_clear(sums, n_rows, n_vectors);
    for (uint32_t r = 0; piece->lane > 0 && r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            sums[r][i] = _mm512_loadu_ps(s + r * args->s_stride + i * CMI_LANES);
        }
    }
    attn_add(kind, shape, sums, piece->q, k, piece->n_lanes, attn_nothing_ahead, n_rows, n_vectors);
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < n_vectors; i++) {
            _mm512_storeu_ps(s + r * args->s_stride + i * CMI_LANES, sums[r][i]);
        }
    }
}

static CMI_ALWAYS_INLINE void scores_rows(const attn_kind kind, const cmi_attn_scores_args *args,
                                          size_t row, const uint32_t n_rows)
{
    CMI_ALIGNED(64) float wide[ATTN_ROWS_MAX * ATTN_WIDE_VALUES];
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const char *q = (const char *)args->q + row * q_row_bytes;
    const uint32_t n_lanes = args->n_k / kind.p;
    const uint32_t lanes_max = kind.is_wide ? ATTN_WIDE_VALUES / kind.p : n_lanes;
    scores_piece piece = {.lane = 0};
    do {
        piece.n_lanes = CMI_MIN(n_lanes - piece.lane, lanes_max);
        piece.q = attn_rows_of(kind, q + piece.lane * (size_t)CMI_ATTN_LANE_BYTES, q_row_bytes,
                               n_rows, piece.n_lanes * (size_t)kind.p, wide, ATTN_WIDE_VALUES);
        uint32_t t = 0;
        for (; t + kind.vectors * CMI_LANES <= args->n_keys; t += kind.vectors * CMI_LANES) {
            scores_tile(kind, args, &piece, row, t, kind.vectors, n_rows);
        }
        for (; t < args->n_keys; t += CMI_LANES) {
            scores_tile(kind, args, &piece, row, t, 1, n_rows);
        }
        piece.lane += piece.n_lanes;
    } while (piece.lane < n_lanes);
}

static CMI_ALWAYS_INLINE void scores(const attn_kind kind, const cmi_attn_scores_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, kind.rows);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, kind.rows, scores_rows, kind, args, row)
        row += n_rows;
    }
}

/* ---- values -------------------------------------------------------------------------------------
 */

/* A row tile, whose weights are p, against the columns from col on; mask: those of the last
 * register. */
static CMI_ALWAYS_INLINE void values_tile(const attn_kind kind, const cmi_attn_values_args *args,
                                          attn_rows p, size_t row, size_t col,
                                          const uint32_t n_vectors, const __mmask16 mask,
                                          const uint32_t n_rows)
{
    const attn_shape shape = {ATTN_VECTOR_BYTES,
                              (size_t)ATTN_VECTOR_BYTES * (CMI_ATTN_TILE / kind.p)};
    float *o = args->o + row * args->o_stride + col;
    attn_sums sums;
    attn_clear(sums, n_rows, n_vectors);
    for (uint32_t t = 0; t < args->n_t; t += CMI_ATTN_TILE) {
        const uint32_t n_t = CMI_MIN(args->n_t - t, (uint32_t)CMI_ATTN_TILE);
        const char *v = args->v[t / CMI_ATTN_TILE];
        attn_add(kind, shape, sums, p, v + col / CMI_LANES * shape.vector_bytes, n_t / kind.p,
                 attn_nothing_ahead, n_rows, n_vectors);
        p.at += CMI_ATTN_TILE / kind.p * attn_lane_bytes(kind);
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
    CMI_ALIGNED(64) float wide[ATTN_ROWS_MAX * ATTN_WIDE_VALUES];
    const size_t p_row_bytes = args->p_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const attn_rows p = attn_rows_of(kind, (const char *)args->p + row * p_row_bytes, p_row_bytes,
                                     n_rows, args->n_t, wide, ATTN_WIDE_VALUES);
    const size_t n_cols = args->n_cols, tile_cols = kind.vectors * CMI_LANES;
    size_t col = 0;
    for (; col + tile_cols <= n_cols; col += tile_cols) {
        values_tile(kind, args, p, row, col, kind.vectors, 0xFFFF, n_rows);
    }
    for (; col < n_cols; col += CMI_LANES) {
        values_tile(kind, args, p, row, col, 1, lanes_left(col, n_cols), n_rows);
    }
}

static CMI_ALWAYS_INLINE void values(const attn_kind kind, const cmi_attn_values_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, kind.rows);
    uint32_t row = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
        ATTN_ROW_TILE(n_rows, kind.rows, values_rows, kind, args, row)
        row += n_rows;
    }
}

#endif
