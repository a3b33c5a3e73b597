#include "kernels/internal.h"
#include "kernels/ref/attention.h"
#include "kernels/ref/lanes.h"

/* ---- scores -------------------------------------------------------------------------------------
 */

/* sum, and then n inputs of q times those of token t in a key tile, or a value tile. */
typedef size_t tile_at_fn(uint32_t p, size_t t, size_t k);

static float add_f32(float sum, const float *q, const float *tile, tile_at_fn *at, size_t t,
                     size_t n)
{
    for (size_t k = 0; k < n; k++) {
        sum = fmaf(q[k], tile[at(1, t, k)], sum);
    }
    return sum;
}

static float add_bf16(float sum, const cmi_bf16 *q, const cmi_bf16 *tile, tile_at_fn *at, size_t t,
                      size_t n)
{
    for (size_t k = 0; k < n; k += 2) {
        const cmi_bf16 odd = tile[at(2, t, k + 1)], even = tile[at(2, t, k)];
        sum = fmaf(cmi_bf16_to_f32(q[k + 1]), cmi_bf16_to_f32(odd), sum);
        sum = fmaf(cmi_bf16_to_f32(q[k]), cmi_bf16_to_f32(even), sum);
    }
    return sum;
}

void cmi_attn_scores_f32_ref(const cmi_attn_scores_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *q = (const float *)args->q + r * args->q_stride;
        for (size_t t = 0; t < args->n_keys; t++) {
            args->s[r * args->s_stride + t] =
                add_f32(0.0f, q, args->k, cmi_key_tile_at, t, args->n_k);
        }
    }
}

void cmi_attn_scores_bf16_ref(const cmi_attn_scores_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const cmi_bf16 *q = (const cmi_bf16 *)args->q + r * args->q_stride;
        for (size_t t = 0; t < args->n_keys; t++) {
            args->s[r * args->s_stride + t] =
                add_bf16(0.0f, q, args->k, cmi_key_tile_at, t, args->n_k);
        }
    }
}

void cmi_attn_latent_scores_f32_ref(const cmi_attn_latent_scores_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *q = (const float *)args->q + r * args->q_stride;
        for (size_t t = 0; t < args->n_keys; t++) {
            float sum = add_f32(0.0f, q, args->latent, cmi_value_tile_at, t, args->n_latent);
            args->s[r * args->s_stride + t] =
                add_f32(sum, q + args->n_latent, args->rope, cmi_key_tile_at, t, args->n_rope);
        }
    }
}

void cmi_attn_latent_scores_bf16_ref(const cmi_attn_latent_scores_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const cmi_bf16 *q = (const cmi_bf16 *)args->q + r * args->q_stride;
        for (size_t t = 0; t < args->n_keys; t++) {
            float sum = add_bf16(0.0f, q, args->latent, cmi_value_tile_at, t, args->n_latent);
            args->s[r * args->s_stride + t] =
                add_bf16(sum, q + args->n_latent, args->rope, cmi_key_tile_at, t, args->n_rope);
        }
    }
}

/* ---- softmax ------------------------------------------------------------------------------------
 */

/* The greatest visible score, scaled. + 0.0f: see kernels/kernels.h on maxima that are zero. */
static float block_max(const float *s, uint32_t begin, uint32_t end, float scale)
{
    float max = -INFINITY;
    for (size_t t = begin; t < end; t++) {
        max = s[t] > max ? s[t] : max;
    }
    return max * scale + 0.0f;
}

/* alpha and beta of row r; the block's weights go to p, in float32. */
static void softmax_row(const cmi_attn_softmax_args *args, size_t r, float *p)
{
    const float *s = args->s + r * args->s_stride;
    const uint32_t begin = args->n_hidden, end = args->n_visible[r];
    const float m_b = block_max(s, begin, end, args->scale);
    float lanes[CMI_LANES] = {0};
    for (size_t t = 0; t < args->n_keys; t++) {
        const bool visible = begin <= t && t < end;
        p[t] = visible ? cmi_expf_ref(fmaf(s[t], args->scale, -m_b)) : 0.0f;
        lanes[t % CMI_LANES] += p[t];
    }
    cmi_softmax_merge_ref(m_b, cmi_lanes_sum(lanes), &args->m[r], &args->l[r], &args->alpha[r],
                          &args->beta[r]);
}

void cmi_attn_softmax_f32_ref(const cmi_attn_softmax_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        softmax_row(args, r, (float *)args->p + r * args->p_stride);
    }
}

void cmi_attn_softmax_bf16_ref(const cmi_attn_softmax_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        float p[CMI_ATTN_BLOCK];
        softmax_row(args, r, p);
        cmi_round_bf16_ref(p, args->n_keys, (cmi_bf16 *)args->p + r * args->p_stride);
    }
}

/* ---- values -------------------------------------------------------------------------------------
 */

static void add_block(const cmi_attn_values_args *args, size_t r, size_t c, float sum)
{
    float *o = &args->o[r * args->o_stride + c];
    *o = fmaf(sum, args->beta[r], *o * args->alpha[r]);
}

void cmi_attn_values_f32_ref(const cmi_attn_values_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *p = (const float *)args->p + r * args->p_stride;
        for (size_t c = 0; c < args->n_cols; c++) {
            float sum = 0.0f;
            for (size_t t = 0; t < args->n_t; t++) {
                const float *v = args->v[t / CMI_ATTN_TILE];
                sum = fmaf(p[t], v[cmi_value_tile_at(1, t % CMI_ATTN_TILE, c)], sum);
            }
            add_block(args, r, c, sum);
        }
    }
}

void cmi_attn_values_bf16_ref(const cmi_attn_values_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        const cmi_bf16 *p = (const cmi_bf16 *)args->p + r * args->p_stride;
        for (size_t c = 0; c < args->n_cols; c++) {
            float sum = 0.0f;
            for (size_t t = 0; t < args->n_t; t += 2) {
                const cmi_bf16 *v = args->v[t / CMI_ATTN_TILE];
                v += cmi_value_tile_at(2, t % CMI_ATTN_TILE, c);
                sum = fmaf(cmi_bf16_to_f32(p[t + 1]), cmi_bf16_to_f32(v[1]), sum);
                sum = fmaf(cmi_bf16_to_f32(p[t]), cmi_bf16_to_f32(v[0]), sum);
            }
            add_block(args, r, c, sum);
        }
    }
}

void cmi_attn_merge_ref(const cmi_attn_merge_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        float alpha, beta;
        cmi_softmax_merge_ref(args->m_b[r], args->l_b[r], &args->m[r], &args->l[r], &alpha, &beta);
        for (size_t c = r * args->o_stride; c < r * args->o_stride + args->n_cols; c++) {
            args->o[c] = fmaf(args->o_b[c], beta, args->o[c] * alpha);
        }
    }
}
