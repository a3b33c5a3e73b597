/* Y = X W^T of INT8 operands with vpdpbusd, for processors with two units for it (Intel's servers):
 * see gemm_i8_vnni.c for the step.
 *
 * Two dot products a cycle leave two loads a cycle for their operands. A tile of n rows against m
 * blocks makes n m dot products of n + m loads, so tiles have several blocks: 24 rows against one,
 * as for one unit, are bound by their 25 loads; 12 against two need 14.
 *
 * What memory gives a core depends on how many lines are on their way, and the prefetcher of the
 * second-level cache follows each 4 KiB page apart. So few rows, which memory binds, read up to
 * four blocks side by side: four streams (Emerald Rapids: one stream 17 GB/s, four 22). With more
 * than one row tile the blocks of a panel stay in the second-level cache while all row tiles pass
 * over them, and the next panel is prefetched meanwhile, in equal shares.
 *
 * Callers: as for gemm_i8_vnni.c. */
#include "kernels/avx512/gemm_i8.h"

enum {
    DUAL_BLOCKS = 4,
    DUAL_ROWS = 12,
    DUAL_TRIPLES = DUAL_ROWS / 3, /* rows are addressed by threes: a pointer, 0, 1 and 2 strides */
    DUAL_UNROLL = 4,
    DUAL_PANEL_BYTES = 256 << 10,
    /* In each stream: past the end of its page, where the prefetcher stops. */
    DUAL_AHEAD_BYTES = 8 << 10,
};

/* One row tile against some blocks, and what is prefetched meanwhile: ahead_lines at every
 * DUAL_UNROLL groups, up to ahead_end. */
typedef struct dual_pass {
    const uint8_t *x;
    size_t x_stride;
    const int8_t *w; /* the first block's lines, after its header */
    size_t block_bytes;
    uint32_t n_groups;
    const int8_t *ahead, *ahead_end;
    uint32_t ahead_lines;
    bool is_stream; /* w comes from memory */
} dual_pass;

typedef struct dual_sums {
    CMI_ALIGNED(64) i8_row_sums of[DUAL_BLOCKS][DUAL_ROWS];
} dual_sums;

typedef struct dual_tile {
    const uint8_t *x[DUAL_TRIPLES];
    const int8_t *w;
    __m512i sums[DUAL_ROWS][DUAL_BLOCKS];
} dual_tile;

/* The group-th group from where the tile is. */
static CMI_ALWAYS_INLINE void dual_step(dual_tile *tile, const dual_pass *pass,
                                        const uint32_t group, const uint32_t n_rows,
                                        const uint32_t n_blocks)
{
    __m512i lines[DUAL_BLOCKS];
    for (uint32_t b = 0; b < n_blocks; b++) {
        lines[b] = _mm512_load_si512(tile->w + b * pass->block_bytes + group * I8_LINE);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m512i x =
            i8_broadcast(tile->x[r / 3] + r % 3 * pass->x_stride + group * CMI_I8_GROUP);
        for (uint32_t b = 0; b < n_blocks; b++) {
            tile->sums[r][b] = i8_dot_add(tile->sums[r][b], x, lines[b]);
        }
    }
}

static CMI_ALWAYS_INLINE void dual_advance(dual_tile *tile, const uint32_t n_groups,
                                           const uint32_t n_rows)
{
    tile->w += n_groups * I8_LINE;
    for (uint32_t t = 0; t < CMI_DIV_UP(n_rows, 3u); t++) {
        tile->x[t] += n_groups * CMI_I8_GROUP;
    }
}

/* What DUAL_UNROLL groups from w on have to fetch for later ones. */
static CMI_ALWAYS_INLINE void dual_prefetch(dual_pass *pass, const int8_t *w,
                                            const uint32_t n_blocks)
{
    const int8_t *ahead = pass->ahead;
    const int8_t *stop = CMI_MIN(ahead + pass->ahead_lines * I8_LINE, pass->ahead_end);
    for (; ahead < stop; ahead += I8_LINE) {
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
    }
    pass->ahead = ahead;
    for (uint32_t b = 0; pass->is_stream && b < n_blocks; b++) {
        const int8_t *line = w + b * pass->block_bytes + DUAL_AHEAD_BYTES;
        for (uint32_t u = 0; u < DUAL_UNROLL; u++) {
            _mm_prefetch((const char *)line + u * I8_LINE, _MM_HINT_T0);
        }
    }
}

static CMI_ALWAYS_INLINE void dual_dot(dual_pass *pass, dual_sums *sums, const uint32_t n_rows,
                                       const uint32_t n_blocks)
{
    dual_tile tile = {.w = pass->w};
    for (uint32_t t = 0; t < CMI_DIV_UP(n_rows, 3u); t++) {
        tile.x[t] = pass->x + 3 * t * pass->x_stride;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t b = 0; b < n_blocks; b++) {
            tile.sums[r][b] = _mm512_setzero_si512();
        }
    }
    uint32_t left = pass->n_groups;
    for (; left >= DUAL_UNROLL; left -= DUAL_UNROLL) {
        dual_prefetch(pass, tile.w, n_blocks);
        for (uint32_t u = 0; u < DUAL_UNROLL; u++) {
            dual_step(&tile, pass, u, n_rows, n_blocks);
        }
        dual_advance(&tile, DUAL_UNROLL, n_rows);
    }
    for (; left > 0; left--) {
        dual_step(&tile, pass, 0, n_rows, n_blocks);
        dual_advance(&tile, 1, n_rows);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t b = 0; b < n_blocks; b++) {
            _mm512_store_si512(sums->of[b][r], tile.sums[r][b]);
        }
    }
}

#define DUAL_CASE(n_rows, n_blocks)                                                                \
    case n_rows *DUAL_BLOCKS + n_blocks:                                                           \
        dual_dot(pass, sums, n_rows, n_blocks);                                                    \
        break;
#define DUAL_CASES_TO_2(n_rows) DUAL_CASE(n_rows, 1) DUAL_CASE(n_rows, 2)
#define DUAL_CASES_TO_3(n_rows) DUAL_CASES_TO_2(n_rows) DUAL_CASE(n_rows, 3)
#define DUAL_CASES_TO_4(n_rows) DUAL_CASES_TO_3(n_rows) DUAL_CASE(n_rows, 4)

/* The most blocks whose sums fit the registers beside n_rows rows. */
static uint32_t dual_blocks(uint32_t n_rows)
{
    return n_rows <= 6 ? 4 : n_rows <= 8 ? 3 : 2;
}

static void dual_dispatch(dual_pass *pass, dual_sums *sums, uint32_t n_rows, uint32_t n_blocks)
{
    switch (n_rows * DUAL_BLOCKS + n_blocks) {
        DUAL_CASES_TO_4(1)
        DUAL_CASES_TO_4(2)
        DUAL_CASES_TO_4(3)
        DUAL_CASES_TO_4(4)
        DUAL_CASES_TO_4(5)
        DUAL_CASES_TO_4(6)
        DUAL_CASES_TO_3(7)
        DUAL_CASES_TO_3(8)
        DUAL_CASES_TO_2(9)
        DUAL_CASES_TO_2(10)
        DUAL_CASES_TO_2(11)
        DUAL_CASES_TO_2(12)
    }
}

/* How a call is cut. */
typedef struct dual_cut {
    uint32_t n_parts;  /* blocks that make 16 columns of y */
    uint32_t n_blocks; /* of W */
    uint32_t n_tiles;  /* of rows */
    uint32_t step;     /* blocks of a tile */
    uint32_t panel;    /* blocks that all row tiles pass over in turn */
} dual_cut;

static dual_cut dual_cut_of(const cmi_gemm_i8_args *args)
{
    dual_cut cut = {.n_parts = args->out == CMI_I8_OUT_SWIGLU ? 2 : 1,
                    .n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)DUAL_ROWS)};
    const uint32_t panel = (uint32_t)(DUAL_PANEL_BYTES / cmi_i8_block_bytes(args->n_k));
    cut.n_blocks = CMI_DIV_UP(args->n_cols, (uint32_t)CMI_I8_BLOCK_COLS) * cut.n_parts;
    cut.step = dual_blocks(CMI_DIV_UP(args->n_rows, cut.n_tiles)) / cut.n_parts * cut.n_parts;
    cut.panel = CMI_MAX(panel / cut.step, 1u) * cut.step;
    return cut;
}

/* A row tile against n_blocks blocks from block on. */
static void dual_tile_outputs(const cmi_gemm_i8_args *args, const dual_cut *cut, dual_pass *pass,
                              size_t row, uint32_t n_rows, uint32_t block, uint32_t n_blocks)
{
    const int8_t *header = (const int8_t *)args->w + block * pass->block_bytes;
    const size_t col = block / cut->n_parts * CMI_I8_BLOCK_COLS;
    dual_sums sums;
    for (uint32_t b = 0; b < n_blocks; b += cut->n_parts) {
        i8_prefetch_y(args, n_rows, row, col + b / cut->n_parts * CMI_I8_BLOCK_COLS);
    }
    pass->x = args->x + row * args->x_stride;
    pass->w = header + CMI_I8_HEADER_BYTES;
    dual_dispatch(pass, &sums, n_rows, n_blocks);
    for (uint32_t b = 0; b < n_blocks; b += cut->n_parts) {
        i8_write(args, header + b * pass->block_bytes, sums.of[b], sums.of[b + cut->n_parts - 1],
                 n_rows, row, col + b / cut->n_parts * CMI_I8_BLOCK_COLS);
    }
}

void cmi_gemm_i8_avx512_vnni_dual(const cmi_gemm_i8_args *args)
{
    if (args->n_rows == 0 || args->n_cols == 0) {
        return;
    }
    const dual_cut cut = dual_cut_of(args);
    const size_t block_bytes = cmi_i8_block_bytes(args->n_k);
    const int8_t *w = args->w, *w_end = w + cut.n_blocks * block_bytes;
    dual_pass pass = {.x_stride = args->x_stride,
                      .block_bytes = block_bytes,
                      .n_groups = CMI_DIV_UP(args->n_k, (uint32_t)CMI_I8_GROUP),
                      .ahead_lines = CMI_DIV_UP(DUAL_UNROLL * cut.step, cut.n_tiles)};
    for (uint32_t begin = 0; begin < cut.n_blocks; begin += cut.panel) {
        const uint32_t end = CMI_MIN(begin + cut.panel, cut.n_blocks);
        pass.ahead = w + end * block_bytes;
        pass.ahead_end =
            cut.n_tiles > 1 ? CMI_MIN(pass.ahead + cut.panel * block_bytes, w_end) : pass.ahead;
        uint32_t row = 0;
        for (uint32_t t = 0; t < cut.n_tiles; t++) {
            const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, cut.n_tiles - t);
            pass.is_stream = t == 0;
            for (uint32_t block = begin; block < end; block += cut.step) {
                dual_tile_outputs(args, &cut, &pass, row, n_rows, block,
                                  CMI_MIN(cut.step, end - block));
            }
            row += n_rows;
        }
    }
}
