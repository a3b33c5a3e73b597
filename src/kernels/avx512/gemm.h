/* kernels/avx512/gemm.h - Y = X W^T for one kind of operand: the frame of the AVX-512 GEMMs.
 *
 * A row is seen as blocks of 64 bytes: a block of X and one of W make one step of the 16 lanes. A
 * gemm_kind says what a step is; it is a constant of each caller, and everything is inlined into
 * it.
 *
 * The sums of a tile (6 rows by 4 columns) stay in registers along the whole of K, so lanes see the
 * elements in order. 10 loads for 24 multiply-adds leave the loads in the shade of the arithmetic
 * even from the second-level cache, where a panel of W stays while all row tiles pass over it;
 * neither copying X into a dense buffer nor cutting K to fit the first-level cache was faster
 * (Zen 4).
 *
 * Memory gives its full rate to one linear reader only: rows read side by side got 16 GB/s of 26
 * (Zen 4, one thread). So W is also prefetched in the order in which it lies in memory: two tiles
 * ahead if there is one row tile (W is then read once, at the memory's rate), else the next panel,
 * spread over the row tiles. */
#ifndef CMI_KERNELS_AVX512_GEMM_H
#define CMI_KERNELS_AVX512_GEMM_H

#include <immintrin.h>

#include "kernels/avx512/lanes.h"

enum {
    GEMM_BLOCK_BYTES = 64,
    GEMM_ROWS = 6,
    GEMM_COLS = 4,
    GEMM_PANEL_COLS = 64, /* a multiple of CMI_LANES */
    GEMM_PANEL_BYTES = 512 << 10,
};

typedef struct gemm_kind {
    size_t element_bytes;
    int n_phases;                                 /* multiply-adds of a step: 1 or 2 */
    __m512i (*operand)(__m512i block, int phase); /* what they multiply */
    __m512 (*multiply_add)(__m512 lanes, __m512i x, __m512i w); /* lanes + x * w */
} gemm_kind;

/* One row tile against some columns. */
typedef struct gemm_pass {
    const char *x;
    size_t x_row_bytes;
    const char *w;
    size_t w_row_bytes;
    uint32_t n_rows, n_cols;
    size_t whole_bytes;  /* of a row, in whole blocks */
    __mmask64 tail_mask; /* bytes of one more block, 0 if there is none */
    const char *ahead;   /* what of W to prefetch next, up to ahead_end */
    const char *ahead_end;
    size_t ahead_bytes; /* to prefetch before every group_bytes of K */
    size_t group_bytes;
} gemm_pass;

/* The lanes of up to 16 columns' sums. */
typedef CMI_ALIGNED(64) float gemm_sums[GEMM_ROWS][CMI_LANES][CMI_LANES];

/* One multiply-add of a step. */
static CMI_ALWAYS_INLINE void gemm_phase(const gemm_kind kind, __m512 acc[GEMM_ROWS][GEMM_COLS],
                                         const char *x, size_t x_row_bytes, const char *const *w,
                                         size_t offset, const uint32_t n_rows, __mmask64 mask,
                                         const int phase)
{
    __m512i w_block[GEMM_COLS];
    for (uint32_t c = 0; c < GEMM_COLS; c++) {
        w_block[c] = kind.operand(_mm512_maskz_loadu_epi8(mask, w[c] + offset), phase);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        __m512i x_block = _mm512_maskz_loadu_epi8(mask, x + r * x_row_bytes + offset);
        x_block = kind.operand(x_block, phase);
        for (uint32_t c = 0; c < GEMM_COLS; c++) {
            acc[r][c] = kind.multiply_add(acc[r][c], x_block, w_block[c]);
        }
    }
}

static CMI_ALWAYS_INLINE void gemm_step(const gemm_kind kind, __m512 acc[GEMM_ROWS][GEMM_COLS],
                                        const char *x, size_t x_row_bytes, const char *const *w,
                                        size_t offset, const uint32_t n_rows, __mmask64 mask)
{
    gemm_phase(kind, acc, x, x_row_bytes, w, offset, n_rows, mask, 0);
    if (kind.n_phases > 1) {
        gemm_phase(kind, acc, x, x_row_bytes, w, offset, n_rows, mask, 1);
    }
}

/* The sums of GEMM_COLS columns of the pass from col on; those past its last column repeat it. */
static CMI_ALWAYS_INLINE void gemm_tile(const gemm_kind kind, gemm_pass *pass, uint32_t col,
                                        const uint32_t n_rows, gemm_sums sums)
{
    const size_t x_row_bytes = pass->x_row_bytes;
    const char *x = pass->x, *ahead = pass->ahead;
    const size_t ahead_bytes = ahead < pass->ahead_end ? pass->ahead_bytes : 0;
    const char *w[GEMM_COLS];
    __m512 acc[GEMM_ROWS][GEMM_COLS];
    for (uint32_t c = 0; c < GEMM_COLS; c++) {
        w[c] = pass->w + CMI_MIN(col + c, pass->n_cols - 1) * pass->w_row_bytes;
        for (uint32_t r = 0; r < n_rows; r++) {
            acc[r][c] = _mm512_setzero_ps();
        }
    }
    for (size_t offset = 0; offset < pass->whole_bytes;) {
        for (size_t b = 0; b < ahead_bytes; b += GEMM_BLOCK_BYTES) {
            _mm_prefetch(ahead + b, _MM_HINT_T1);
        }
        ahead += ahead_bytes;
        const size_t stop = CMI_MIN(offset + pass->group_bytes, pass->whole_bytes);
        for (; offset < stop; offset += GEMM_BLOCK_BYTES) {
            gemm_step(kind, acc, x, x_row_bytes, w, offset, n_rows, ~(__mmask64)0);
        }
    }
    if (pass->tail_mask != 0) {
        gemm_step(kind, acc, x, x_row_bytes, w, pass->whole_bytes, n_rows, pass->tail_mask);
    }
    pass->ahead = ahead;
    float(*lanes)[CMI_LANES][CMI_LANES] = (void *)sums[0][col];
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < GEMM_COLS; c++) {
            _mm512_store_ps(lanes[r][c], acc[r][c]);
        }
    }
}

static CMI_ALWAYS_INLINE void gemm_tiles(const gemm_kind kind, gemm_pass *pass,
                                         const uint32_t n_rows, gemm_sums sums)
{
    for (uint32_t col = 0; col < pass->n_cols; col += GEMM_COLS) {
        gemm_tile(kind, pass, col, n_rows, sums);
    }
}

/* One row tile against a panel of W. */
static CMI_ALWAYS_INLINE void gemm_row_tile(const gemm_kind kind, gemm_pass *pass, const char *w,
                                            uint32_t n_cols, float *y, size_t y_stride)
{
    gemm_sums sums;
    for (uint32_t col = 0; col < n_cols; col += CMI_LANES) {
        pass->w = w + col * pass->w_row_bytes;
        pass->n_cols = CMI_MIN(n_cols - col, (uint32_t)CMI_LANES);
        switch (pass->n_rows) {
        case 1:
            gemm_tiles(kind, pass, 1, sums);
            break;
        case 2:
            gemm_tiles(kind, pass, 2, sums);
            break;
        case 3:
            gemm_tiles(kind, pass, 3, sums);
            break;
        case 4:
            gemm_tiles(kind, pass, 4, sums);
            break;
        case 5:
            gemm_tiles(kind, pass, 5, sums);
            break;
        default:
            gemm_tiles(kind, pass, GEMM_ROWS, sums);
            break;
        }
        for (uint32_t r = 0; r < pass->n_rows; r++) {
            _mm512_mask_storeu_ps(y + r * y_stride + col, lanes_first(pass->n_cols),
                                  lanes_sum_16(sums[r]));
        }
    }
}

/* Columns that all row tiles pass over together. */
static uint32_t gemm_panel_cols(size_t w_row_bytes)
{
    size_t n_cols = GEMM_PANEL_BYTES / (w_row_bytes + 1) / CMI_LANES * CMI_LANES;
    return (uint32_t)CMI_MIN(CMI_MAX(n_cols, (size_t)CMI_LANES), (size_t)GEMM_PANEL_COLS);
}

static CMI_ALWAYS_INLINE void gemm(const gemm_kind kind, const cmi_gemm_args *args)
{
    if (args->n_rows == 0 || args->n_cols == 0) {
        return;
    }
    const size_t row_bytes = (size_t)args->n_k * kind.element_bytes;
    const size_t w_row_bytes = args->w_stride * kind.element_bytes;
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)GEMM_ROWS);
    const uint32_t panel_cols = gemm_panel_cols(w_row_bytes);
    const size_t group_bytes = GEMM_BLOCK_BYTES * (n_tiles > 1 ? 8 : 1);
    gemm_pass pass = {
        .x_row_bytes = args->x_stride * kind.element_bytes,
        .w_row_bytes = w_row_bytes,
        .whole_bytes = row_bytes / GEMM_BLOCK_BYTES * GEMM_BLOCK_BYTES,
        .tail_mask = ((__mmask64)1 << row_bytes % GEMM_BLOCK_BYTES) - 1,
        .ahead_end = (const char *)args->w + args->n_cols * w_row_bytes,
        .ahead_bytes = CMI_DIV_UP(GEMM_COLS * group_bytes, n_tiles),
        .group_bytes = group_bytes,
    };
    for (size_t col = 0; col < args->n_cols; col += panel_cols) {
        const uint32_t n_cols = (uint32_t)CMI_MIN((size_t)panel_cols, args->n_cols - col);
        const char *w = (const char *)args->w + col * w_row_bytes;
        pass.ahead = w + (n_tiles > 1 ? n_cols : 2 * GEMM_COLS) * w_row_bytes;
        uint32_t row = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            pass.n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
            pass.x = (const char *)args->x + row * pass.x_row_bytes;
            gemm_row_tile(kind, &pass, w, n_cols, args->y + row * args->y_stride + col,
                          args->y_stride);
            row += pass.n_rows;
        }
    }
}

#endif
