/* kernels/neon/gemm.h - Y = X W^T for one kind of operand: the frame of the NEON GEMMs.
 *
 * A row is seen as blocks of 64 bytes: a block of X and one of W make one step of the 16 lanes, of
 * which a register holds a quarter. A gemm_kind says what a quarter of a step is; it is a constant
 * of each caller, and everything is inlined into it.
 *
 * A tile of 3 to 6 rows by 4 columns computes one quarter of the lanes after the other: its sums
 * take up to 24 of the 32 registers, and 10 loads serve 24 multiply-adds. So W is read four times;
 * K is cut into ranges for which X, as operands without gaps between its rows, and the tile's
 * columns of W stay in the first-level cache. One or two rows, which wait for memory and not for
 * arithmetic, take all four quarters at once, so that W streams by. Between ranges the sums rest in
 * memory. Lanes see the elements in order, so neither cut changes a bit. */
#ifndef CMI_KERNELS_NEON_GEMM_H
#define CMI_KERNELS_NEON_GEMM_H

#include <arm_neon.h>

#include "kernels/neon/lanes.h"

enum {
    GEMM_BLOCK_BYTES = 64,
    GEMM_QUARTER_BYTES = 16,
    GEMM_ROWS = 6,
    GEMM_COLS = 4,
    GEMM_PANEL_COLS = 32, /* a multiple of GEMM_COLS */
    GEMM_PACKED_BYTES = 12 << 10,
    GEMM_RANGE_BYTES_MAX = 4 << 10, /* of a row */
};

typedef struct gemm_kind {
    size_t element_bytes;
    int n_operands; /* registers that a quarter of a block becomes: 1 or 2 */
    float32x4_t (*operand)(uint8x16_t quarter, int i);
    float32x4_t (*multiply_add)(float32x4_t lanes, float32x4_t x, float32x4_t w); /* lanes + x w */
} gemm_kind;

/* One row tile against one panel of columns. */
typedef struct gemm_pass {
    const uint8_t *x;
    size_t x_row_bytes;
    const uint8_t *w;
    size_t w_row_bytes;
    uint32_t n_rows, n_cols;
    size_t row_bytes;
} gemm_pass;

/* A range of K. X: for each quarter of the lanes; block, operand and row one register, in that
 * order. */
typedef struct gemm_range {
    const float32x4_t *x[LANES_REGISTERS];
    size_t begin;
    size_t n_bytes; /* of a row: whole blocks, or part of one */
} gemm_range;

/* The lanes of a row tile's sums. */
typedef float gemm_sums[GEMM_ROWS][GEMM_PANEL_COLS][CMI_LANES];

typedef float32x4_t gemm_acc[GEMM_ROWS][GEMM_COLS][LANES_REGISTERS];

/* One quarter of a step: a quarter of a block of each row of W with the next registers of X. W
 * stays in registers while X streams by; that it is loaded again for each operand costs nothing,
 * whereas a register more would not be there. */
static CMI_ALWAYS_INLINE void gemm_quarter(const gemm_kind kind, gemm_acc acc, const float32x4_t *x,
                                           const uint8_t *const *w, size_t offset,
                                           const uint32_t n_rows, const uint32_t n_cols,
                                           const uint32_t q)
{
    for (uint32_t i = 0; i < (uint32_t)kind.n_operands; i++) {
        float32x4_t w_operands[GEMM_COLS];
        for (uint32_t c = 0; c < n_cols; c++) {
            w_operands[c] = kind.operand(vld1q_u8(w[c] + offset), (int)i);
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            const float32x4_t x_operand = x[i * n_rows + r];
            for (uint32_t c = 0; c < n_cols; c++) {
                acc[r][c][q] = kind.multiply_add(acc[r][c][q], x_operand, w_operands[c]);
            }
        }
    }
}

/* Adds whole blocks of W to n_quarters (1 or 4) of the lanes, from the given quarter on. lanes:
 * those of the tile's first row and column. */
static CMI_ALWAYS_INLINE void gemm_tile(const gemm_kind kind, const gemm_range *range,
                                        const uint8_t *const *w, size_t n_bytes,
                                        const uint32_t n_rows, const uint32_t n_cols,
                                        const uint32_t first, const uint32_t n_quarters,
                                        float *lanes)
{
    const size_t block_operands = (uint32_t)kind.n_operands * n_rows;
    const float32x4_t *x = range->x[first];
    const size_t quarter_operands = (size_t)(range->x[1] - range->x[0]);
    gemm_acc acc;
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            const float *at = lanes + (r * GEMM_PANEL_COLS + c) * CMI_LANES + first * LANES_QUARTER;
            for (uint32_t q = 0; q < n_quarters; q++) {
                acc[r][c][q] = vld1q_f32(at + q * LANES_QUARTER);
            }
        }
    }
    for (size_t offset = first * GEMM_QUARTER_BYTES; offset < n_bytes; offset += GEMM_BLOCK_BYTES) {
        gemm_quarter(kind, acc, x, w, offset, n_rows, n_cols, 0);
        if (n_quarters > 1) {
            gemm_quarter(kind, acc, x + quarter_operands, w, offset + GEMM_QUARTER_BYTES, n_rows,
                         n_cols, 1);
            gemm_quarter(kind, acc, x + 2 * quarter_operands, w, offset + 2 * GEMM_QUARTER_BYTES,
                         n_rows, n_cols, 2);
            gemm_quarter(kind, acc, x + 3 * quarter_operands, w, offset + 3 * GEMM_QUARTER_BYTES,
                         n_rows, n_cols, 3);
        }
        x += block_operands;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < n_cols; c++) {
            float *at = lanes + (r * GEMM_PANEL_COLS + c) * CMI_LANES + first * LANES_QUARTER;
            for (uint32_t q = 0; q < n_quarters; q++) {
                vst1q_f32(at + q * LANES_QUARTER, acc[r][c][q]);
            }
        }
    }
}

/* Adds a range of K to the sums of the pass, n_cols columns at a time; those past the last repeat
 * it. */
static CMI_ALWAYS_INLINE void gemm_tiles(const gemm_kind kind, const gemm_pass *pass,
                                         const gemm_range *range, const uint32_t n_rows,
                                         const uint32_t n_cols, const uint32_t n_quarters,
                                         gemm_sums sums)
{
    for (uint32_t col = 0; col < pass->n_cols; col += n_cols) {
        uint8_t padded[GEMM_COLS][GEMM_BLOCK_BYTES];
        const uint8_t *w[GEMM_COLS];
        size_t n_bytes = range->n_bytes;
        for (uint32_t c = 0; c < n_cols; c++) {
            uint32_t w_col = CMI_MIN(col + c, pass->n_cols - 1);
            w[c] = pass->w + w_col * pass->w_row_bytes + range->begin;
        }
        if (n_bytes < GEMM_BLOCK_BYTES) { /* zeros behind the end */
            memset(padded, 0, sizeof padded);
            for (uint32_t c = 0; c < n_cols; c++) {
                w[c] = memcpy(padded[c], w[c], n_bytes);
            }
            n_bytes = GEMM_BLOCK_BYTES;
        }
        for (uint32_t first = 0; first < LANES_REGISTERS; first += n_quarters) {
            gemm_tile(kind, range, w, n_bytes, n_rows, n_cols, first, n_quarters, sums[0][col]);
        }
    }
}

static CMI_ALWAYS_INLINE void gemm_add_range(const gemm_kind kind, const gemm_pass *pass,
                                             const gemm_range *range, gemm_sums sums)
{
    switch (pass->n_rows) {
    case 1:
        gemm_tiles(kind, pass, range, 1, 4, LANES_REGISTERS, sums);
        break;
    case 2:
        gemm_tiles(kind, pass, range, 2, 2, LANES_REGISTERS, sums);
        break;
    case 3:
        gemm_tiles(kind, pass, range, 3, 4, 1, sums);
        break;
    case 4:
        gemm_tiles(kind, pass, range, 4, 4, 1, sums);
        break;
    case 5:
        gemm_tiles(kind, pass, range, 5, 4, 1, sums);
        break;
    default:
        gemm_tiles(kind, pass, range, GEMM_ROWS, 4, 1, sums);
        break;
    }
}

/* Fills packed with a range of X, at most one block of it partial. */
static CMI_ALWAYS_INLINE void gemm_pack_x(const gemm_kind kind, const gemm_pass *pass,
                                          gemm_range *range, float32x4_t *packed)
{
    const size_t n_blocks = CMI_DIV_UP(range->n_bytes, (size_t)GEMM_BLOCK_BYTES);
    for (size_t q = 0; q < LANES_REGISTERS; q++) {
        range->x[q] = packed;
        for (size_t b = 0; b < n_blocks; b++) {
            size_t offset = range->begin + b * GEMM_BLOCK_BYTES + q * GEMM_QUARTER_BYTES;
            size_t n_left = offset < pass->row_bytes ? pass->row_bytes - offset : 0;
            for (uint32_t r = 0; r < pass->n_rows; r++) {
                const uint8_t *x = pass->x + r * pass->x_row_bytes + offset;
                uint8_t tail[GEMM_QUARTER_BYTES] = {0};
                if (n_left < GEMM_QUARTER_BYTES) {
                    x = memcpy(tail, x, n_left);
                }
                for (int i = 0; i < kind.n_operands; i++) {
                    packed[(uint32_t)i * pass->n_rows + r] = kind.operand(vld1q_u8(x), i);
                }
            }
            packed += (uint32_t)kind.n_operands * pass->n_rows;
        }
    }
}

/* One row tile against a panel of W. */
static CMI_ALWAYS_INLINE void gemm_row_tile(const gemm_kind kind, const gemm_pass *pass, float *y,
                                            size_t y_stride)
{
    const size_t block_packed_bytes =
        pass->n_rows * (uint32_t)kind.n_operands * (size_t)GEMM_BLOCK_BYTES;
    const size_t range_bytes = CMI_MIN(GEMM_PACKED_BYTES / block_packed_bytes * GEMM_BLOCK_BYTES,
                                       (size_t)GEMM_RANGE_BYTES_MAX);
    const size_t whole_bytes = pass->row_bytes / GEMM_BLOCK_BYTES * GEMM_BLOCK_BYTES;
    float32x4_t packed[GEMM_PACKED_BYTES / sizeof(float32x4_t)];
    gemm_sums sums;
    for (uint32_t r = 0; r < pass->n_rows; r++) {
        memset(sums[r], 0, CMI_ROUND_UP(pass->n_cols, GEMM_COLS) * sizeof sums[r][0]);
    }
    for (gemm_range range = {.begin = 0}; range.begin < pass->row_bytes;
         range.begin += range.n_bytes) {
        range.n_bytes = range.begin < whole_bytes ? CMI_MIN(whole_bytes - range.begin, range_bytes)
                                                  : pass->row_bytes - whole_bytes;
        gemm_pack_x(kind, pass, &range, packed);
        gemm_add_range(kind, pass, &range, sums);
    }
    for (uint32_t r = 0; r < pass->n_rows; r++) {
        for (uint32_t col = 0; col < pass->n_cols; col += GEMM_COLS) {
            lanes_store(y + r * y_stride, col, pass->n_cols, lanes_sum_4(sums[r] + col));
        }
    }
}

static CMI_ALWAYS_INLINE void gemm(const gemm_kind kind, const cmi_gemm_args *args)
{
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)GEMM_ROWS);
    gemm_pass pass = {.x_row_bytes = args->x_stride * kind.element_bytes,
                      .w_row_bytes = args->w_stride * kind.element_bytes,
                      .row_bytes = (size_t)args->n_k * kind.element_bytes};
    for (size_t col = 0; col < args->n_cols; col += GEMM_PANEL_COLS) {
        pass.w = (const uint8_t *)args->w + col * pass.w_row_bytes;
        pass.n_cols = (uint32_t)CMI_MIN((size_t)GEMM_PANEL_COLS, args->n_cols - col);
        uint32_t row = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            pass.n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
            pass.x = (const uint8_t *)args->x + row * pass.x_row_bytes;
            gemm_row_tile(kind, &pass, args->y + row * args->y_stride + col, args->y_stride);
            row += pass.n_rows;
        }
    }
}

#endif
