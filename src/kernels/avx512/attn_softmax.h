/* kernels/avx512/attn_softmax.h - the softmax of a block, 16 rows at a time.
 *
 * Rows first give their maximum, then their weights and the 16 lanes of their sum; the sums of 16
 * rows are then added up together, and 16 rows are merged in one register. */
#ifndef CMI_KERNELS_AVX512_ATTN_SOFTMAX_H
#define CMI_KERNELS_AVX512_ATTN_SOFTMAX_H

#include "kernels/avx512/exp.h"
#include "kernels/avx512/lanes.h"

/* Rounds two registers of weights and writes them as operands from p[t] on; n_vectors is 1 if only
 * the first counts. */
typedef void softmax_store_fn(void *p, size_t t, __m512 first, __m512 second, uint32_t n_vectors);

/* Which of the keys t .. t + 15 are in begin .. end - 1. */
static inline __mmask16 softmax_visible(size_t t, size_t begin, size_t end)
{
    const size_t n_before = begin <= t ? 0 : CMI_MIN(begin - t, (size_t)CMI_LANES);
    const size_t n_until = end <= t ? 0 : CMI_MIN(end - t, (size_t)CMI_LANES);
    return (__mmask16)(lanes_first(n_until) & ~lanes_first(n_before));
}

static inline float softmax_row_max(const float *s, size_t begin, size_t end, float scale)
{
    __m512 max = _mm512_set1_ps(-INFINITY);
    for (size_t t = begin / CMI_LANES * CMI_LANES; t < end; t += CMI_LANES) {
        max = _mm512_mask_max_ps(max, softmax_visible(t, begin, end), max, _mm512_loadu_ps(s + t));
    }
    return _mm512_reduce_max_ps(max) * scale + 0.0f;
}

/* Returns the lanes of the sum. */
static CMI_ALWAYS_INLINE __m512 softmax_row_exp(const cmi_attn_softmax_args *args, const float *s,
                                                void *p, size_t end, float m_b,
                                                softmax_store_fn *store)
{
    const __m512 scale = _mm512_set1_ps(args->scale), shift = _mm512_set1_ps(m_b);
    const size_t begin = args->n_hidden;
    __m512 lanes = _mm512_setzero_ps();
    for (size_t t = 0; t < args->n_keys; t += 2 * CMI_LANES) {
        const uint32_t n_vectors = t + CMI_LANES < args->n_keys ? 2 : 1;
        __m512 e[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (uint32_t i = 0; i < n_vectors; i++) {
            const size_t at = t + i * CMI_LANES;
            __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(s + at), scale, shift);
            e[i] = exp_masked_ps(softmax_visible(at, begin, end), x);
            lanes = _mm512_add_ps(lanes, e[i]);
        }
        store(p, t, e[0], e[1], n_vectors);
    }
    return lanes;
}

/* m, l, alpha and beta of up to 16 rows from row on. */
static inline void softmax_merge(__m512 m_b, __m512 l_b, __mmask16 rows, float *m, float *l,
                                 __m512 *alpha_out, __m512 *beta_out)
{
    const __m512 old_m = _mm512_maskz_loadu_ps(rows, m), old_l = _mm512_maskz_loadu_ps(rows, l);
    const __m512 max = _mm512_max_ps(m_b, old_m);
    const __mmask16 any = _mm512_cmp_ps_mask(m_b, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
    const __m512 alpha = exp_masked_ps(any, _mm512_sub_ps(old_m, max));
    const __m512 beta = exp_masked_ps(any, _mm512_sub_ps(m_b, max));
    const __m512 sum = _mm512_fmadd_ps(old_l, alpha, _mm512_mul_ps(l_b, beta));
    _mm512_mask_storeu_ps(m, rows & any, max);
    _mm512_mask_storeu_ps(l, rows & any, sum);
    *alpha_out = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), any, alpha);
    *beta_out = beta;
}

static CMI_ALWAYS_INLINE void softmax(const cmi_attn_softmax_args *args, softmax_store_fn *store,
                                      const size_t operand_bytes)
{
    CMI_ALIGNED(64) float lanes[CMI_LANES][CMI_LANES] = {{0}};
    CMI_ALIGNED(64) float m_b[CMI_LANES] = {0};
    for (size_t row = 0; row < args->n_rows; row += CMI_LANES) {
        const size_t n_rows = CMI_MIN(args->n_rows - row, (size_t)CMI_LANES);
        const __mmask16 rows = lanes_first(n_rows);
        const float *s = args->s + row * args->s_stride;
        char *p = (char *)args->p + row * args->p_stride * operand_bytes;
        for (size_t r = 0; r < n_rows; r++) {
            m_b[r] = softmax_row_max(s + r * args->s_stride, args->n_hidden,
                                     args->n_visible[row + r], args->scale);
        }
        for (size_t r = 0; r < n_rows; r++) {
            __m512 sums = softmax_row_exp(args, s + r * args->s_stride,
                                          p + r * args->p_stride * operand_bytes,
                                          args->n_visible[row + r], m_b[r], store);
            _mm512_store_ps(lanes[r], sums);
        }
        __m512 alpha, beta;
        softmax_merge(_mm512_maskz_load_ps(rows, m_b), lanes_sum_16(lanes), rows, args->m + row,
                      args->l + row, &alpha, &beta);
        _mm512_mask_storeu_ps(args->alpha + row, rows, alpha);
        _mm512_mask_storeu_ps(args->beta + row, rows, beta);
    }
}

#endif
