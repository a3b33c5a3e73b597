/* kernels/blake2b_lanes.h - what the variants of blake2b have in common: the walk over messages,
 * and a round. A variant brings vectors of 64-bit lanes. */
#ifndef CMI_KERNELS_BLAKE2B_LANES_H
#define CMI_KERNELS_BLAKE2B_LANES_H

#include <string.h>

#include "kernels/blake2b.h"

enum { CMI_BLAKE2B_LANES_MAX = 8 };

/* The state of some messages, word by word: word i of message k is at h[i * lanes + k]. */
typedef struct cmi_blake2b_states {
    CMI_ALIGNED(64) uint64_t h[8 * CMI_BLAKE2B_LANES_MAX];
} cmi_blake2b_states;

/* Takes the next block of every message in: rows[k] points to message k's, of which, with it,
 * n_bytes have been taken. */
typedef void cmi_blake2b_compress_fn(cmi_blake2b_states *s, const uint8_t *const *rows,
                                     uint64_t n_bytes, bool is_last);

/* RFC 7693, 2.6 and 2.7. */
static const uint64_t cmi_blake2b_iv[8] = {
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
};
static const uint8_t cmi_blake2b_sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

/* The variant's file defines lanes_add, lanes_xor, lanes_ror32, _ror24, _ror16 and _ror63 on its
 * vectors; v: [16], m: [16]. With a constant round the indices fold away. */
#define CMI_BLAKE2B_MIX(v, a, b, c, d, x, y)                                                       \
    v[a] = lanes_add(lanes_add(v[a], v[b]), x);                                                    \
    v[d] = lanes_ror32(lanes_xor(v[d], v[a]));                                                     \
    v[c] = lanes_add(v[c], v[d]);                                                                  \
    v[b] = lanes_ror24(lanes_xor(v[b], v[c]));                                                     \
    v[a] = lanes_add(lanes_add(v[a], v[b]), y);                                                    \
    v[d] = lanes_ror16(lanes_xor(v[d], v[a]));                                                     \
    v[c] = lanes_add(v[c], v[d]);                                                                  \
    v[b] = lanes_ror63(lanes_xor(v[b], v[c]));
#define CMI_BLAKE2B_WORD(m, round, i) m[cmi_blake2b_sigma[(round) % 10][i]]
#define CMI_BLAKE2B_MIX_AT(v, m, round, i, a, b, c, d)                                             \
    CMI_BLAKE2B_MIX(v, a, b, c, d, CMI_BLAKE2B_WORD(m, round, 2 * (i)),                            \
                    CMI_BLAKE2B_WORD(m, round, 2 * (i) + 1))
#define CMI_BLAKE2B_ROUND(v, m, round)                                                             \
    CMI_BLAKE2B_MIX_AT(v, m, round, 0, 0, 4, 8, 12)                                                \
    CMI_BLAKE2B_MIX_AT(v, m, round, 1, 1, 5, 9, 13)                                                \
    CMI_BLAKE2B_MIX_AT(v, m, round, 2, 2, 6, 10, 14)                                               \
    CMI_BLAKE2B_MIX_AT(v, m, round, 3, 3, 7, 11, 15)                                               \
    CMI_BLAKE2B_MIX_AT(v, m, round, 4, 0, 5, 10, 15)                                               \
    CMI_BLAKE2B_MIX_AT(v, m, round, 5, 1, 6, 11, 12)                                               \
    CMI_BLAKE2B_MIX_AT(v, m, round, 6, 2, 7, 8, 13)                                                \
    CMI_BLAKE2B_MIX_AT(v, m, round, 7, 3, 4, 9, 14)
#define CMI_BLAKE2B_ROUNDS(v, m)                                                                   \
    CMI_BLAKE2B_ROUND(v, m, 0)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 1)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 2)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 3)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 4)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 5)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 6)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 7)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 8)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 9)                                                                     \
    CMI_BLAKE2B_ROUND(v, m, 10)                                                                    \
    CMI_BLAKE2B_ROUND(v, m, 11)

/* Messages first .. first + lanes - 1; where there are fewer, the last one stands for the rest. */
static CMI_ALWAYS_INLINE void cmi_blake2b_walk(const cmi_blake2b_args *args, uint32_t first,
                                               uint32_t lanes, cmi_blake2b_compress_fn *compress)
{
    const uint8_t *rows[CMI_BLAKE2B_LANES_MAX];
    uint8_t tails[CMI_BLAKE2B_LANES_MAX][CMI_BLAKE2B_BLOCK_BYTES];
    cmi_blake2b_states s;
    for (uint32_t i = 0; i < 8 * lanes; i++) {
        /* Parameters: 32 bytes of digest, no key, fanout and depth 1. */
        s.h[i] = cmi_blake2b_iv[i / lanes] ^ (i < lanes ? 0x01010020 : 0);
    }
    for (uint32_t k = 0; k < lanes; k++) {
        rows[k] = args->head;
    }
    compress(&s, rows, CMI_BLAKE2B_BLOCK_BYTES, args->n_bytes == 0);
    for (uint32_t k = 0; k < lanes; k++) {
        rows[k] = args->data + CMI_MIN(first + k, args->n_messages - 1) * args->stride;
    }
    size_t left = args->n_bytes;
    uint64_t done = CMI_BLAKE2B_BLOCK_BYTES;
    for (; left > CMI_BLAKE2B_BLOCK_BYTES; left -= CMI_BLAKE2B_BLOCK_BYTES) {
        done += CMI_BLAKE2B_BLOCK_BYTES;
        compress(&s, rows, done, false);
        for (uint32_t k = 0; k < lanes; k++) {
            rows[k] += CMI_BLAKE2B_BLOCK_BYTES;
        }
    }
    for (uint32_t k = 0; k < lanes && left > 0; k++) {
        memset(tails[k], 0, sizeof tails[k]);
        memcpy(tails[k], rows[k], left);
        rows[k] = tails[k];
    }
    if (left > 0) {
        compress(&s, rows, done + left, true);
    }
    for (uint32_t k = 0; k < lanes && first + k < args->n_messages; k++) {
        uint8_t *digest = args->digests + (size_t)(first + k) * CMI_BLAKE2B_DIGEST_BYTES;
        for (uint32_t i = 0; i < 4; i++) {
            memcpy(digest + i * sizeof *s.h, &s.h[i * lanes + k], sizeof *s.h);
        }
    }
}

#endif
