#include "kernels/avx2/lanes.h"
#include "kernels/avx2/exp.h"

/* Which of the keys t .. t + 7 are in begin .. end - 1. */
static inline __m256 visible(size_t t, size_t begin, size_t end)
{
    const size_t n_before = begin <= t ? 0 : CMI_MIN(begin - t, (size_t)LANES_HALF);
    return _mm256_castsi256_ps(_mm256_andnot_si256(lanes_first(n_before), lanes_left(t, end)));
}

static float row_max(const float *s, size_t begin, size_t end, float scale)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    __m256 max = none;
    for (size_t t = begin / LANES_HALF * LANES_HALF; t < end; t += LANES_HALF) {
        __m256 x = _mm256_blendv_ps(none, _mm256_loadu_ps(s + t), visible(t, begin, end));
        max = _mm256_max_ps(max, x);
    }
    return lanes_max(max) * scale + 0.0f;
}

/* p[t] = exp(fma(s[t], scale, -m_b)) of the visible keys, the others +0, and the sum. */
static float row_exp(const cmi_attn_softmax_args *args, const float *s, float *p, size_t end,
                     float m_b)
{
    const __m256 scale = _mm256_set1_ps(args->scale), shift = _mm256_set1_ps(m_b);
    __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t t = 0; t < args->n_keys; t += LANES_HALF) {
        __m256 e = exp_ps(_mm256_fmsub_ps(_mm256_loadu_ps(s + t), scale, shift));
        e = _mm256_and_ps(e, visible(t, args->n_hidden, end));
        _mm256_storeu_ps(p + t, e);
        __m256 *sum = &sums[t / LANES_HALF % 2];
        *sum = _mm256_add_ps(*sum, e);
    }
    return lanes_sum(sums[0], sums[1]);
}

/* m, l, alpha and beta of up to 8 rows; a row past n is not touched. */
static inline void merge(__m256 m_b, __m256 l_b, float *m, float *l, size_t n, __m256 *alpha_out,
                         __m256 *beta_out)
{
    const __m256 none = _mm256_set1_ps(-INFINITY);
    const __m256 old_m = lanes_load(m, 0, n), old_l = lanes_load(l, 0, n);
    const __m256 empty = _mm256_cmp_ps(m_b, none, _CMP_EQ_OQ);
    const __m256 max = _mm256_max_ps(m_b, old_m);
    const __m256 alpha = exp_ps(_mm256_sub_ps(old_m, max));
    const __m256 beta = exp_ps(_mm256_sub_ps(m_b, max));
    const __m256 sum = _mm256_fmadd_ps(old_l, alpha, _mm256_mul_ps(l_b, beta));
    lanes_store(m, 0, n, _mm256_blendv_ps(max, old_m, empty));
    lanes_store(l, 0, n, _mm256_blendv_ps(sum, old_l, empty));
    *alpha_out = _mm256_blendv_ps(alpha, _mm256_set1_ps(1.0f), empty);
    *beta_out = _mm256_andnot_ps(empty, beta);
}

/* bf16: rows of weights pass through a buffer. */
static CMI_ALWAYS_INLINE void softmax(const cmi_attn_softmax_args *args, const bool bf16)
{
    for (size_t row = 0; row < args->n_rows; row += LANES_HALF) {
        const size_t n = CMI_MIN(args->n_rows - row, (size_t)LANES_HALF);
        CMI_ALIGNED(32) float m_b[LANES_HALF] = {0}, l_b[LANES_HALF] = {0};
        for (size_t r = 0; r < n; r++) {
            const float *s = args->s + (row + r) * args->s_stride;
            const size_t end = args->n_visible[row + r], at = (row + r) * args->p_stride;
            float buffer[CMI_ATTN_BLOCK];
            float *p = bf16 ? buffer : (float *)args->p + at;
            m_b[r] = row_max(s, args->n_hidden, end, args->scale);
            l_b[r] = row_exp(args, s, p, end, m_b[r]);
            if (bf16) {
                cmi_round_bf16_avx2(p, args->n_keys, (cmi_bf16 *)args->p + at);
            }
        }
        __m256 alpha, beta;
        merge(_mm256_load_ps(m_b), _mm256_load_ps(l_b), args->m + row, args->l + row, n, &alpha,
              &beta);
        lanes_store(args->alpha + row, 0, n, alpha);
        lanes_store(args->beta + row, 0, n, beta);
    }
}

void cmi_attn_softmax_f32_avx2(const cmi_attn_softmax_args *args)
{
    softmax(args, false);
}

void cmi_attn_softmax_bf16_avx2(const cmi_attn_softmax_args *args)
{
    softmax(args, true);
}

void cmi_attn_merge_avx2(const cmi_attn_merge_args *args)
{
    for (size_t row = 0; row < args->n_rows; row += LANES_HALF) {
        const size_t n = CMI_MIN(args->n_rows - row, (size_t)LANES_HALF);
        CMI_ALIGNED(32) float factors[2][LANES_HALF];
        __m256 alpha, beta;
        merge(lanes_load(args->m_b, row, args->n_rows), lanes_load(args->l_b, row, args->n_rows),
              args->m + row, args->l + row, n, &alpha, &beta);
        _mm256_store_ps(factors[0], alpha);
        _mm256_store_ps(factors[1], beta);
        for (size_t r = 0; r < n; r++) {
            const float *o_b = args->o_b + (row + r) * args->o_stride;
            float *o = args->o + (row + r) * args->o_stride;
            const __m256 old = _mm256_set1_ps(factors[0][r]), new = _mm256_set1_ps(factors[1][r]);
            for (size_t c = 0; c < args->n_cols; c += LANES_HALF) {
                __m256 v = _mm256_mul_ps(lanes_load(o, c, args->n_cols), old);
                v = _mm256_fmadd_ps(lanes_load(o_b, c, args->n_cols), new, v);
                lanes_store(o, c, args->n_cols, v);
            }
        }
    }
}
