/* INT8 with the matrix product (FEAT_I8MM): USMMLA multiplies two rows of 8 unsigned bytes by two
 * of 8 signed ones into four sums, twice what a dot product does. Rows of X are taken two by two.
 * The layout of W has 4 inputs of an output together and not 8, so two groups of a block are zipped
 * first; K is cut into ranges that are zipped into the first-level cache once for all rows of a
 * chunk.
 *
 * A tile has 6 rows and a block of W: 24 registers of sums, 3 of x and some of w; for 24 products
 * 14 loads and 3 instructions that put rows together. A single row takes the dot product of mixed
 * signs, which wastes nothing. */
#include "kernels/neon/gemm_i8.h"

enum {
    I8_PAIRS = 3, /* pairs of rows in a tile */
    I8_ROWS = 2 * I8_PAIRS,
    I8_ZIPS = 2 * I8_REGISTERS, /* registers of two zipped groups: two outputs each */
    I8_RANGE_GROUPS = 128,
};

/* Two groups of a block: for two outputs each the 8 inputs. */
typedef int8x16_t i8_zipped[I8_RANGE_GROUPS / 2][I8_ZIPS];

/* A range of K: its first group, and how many groups. */
typedef struct i8_range {
    size_t begin, n_groups;
} i8_range;

static void i8_zip(const int8_t *w, size_t n_groups, i8_zipped zipped)
{
    for (size_t g = 0; g < n_groups; g += 2) {
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            int32x4_t first = vreinterpretq_s32_s8(vld1q_s8(w + g * I8_LINE + q * 16));
            int32x4_t second = vdupq_n_s32(0);
            if (g + 1 < n_groups) {
                second = vreinterpretq_s32_s8(vld1q_s8(w + (g + 1) * I8_LINE + q * 16));
            }
            zipped[g / 2][2 * q] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
            zipped[g / 2][2 * q + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
        }
    }
}

typedef int32x4_t i8_acc[I8_PAIRS][I8_ZIPS];

/* x: the tile's rows, two for each pair. */
static CMI_ALWAYS_INLINE void i8_step(i8_acc acc, const uint8_t *const *x, size_t k,
                                      const int8x16_t *w, const uint32_t n_pairs)
{
    uint8x16_t x_pairs[I8_PAIRS];
    for (uint32_t p = 0; p < n_pairs; p++) {
        x_pairs[p] = vcombine_u8(vld1_u8(x[2 * p] + k), vld1_u8(x[2 * p + 1] + k));
    }
    for (uint32_t z = 0; z < I8_ZIPS; z++) {
        for (uint32_t p = 0; p < n_pairs; p++) {
            acc[p][z] = vusmmlaq_s32(acc[p][z], x_pairs[p], w[z]);
        }
    }
}

/* Adds a pair's products of rows a and b to their sums. */
static CMI_ALWAYS_INLINE void i8_add(const int32x4_t acc[I8_ZIPS], int32_t *a, int32_t *b)
{
    for (uint32_t q = 0; q < I8_REGISTERS; q++) {
        int64x2_t lo = vreinterpretq_s64_s32(acc[2 * q]);
        int64x2_t hi = vreinterpretq_s64_s32(acc[2 * q + 1]);
        int32x4_t of_a = vreinterpretq_s32_s64(vzip1q_s64(lo, hi));
        int32x4_t of_b = vreinterpretq_s32_s64(vzip2q_s64(lo, hi));
        vst1q_s32(b + 4 * q, vaddq_s32(vld1q_s32(b + 4 * q), of_b));
        vst1q_s32(a + 4 * q, vaddq_s32(vld1q_s32(a + 4 * q), of_a));
    }
}

/* Adds a range of K to the sums of n_rows rows, two for each pair or one less. */
static CMI_ALWAYS_INLINE void i8_tile(const i8_operands *op, const i8_range *range,
                                      const i8_zipped zipped, uint32_t row, uint32_t n_rows,
                                      const uint32_t n_pairs, i8_sums sums)
{
    const uint8_t *x[I8_ROWS];
    uint8_t tails[I8_ROWS][2 * CMI_I8_GROUP] = {{0}};
    int32_t ignored[CMI_I8_BLOCK_COLS] = {0};
    i8_acc acc;
    for (uint32_t r = 0; r < 2 * n_pairs; r++) {
        x[r] = op->x + (row + CMI_MIN(r, n_rows - 1)) * op->x_stride + range->begin * CMI_I8_GROUP;
    }
    for (uint32_t p = 0; p < n_pairs; p++) {
        for (uint32_t z = 0; z < I8_ZIPS; z++) {
            acc[p][z] = vdupq_n_s32(0);
        }
    }
    size_t g = 0;
    for (; g + 2 <= range->n_groups; g += 2) {
        i8_step(acc, x, g * CMI_I8_GROUP, zipped[g / 2], n_pairs);
    }
    if (g < range->n_groups) { /* zeros behind the end */
        for (uint32_t r = 0; r < 2 * n_pairs; r++) {
            x[r] = memcpy(tails[r], x[r] + g * CMI_I8_GROUP, CMI_I8_GROUP);
        }
        i8_step(acc, x, 0, zipped[g / 2], n_pairs);
    }
    for (uint32_t p = 0; p < n_pairs; p++) {
        i8_add(acc[p], sums[row + 2 * p], 2 * p + 1 < n_rows ? sums[row + 2 * p + 1] : ignored);
    }
}

static void i8_add_range(const i8_operands *op, const i8_range *range, const i8_zipped zipped,
                         i8_sums sums)
{
    for (uint32_t row = 0; row < op->n_rows; row += I8_ROWS) {
        const uint32_t n_rows = CMI_MIN(op->n_rows - row, (uint32_t)I8_ROWS);
        switch (CMI_DIV_UP(n_rows, 2)) {
        case 1:
            i8_tile(op, range, zipped, row, n_rows, 1, sums);
            break;
        case 2:
            i8_tile(op, range, zipped, row, n_rows, 2, sums);
            break;
        default:
            i8_tile(op, range, zipped, row, n_rows, I8_PAIRS, sums);
            break;
        }
    }
}

static void i8_dot_one_row(const i8_operands *op, int32_t *sums)
{
    int32x4_t acc[I8_REGISTERS];
    for (uint32_t q = 0; q < I8_REGISTERS; q++) {
        acc[q] = vdupq_n_s32(0);
    }
    for (size_t g = 0; g < op->n_groups; g++) {
        uint32_t group;
        memcpy(&group, op->x + g * CMI_I8_GROUP, sizeof group);
        uint8x16_t x_group = vreinterpretq_u8_u32(vdupq_n_u32(group));
        for (uint32_t q = 0; q < I8_REGISTERS; q++) {
            acc[q] = vusdotq_s32(acc[q], x_group, vld1q_s8(op->w + g * I8_LINE + q * 16));
        }
    }
    for (uint32_t q = 0; q < I8_REGISTERS; q++) {
        vst1q_s32(sums + 4 * q, acc[q]);
    }
}

static void i8_dot(const i8_operands *op, i8_sums sums)
{
    if (op->n_rows == 1) {
        i8_dot_one_row(op, sums[0]);
        return;
    }
    i8_zipped zipped;
    memset(sums, 0, op->n_rows * sizeof sums[0]);
    for (i8_range range = {.begin = 0}; range.begin < op->n_groups;
         range.begin += I8_RANGE_GROUPS) {
        range.n_groups = CMI_MIN(op->n_groups - range.begin, (size_t)I8_RANGE_GROUPS);
        i8_zip(op->w + range.begin * I8_LINE, range.n_groups, zipped);
        i8_add_range(op, &range, zipped, sums);
    }
}

void cmi_gemm_i8_neon_i8mm(const cmi_gemm_i8_args *args)
{
    gemm_i8((i8_kind){i8_dot, false}, args);
}
