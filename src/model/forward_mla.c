/* MLA around the attention itself: the prolog (paper section 6, MLAProlog) and the output
 * projection.
 *
 * The prolog norms, projects down and up, rotates, and writes each row's latent KV into its page.
 * Decode rows get their queries in latent space (q_nope W_UK), so that attention can read KV as it
 * is stored. */
#include "model/forward_internal.h"

static void norm_input(cmi_forward *f, uint32_t row)
{
    cmi_forward_norm_x(f, row, f->layer->input_layernorm);
}

static void norm_q_a(cmi_forward *f, uint32_t row)
{
    uint32_t n = f->opt.config->q_lora_rank;
    float *q_a = f->s.q_a + (size_t)row * n;
    f->opt.kernels->rmsnorm(q_a, f->layer->q_a_layernorm, (float)CMI_LATENT_NORM_EPS, n, q_a);
    cmi_forward_to_operand(f, q_a, n, cmi_operand_at(f, f->s.q_a_op, (size_t)row * n));
}

/* Norms the latent part, rotates the key part, and stores both in the row's slot. */
static void store_kv(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row]];
    uint32_t position = cmi_row_position(f, row);
    uint32_t rotary = position - f->kv_begin;
    float *latent = f->s.kv_a + (size_t)row * (c->kv_lora_rank + c->qk_rope_head_dim);
    f->opt.kernels->rmsnorm(latent, f->layer->kv_a_layernorm, (float)CMI_LATENT_NORM_EPS,
                            c->kv_lora_rank, latent);
    f->opt.kernels->rope(latent + c->kv_lora_rank, cmi_rope_cos(&f->rope, rotary),
                         cmi_rope_sin(&f->rope, rotary), f->rope.n_pairs);
    size_t slot = position % CMI_KV_PAGE_TOKENS;
    void *page = cmi_span_page(f, span, position / CMI_KV_PAGE_TOKENS);
    cmi_forward_to_operand(f, latent, f->opt.kv_layout.row_values,
                           cmi_operand_at(f, page, slot * f->opt.kv_layout.row_stride));
}

static void rotate_q(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t head_dim = c->qk_nope_head_dim + c->qk_rope_head_dim;
    uint32_t width = c->num_attention_heads * head_dim;
    uint32_t rotary = cmi_row_position(f, row) - f->kv_begin;
    float *q = f->s.q + (size_t)row * width;
    for (uint32_t head = 0; head < c->num_attention_heads; head++) {
        f->opt.kernels->rope(q + head * head_dim + c->qk_nope_head_dim,
                             cmi_rope_cos(&f->rope, rotary), cmi_rope_sin(&f->rope, rotary),
                             f->rope.n_pairs);
    }
    cmi_forward_to_operand(f, q, width, cmi_operand_at(f, f->s.q_op, (size_t)row * width));
}

/* One head of all decode rows: q_abs = W_UK^T q_nope, beside it the rotated part as it is. */
static void absorb_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    const cmi_model_config *c = f->opt.config;
    const cmi_linear *w_uk_t = &f->layer->w_uk_t;
    uint32_t rank = c->kv_lora_rank;
    size_t head_dim = c->qk_nope_head_dim + c->qk_rope_head_dim;
    size_t q_stride = c->num_attention_heads * head_dim;
    size_t abs_dim = rank + c->qk_rope_head_dim;
    const void *q = cmi_operand_at(f, f->s.q_op, head * head_dim);
    float *q_abs = f->s.q_abs + (size_t)head * rank;
    size_t q_abs_stride = (size_t)c->num_attention_heads * rank;
    cmi_gemm_args args = {.x = q,
                          .w = cmi_operand_at(f, w_uk_t->w, head * rank * w_uk_t->stride),
                          .y = q_abs,
                          .x_stride = q_stride,
                          .w_stride = w_uk_t->stride,
                          .y_stride = q_abs_stride,
                          .n_rows = f->n_decode_rows,
                          .n_cols = rank,
                          .n_k = c->qk_nope_head_dim};
    cmi_forward_gemm(f, f->dtype, &args);
    for (uint32_t row = 0; row < f->n_decode_rows; row++) {
        size_t to = (row * (size_t)c->num_attention_heads + head) * abs_dim;
        cmi_forward_to_operand(f, q_abs + row * q_abs_stride, rank,
                               cmi_operand_at(f, f->s.q_abs_op, to));
        memcpy(cmi_operand_at(f, f->s.q_abs_op, to + rank),
               cmi_operand_at(f, q, row * q_stride + c->qk_nope_head_dim),
               c->qk_rope_head_dim * f->value_bytes);
    }
}

void cmi_stage_mla_prolog(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t n_rows = f->batch->n_rows;
    size_t q_width = c->num_attention_heads * (size_t)(c->qk_nope_head_dim + c->qk_rope_head_dim);
    cmi_forward_each_row(f, n_rows, norm_input);
    cmi_forward_linear(f, &f->layer->kv_a_proj, f->s.operand, c->hidden_size, n_rows, f->s.kv_a,
                       c->kv_lora_rank + c->qk_rope_head_dim);
    cmi_forward_each_row(f, n_rows, store_kv);
    if (c->q_lora_rank > 0) {
        cmi_forward_linear(f, &f->layer->q_a_proj, f->s.operand, c->hidden_size, n_rows, f->s.q_a,
                           c->q_lora_rank);
        cmi_forward_each_row(f, n_rows, norm_q_a);
        cmi_forward_linear(f, &f->layer->q_b_proj, f->s.q_a_op, c->q_lora_rank, n_rows, f->s.q,
                           q_width);
    } else {
        cmi_forward_linear(f, &f->layer->q_b_proj, f->s.operand, c->hidden_size, n_rows, f->s.q,
                           q_width);
    }
    cmi_forward_each_row(f, n_rows, rotate_q);
    if (f->n_decode_rows > 0) {
        cmi_team_run(f->opt.team, absorb_head, f, c->num_attention_heads);
    }
}

static void attention_to_operand(cmi_forward *f, uint32_t row)
{
    uint32_t width = f->opt.config->num_attention_heads * f->opt.config->v_head_dim;
    cmi_forward_to_operand(f, f->s.o + (size_t)row * width, width,
                           cmi_operand_at(f, f->s.o_op, (size_t)row * width));
}

void cmi_stage_output_projection(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    cmi_forward_each_row(f, f->batch->n_rows, attention_to_operand);
    cmi_forward_linear(f, &f->layer->o_proj, f->s.o_op,
                       c->num_attention_heads * (size_t)c->v_head_dim, f->batch->n_rows,
                       f->s.projected, c->hidden_size);
    cmi_forward_each_row(f, f->batch->n_rows, cmi_forward_add_projected);
}
