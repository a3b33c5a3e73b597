/* kernels/avx512/gemm_i8.h - what the INT8 products with vpdpbusd share: the step, and what becomes
 * of sums. */
#ifndef CMI_KERNELS_AVX512_GEMM_I8_H
#define CMI_KERNELS_AVX512_GEMM_I8_H

#include "kernels/avx512/lanes.h"
#include "kernels/avx512/exp.h"

enum { I8_LINE = 64 /* bytes of W in a group of a block */ };

/* gcc 12 gives each result of the intrinsic a register of its own and then moves and spills: a tile
 * of 24 rows ran at half the speed. As an operand that is read and written a sum stays in place. */
static CMI_ALWAYS_INLINE __m512i i8_dot_add(__m512i sums, __m512i x, __m512i w)
{
#if defined(__clang__)
    return _mm512_dpbusd_epi32(sums, x, w);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(x), "v"(w));
    return sums;
#endif
}

static CMI_ALWAYS_INLINE __m512i i8_broadcast(const uint8_t *x)
{
    int32_t group;
    memcpy(&group, x, sizeof group);
    return _mm512_set1_epi32(group);
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

/* cmi_bf16_from_f32 of v, which is no NaN; a subnormal v has become zero in its last product. */
static CMI_ALWAYS_INLINE __m256i i8_round_bf16(__m512 v)
{
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, odd), _mm512_set1_epi32(0x7FFF));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

static CMI_ALWAYS_INLINE char *i8_y(const cmi_gemm_i8_args *args, size_t row, size_t col)
{
    const size_t bytes = args->out == CMI_I8_OUT_BF16 ? sizeof(cmi_bf16) : sizeof(float);
    return (char *)args->y + (row * args->y_stride + col) * bytes;
}

/* Sums of the rows of a tile in a block. */
typedef int32_t i8_row_sums[CMI_LANES];

/* The outputs of a row tile and a block, or with SWIGLU of two blocks, whose sums are in up_sums,
 * in the columns from col on. */
static void i8_write(const cmi_gemm_i8_args *args, const int8_t *header, const i8_row_sums *sums,
                     const i8_row_sums *up_sums, uint32_t n_rows, size_t row, size_t col)
{
    const __mmask16 mask = lanes_left(col, args->n_cols);
    const int8_t *up_header = header + cmi_i8_block_bytes(args->n_k);
    for (uint32_t r = 0; r < n_rows; r++) {
        const float x_scale = args->x_scale[row + r];
        void *y = i8_y(args, row + r, col);
        __m512 v = i8_scaled(sums[r], header, x_scale);
        switch (args->out) {
        case CMI_I8_OUT_BF16:
            _mm256_mask_storeu_epi16(y, mask, i8_round_bf16(v));
            continue;
        case CMI_I8_OUT_ADD:
            v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), v);
            break;
        case CMI_I8_OUT_SWIGLU:
            v = _mm512_mul_ps(i8_silu(v), i8_scaled(up_sums[r], up_header, x_scale));
            break;
        case CMI_I8_OUT_F32:
            break;
        }
        _mm512_mask_storeu_ps(y, mask, v);
    }
}

/* The lines of y that the tile will write: fetched during the products, since a miss at the end
 * stalls (3 % at 512 rows, k 2048). */
static void i8_prefetch_y(const cmi_gemm_i8_args *args, uint32_t n_rows, size_t row, size_t col)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm_prefetch(i8_y(args, row + r, col), _MM_HINT_T0);
    }
}

#endif
