/* kernels/avx2/blake2b.c - four messages at a time, one in each 64-bit lane. */
#include "kernels/blake2b_lanes.h"

#include <immintrin.h>

#include "kernels/internal.h"

enum { LANES = 4 };

#define lanes_add _mm256_add_epi64
#define lanes_xor _mm256_xor_si256

static inline __m256i lanes_ror32(__m256i x)
{
    return _mm256_shuffle_epi32(x, 0xB1);
}

/* Rotations by whole bytes are one shuffle. */
static inline __m256i lanes_ror24(__m256i x)
{
    const __m256i from = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3,
                                          4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);
    return _mm256_shuffle_epi8(x, from);
}

static inline __m256i lanes_ror16(__m256i x)
{
    const __m256i from = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2,
                                          3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);
    return _mm256_shuffle_epi8(x, from);
}

static inline __m256i lanes_ror63(__m256i x)
{
    return _mm256_xor_si256(_mm256_add_epi64(x, x), _mm256_srli_epi64(x, 63));
}

static inline __m256i load(const uint8_t *row)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)row);
}

/* Four words of four rows: word i of row k becomes lane k of m[i]. */
static inline void turn(const uint8_t *const *rows, size_t at, __m256i m[LANES])
{
    __m256i a = load(rows[0] + at), b = load(rows[1] + at);
    __m256i c = load(rows[2] + at), d = load(rows[3] + at);
    __m256i ab_even = _mm256_unpacklo_epi64(a, b), ab_odd = _mm256_unpackhi_epi64(a, b);
    __m256i cd_even = _mm256_unpacklo_epi64(c, d), cd_odd = _mm256_unpackhi_epi64(c, d);
    m[0] = _mm256_permute2x128_si256(ab_even, cd_even, 0x20);
    m[1] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x20);
    m[2] = _mm256_permute2x128_si256(ab_even, cd_even, 0x31);
    m[3] = _mm256_permute2x128_si256(ab_odd, cd_odd, 0x31);
}

static void compress(cmi_blake2b_states *s, const uint8_t *const *rows, uint64_t n_bytes,
                     bool is_last)
{
    __m256i m[16], v[16];
    __m256i *h = (__m256i *)(void *)s->h;
    for (int i = 0; i < 16; i += LANES) {
        turn(rows, (size_t)i * sizeof(uint64_t), m + i);
    }
    for (int i = 0; i < 8; i++) {
        v[i] = h[i];
        v[i + 8] = _mm256_set1_epi64x((long long)cmi_blake2b_iv[i]);
    }
    v[12] = lanes_xor(v[12], _mm256_set1_epi64x((long long)n_bytes));
    v[14] = lanes_xor(v[14], _mm256_set1_epi64x(is_last ? -1 : 0));
    CMI_BLAKE2B_ROUNDS(v, m)
    for (int i = 0; i < 8; i++) {
        h[i] = lanes_xor(h[i], lanes_xor(v[i], v[i + 8]));
    }
}

void cmi_blake2b_avx2(const cmi_blake2b_args *args)
{
    for (uint32_t i = 0; i < args->n_messages; i += LANES) {
        cmi_blake2b_walk(args, i, LANES, compress);
    }
}
