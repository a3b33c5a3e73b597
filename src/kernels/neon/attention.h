/* kernels/neon/attention.h - the two products of attention for one kind of operand.
 *
 * Both have one shape. Four registers hold a line, a lane of 16 tokens or columns, as it lies in
 * the tile; the other operand, a lane of q or p, is the same for all of them, and an instruction
 * can take it from a register that holds four. A register tile of 4 rows keeps its 16 sums over all
 * steps; 20 loads serve 64 multiply-adds. A kind is a constant of each caller, and everything is
 * inlined into it. */
#ifndef CMI_KERNELS_NEON_ATTENTION_H
#define CMI_KERNELS_NEON_ATTENTION_H

#include "kernels/neon/lanes.h"

enum {
    ATTN_ROWS = 4,
    ATTN_REGISTERS = 4, /* of a line */
    ATTN_REGISTER_BYTES = 16,
    ATTN_LINE_BYTES = 64,
    ATTN_UNROLL = 4, /* lanes of x in a register */
};

typedef float32x4_t attn_sums[ATTN_ROWS][ATTN_REGISTERS];

/* Adds the next lanes of each row of x times as many lines of w to the sums. */
typedef void attn_add_fn(attn_sums sums, const uint8_t *x, size_t x_row_bytes, const uint8_t *w,
                         size_t w_step_bytes, const uint32_t n_rows);

typedef struct attn_kind {
    uint32_t p;            /* values of a lane */
    attn_add_fn *add_four; /* ATTN_UNROLL lanes */
    attn_add_fn *add_one;
} attn_kind;

/* Adds n_steps lanes of each row of x times n_steps lines of w. */
static CMI_ALWAYS_INLINE void attn_add(const attn_kind kind, attn_sums sums, const uint8_t *x,
                                       size_t x_row_bytes, const uint8_t *w, size_t w_step_bytes,
                                       uint32_t n_steps, const uint32_t n_rows)
{
    uint32_t left = n_steps;
    for (; left >= ATTN_UNROLL; left -= ATTN_UNROLL) {
        kind.add_four(sums, x, x_row_bytes, w, w_step_bytes, n_rows);
        x += ATTN_UNROLL * CMI_ATTN_LANE_BYTES;
        w += ATTN_UNROLL * w_step_bytes;
    }
    for (; left > 0; left--) {
        kind.add_one(sums, x, x_row_bytes, w, w_step_bytes, n_rows);
        x += CMI_ATTN_LANE_BYTES;
        w += w_step_bytes;
    }
}

static CMI_ALWAYS_INLINE void attn_clear(attn_sums sums, const uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {
            sums[r][i] = vdupq_n_f32(0.0f);
        }
    }
}

static CMI_ALWAYS_INLINE void attn_load(attn_sums sums, const float *s, size_t s_stride,
                                        const uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {
            sums[r][i] = vld1q_f32(s + r * s_stride + i * LANES_QUARTER);
        }
    }
}

static CMI_ALWAYS_INLINE void attn_store(attn_sums sums, float *s, size_t s_stride,
                                         const uint32_t n_rows)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t i = 0; i < ATTN_REGISTERS; i++) {
            vst1q_f32(s + r * s_stride + i * LANES_QUARTER, sums[r][i]);
        }
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
    default:                                                                                       \
        tile(__VA_ARGS__, ATTN_ROWS);                                                              \
        break;                                                                                     \
    }

/* A row tile against 16 keys from t on. */
static CMI_ALWAYS_INLINE void scores_tile(const attn_kind kind, const cmi_attn_scores_args *args,
                                          size_t row, uint32_t t, const uint32_t n_rows)
{
    const size_t q_row_bytes = args->q_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    attn_sums sums;
    attn_clear(sums, n_rows);
    attn_add(kind, sums, (const uint8_t *)args->q + row * q_row_bytes, q_row_bytes,
             (const uint8_t *)args->k + t * (size_t)CMI_ATTN_LANE_BYTES,
             CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES, args->n_k / kind.p, n_rows);
    attn_store(sums, args->s + row * args->s_stride + t, args->s_stride, n_rows);
}

static CMI_ALWAYS_INLINE void scores(const attn_kind kind, const cmi_attn_scores_args *args)
{
    for (uint32_t t = 0; t < args->n_keys; t += CMI_LANES) {
        for (uint32_t row = 0; row < args->n_rows; row += ATTN_ROWS) {
            ATTN_ROW_TILE(args->n_rows - row, scores_tile, kind, args, row, t)
        }
    }
}

/* A row tile against 16 columns from col on. */
static CMI_ALWAYS_INLINE void values_tile(const attn_kind kind, const cmi_attn_values_args *args,
                                          size_t row, size_t col, const uint32_t n_rows)
{
    const size_t p_row_bytes = args->p_stride * (CMI_ATTN_LANE_BYTES / kind.p);
    const size_t block_bytes = (size_t)ATTN_LINE_BYTES * (CMI_ATTN_TILE / kind.p);
    const uint8_t *p = (const uint8_t *)args->p + row * p_row_bytes;
    attn_sums sums;
    attn_clear(sums, n_rows);
    for (uint32_t t = 0; t < args->n_t; t += CMI_ATTN_TILE) {
        const uint32_t n_t = CMI_MIN(args->n_t - t, (uint32_t)CMI_ATTN_TILE);
        const uint8_t *v = args->v[t / CMI_ATTN_TILE];
        attn_add(kind, sums, p + t / kind.p * (size_t)CMI_ATTN_LANE_BYTES, p_row_bytes,
                 v + col / CMI_LANES * block_bytes, ATTN_LINE_BYTES, n_t / kind.p, n_rows);
    }
    float block[ATTN_ROWS][CMI_ATTN_COLS];
    attn_store(sums, block[0], CMI_ATTN_COLS, n_rows);
    for (uint32_t r = 0; r < n_rows; r++) {
        float *o = args->o + (row + r) * args->o_stride;
        for (size_t c = 0; c < CMI_ATTN_COLS; c += LANES_QUARTER) {
            float32x4_t v = lanes_load(o, col + c, args->n_cols);
            v = vmulq_n_f32(v, args->alpha[row + r]);
            v = vfmaq_n_f32(v, vld1q_f32(block[r] + c), args->beta[row + r]);
            lanes_store(o, col + c, args->n_cols, v);
        }
    }
}

static CMI_ALWAYS_INLINE void values(const attn_kind kind, const cmi_attn_values_args *args)
{
    for (size_t col = 0; col < args->n_cols; col += CMI_LANES) {
        for (uint32_t row = 0; row < args->n_rows; row += ATTN_ROWS) {
            ATTN_ROW_TILE(args->n_rows - row, values_tile, kind, args, row, col)
        }
    }
}

#endif
