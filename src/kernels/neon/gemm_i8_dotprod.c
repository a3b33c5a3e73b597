/* INT8 with the dot product (FEAT_DotProd): SDOT adds four products of signed bytes to each of four
 * sums. Its second operand may be one group of a register, so 16 bytes of a row, made signed once,
 * serve 16 instructions, and a register of W serves every row of the tile. */
#include "kernels/neon/gemm_i8.h"

enum { I8_ROWS = 6, I8_UNROLL = 4 /* groups in a register of x */ };

typedef int32x4_t i8_acc[I8_ROWS][I8_REGISTERS];

/* A group of W with the group of x that a lane of its registers holds. */
#define I8_STEP(lane)                                                                              \
    for (uint32_t q = 0; q < I8_REGISTERS; q++) {                                                  \
        int8x16_t w_quarter = vld1q_s8(w + (lane)*I8_LINE + q * 16);                               \
        for (uint32_t r = 0; r < n_rows; r++) {                                                    \
            acc[r][q] = vdotq_laneq_s32(acc[r][q], w_quarter, x_groups[r], lane);                  \
        }                                                                                          \
    }

static CMI_ALWAYS_INLINE void i8_tile(const i8_operands *op, uint32_t row, const uint32_t n_rows,
                                      i8_sums sums)
{
    const size_t x_stride = op->x_stride;
    const uint8x16_t sign_bits = vdupq_n_u8(CMI_I8_ZERO); /* x - 128 as a signed byte */
    const uint8_t *x = op->x + row * x_stride;
    const int8_t *w = op->w;
    i8_acc acc;
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            acc[r][q] = vdupq_n_s32(0);
        }
    }
    size_t left = op->n_groups;
    for (; left >= I8_UNROLL; left -= I8_UNROLL) {
        int8x16_t x_groups[I8_ROWS];
        for (uint32_t r = 0; r < n_rows; r++) {
            x_groups[r] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x + r * x_stride), sign_bits));
        }
        I8_STEP(0)
        I8_STEP(1)
        I8_STEP(2)
        I8_STEP(3)
        x += I8_UNROLL * CMI_I8_GROUP;
        w += I8_UNROLL * I8_LINE;
    }
    for (; left > 0; left--) {
        int8x16_t x_groups[I8_ROWS];
        for (uint32_t r = 0; r < n_rows; r++) {
            uint32_t group;
            memcpy(&group, x + r * x_stride, sizeof group);
            x_groups[r] = vreinterpretq_s8_u32(vdupq_n_u32(group ^ 0x80808080u));
        }
        I8_STEP(0)
        x += CMI_I8_GROUP;
        w += I8_LINE;
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            vst1q_s32(sums[row + r] + q * 4, acc[r][q]);
        }
    }
}

static void i8_dot(const i8_operands *op, i8_sums sums)
{
    const uint32_t n_tiles = CMI_DIV_UP(op->n_rows, (uint32_t)I8_ROWS);
    uint32_t row = 0;
    for (uint32_t t = 0; t < n_tiles; t++) {
        const uint32_t n_rows = CMI_DIV_UP(op->n_rows - row, n_tiles - t);
        switch (n_rows) {
        case 1:
            i8_tile(op, row, 1, sums);
            break;
        case 2:
            i8_tile(op, row, 2, sums);
            break;
        case 3:
            i8_tile(op, row, 3, sums);
            break;
        case 4:
            i8_tile(op, row, 4, sums);
            break;
        case 5:
            i8_tile(op, row, 5, sums);
            break;
        default:
            i8_tile(op, row, I8_ROWS, sums);
            break;
        }
        row += n_rows;
    }
}

void cmi_gemm_i8_neon_dotprod(const cmi_gemm_i8_args *args)
{
    gemm_i8((i8_kind){i8_dot, true}, args);
}
