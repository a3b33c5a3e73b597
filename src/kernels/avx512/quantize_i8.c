#include <math.h>

#include "kernels/avx512/lanes.h"

/* What turns a row of the greatest magnitude amax into bytes; see cmi_quantize_i8_ref. */
typedef struct i8_scale {
    float inverse, scale;
} i8_scale;

static i8_scale scale_of(__m512 amax_lanes)
{
    const float amax = _mm512_reduce_max_ps(amax_lanes);
    const bool is_zero = amax < 1e-30f;
    return (i8_scale){is_zero ? 0.0f : 127.0f / amax, is_zero ? 0.0f : amax / 127.0f};
}

/* The conversion rounds as rintf does. */
static inline __m128i quantized(__m512 v, __m512 inverse)
{
    __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
    __m128i bytes = _mm512_cvtepi32_epi8(q);
    return _mm_xor_si128(bytes, _mm_set1_epi8((char)CMI_I8_ZERO)); /* + 128 */
}

/* The greatest magnitudes, in four vectors side by side: one would wait for itself. */
static __m512 amax_lanes_of(const float *x, size_t n)
{
    enum { N_VECTORS = 4 };
    __m512 maxima[N_VECTORS] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                                _mm512_setzero_ps()};
    size_t i = 0;
    for (; i + N_VECTORS * CMI_LANES <= n; i += N_VECTORS * CMI_LANES) {
        for (size_t v = 0; v < N_VECTORS; v++) {
            __m512 x_lanes = _mm512_loadu_ps(x + i + v * CMI_LANES);
            maxima[v] = _mm512_max_ps(maxima[v], _mm512_abs_ps(x_lanes));
        }
    }
    for (; i < n; i += CMI_LANES) {
        __m512 x_lanes = _mm512_maskz_loadu_ps(lanes_left(i, n), x + i);
        maxima[0] = _mm512_max_ps(maxima[0], _mm512_abs_ps(x_lanes));
    }
    return _mm512_max_ps(_mm512_max_ps(maxima[0], maxima[1]), _mm512_max_ps(maxima[2], maxima[3]));
}

void cmi_quantize_i8_avx512(const float *x, uint32_t n, uint8_t *q, float *scale_out)
{
    const i8_scale s = scale_of(amax_lanes_of(x, n));
    const __m512 inverse = _mm512_set1_ps(s.inverse);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        _mm_mask_storeu_epi8(q + i, mask, quantized(_mm512_maskz_loadu_ps(mask, x + i), inverse));
    }
    *scale_out = s.scale;
}

static inline __m512 normed(const float *x, const float *w, __m512 scale, __mmask16 mask)
{
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), scale),
                         _mm512_maskz_loadu_ps(mask, w));
}

void cmi_rmsnorm_quantize_i8_avx512(const float *x, const float *w, float eps, uint32_t n, float *y,
                                    uint8_t *q, float *scale_out)
{
    __m512 lanes = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_left(i, n), x + i);
        lanes = _mm512_fmadd_ps(v, v, lanes);
    }
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(lanes_sum(lanes) / (float)n + eps));
    __m512 amax = _mm512_setzero_ps();
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = normed(x + i, w + i, scale, mask);
        amax = _mm512_max_ps(amax, _mm512_abs_ps(v));
        if (y != NULL) {
            _mm512_mask_storeu_ps(y + i, mask, v);
        }
    }
    const i8_scale s = scale_of(amax);
    const __m512 inverse = _mm512_set1_ps(s.inverse);
    for (size_t i = 0; i < n; i += CMI_LANES) {
        __mmask16 mask = lanes_left(i, n);
        __m512 v = normed(x + i, w + i, scale, mask);
        _mm_mask_storeu_epi8(q + i, mask, quantized(v, inverse));
    }
    *scale_out = s.scale;
}
