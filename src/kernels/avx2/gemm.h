/* kernels/avx2/gemm.h - Y = X W^T for one kind of operand: the frame of the AVX2 GEMMs.
 *
 * A row is seen as blocks of 64 bytes: a block of X and one of W make one step of the 16 lanes, of
 * which a register holds half. A gemm_kind says what half a step is; it is a constant of each
 * caller, and everything is inlined into it.
 *
 * A tile has 6 rows by 2 columns (1 or 2 rows: by 4) and computes one half of the lanes after the
 * other; its 12 sums fill the registers. K is cut into ranges for which X, widened and without gaps
 * between its rows, fits in 12 KiB: it stays in the first-level cache for all columns of a panel,
 * and so does W from one half to the other. Between ranges the sums rest in memory. Lanes see the
 * elements in order, so the cut does not change a bit.
 *
 * A panel of W stays in the second-level cache while all row tiles pass over it. Meanwhile the next
 * panel is prefetched in the order in which it lies in memory, which memory serves fastest. */
#ifndef CMI_KERNELS_AVX2_GEMM_H
#define CMI_KERNELS_AVX2_GEMM_H

#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/lanes.h"

enum {
    GEMM_BLOCK_BYTES = 64,
    GEMM_HALF_BYTES = 32,
    GEMM_GROUP_BYTES = 4 * GEMM_BLOCK_BYTES, /* of a row, between prefetches */
    GEMM_ROWS = 6,
    GEMM_COLS = 4,
    GEMM_PANEL_COLS_MIN = 32, /* a multiple of 8 */
    GEMM_PANEL_COLS = 32,
    GEMM_PANEL_BYTES = 384 << 10,
    GEMM_PACKED_BYTES = 12 << 10,
};

typedef struct gemm_kind {
    size_t element_bytes;
    int n_phases;                                /* multiply-adds of half a step: 1 or 2 */
    __m256 (*operand)(__m256i block, int phase); /* what they multiply */
} gemm_kind;

/* One row tile against one panel. */
typedef struct gemm_pass {
    const char *x;
    size_t x_row_bytes;
    const char *w;
    size_t w_row_bytes;
    uint32_t n_rows, n_cols;
    size_t row_bytes;
    const char *ahead; /* what of W to prefetch next, up to ahead_end */
    const char *ahead_end;
    uint32_t n_tiles; /* row tiles that share the prefetching */
} gemm_pass;

/* A range of K. X: for each half of the lanes, block, phase and row one register, in that order. */
typedef struct gemm_range {
    const __m256 *x[2];
    size_t begin;
    size_t n_bytes; /* of a row: whole blocks, or part of one */
} gemm_range;

/* The lanes of a row tile's sums. */
typedef CMI_ALIGNED(32) float gemm_sums[GEMM_ROWS][GEMM_PANEL_COLS][CMI_LANES];

/* v, in a register: a compiler left alone reads an operand that is used twice from memory twice,
 * and loads are what is short here (64 or 77 % of the arithmetic peak). */
static inline __m256 gemm_keep(__m256 v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* One multiply-add of half a step: a block of each row of W with the next registers of X. */
static CMI_ALWAYS_INLINE void gemm_phase(const gemm_kind kind, __m256 acc[GEMM_ROWS][GEMM_COLS],
                                         const __m256 *x, const char *const *w, size_t offset,
                                         const uint32_t n_rows, const uint32_t n_cols,
                                         const int phase)
{
    __m256 w_block[GEMM_COLS];
    for (uint32_t c = 0; c < n_cols; c++) {
        w_block[c] = kind.operand(_mm256_loadu_si256((const __m256i *)(w[c] + offset)), phase);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m256 x_block = gemm_keep(x[r]);
        for (uint32_t c = 0; c < n_cols; c++) {
            acc[r][c] = _mm256_fmadd_ps(x_block, w_block[c], acc[r][c]);
        }
    }
}

/* Adds whole blocks of W to half of the lanes. lanes: those of the tile's first row and column. */
static CMI_ALWAYS_INLINE const char *gemm_half(const gemm_kind kind, const __m256 *x,
                                               const char *const *w_rows, size_t n_bytes,
                                               const uint32_t n_rows, const uint32_t n_cols,
                                               const char *ahead, size_t ahead_bytes, float *lanes)
{
    const char *w[GEMM_COLS];
    __m256 acc[GEMM_ROWS][GEMM_COLS];
    for (uint32_t c = 0; c < n_cols; c++) {
        w[c] = w_rows[c];
        for (uint32_t r = 0; r < n_rows; r++) {
            acc[r][c] = _mm256_load_ps(lanes + (r * GEMM_PANEL_COLS + c) * CMI_LANES);
        }
    }
    for (size_t offset = 0; offset < n_bytes;) {
        for (size_t b = 0; b < ahead_bytes; b += GEMM_BLOCK_BYTES) {
            _mm_prefetch(ahead + b, _MM_HINT_T1);
        }
        ahead += ahead_bytes;
        const size_t stop = CMI_MIN(offset + GEMM_GROUP_BYTES, n_bytes);
        for (; offset < stop; offset += GEMM_BLOCK_BYTES) {
            gemm_phase(kind, acc, x, w, offset, n_rows, n_cols, 0);
            if (kind.n_phases > 1) {
                gemm_phase(kind, acc, x + n_rows, w, offset, n_rows, n_cols, 1);
            }
            x += (uint32_t)kind.n_phases * n_rows;
        }
    }
    for (uint32_t c = 0; c < n_cols; c++) {
        for (uint32_t r = 0; r < n_rows; r++) {
            _mm256_store_ps(lanes + (r * GEMM_PANEL_COLS + c) * CMI_LANES, acc[r][c]);
        }
    }
    return ahead;
}

/* Adds a range of K to the sums of the tile at column col; columns past the last repeat it. */
static CMI_ALWAYS_INLINE void gemm_tile(const gemm_kind kind, gemm_pass *pass,
                                        const gemm_range *range, uint32_t col,
                                        const uint32_t n_rows, const uint32_t n_cols,
                                        gemm_sums sums)
{
    char padded[GEMM_COLS][GEMM_BLOCK_BYTES];
    const char *w[GEMM_COLS];
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
    size_t ahead_bytes = pass->ahead < pass->ahead_end
                             ? CMI_DIV_UP(n_cols * GEMM_GROUP_BYTES / 2, pass->n_tiles)
                             : 0;
    for (int half = 0; half < 2; half++) {
        pass->ahead = gemm_half(kind, range->x[half], w, n_bytes, n_rows, n_cols, pass->ahead,
                                ahead_bytes, sums[0][col] + half * LANES_HALF);
        for (uint32_t c = 0; c < n_cols; c++) {
            w[c] += GEMM_HALF_BYTES;
        }
    }
}

static CMI_ALWAYS_INLINE void gemm_tiles(const gemm_kind kind, gemm_pass *pass,
                                         const gemm_range *range, const uint32_t n_rows,
                                         const uint32_t n_cols, gemm_sums sums)
{
    for (uint32_t col = 0; col < pass->n_cols; col += n_cols) {
        gemm_tile(kind, pass, range, col, n_rows, n_cols, sums);
    }
}

/* All columns of the pass. */
static CMI_ALWAYS_INLINE void gemm_add_range(const gemm_kind kind, gemm_pass *pass,
                                             const gemm_range *range, gemm_sums sums)
{
    switch (pass->n_rows) {
    case 1:
        gemm_tiles(kind, pass, range, 1, 4, sums);
        break;
    case 2:
        gemm_tiles(kind, pass, range, 2, 4, sums);
        break;
    case 3:
        gemm_tiles(kind, pass, range, 3, 2, sums);
        break;
    case 4:
        gemm_tiles(kind, pass, range, 4, 2, sums);
        break;
    case 5:
        gemm_tiles(kind, pass, range, 5, 2, sums);
        break;
    default:
        gemm_tiles(kind, pass, range, GEMM_ROWS, 2, sums);
        break;
    }
}

/* Fills packed with a range of X, at most one block of it partial. */
static CMI_ALWAYS_INLINE void gemm_pack_x(const gemm_kind kind, const gemm_pass *pass,
                                          gemm_range *range, __m256 *packed)
{
    const size_t n_blocks = CMI_DIV_UP(range->n_bytes, (size_t)GEMM_BLOCK_BYTES);
    for (size_t half = 0; half < 2; half++) {
        range->x[half] = packed;
        for (size_t b = 0; b < n_blocks; b++) {
            size_t offset = range->begin + b * GEMM_BLOCK_BYTES + half * GEMM_HALF_BYTES;
            size_t n_left = offset < pass->row_bytes ? pass->row_bytes - offset : 0;
            for (uint32_t r = 0; r < pass->n_rows; r++) {
                const char *x = pass->x + r * pass->x_row_bytes + offset;
                __m256i block = _mm256_setzero_si256();
                if (n_left >= GEMM_HALF_BYTES) {
                    block = _mm256_loadu_si256((const __m256i *)x);
                } else {
                    memcpy(&block, x, n_left);
                }
                for (int phase = 0; phase < kind.n_phases; phase++) {
                    packed[phase * pass->n_rows + r] = kind.operand(block, phase);
                }
            }
            packed += (uint32_t)kind.n_phases * pass->n_rows;
        }
    }
}

/* One row tile against a panel of W. */
static CMI_ALWAYS_INLINE void gemm_row_tile(const gemm_kind kind, gemm_pass *pass, float *y,
                                            size_t y_stride)
{
    const size_t block_packed_bytes =
        pass->n_rows * (uint32_t)kind.n_phases * (size_t)GEMM_BLOCK_BYTES;
    const size_t range_bytes = GEMM_PACKED_BYTES / block_packed_bytes * GEMM_BLOCK_BYTES;
    const size_t whole_bytes = pass->row_bytes / GEMM_BLOCK_BYTES * GEMM_BLOCK_BYTES;
    __m256 packed[GEMM_PACKED_BYTES / sizeof(__m256)];
    gemm_sums sums;
    for (uint32_t r = 0; r < pass->n_rows; r++) {
        memset(sums[r], 0, CMI_ROUND_UP(pass->n_cols, LANES_HALF) * sizeof sums[r][0]);
    }
    for (gemm_range range = {.begin = 0}; range.begin < pass->row_bytes;
         range.begin += range.n_bytes) {
        range.n_bytes = range.begin < whole_bytes ? CMI_MIN(whole_bytes - range.begin, range_bytes)
                                                  : pass->row_bytes - whole_bytes;
        gemm_pack_x(kind, pass, &range, packed);
        gemm_add_range(kind, pass, &range, sums);
    }
    for (uint32_t r = 0; r < pass->n_rows; r++) {
        for (uint32_t col = 0; col < pass->n_cols; col += LANES_HALF) {
            lanes_store(y + r * y_stride, col, pass->n_cols, lanes_sum_8(sums[r] + col));
        }
    }
}

static CMI_ALWAYS_INLINE void gemm(const gemm_kind kind, const cmi_gemm_args *args)
{
    if (args->n_rows == 0 || args->n_cols == 0) {
        return;
    }
    const size_t w_row_bytes = args->w_stride * kind.element_bytes;
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)GEMM_ROWS);
    const bool small = n_tiles == 1 || w_row_bytes * GEMM_PANEL_COLS > GEMM_PANEL_BYTES;
    const uint32_t panel_cols = small ? GEMM_PANEL_COLS_MIN : GEMM_PANEL_COLS;
    gemm_pass pass = {
        .x_row_bytes = args->x_stride * kind.element_bytes,
        .w_row_bytes = w_row_bytes,
        .row_bytes = (size_t)args->n_k * kind.element_bytes,
        .ahead_end = (const char *)args->w + args->n_cols * w_row_bytes,
        .n_tiles = n_tiles,
    };
    for (size_t col = 0; col < args->n_cols; col += panel_cols) {
        pass.n_cols = (uint32_t)CMI_MIN((size_t)panel_cols, args->n_cols - col);
        pass.w = (const char *)args->w + col * w_row_bytes;
        pass.ahead = pass.w + pass.n_cols * w_row_bytes;
        uint32_t row = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            pass.n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - tile);
            pass.x = (const char *)args->x + row * pass.x_row_bytes;
            gemm_row_tile(kind, &pass, args->y + row * args->y_stride + col, args->y_stride);
            row += pass.n_rows;
        }
    }
}

#endif
