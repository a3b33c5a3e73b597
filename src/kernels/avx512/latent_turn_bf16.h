/* kernels/avx512/latent_turn_bf16.h - 16 tokens by 16 BF16 columns of a latent tile as keys.
 *
 * 8 registers of 16 columns, a lane being a pair of tokens, become 8 registers of 16 tokens, a lane
 * being a pair of columns. Seen as bits of the register's number, of the lane's and of the half's,
 * tokens t3 t2 t1 | columns c3 c2 c1 c0 | t0 become c3 c2 c1 | t3 t2 t1 t0 | c0: three exchanges,
 * of t3 with c3 while loading, of t2 with c2, and of t1 with c1 together with t0 and c0. */
#ifndef CMI_KERNELS_AVX512_LATENT_TURN_BF16_H
#define CMI_KERNELS_AVX512_LATENT_TURN_BF16_H

#include "kernels/avx512/lanes.h"

/* Quadwords of a and b (from 8 on): their even, or odd, 128-bit blocks in turn. */
static const CMI_ALIGNED(64) int64_t turn_even_blocks[8] = {0, 1, 8, 9, 4, 5, 12, 13};
static const CMI_ALIGNED(64) int64_t turn_odd_blocks[8] = {2, 3, 10, 11, 6, 7, 14, 15};

/* Words of a and b (from 32 on): of each block the low, or high, quadword of a, then of b; in a
 * quadword the even words, then the odd ones. */
#define TURN_QUADWORD(at) (at), (at) + 2, (at) + 1, (at) + 3
#define TURN_BLOCK(at) TURN_QUADWORD(at), TURN_QUADWORD((at) + 32)
static const CMI_ALIGNED(64) int16_t turn_low_quadwords[32] = {TURN_BLOCK(0), TURN_BLOCK(8),
                                                               TURN_BLOCK(16), TURN_BLOCK(24)};
static const CMI_ALIGNED(64) int16_t turn_high_quadwords[32] = {TURN_BLOCK(4), TURN_BLOCK(12),
                                                                TURN_BLOCK(20), TURN_BLOCK(28)};

static inline __m512i turn_load_halves(const char *low, const char *high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256((const void *)low)),
                              _mm256_load_si256((const void *)high), 1);
}

/* Lanes lane .. lane + 7 of tokens t .. t + 15. */
static inline void latent_turn_bf16(const void *latent, size_t t, size_t lane, __m512i keys[8])
{
    enum { LINE = CMI_ATTN_COLS * CMI_ATTN_LANE_BYTES, HALF = LINE / 2 };
    const char *lines = (const char *)latent + (lane / 8 * (CMI_ATTN_TILE / 2) + t / 2) * LINE;
    __m512i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        const char *low = lines + i * LINE, *high = low + 4 * LINE;
        a[i] = turn_load_halves(low, high);
        a[i + 4] = turn_load_halves(low + HALF, high + HALF);
    }
    const __m512i even = _mm512_load_si512(turn_even_blocks);
    const __m512i odd = _mm512_load_si512(turn_odd_blocks);
    for (int i = 0; i < 8; i++) { /* from a[j] and a[j + 2]: b[j] and b[j + 2] */
        b[i] = _mm512_permutex2var_epi64(a[i & ~2], (i & 2) == 0 ? even : odd, a[i | 2]);
    }
    const __m512i low = _mm512_load_si512(turn_low_quadwords);
    const __m512i high = _mm512_load_si512(turn_high_quadwords);
    for (int i = 0; i < 8; i++) {
        keys[i] = _mm512_permutex2var_epi16(b[i & ~1], (i & 1) == 0 ? low : high, b[i | 1]);
    }
}

#endif
