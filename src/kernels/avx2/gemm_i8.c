/* Y = X W^T of INT8 operands without a dot product instruction. vpmaddubsw multiplies unsigned by
 * signed bytes and saturates the sums of its pairs at 16 bits, so it gets |w| and x with w's sign:
 * 2 * 127 * 128 fits, even for weights of -128. The products then need no offset for the 128 in x.
 *
 * A tile has 4 rows and a block of W: 8 registers of sums, 2 of w and 2 of |w|. */
#include "kernels/avx2/lanes.h"
#include "kernels/avx2/exp.h"

enum {
    I8_ROWS = 4,
    I8_LINE = 64, /* bytes of W in a group of a block */
};

/* One row tile against one block. */
typedef struct i8_tile {
    const uint8_t *x;
    size_t x_stride;
    const int8_t *w;
    size_t n_groups;
} i8_tile;

typedef CMI_ALIGNED(32) int32_t i8_sums[I8_ROWS][CMI_LANES];

static CMI_ALWAYS_INLINE __m256i i8_multiply_add(__m256i acc, __m256i x, __m256i w, __m256i w_abs)
{
    __m256i pairs = _mm256_maddubs_epi16(w_abs, _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static CMI_ALWAYS_INLINE void i8_dot(const i8_tile *tile, const uint32_t n_rows, i8_sums sums)
{
    const __m256i sign_bits = _mm256_set1_epi8((char)CMI_I8_ZERO); /* x - 128 as a signed byte */
    __m256i acc[I8_ROWS][2];
    for (uint32_t r = 0; r < n_rows; r++) {
        acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    }
    for (size_t g = 0; g < tile->n_groups; g++) {
        const __m256i *line = (const __m256i *)(tile->w + g * I8_LINE);
        __m256i lo = _mm256_load_si256(line), hi = _mm256_load_si256(line + 1);
        __m256i lo_abs = _mm256_abs_epi8(lo), hi_abs = _mm256_abs_epi8(hi);
        for (uint32_t r = 0; r < n_rows; r++) {
            int32_t group;
            memcpy(&group, tile->x + r * tile->x_stride + g * CMI_I8_GROUP, sizeof group);
            __m256i x = _mm256_xor_si256(_mm256_set1_epi32(group), sign_bits);
            acc[r][0] = i8_multiply_add(acc[r][0], x, lo, lo_abs);
            acc[r][1] = i8_multiply_add(acc[r][1], x, hi, hi_abs);
        }
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_store_si256((__m256i *)sums[r], acc[r][0]);
        _mm256_store_si256((__m256i *)sums[r] + 1, acc[r][1]);
    }
}

static void i8_dot_rows(const i8_tile *tile, uint32_t n_rows, i8_sums sums)
{
    switch (n_rows) {
    case 1:
        i8_dot(tile, 1, sums);
        break;
    case 2:
        i8_dot(tile, 2, sums);
        break;
    case 3:
        i8_dot(tile, 3, sums);
        break;
    default:
        i8_dot(tile, I8_ROWS, sums);
        break;
    }
}

/* Eight of a row's v in a block, from lane on. */
static CMI_ALWAYS_INLINE __m256 i8_scaled(const int32_t *sums, const void *block, float x_scale,
                                          size_t lane)
{
    __m256 sum = _mm256_cvtepi32_ps(_mm256_load_si256((const __m256i *)(sums + lane)));
    return _mm256_mul_ps(_mm256_mul_ps(sum, _mm256_set1_ps(x_scale)),
                         _mm256_load_ps((const float *)block + lane));
}

static CMI_ALWAYS_INLINE __m256 i8_silu(__m256 gate)
{
    __m256 e = exp_ps(_mm256_xor_ps(gate, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static void i8_store_bf16(cmi_bf16 *y, size_t n, __m256 v)
{
    CMI_ALIGNED(32) float values[LANES_HALF];
    _mm256_store_ps(values, v);
    for (size_t i = 0; i < CMI_MIN(n, (size_t)LANES_HALF); i++) {
        y[i] = cmi_bf16_from_f32(values[i]);
    }
}

/* A row tile's outputs of one block, or with SWIGLU of two, to the columns of y from col on. */
static void i8_write(const cmi_gemm_i8_args *args, i8_sums sums[2], const char *block,
                     uint32_t n_rows, size_t row, size_t col)
{
    const char *up_block = block + cmi_i8_block_bytes(args->n_k);
    for (uint32_t r = 0; r < n_rows; r++) {
        const float x_scale = args->x_scale[row + r];
        const size_t at = (row + r) * args->y_stride;
        float *y = (float *)args->y + at;
        for (size_t lane = 0; lane < CMI_LANES && col + lane < args->n_cols; lane += LANES_HALF) {
            const size_t c = col + lane;
            __m256 v = i8_scaled(sums[0][r], block, x_scale, lane);
            switch (args->out) {
            case CMI_I8_OUT_BF16:
                i8_store_bf16((cmi_bf16 *)args->y + at + c, args->n_cols - c, v);
                continue;
            case CMI_I8_OUT_ADD:
                v = _mm256_add_ps(lanes_load(y, c, args->n_cols), v);
                break;
            case CMI_I8_OUT_SWIGLU:
                v = _mm256_mul_ps(i8_silu(v), i8_scaled(sums[1][r], up_block, x_scale, lane));
                break;
            case CMI_I8_OUT_F32:
                break;
            }
            lanes_store(y, c, args->n_cols, v);
        }
    }
}

void cmi_gemm_i8_avx2(const cmi_gemm_i8_args *args)
{
    const uint32_t n_parts = args->out == CMI_I8_OUT_SWIGLU ? 2 : 1;
    const size_t block_bytes = cmi_i8_block_bytes(args->n_k);
    const uint32_t n_tiles = CMI_DIV_UP(args->n_rows, (uint32_t)I8_ROWS);
    i8_tile tile = {.x_stride = args->x_stride,
                    .n_groups = CMI_DIV_UP(args->n_k, (uint32_t)CMI_I8_GROUP)};
    i8_sums sums[2];
    const char *block = args->w;
    for (size_t col = 0; col < args->n_cols; col += CMI_I8_BLOCK_COLS) {
        uint32_t row = 0;
        for (uint32_t t = 0; t < n_tiles; t++) {
            const uint32_t n_rows = CMI_DIV_UP(args->n_rows - row, n_tiles - t);
            tile.x = args->x + row * args->x_stride;
            for (uint32_t part = 0; part < n_parts; part++) {
                tile.w = (const int8_t *)block + part * block_bytes + CMI_I8_HEADER_BYTES;
                i8_dot_rows(&tile, n_rows, sums[part]);
            }
            i8_write(args, sums, block, n_rows, row, col);
            row += n_rows;
        }
        block += n_parts * block_bytes;
    }
}
