/* Kernels that treat every element alone: round_bf16, widen_bf16, axpy, rope. */
#include "kernels/avx2/lanes.h"
#include "kernels/avx2/round_bf16.h"

void cmi_round_bf16_avx2(const float *x, uint32_t n, cmi_bf16 *y)
{
    size_t i = 0;
    for (; i + CMI_LANES <= n; i += CMI_LANES) {
        __m256i packed = round_bf16_pack(_mm256_loadu_si256((const __m256i *)(x + i)),
                                         _mm256_loadu_si256((const __m256i *)(x + i + LANES_HALF)));
        _mm256_storeu_si256((__m256i *)(y + i), packed);
    }
    for (; i < n; i++) {
        y[i] = cmi_bf16_from_f32(x[i]);
    }
}

void cmi_widen_bf16_avx2(const cmi_bf16 *x, uint32_t n, float *y)
{
    size_t i = 0;
    for (; i + LANES_HALF <= n; i += LANES_HALF) {
        _mm256_storeu_ps(y + i, lanes_load_bf16(x, i, n));
    }
    for (; i < n; i++) {
        y[i] = cmi_bf16_to_f32(x[i]);
    }
}

void cmi_axpy_avx2(float a, const float *x, uint32_t n, float *y)
{
    const __m256 factor = _mm256_set1_ps(a);
    for (size_t i = 0; i < n; i += LANES_HALF) {
        __m256 v = _mm256_fmadd_ps(factor, lanes_load(x, i, n), lanes_load(y, i, n));
        lanes_store(y, i, n, v);
    }
}

void cmi_rope_avx2(float *x, const float *cos, const float *sin, uint32_t n_pairs)
{
    const size_t n = 2 * (size_t)n_pairs;
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (size_t i = 0; i < n_pairs; i += LANES_HALF / 2) {
        /* four pairs; a second four may be loaded and are not used */
        __m256 c = _mm256_permutevar8x32_ps(lanes_load(cos, i, n_pairs), twice);
        __m256 s = _mm256_permutevar8x32_ps(lanes_load(sin, i, n_pairs), twice);
        __m256 v = lanes_load(x, 2 * i, n);
        __m256 a = _mm256_moveldup_ps(v), b = _mm256_movehdup_ps(v);
        /* even lanes a cos - b sin, odd lanes a sin + b cos */
        __m256 cos_sin = _mm256_blend_ps(c, s, 0xAA), sin_cos = _mm256_blend_ps(s, c, 0xAA);
        lanes_store(x, 2 * i, n, _mm256_fmaddsub_ps(a, cos_sin, _mm256_mul_ps(b, sin_cos)));
    }
}
