/* Expanded keys and values as BF16 tiles, 16 tokens at a time. */
#include "kernels/avx512/lanes.h"

enum { LINE_BYTES = 64, LINES = CMI_ATTN_TILE / 2 };

/* Columns c .. c + 15 of row t; zeros past the last row and column. */
static inline __m512 load_row(const cmi_attn_pack_args *args, size_t t, size_t c)
{
    if (t >= args->n_rows || c >= args->n_cols) {
        return _mm512_setzero_ps();
    }
    return _mm512_maskz_loadu_ps(lanes_left(c, args->n_cols), args->x + t * args->x_stride + c);
}

/* Two rows of 16 words, word by word. */
static const CMI_ALIGNED(64) int16_t interleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

/* A pair of rows side by side: the halves of a lane are one column of both. */
void cmi_attn_pack_values_bf16_avx512_bf16(const cmi_attn_pack_args *args)
{
    const __m512i order = _mm512_load_si512(interleave);
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t += 2) {
        char *line = (char *)args->tile + t / 2 * LINE_BYTES;
        for (size_t c = 0; c < args->n_cols; c += CMI_LANES) {
            __m512bh pair = _mm512_cvtne2ps_pbh(load_row(args, t + 1, c), load_row(args, t, c));
            _mm512_store_si512(line + c / CMI_LANES * (LINES * LINE_BYTES),
                               _mm512_permutexvar_epi16(order, (__m512i)pair));
        }
    }
}

/* 16 registers of 16 lanes, transposed. */
static inline void transpose(__m512i v[16])
{
    __m512i w[16];
    for (int i = 0; i < 16; i += 2) {
        w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* v[i + j]: lane 4 q + j of rows i .. i + 3 in quarter q */
        v[i] = _mm512_unpacklo_epi64(w[i], w[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(w[i], w[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(w[i + 1], w[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(w[i + 1], w[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        w[j] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0x88);     /* quarters 0, 2 */
        w[j + 4] = _mm512_shuffle_i32x4(v[j], v[j + 4], 0xDD); /* quarters 1, 3 */
        w[j + 8] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0x88);
        w[j + 12] = _mm512_shuffle_i32x4(v[j + 8], v[j + 12], 0xDD);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xDD);
        v[j + 4] = _mm512_shuffle_i32x4(w[j + 4], w[j + 12], 0x88);
        v[j + 12] = _mm512_shuffle_i32x4(w[j + 4], w[j + 12], 0xDD);
    }
}

/* 32 columns of 16 rows: a lane of a row is a pair of its columns, and goes to that pair's line. */
void cmi_attn_pack_keys_bf16_avx512_bf16(const cmi_attn_pack_args *args)
{
    const size_t n_pairs = CMI_DIV_UP((size_t)args->n_cols, (size_t)2);
    for (size_t t = 0; t < args->n_rows; t += CMI_LANES) {
        for (size_t c = 0; c < args->n_cols; c += 2 * CMI_LANES) {
            __m512i v[16];
            for (size_t i = 0; i < 16; i++) {
                v[i] = (__m512i)_mm512_cvtne2ps_pbh(load_row(args, t + i, c + CMI_LANES),
                                                    load_row(args, t + i, c));
            }
            transpose(v);
            char *to =
                (char *)args->tile + (c / 2 * CMI_ATTN_TILE + t) * (size_t)CMI_ATTN_LANE_BYTES;
            for (size_t i = 0; i < CMI_MIN(n_pairs - c / 2, (size_t)16); i++) {
                _mm512_store_si512(to + i * (CMI_ATTN_TILE * CMI_ATTN_LANE_BYTES), v[i]);
            }
        }
    }
}

/* Byte i of each lane of a line: 16 columns of token i of four, times its scale. */
static inline __m512 dequantize(__m512i line, uint32_t i, float scale)
{
    const __m512i high = _mm512_sll_epi32(line, _mm_cvtsi32_si128((int)(24 - 8 * i)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(high, 24)), _mm512_set1_ps(scale));
}

/* A line of four tokens becomes two of a pair each. */
void cmi_attn_dequantize_i8_avx512_bf16(const cmi_attn_dequantize_args *args)
{
    const __m512i order = _mm512_load_si512(interleave);
    for (size_t c = 0; c < args->n_cols; c += CMI_ATTN_COLS) {
        const char *from = (const char *)args->q + c / CMI_ATTN_COLS * (LINES / 2 * LINE_BYTES);
        char *to = (char *)args->tile + c / CMI_ATTN_COLS * (LINES * LINE_BYTES);
        for (size_t t = 0; t < args->n_t; t += 4) {
            const __m512i line = _mm512_load_si512(from);
            for (uint32_t i = 0; i < 4; i += 2) {
                __m512 even = dequantize(line, i, args->scales[t + i]);
                __m512 odd = dequantize(line, i + 1, args->scales[t + i + 1]);
                __m512i pair = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
                _mm512_store_si512(to, _mm512_permutexvar_epi16(order, pair));
                to += LINE_BYTES;
            }
            from += LINE_BYTES;
        }
    }
}
