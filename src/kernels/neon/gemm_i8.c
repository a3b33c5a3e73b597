/* INT8 without a dot product instruction: products of bytes are added in pairs in 16 bits, which
 * hold 2 * 127 * 128, and then to 32-bit sums of half a group each: 3 instructions for 16
 * multiply-adds. */
#include "kernels/neon/gemm_i8.h"

enum { I8_ROWS = 2 };

/* A group of a row, less 128, in each half of the result. */
static CMI_ALWAYS_INLINE int8x8_t load_group(const uint8_t *x)
{
    uint32_t group;
    memcpy(&group, x, sizeof group);
    return vreinterpret_s8_u32(vdup_n_u32(group ^ 0x80808080u));
}

typedef int32x4_t i8_acc[I8_ROWS][I8_REGISTERS][2];

/* One group, or two if there is another. */
static CMI_ALWAYS_INLINE void i8_step(i8_acc acc, const uint8_t *x, size_t x_stride,
                                      const int8_t *w, const uint32_t n_rows, const bool two)
{
    int8x8_t x_groups[I8_ROWS][2];
    for (uint32_t r = 0; r < n_rows; r++) {
        x_groups[r][0] = load_group(x + r * x_stride);
        x_groups[r][1] = two ? load_group(x + r * x_stride + CMI_I8_GROUP) : vdup_n_s8(0);
    }
    for (uint32_t q = 0; q < I8_REGISTERS; q++) {
        int8x16_t first = vld1q_s8(w + q * 16);
        int8x16_t second = two ? vld1q_s8(w + I8_LINE + q * 16) : vdupq_n_s8(0);
        for (uint32_t r = 0; r < n_rows; r++) {
            int16x8_t lo = vmull_s8(vget_low_s8(first), x_groups[r][0]);
            int16x8_t hi = vmull_s8(vget_high_s8(first), x_groups[r][0]);
            if (two) {
                lo = vmlal_s8(lo, vget_low_s8(second), x_groups[r][1]);
                hi = vmlal_s8(hi, vget_high_s8(second), x_groups[r][1]);
            }
            acc[r][q][0] = vpadalq_s16(acc[r][q][0], lo);
            acc[r][q][1] = vpadalq_s16(acc[r][q][1], hi);
        }
    }
}

static CMI_ALWAYS_INLINE void i8_tile(const i8_operands *op, uint32_t row, const uint32_t n_rows,
                                      i8_sums sums)
{
    const uint8_t *x = op->x + row * op->x_stride;
    const int8_t *w = op->w;
    i8_acc acc;
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            acc[r][q][0] = acc[r][q][1] = vdupq_n_s32(0);
        }
    }
    size_t left = op->n_groups;
    for (; left >= 2; left -= 2) {
        i8_step(acc, x, op->x_stride, w, n_rows, true);
        x += 2 * CMI_I8_GROUP;
        w += 2 * I8_LINE;
    }
    if (left > 0) {
        i8_step(acc, x, op->x_stride, w, n_rows, false);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            vst1q_s32(sums[row + r] + q * 4, vpaddq_s32(acc[r][q][0], acc[r][q][1]));
        }
    }
}

static void i8_dot(const i8_operands *op, i8_sums sums)
{
    uint32_t row = 0;
    for (; row + I8_ROWS <= op->n_rows; row += I8_ROWS) {
        i8_tile(op, row, I8_ROWS, sums);
    }
    if (row < op->n_rows) {
        i8_tile(op, row, 1, sums);
    }
}

void cmi_gemm_i8_neon(const cmi_gemm_i8_args *args)
{
    gemm_i8((i8_kind){i8_dot, true}, args);
}
