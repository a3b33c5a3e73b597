/* Expanded keys and values as BF16 tiles. */
#include "kernels/avx2/lanes.h"
#include "kernels/avx2/round_bf16.h"
#include "kernels/avx2/transpose.h"

enum {
    LINE_BYTES = 64,
    LINES = CMI_ATTN_TILE / 2,
    KEY_ROW_BYTES = CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES,
};

static inline void store(char *to, __m256i v)
{
    _mm256_store_si256((__m256i *)(void *)to, v);
}

/* Columns c .. c + 7 of row t; zeros past the last row and column. */
static inline __m256i load_row(const cmi_attn_pack_args *args, size_t t, size_t c)
{
    return t < args->n_rows
               ? _mm256_castps_si256(lanes_load(args->x + t * args->x_stride, c, args->n_cols))
               : _mm256_setzero_si256();
}

/* A pair of rows side by side: the halves of a lane are one column of both. */
void cmi_attn_pack_values_bf16_avx2(const cmi_attn_pack_args *args)
{
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    const size_t n_cols = CMI_ROUND_UP((size_t)args->n_cols, (size_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t += 2) {
        for (size_t c = 0; c < n_cols; c += LANES_HALF) {
            char *line = (char *)args->tile +
                         (c / CMI_ATTN_COLS * LINES + t / 2) * (size_t)LINE_BYTES +
                         c % CMI_ATTN_COLS * CMI_ATTN_LANE_BYTES;
            __m256i even = _mm256_srli_epi32(round_bf16(load_row(args, t, c)), 16);
            __m256i odd = round_bf16(load_row(args, t + 1, c));
            store(line, _mm256_blend_epi16(even, odd, 0xAA));
        }
    }
}

/* 16 columns of 8 rows: a lane of a row is a pair of its columns, and goes to that pair's line. */
void cmi_attn_pack_keys_bf16_avx2(const cmi_attn_pack_args *args)
{
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    const size_t n_pairs = CMI_DIV_UP((size_t)args->n_cols, (size_t)2);
    for (size_t t = 0; t < n_t; t += LANES_HALF) {
        for (size_t c = 0; c < args->n_cols; c += 2 * LANES_HALF) {
            __m256i v[8];
            for (size_t i = 0; i < 8; i++) {
                v[i] = round_bf16_pack(load_row(args, t + i, c),
                                       load_row(args, t + i, c + LANES_HALF));
            }
            transpose_8(v);
            char *to = (char *)args->tile + c / 2 * KEY_ROW_BYTES + t * CMI_ATTN_LANE_BYTES;
            for (size_t i = 0; i < CMI_MIN(n_pairs - c / 2, (size_t)LANES_HALF); i++) {
                store(to + i * KEY_ROW_BYTES, v[i]);
            }
        }
    }
}

/* Byte i of each lane: 8 columns of token i of four, times its scale, rounded: the upper halves. */
static inline __m256i dequantize(__m256i lanes, uint32_t i, float scale)
{
    const __m256i high = _mm256_sll_epi32(lanes, _mm_cvtsi32_si128((int)(24 - 8 * i)));
    const __m256 q = _mm256_cvtepi32_ps(_mm256_srai_epi32(high, 24));
    return round_bf16(_mm256_castps_si256(_mm256_mul_ps(q, _mm256_set1_ps(scale))));
}

/* A line of four tokens becomes two of a pair each, half a line at a time. */
void cmi_attn_dequantize_i8_avx2(const cmi_attn_dequantize_args *args)
{
    for (size_t c = 0; c < args->n_cols; c += LANES_HALF) {
        const size_t block = c / CMI_ATTN_COLS, half = c % CMI_ATTN_COLS * CMI_ATTN_LANE_BYTES;
        const char *from = (const char *)args->q + block * (LINES / 2 * LINE_BYTES) + half;
        char *to = (char *)args->tile + block * (LINES * LINE_BYTES) + half;
        for (size_t t = 0; t < args->n_t; t += 4) {
            const __m256i lanes = _mm256_load_si256((const __m256i *)(const void *)from);
            for (uint32_t i = 0; i < 4; i += 2) {
                __m256i even = _mm256_srli_epi32(dequantize(lanes, i, args->scales[t + i]), 16);
                __m256i odd = dequantize(lanes, i + 1, args->scales[t + i + 1]);
                store(to, _mm256_blend_epi16(even, odd, 0xAA));
                to += LINE_BYTES;
            }
            from += LINE_BYTES;
        }
    }
}
