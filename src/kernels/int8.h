/* kernels/int8.h - the INT8 operands: how rows are quantized and how weights are packed.
 *
 * W8A8 (paper 11 and 12): a weight is INT8 with one scale for each output channel, an
 * activation is INT8 with one scale for each token, made on the fly. Integer sums are exact, so an
 * INT8 product has the same bits whatever the order, the tile or the instruction.
 *
 * A quantized row is n bytes of value + 128, from 1 to 255 (what the x86 dot product wants as its
 * unsigned operand), and one float32 scale; the bytes from n to the next multiple of 4 may be
 * anything that is readable.
 *
 * Packed weights have one layout on every ISA, so that packed experts can move between hosts. A
 * block holds 16 consecutive outputs:
 *
 *     float   scale[16]         of each output
 *     int32_t offset[16]        -128 * (sum of the output's weights): undoes the 128 of the rows
 *     int8_t  w[ceil(n_k / 4)][16][4]   a group of 4 inputs of each output
 *
 * Blocks follow one another without gaps. Outputs past the last and inputs past n_k are zeros, with
 * scale and offset zero. A block's first byte is 64-byte aligned. The two header lines also keep
 * blocks off multiples of 4 KiB, where cache sets collide. */
#ifndef CMI_KERNELS_INT8_H
#define CMI_KERNELS_INT8_H

#include "base/dtype.h"

enum {
    CMI_I8_BLOCK_COLS = 16,    /* outputs of a block */
    CMI_I8_GROUP = 4,          /* inputs that lie together */
    CMI_I8_ZERO = 128,         /* the byte of value 0 in a quantized row */
    CMI_I8_HEADER_BYTES = 128, /* scales and offsets */
    CMI_I8_MAX_K = 1 << 16,    /* 255 * 128 * n_k must fit an int32 */
};

/* Bytes from row to row that suit the products: an odd number of cache lines, since rows a multiple
 * of 4 KiB apart share cache sets, which costs up to three quarters of the speed. */
static inline size_t cmi_i8_row_stride(size_t n_k)
{
    size_t lines = CMI_DIV_UP(n_k, (size_t)CMI_CACHE_LINE);
    return (lines | 1) * CMI_CACHE_LINE;
}

/* Bytes of a block of 16 outputs with n_k inputs. */
static inline size_t cmi_i8_block_bytes(uint32_t n_k)
{
    return CMI_I8_HEADER_BYTES +
           CMI_DIV_UP((size_t)n_k, (size_t)CMI_I8_GROUP) * CMI_I8_GROUP * CMI_I8_BLOCK_COLS;
}

/* Bytes of all blocks of a matrix [n_out][n_k]. */
static inline size_t cmi_i8_packed_bytes(uint32_t n_out, uint32_t n_k)
{
    return CMI_DIV_UP((size_t)n_out, (size_t)CMI_I8_BLOCK_COLS) * cmi_i8_block_bytes(n_k);
}

/* Quantizes n finite values: amax = max |x|, scale = amax / 127, q = rint(x * (127 / amax)) + 128,
 * ties to even. If amax < 1e-30 all values count as zero and the scale is 0. */
typedef void cmi_quantize_i8_fn(const float *x, uint32_t n, uint8_t *q, float *scale_out);

/* rmsnorm and quantize_i8 of its result in one go. y, the normed row in float32, is written unless
 * it is NULL. */
typedef void cmi_rmsnorm_quantize_i8_fn(const float *x, const float *w, float eps, uint32_t n,
                                        float *y, uint8_t *q, float *scale_out);

/* What becomes of a product's sum, v = (float)sum * x_scale[r] * w_scale[c] in this order. */
typedef enum cmi_i8_out {
    CMI_I8_OUT_F32,    /* y float32 = v */
    CMI_I8_OUT_ADD,    /* y float32 = y + v: a residual stream */
    CMI_I8_OUT_BF16,   /* y cmi_bf16 = round(v): what goes over the wire between experts */
    CMI_I8_OUT_SWIGLU, /* blocks of W alternate gate, up: y float32 = silu(v_gate) * v_up, as the
                          swiglu kernel; n_cols counts y's columns, W has twice as many blocks */
} cmi_i8_out;

/* y[r][c] = out(sum over k of x[r][k] * w[c][k]). n_cols may end inside a block. n_k <=
 * CMI_I8_MAX_K; n_k == 0 gives v = 0. */
typedef struct cmi_gemm_i8_args {
    const uint8_t *x;     /* [n_rows][x_stride] quantized rows */
    const float *x_scale; /* [n_rows] */
    const void *w;        /* blocks, 64-byte aligned */
    void *y;              /* [n_rows][y_stride] */
    size_t x_stride;      /* bytes, >= n_k rounded up to 4; best cmi_i8_row_stride(n_k) */
    size_t y_stride;      /* elements of y */
    uint32_t n_rows, n_cols, n_k;
    cmi_i8_out out;
} cmi_gemm_i8_args;
typedef void cmi_gemm_i8_fn(const cmi_gemm_i8_args *args);

/* What a token gets back from its experts: sum = fma chain over i of weights[i] * rows[i] from 0 in
 * ascending i; x = x + sum. Rows hold what came over the wire: float32 or BF16 by the name. */
typedef struct cmi_combine_args {
    const void *const *rows; /* [n_rows] of n values each */
    const float *weights;    /* [n_rows] */
    float *x;                /* [n], updated in place */
    uint32_t n_rows, n;
} cmi_combine_args;
typedef void cmi_combine_fn(const cmi_combine_args *args);

#endif
