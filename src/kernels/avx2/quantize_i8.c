#include <math.h>

#include "kernels/avx2/lanes.h"

/* What turns a row of the greatest magnitude amax into bytes; see cmi_quantize_i8_ref. */
typedef struct i8_scale {
    float inverse, scale;
} i8_scale;

static i8_scale scale_of(__m256 amax_lanes)
{
    __m128 m4 =
        _mm_max_ps(_mm256_castps256_ps128(amax_lanes), _mm256_extractf128_ps(amax_lanes, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    const float amax = _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
    const bool is_zero = amax < 1e-30f;
    return (i8_scale){is_zero ? 0.0f : 127.0f / amax, is_zero ? 0.0f : amax / 127.0f};
}

static inline __m256 magnitude(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

/* The bytes of 8 values in the first 8 of the result. The conversion rounds as rintf does. */
static inline __m128i quantized(__m256 v, __m256 inverse)
{
    __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    __m128i bytes = _mm_packs_epi16(words, words);
    return _mm_xor_si128(bytes, _mm_set1_epi8((char)CMI_I8_ZERO)); /* + 128 */
}

static inline void store_bytes(uint8_t *q, size_t n, __m128i bytes)
{
    if (n >= LANES_HALF) {
        _mm_storel_epi64((__m128i *)q, bytes);
    } else {
        memcpy(q, &bytes, n);
    }
}

void cmi_quantize_i8_avx2(const float *x, uint32_t n, uint8_t *q, float *scale_out)
{
    __m256 amax = _mm256_setzero_ps(), amax_hi = amax;
    for (size_t i = 0; i < n; i += CMI_LANES) {
        amax = _mm256_max_ps(amax, magnitude(lanes_load(x, i, n)));
        amax_hi = _mm256_max_ps(amax_hi, magnitude(lanes_load(x, i + LANES_HALF, n)));
    }
    const i8_scale s = scale_of(_mm256_max_ps(amax, amax_hi));
    const __m256 inverse = _mm256_set1_ps(s.inverse);
    size_t at = 0;
    for (; at + LANES_HALF <= n; at += LANES_HALF) {
        _mm_storel_epi64((__m128i *)(q + at), quantized(_mm256_loadu_ps(x + at), inverse));
    }
    if (at < n) {
        store_bytes(q + at, n - at, quantized(lanes_load(x, at, n), inverse));
    }
    *scale_out = s.scale;
}

static inline __m256 normed(const float *x, const float *w, __m256 scale, size_t i, size_t n)
{
    return _mm256_mul_ps(_mm256_mul_ps(lanes_load(x, i, n), scale), lanes_load(w, i, n));
}

void cmi_rmsnorm_quantize_i8_avx2(const float *x, const float *w, float eps, uint32_t n, float *y,
                                  uint8_t *q, float *scale_out)
{
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __m256 a = lanes_load(x, i, n), b = lanes_load(x, i + LANES_HALF, n);
        lo = _mm256_fmadd_ps(a, a, lo);
        hi = _mm256_fmadd_ps(b, b, hi);
    }
    const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(lanes_sum(lo, hi) / (float)n + eps));
    __m256 amax = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += LANES_HALF) {
        __m256 v = normed(x, w, scale, i, n);
        amax = _mm256_max_ps(amax, magnitude(v));
        if (y != NULL) {
            lanes_store(y, i, n, v);
        }
    }
    const i8_scale s = scale_of(amax);
    const __m256 inverse = _mm256_set1_ps(s.inverse);
    for (size_t i = 0; i < n; i += LANES_HALF) {
        store_bytes(q + i, n - i, quantized(normed(x, w, scale, i, n), inverse));
    }
    *scale_out = s.scale;
}
