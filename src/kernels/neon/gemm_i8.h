/* kernels/neon/gemm_i8.h - Y = X W^T of INT8 operands: the frame of the NEON kernels.
 *
 * A block of W meets up to I8_CHUNK_ROWS rows of X at a time. A kernel makes their sums, as many
 * instructions at once as its extension allows; the frame scales them and writes the outputs. */
#ifndef CMI_KERNELS_NEON_GEMM_I8_H
#define CMI_KERNELS_NEON_GEMM_I8_H

#include "kernels/neon/lanes.h"
#include "kernels/neon/exp.h"

enum {
    I8_CHUNK_ROWS = 48,
    I8_LINE = 64,     /* bytes of W in a group of a block */
    I8_REGISTERS = 4, /* of a line, or of a row's sums in a block */
};

/* A chunk of rows against one block. */
typedef struct i8_operands {
    const uint8_t *x; /* [n_rows][x_stride] */
    size_t x_stride;
    uint32_t n_rows;
    const int8_t *w; /* [n_groups][16][4] */
    size_t n_groups;
} i8_operands;

typedef int32_t i8_sums[I8_CHUNK_ROWS][CMI_I8_BLOCK_COLS];

/* sums[r][lane] = sum over k of x[r][k] * w[lane][k], with x as stored or less 128 (i8_kind). */
typedef void i8_dot_fn(const i8_operands *op, i8_sums sums);

typedef struct i8_kind {
    i8_dot_fn *dot;
    bool x_is_signed; /* the sums are of x - 128, so the block's offsets are not added */
} i8_kind;

/* Four of a row's v in a block, from lane on. */
static CMI_ALWAYS_INLINE float32x4_t i8_scaled(const int32_t *sums, const uint8_t *block,
                                               float x_scale, size_t lane, const bool x_is_signed)
{
    int32x4_t sum = vld1q_s32(sums + lane);
    if (!x_is_signed) {
        sum = vaddq_s32(sum, vld1q_s32((const int32_t *)(const void *)(block + I8_LINE) + lane));
    }
    return vmulq_f32(vmulq_n_f32(vcvtq_f32_s32(sum), x_scale),
                     vld1q_f32((const float *)(const void *)block + lane));
}

static CMI_ALWAYS_INLINE float32x4_t i8_silu(float32x4_t gate)
{
    return vdivq_f32(gate, vaddq_f32(vdupq_n_f32(1.0f), exp_f32(vnegq_f32(gate))));
}

static CMI_ALWAYS_INLINE void i8_store_bf16(cmi_bf16 *y, size_t n, float32x4_t v)
{
    cmi_bf16 rounded[LANES_QUARTER];
    vst1_u16(rounded, lanes_round_bf16(v));
    memcpy(y, rounded, CMI_MIN(n, (size_t)LANES_QUARTER) * sizeof *y);
}

/* The outputs of a chunk's rows, the first of which is row, in one block, or with SWIGLU in two, to
 * the columns of y from col on. */
static CMI_ALWAYS_INLINE void i8_write(const cmi_gemm_i8_args *args, i8_sums sums[2],
                                       const uint8_t *block, uint32_t n_rows, size_t row,
                                       size_t col, const bool x_is_signed)
{
    const uint8_t *up_block = block + cmi_i8_block_bytes(args->n_k);
    const size_t n_cols = args->n_cols;
    for (uint32_t r = 0; r < n_rows; r++) {
        const float x_scale = args->x_scale[row + r];
        const size_t at = (row + r) * args->y_stride;
        float *y = (float *)args->y + at;
        for (size_t lane = 0; lane < CMI_LANES && col + lane < n_cols; lane += LANES_QUARTER) {
            const size_t c = col + lane;
            float32x4_t v = i8_scaled(sums[0][r], block, x_scale, lane, x_is_signed);
            switch (args->out) {
            case CMI_I8_OUT_BF16:
                i8_store_bf16((cmi_bf16 *)args->y + at + c, n_cols - c, v);
                continue;
            case CMI_I8_OUT_ADD:
                v = vaddq_f32(lanes_load(y, c, n_cols), v);
                break;
            case CMI_I8_OUT_SWIGLU:
                v = vmulq_f32(i8_silu(v),
                              i8_scaled(sums[1][r], up_block, x_scale, lane, x_is_signed));
                break;
            case CMI_I8_OUT_F32:
                break;
            }
            lanes_store(y, c, n_cols, v);
        }
    }
}

static CMI_ALWAYS_INLINE void gemm_i8(const i8_kind kind, const cmi_gemm_i8_args *args)
{
    const uint32_t n_parts = args->out == CMI_I8_OUT_SWIGLU ? 2 : 1;
    const size_t block_bytes = cmi_i8_block_bytes(args->n_k);
    i8_operands op = {.x_stride = args->x_stride,
                      .n_groups = CMI_DIV_UP(args->n_k, (uint32_t)CMI_I8_GROUP)};
    i8_sums sums[2];
    const uint8_t *block = args->w;
    for (size_t col = 0; col < args->n_cols; col += CMI_I8_BLOCK_COLS) {
        for (uint32_t row = 0; row < args->n_rows; row += op.n_rows) {
            op.n_rows = CMI_MIN(args->n_rows - row, (uint32_t)I8_CHUNK_ROWS);
            op.x = args->x + row * args->x_stride;
            for (uint32_t part = 0; part < n_parts; part++) {
                op.w = (const int8_t *)block + part * block_bytes + CMI_I8_HEADER_BYTES;
                kind.dot(&op, sums[part]);
            }
            i8_write(args, sums, block, op.n_rows, row, col, kind.x_is_signed);
        }
        block += n_parts * block_bytes;
    }
}

#endif
