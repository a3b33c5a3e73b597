/* Expanded keys and values as BF16 tiles. */
#include "kernels/neon/lanes.h"
#include "kernels/neon/transpose.h"

enum {
    LINE_BYTES = 64,
    LINES = CMI_ATTN_TILE / 2,
    KEY_ROW_BYTES = CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES,
};

/* Columns c .. c + 7 of row t, rounded; zeros past the last row and column. */
static inline uint16x8_t load_row(const cmi_attn_pack_args *args, size_t t, size_t c)
{
    if (t >= args->n_rows) {
        return vdupq_n_u16(0);
    }
    const float *x = args->x + t * args->x_stride;
    return vcombine_u16(lanes_round_bf16(lanes_load(x, c, args->n_cols)),
                        lanes_round_bf16(lanes_load(x, c + LANES_QUARTER, args->n_cols)));
}

/* A pair of rows side by side: the halves of a lane are one column of both. */
void cmi_attn_pack_values_bf16_neon(const cmi_attn_pack_args *args)
{
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    const size_t n_cols = CMI_ROUND_UP((size_t)args->n_cols, (size_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t += 2) {
        for (size_t c = 0; c < n_cols; c += 8) {
            uint8_t *to = (uint8_t *)args->tile +
                          (c / CMI_ATTN_COLS * LINES + t / 2) * (size_t)LINE_BYTES +
                          c % CMI_ATTN_COLS * CMI_ATTN_LANE_BYTES;
            uint16x8_t even = load_row(args, t, c), odd = load_row(args, t + 1, c);
            vst1q_u8(to, vreinterpretq_u8_u16(vzip1q_u16(even, odd)));
            vst1q_u8(to + 16, vreinterpretq_u8_u16(vzip2q_u16(even, odd)));
        }
    }
}

/* 8 columns of 4 rows: a lane of a row is a pair of its columns, and goes to that pair's line. */
void cmi_attn_pack_keys_bf16_neon(const cmi_attn_pack_args *args)
{
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    const size_t n_pairs = CMI_DIV_UP((size_t)args->n_cols, (size_t)2);
    for (size_t t = 0; t < n_t; t += 4) {
        for (size_t c = 0; c < args->n_cols; c += 8) {
            uint32x4_t v[4];
            for (size_t i = 0; i < 4; i++) {
                v[i] = vreinterpretq_u32_u16(load_row(args, t + i, c));
            }
            transpose_4(v);
            uint8_t *to = (uint8_t *)args->tile + c / 2 * KEY_ROW_BYTES + t * CMI_ATTN_LANE_BYTES;
            for (size_t i = 0; i < CMI_MIN(n_pairs - c / 2, (size_t)4); i++) {
                vst1q_u8(to + i * KEY_ROW_BYTES, vreinterpretq_u8_u32(v[i]));
            }
        }
    }
}
