#include "kernels/avx512/attn_softmax.h"

static inline void store(void *p, size_t t, __m512 first, __m512 second, uint32_t n_vectors)
{
    _mm512_storeu_ps((float *)p + t, first);
    if (n_vectors > 1) {
        _mm512_storeu_ps((float *)p + t + CMI_LANES, second);
    }
}

void cmi_attn_softmax_f32_avx512(const cmi_attn_softmax_args *args)
{
    softmax(args, store, sizeof(float));
}

void cmi_attn_merge_avx512(const cmi_attn_merge_args *args)
{
    for (size_t row = 0; row < args->n_rows; row += CMI_LANES) {
        const size_t n_rows = CMI_MIN(args->n_rows - row, (size_t)CMI_LANES);
        const __mmask16 rows = lanes_first(n_rows);
        CMI_ALIGNED(64) float factors[2][CMI_LANES];
        __m512 alpha, beta;
        softmax_merge(_mm512_maskz_loadu_ps(rows, args->m_b + row),
                      _mm512_maskz_loadu_ps(rows, args->l_b + row), rows, args->m + row,
                      args->l + row, &alpha, &beta);
        _mm512_store_ps(factors[0], alpha);
        _mm512_store_ps(factors[1], beta);
        for (size_t r = 0; r < n_rows; r++) {
            const __m512 old = _mm512_set1_ps(factors[0][r]), new = _mm512_set1_ps(factors[1][r]);
            const float *o_b = args->o_b + (row + r) * args->o_stride;
            float *o = args->o + (row + r) * args->o_stride;
            for (size_t c = 0; c < args->n_cols; c += CMI_LANES) {
                const __mmask16 mask = lanes_left(c, args->n_cols);
                __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, o + c), old);
                v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, o_b + c), new, v);
                _mm512_mask_storeu_ps(o + c, mask, v);
            }
        }
    }
}
