/* Y = X W^T of INT8 operands with the AVX-512 VNNI dot product: vpdpbusd adds four products of a
 * byte of x (unsigned) and of w (signed) to each of 16 sums, so that a group of a block of W meets
 * the broadcast group of a row.
 *
 * A tile has up to 14 rows and 2 blocks of W: 28 registers of sums, 2 of W, 1 of x; 16 loads for 28
 * dot products. */
#include "kernels/avx512/lanes.h"
#include "kernels/avx512/exp.h"

enum {
    I8_ROWS = 14,
    I8_BLOCKS = 2,
    I8_ROW_GROUP = 3, /* rows that are addressed from one pointer */
    I8_LINE = 64,     /* bytes of W in a group of a block */
    I8_UNROLL = 4,
};

/* One row tile against two blocks. */
typedef struct i8_tile {
    const uint8_t *x;
    size_t x_stride;
    const int8_t *w[I8_BLOCKS];
    size_t n_groups;
} i8_tile;

typedef CMI_ALIGNED(64) int32_t i8_sums[I8_ROWS][I8_BLOCKS][CMI_LANES];

static CMI_ALWAYS_INLINE __m512i i8_broadcast(const uint8_t *x)
{
    int32_t group;
    memcpy(&group, x, sizeof group);
    return _mm512_set1_epi32(group);
}

static CMI_ALWAYS_INLINE void i8_step(__m512i acc[I8_ROWS][I8_BLOCKS], const uint8_t *const *x,
                                      size_t x_stride, const int8_t *const *w, const uint32_t group,
                                      const uint32_t n_rows)
{
    __m512i w_lines[I8_BLOCKS];
    for (uint32_t c = 0; c < I8_BLOCKS; c++) {
        w_lines[c] = _mm512_load_si512(w[c] + group * I8_LINE);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *x_row = x[r / I8_ROW_GROUP] + r % I8_ROW_GROUP * x_stride;
        __m512i x_group = i8_broadcast(x_row + group * CMI_I8_GROUP);
        for (uint32_t c = 0; c < I8_BLOCKS; c++) {
            acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], x_group, w_lines[c]);
        }
    }
}

static CMI_ALWAYS_INLINE void i8_dot(const i8_tile *tile, const uint32_t n_rows, i8_sums sums)
{
    const size_t x_stride = tile->x_stride;
    const int8_t *w[I8_BLOCKS] = {tile->w[0], tile->w[1]};
    const uint8_t *x[CMI_DIV_UP(I8_ROWS, I8_ROW_GROUP)];
    __m512i acc[I8_ROWS][I8_BLOCKS];
    for (uint32_t r = 0; r < n_rows; r++) {
        x[r / I8_ROW_GROUP] = tile->x + r / I8_ROW_GROUP * I8_ROW_GROUP * x_stride;
        for (uint32_t c = 0; c < I8_BLOCKS; c++) {
            acc[r][c] = _mm512_setzero_si512();
        }
    }
    size_t left = tile->n_groups;
    for (; left >= I8_UNROLL; left -= I8_UNROLL) {
        for (uint32_t u = 0; u < I8_UNROLL; u++) {
            i8_step(acc, x, x_stride, w, u, n_rows);
        }
        for (uint32_t c = 0; c < I8_BLOCKS; c++) {
            w[c] += I8_UNROLL * I8_LINE;
        }
        for (uint32_t g = 0; g < CMI_DIV_UP(n_rows, I8_ROW_GROUP); g++) {
            x[g] += I8_UNROLL * CMI_I8_GROUP;
        }
    }
    for (; left > 0; left--) {
        i8_step(acc, x, x_stride, w, 0, n_rows);
        for (uint32_t c = 0; c < I8_BLOCKS; c++) {
            w[c] += I8_LINE;
        }
        for (uint32_t g = 0; g < CMI_DIV_UP(n_rows, I8_ROW_GROUP); g++) {
            x[g] += CMI_I8_GROUP;
        }
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < I8_BLOCKS; c++) {
            _mm512_store_si512(sums[r][c], acc[r][c]);
        }
    }
}

#define I8_CASE(n)                                                                                 \
    case n:                                                                                        \
        i8_dot(tile, n, sums);                                                                     \
        break;
static void i8_dot_rows(const i8_tile *tile, uint32_t n_rows, i8_sums sums)
{
    switch (n_rows) {
        I8_CASE(1)
        I8_CASE(2)
        I8_CASE(3)
        I8_CASE(4)
        I8_CASE(5)
        I8_CASE(6)
        I8_CASE(7)
        I8_CASE(8)
        I8_CASE(9)
        I8_CASE(10)
        I8_CASE(11)
        I8_CASE(12)
        I8_CASE(13)
    default:
        i8_dot(tile, I8_ROWS, sums);
        break;
    }
}

/* v of a row's sums in a block, whose header says how. */
static CMI_ALWAYS_INLINE __m512 i8_scaled(const int32_t *sums, const int8_t *header, float x_scale)
{
    __m512i sum = _mm512_add_epi32(_mm512_load_si512(sums), _mm512_load_si512(header + I8_LINE));
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(x_scale));
    return _mm512_mul_ps(v, _mm512_load_ps((const float *)(const void *)header));
}

static CMI_ALWAYS_INLINE __m512 i8_silu(__m512 gate)
{
    __m512 e = exp_ps(_mm512_xor_ps(gate, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(gate, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

/* cmi_bf16_from_f32 of v, which is finite or infinite. */
static CMI_ALWAYS_INLINE __m256i i8_round_bf16(__m512 v)
{
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, odd), _mm512_set1_epi32(0x7FFF));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

/* A row's outputs of one block, or with SWIGLU of two, to the columns of y from col on. */
static CMI_ALWAYS_INLINE void i8_write(const cmi_gemm_i8_args *args, const i8_tile *tile,
                                       const i8_sums sums, uint32_t n_rows, size_t row, size_t col,
                                       uint32_t c)
{
    const __mmask16 mask = lanes_left(col, args->n_cols);
    const int8_t *header = tile->w[c] - CMI_I8_HEADER_BYTES;
    for (uint32_t r = 0; r < n_rows; r++) {
        const float x_scale = args->x_scale[row + r];
        const size_t at = (row + r) * args->y_stride + col;
        float *y = (float *)args->y + at;
        __m512 v = i8_scaled(sums[r][c], header, x_scale);
        switch (args->out) {
        case CMI_I8_OUT_BF16:
            _mm256_mask_storeu_epi16((cmi_bf16 *)args->y + at, mask, i8_round_bf16(v));
            continue;
        case CMI_I8_OUT_ADD:
            v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), v);
            break;
        case CMI_I8_OUT_SWIGLU:
            v = _mm512_mul_ps(i8_silu(v), i8_scaled(sums[r][c + 1],
                                                    tile->w[c + 1] - CMI_I8_HEADER_BYTES, x_scale));
            break;
        case CMI_I8_OUT_F32:
            break;
        }
        _mm512_mask_storeu_ps(y, mask, v);
    }
}

void cmi_gemm_i8_avx512_vnni(const cmi_gemm_i8_args *args)
{
    const bool is_swiglu = args->out == CMI_I8_OUT_SWIGLU;
    const size_t n_blocks =
        CMI_DIV_UP((size_t)args->n_cols, (size_t)CMI_I8_BLOCK_COLS) * (is_swiglu ? 2 : 1);
    const size_t block_bytes = cmi_i8_block_bytes(args->n_k);
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)I8_ROWS);
    i8_tile tile = {.x_stride = args->x_stride,
                    .n_groups = CMI_DIV_UP(args->n_k, (uint32_t)CMI_I8_GROUP)};
    i8_sums sums;
    for (size_t block = 0; block < n_blocks; block += I8_BLOCKS) {
        for (size_t c = 0; c < I8_BLOCKS; c++) {
            tile.w[c] = (const int8_t *)args->w + CMI_I8_HEADER_BYTES +
                        CMI_MIN(block + c, n_blocks - 1) * block_bytes;
        }
        uint32_t row = 0;
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - t);
            tile.x = args->x + row * args->x_stride;
            i8_dot_rows(&tile, n_rows, sums);
            if (is_swiglu) {
                i8_write(args, &tile, sums, n_rows, row, block / 2 * CMI_I8_BLOCK_COLS, 0);
            } else {
                i8_write(args, &tile, sums, n_rows, row, block * CMI_I8_BLOCK_COLS, 0);
                if (block + 1 < n_blocks) {
                    i8_write(args, &tile, sums, n_rows, row, (block + 1) * CMI_I8_BLOCK_COLS, 1);
                }
            }
            row += n_rows;
        }
    }
}
