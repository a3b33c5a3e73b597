/* Y = X W^T of INT8 operands with the AVX-512 VNNI dot product: vpdpbusd adds four products of a
 * byte of x (unsigned) and of w (signed) to each of 16 sums, so that a group of a block of W meets
 * the broadcast group of a row.
 *
 * A tile is up to 24 rows against one block; its sums stay in registers along the whole of K. Two
 * loads a cycle feed one dot product a cycle even so, and W is read strictly in the order in which
 * it lies in memory, which is what memory gives its full rate to.
 *
 * The first row tile reads W as a stream and prefetches it a fixed distance ahead, also past the
 * end of the call, where the next task's blocks lie. If there are more row tiles, all of them pass
 * over a panel of W that fits the second-level cache; X streams through.
 *
 * What a caller should know (Zen 4):
 *  - Cut columns, not rows, in tasks of 64 or more, in memory order per thread. Rows need cutting
 *    only if X outgrows the shared cache (n_rows * n_k of tens of MB).
 *  - x_stride should be an odd number of cache lines: rows at multiples of 4 KiB share cache sets,
 *    which at 24 rows costs three quarters of the speed. */
#include "kernels/avx512/gemm_i8.h"

enum {
    I8_TRIPLES = 8, /* rows are addressed by threes: a pointer with 0, 1 and 2 strides */
    I8_ROWS = 3 * I8_TRIPLES,
    I8_PANEL_BYTES = 320 << 10,
    I8_AHEAD_BYTES = 16 << 10,
    I8_WAIT_ROWS = 6, /* up to as many, a stream is limited by memory */
    I8_WAIT_LINES = 3,
};

/* One row tile against one block. */
typedef struct i8_pass {
    const uint8_t *x;
    size_t x_stride;
    const int8_t *w; /* after the header */
    size_t n_groups;
    uint32_t n_rows;
} i8_pass;

typedef struct i8_tile {
    const uint8_t *x[I8_TRIPLES];
    __m512i sums[I8_TRIPLES][3];
} i8_tile;

typedef CMI_ALIGNED(64) i8_row_sums i8_sums[I8_ROWS];

/* The group-th group from where the tile's rows and w are. Returns its line of W. */
static CMI_ALWAYS_INLINE __m512i i8_step(i8_tile *tile, const int8_t *w, size_t x_stride,
                                         const uint32_t n_rows, const uint32_t group)
{
    const uint32_t n_whole = n_rows / 3;
    const __m512i line = _mm512_load_si512(w + group * I8_LINE);
    for (uint32_t t = 0; t < n_whole; t++) {
        for (uint32_t r = 0; r < 3; r++) {
            __m512i x = i8_broadcast(tile->x[t] + r * x_stride + group * CMI_I8_GROUP);
            tile->sums[t][r] = i8_dot_add(tile->sums[t][r], x, line);
        }
    }
    /* The rows past the last triple apart: gcc then keeps the sums in registers. */
    for (uint32_t r = 0; r < n_rows % 3; r++) {
        __m512i x = i8_broadcast(tile->x[n_whole] + r * x_stride + group * CMI_I8_GROUP);
        tile->sums[n_whole][r] = i8_dot_add(tile->sums[n_whole][r], x, line);
    }
    return line;
}

static CMI_ALWAYS_INLINE void i8_advance(i8_tile *tile, const uint32_t n_rows,
                                         const uint32_t n_groups)
{
    for (uint32_t t = 0; t < n_rows / 3; t++) {
        tile->x[t] += n_groups * CMI_I8_GROUP;
    }
    if (n_rows % 3 > 0) {
        tile->x[n_rows / 3] += n_groups * CMI_I8_GROUP;
    }
}

static CMI_ALWAYS_INLINE void i8_prefetch(const int8_t *w)
{
    _mm_prefetch((const char *)w, _MM_HINT_T1);
}

/* Zero, but not before the line has arrived. */
static CMI_ALWAYS_INLINE size_t i8_arrived(__m512i line)
{
    uint32_t zero = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(line));
    __asm__("andl $0, %0" : "+r"(zero));
    return zero;
}

/* Reads the block as a part of a stream from memory.
 *
 * With few rows the processor runs ahead of memory: its loads of lines that are still on their way
 * take all of the first-level cache's miss buffers, and the prefetches behind them find none. So
 * the address of each few lines waits for the lines before; the prefetches far ahead then keep
 * memory busy. Zen 4, one thread, GB/s at 1, 2, 4, 6 rows: 35 33 31 31; without that wait and the
 * better of both kinds of prefetch 31 28 24 26; without prefetch 30 26 19 15. */
static CMI_ALWAYS_INLINE void i8_stream(const i8_pass *pass, i8_tile *tile, const uint32_t n_rows)
{
    const int8_t *w = pass->w, *end = w + pass->n_groups * I8_LINE;
    while (n_rows <= I8_WAIT_ROWS && end - w >= I8_WAIT_LINES * I8_LINE) {
        __m512i line = _mm512_setzero_si512();
        for (uint32_t u = 0; u < I8_WAIT_LINES; u++) {
            i8_prefetch(w + I8_AHEAD_BYTES + u * I8_LINE);
            line = i8_step(tile, w, pass->x_stride, n_rows, u);
        }
        i8_advance(tile, n_rows, I8_WAIT_LINES);
        w += I8_WAIT_LINES * I8_LINE + i8_arrived(line);
    }
    for (; w != end; w += I8_LINE) {
        i8_prefetch(w + I8_AHEAD_BYTES);
        (void)i8_step(tile, w, pass->x_stride, n_rows, 0);
        i8_advance(tile, n_rows, 1);
    }
    for (uint32_t u = 0; u < CMI_I8_HEADER_BYTES / I8_LINE; u++) { /* the next block's header */
        i8_prefetch(w + I8_AHEAD_BYTES + u * I8_LINE);
    }
}

/* Reads the block from the second-level cache. */
static CMI_ALWAYS_INLINE void i8_again(const i8_pass *pass, i8_tile *tile, const uint32_t n_rows)
{
    const int8_t *w = pass->w, *end = w + pass->n_groups * I8_LINE;
    for (; w != end; w += I8_LINE) {
        (void)i8_step(tile, w, pass->x_stride, n_rows, 0);
        i8_advance(tile, n_rows, 1);
    }
}

static CMI_ALWAYS_INLINE void i8_dot(const i8_pass *pass, const uint32_t n_rows,
                                     const bool is_stream, i8_sums sums)
{
    const uint32_t n_whole = n_rows / 3;
    i8_tile tile;
    for (uint32_t t = 0; t < CMI_DIV_UP(n_rows, 3u); t++) {
        tile.x[t] = pass->x + 3 * t * pass->x_stride;
        for (uint32_t r = 0; r < 3; r++) {
            tile.sums[t][r] = _mm512_setzero_si512();
        }
    }
    if (is_stream) {
        i8_stream(pass, &tile, n_rows);
    } else {
        i8_again(pass, &tile, n_rows);
    }
    for (uint32_t t = 0; t < n_whole; t++) {
        for (uint32_t r = 0; r < 3; r++) {
            _mm512_store_si512(sums[3 * t + r], tile.sums[t][r]);
        }
    }
    for (uint32_t r = 0; r < n_rows % 3; r++) {
        _mm512_store_si512(sums[3 * n_whole + r], tile.sums[n_whole][r]);
    }
}

#define I8_CASE(n, is_stream)                                                                      \
    case n:                                                                                        \
        i8_dot(pass, n, is_stream, sums);                                                          \
        break;
#define I8_CASES_TO_11(is_stream)                                                                  \
    I8_CASE(1, is_stream)                                                                          \
    I8_CASE(2, is_stream)                                                                          \
    I8_CASE(3, is_stream)                                                                          \
    I8_CASE(4, is_stream)                                                                          \
    I8_CASE(5, is_stream)                                                                          \
    I8_CASE(6, is_stream)                                                                          \
    I8_CASE(7, is_stream)                                                                          \
    I8_CASE(8, is_stream)                                                                          \
    I8_CASE(9, is_stream)                                                                          \
    I8_CASE(10, is_stream)                                                                         \
    I8_CASE(11, is_stream)
#define I8_CASES_FROM_12(is_stream)                                                                \
    I8_CASE(12, is_stream)                                                                         \
    I8_CASE(13, is_stream)                                                                         \
    I8_CASE(14, is_stream)                                                                         \
    I8_CASE(15, is_stream)                                                                         \
    I8_CASE(16, is_stream)                                                                         \
    I8_CASE(17, is_stream)                                                                         \
    I8_CASE(18, is_stream)                                                                         \
    I8_CASE(19, is_stream)                                                                         \
    I8_CASE(20, is_stream)                                                                         \
    I8_CASE(21, is_stream)                                                                         \
    I8_CASE(22, is_stream)                                                                         \
    I8_CASE(23, is_stream)                                                                         \
    I8_CASE(24, is_stream)

static void i8_dot_stream(const i8_pass *pass, i8_sums sums)
{
    switch (pass->n_rows) {
        I8_CASES_TO_11(true)
        I8_CASES_FROM_12(true)
    }
}

/* Not the only row tile, and tiles differ by at most one row: from 12 rows on. */
static void i8_dot_again(const i8_pass *pass, i8_sums sums)
{
    switch (pass->n_rows) {
        I8_CASES_FROM_12(false)
    }
}

void cmi_gemm_i8_avx512_vnni(const cmi_gemm_i8_args *args)
{
    if (args->n_rows == 0 || args->n_cols == 0) {
        return;
    }
    const uint32_t n_parts = args->out == CMI_I8_OUT_SWIGLU ? 2 : 1;
    const size_t part_bytes = cmi_i8_block_bytes(args->n_k), unit_bytes = n_parts * part_bytes;
    const size_t n_units = CMI_DIV_UP((size_t)args->n_cols, (size_t)CMI_I8_BLOCK_COLS);
    const size_t panel_units = CMI_MAX(I8_PANEL_BYTES / unit_bytes, (size_t)1);
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)I8_ROWS);
    i8_pass pass = {.x_stride = args->x_stride,
                    .n_groups = CMI_DIV_UP(args->n_k, (uint32_t)CMI_I8_GROUP)};
    i8_sums sums[2];
    for (size_t unit = 0; unit < n_units; unit += panel_units) {
        const size_t units_end = CMI_MIN(unit + panel_units, n_units);
        uint32_t row = 0;
        for (uint32_t t = 0; t < n_tiles; t++) {
            pass.n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - t);
            pass.x = args->x + row * args->x_stride;
            for (size_t u = unit; u < units_end; u++) {
                const int8_t *header = (const int8_t *)args->w + u * unit_bytes;
                i8_prefetch_y(args, pass.n_rows, row, u * CMI_I8_BLOCK_COLS);
                for (uint32_t part = 0; part < n_parts; part++) {
                    pass.w = header + part * part_bytes + CMI_I8_HEADER_BYTES;
                    if (t == 0) {
                        i8_dot_stream(&pass, sums[part]);
                    } else {
                        i8_dot_again(&pass, sums[part]);
                    }
                }
                i8_write(args, header, sums[0], sums[1], pass.n_rows, row, u * CMI_I8_BLOCK_COLS);
            }
            row += pass.n_rows;
        }
    }
}
