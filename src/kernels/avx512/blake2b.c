/* kernels/avx512/blake2b.c - eight messages at a time, one in each 64-bit lane. */
#include "kernels/blake2b_lanes.h"

#include <immintrin.h>

#include "kernels/internal.h"

enum { LANES = 8 };

#define lanes_add _mm512_add_epi64
#define lanes_xor _mm512_xor_si512
#define lanes_ror32(x) _mm512_ror_epi64(x, 32)
#define lanes_ror24(x) _mm512_ror_epi64(x, 24)
#define lanes_ror16(x) _mm512_ror_epi64(x, 16)
#define lanes_ror63(x) _mm512_ror_epi64(x, 63)

/* Words 0 .. 7 of eight rows: word i of row k becomes lane k of m[i]. */
static inline void turn(const uint8_t *const *rows, size_t at, __m512i m[LANES])
{
    __m512i r[LANES], p[LANES], q[LANES];
    for (int k = 0; k < LANES; k++) {
        r[k] = _mm512_loadu_si512(rows[k] + at);
    }
    for (int k = 0; k < LANES; k += 2) { /* pairs of rows: words 0 2 4 6, words 1 3 5 7 */
        p[k] = _mm512_unpacklo_epi64(r[k], r[k + 1]);
        p[k + 1] = _mm512_unpackhi_epi64(r[k], r[k + 1]);
    }
    for (int i = 0; i < 2; i++) { /* rows 0 .. 3 and 4 .. 7: words (i, i+4) and (i+2, i+6) */
        for (int k = 0; k < LANES; k += 4) {
            q[k + 2 * i] = _mm512_shuffle_i64x2(p[k + i], p[k + 2 + i], 0x88);
            q[k + 2 * i + 1] = _mm512_shuffle_i64x2(p[k + i], p[k + 2 + i], 0xDD);
        }
    }
    for (int i = 0; i < 2; i++) {
        m[i] = _mm512_shuffle_i64x2(q[2 * i], q[4 + 2 * i], 0x88);
        m[i + 4] = _mm512_shuffle_i64x2(q[2 * i], q[4 + 2 * i], 0xDD);
        m[i + 2] = _mm512_shuffle_i64x2(q[2 * i + 1], q[4 + 2 * i + 1], 0x88);
        m[i + 6] = _mm512_shuffle_i64x2(q[2 * i + 1], q[4 + 2 * i + 1], 0xDD);
    }
}

static void compress(cmi_blake2b_states *s, const uint8_t *const *rows, uint64_t n_bytes,
                     bool is_last)
{
    __m512i m[16], v[16];
    turn(rows, 0, m);
    turn(rows, 64, m + 8);
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_load_si512(&s->h[i * LANES]);
        v[i + 8] = _mm512_set1_epi64((long long)cmi_blake2b_iv[i]);
    }
    v[12] = lanes_xor(v[12], _mm512_set1_epi64((long long)n_bytes));
    v[14] = lanes_xor(v[14], _mm512_set1_epi64(is_last ? -1 : 0));
    CMI_BLAKE2B_ROUNDS(v, m)
    for (int i = 0; i < 8; i++) {
        __m512i h = _mm512_load_si512(&s->h[i * LANES]);
        _mm512_store_si512(&s->h[i * LANES], lanes_xor(h, lanes_xor(v[i], v[i + 8])));
    }
}

void cmi_blake2b_avx512(const cmi_blake2b_args *args)
{
    for (uint32_t i = 0; i < args->n_messages; i += LANES) {
        cmi_blake2b_walk(args, i, LANES, compress);
    }
}
