/* MLA around the attention itself: the prolog (paper section 6, MLAProlog) and the output
 * projection.
 *
 * The prolog norms, projects down and up, rotates, and writes each row's latent KV into its page.
 * Decode rows get their queries in latent space (q_nope W_UK), so that attention can read KV as it
 * is stored. */
#include "model/forward_internal.h"

/* From row to row of qkv_a_proj's output. */
static size_t qkv_a_stride(const cmi_model_config *c)
{
    return (size_t)c->q_lora_rank + c->kv_lora_rank + c->qk_rope_head_dim;
}

/* n values as operands, and zeros up to n_padded. */
static void write_padded(const cmi_forward *f, const float *from, uint32_t n, void *to,
                         uint32_t n_padded)
{
    cmi_forward_to_operand(f, from, n, to);
    memset(cmi_operand_at(f, to, n), 0, (n_padded - n) * f->value_bytes);
}

static void norm_input(cmi_forward *f, uint32_t row)
{
    cmi_forward_norm_x(f, row, f->layer->input_layernorm, false);
}

void cmi_forward_norm_q_a(cmi_forward *f, uint32_t row, cmi_operand *op, uint32_t op_row)
{
    float *q_a = f->s.qkv_a + row * qkv_a_stride(f->opt.config);
    cmi_norm norm = {
        .weight = f->layer->q_a_layernorm, .eps = (float)CMI_LATENT_NORM_EPS, .buffer = q_a};
    cmi_forward_norm_operand(f, q_a, &norm, op, op_row);
}

void cmi_forward_prepare_kv(cmi_forward *f, uint32_t row, uint8_t *to)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_kv_layout *layout = &f->opt.kv_layout;
    uint32_t rotary = cmi_row_position(f, row) - f->kv_begin;
    float *latent = f->s.qkv_a + row * qkv_a_stride(c) + c->q_lora_rank;
    float *rope = latent + c->kv_lora_rank;
    f->opt.kernels->rmsnorm(latent, f->layer->kv_a_layernorm, (float)CMI_LATENT_NORM_EPS,
                            c->kv_lora_rank, latent);
    f->opt.kernels->rope(rope, cmi_rope_cos(&f->rope, rotary), cmi_rope_sin(&f->rope, rotary),
                         f->rope.n_pairs);
    if (layout->dtype == CMI_DTYPE_I8) {
        float scale;
        f->opt.kernels->quantize_i8(latent, c->kv_lora_rank, to, &scale);
        for (uint32_t i = 0; i < layout->latent_cols; i++) {
            to[i] = i < c->kv_lora_rank ? (uint8_t)(to[i] - CMI_I8_ZERO) : 0;
        }
        memcpy(to + layout->row_scale_offset, &scale, sizeof scale);
    } else {
        write_padded(f, latent, c->kv_lora_rank, to, layout->latent_cols);
    }
    write_padded(f, rope, c->qk_rope_head_dim, to + layout->row_rope_offset, layout->rope_cols);
}

/* Stores rows whose slots share lanes; the first of them does it for all. */
static void store_kv(cmi_forward *f, uint32_t row)
{
    const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row]];
    uint32_t position = cmi_row_position(f, row);
    uint32_t lane = f->opt.kv_layout.slot_lanes;
    if (row > span->row_idx && position % lane != 0) {
        return;
    }
    uint32_t n = CMI_MIN(span->row_idx + span->n_rows - row, lane - position % lane);
    uint8_t *rows = (uint8_t *)f->s.attn.kv_rows + row * f->opt.kv_layout.row_bytes;
    for (uint32_t i = 0; i < n; i++) {
        cmi_forward_prepare_kv(f, row + i, rows + i * f->opt.kv_layout.row_bytes);
    }
    uint32_t page = position / CMI_KV_PAGE_TOKENS;
    cmi_kv_store(&f->opt.kv_layout, cmi_span_page(f, span, page), position % CMI_KV_PAGE_TOKENS,
                 rows, n, page == 0 ? f->kv_begin : 0);
}

static void finish_qkv_a(cmi_forward *f, uint32_t row)
{
    if (row >= f->n_local_rows) {
        cmi_staged_finish_row(f, row);
        return;
    }
    if (f->opt.config->q_lora_rank > 0) {
        cmi_forward_norm_q_a(f, row, &f->s.q_a_op, row);
    }
    store_kv(f, row);
}

void cmi_forward_rotate_heads(const cmi_forward *f, float *nope, uint32_t rotary, uint32_t n_heads,
                              void *to)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_attention_scratch *a = &f->s.attn;
    for (uint32_t head = 0; head < n_heads; head++) {
        float *rope = nope + c->qk_nope_head_dim;
        f->opt.kernels->rope(rope, cmi_rope_cos(&f->rope, rotary), cmi_rope_sin(&f->rope, rotary),
                             f->rope.n_pairs);
        write_padded(f, nope, c->qk_nope_head_dim, to, a->nope_cols);
        write_padded(f, rope, c->qk_rope_head_dim, cmi_operand_at(f, to, a->nope_cols),
                     a->q_cols - a->nope_cols);
        nope = rope + c->qk_rope_head_dim;
        to = cmi_operand_at(f, to, a->q_cols);
    }
}

static void rotate_q(cmi_forward *f, uint32_t row)
{
    const uint32_t n_heads = f->opt.config->num_attention_heads;
    const cmi_attention_scratch *a = &f->s.attn;
    cmi_forward_rotate_heads(f, f->s.q + row * (size_t)f->layer->q_b_proj.n_out,
                             cmi_row_position(f, row) - f->kv_begin, n_heads,
                             cmi_operand_at(f, a->q_op, row * (size_t)n_heads * a->q_cols));
}

/* One head of all decode rows: q_abs = W_UK^T q_nope, beside it the rotated part as it is. */
static void absorb_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    const cmi_model_config *c = f->opt.config;
    const cmi_linear *w_uk_t = &f->layer->w_uk_t;
    const cmi_attention_scratch *a = &f->s.attn;
    uint32_t rank = c->kv_lora_rank, latent_cols = f->opt.kv_layout.latent_cols;
    size_t q_stride = c->num_attention_heads * (size_t)a->q_cols;
    const void *q = cmi_operand_at(f, a->q_op, head * (size_t)a->q_cols);
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
        size_t at =
            cmi_query_row(&f->batch->spans[f->s.row_span[row]], c->num_attention_heads, row, head);
        void *to = cmi_operand_at(f, a->q_abs_op, at * a->abs_cols);
        write_padded(f, q_abs + row * q_abs_stride, rank, to, latent_cols);
        memcpy(cmi_operand_at(f, to, latent_cols),
               cmi_operand_at(f, q, row * q_stride + a->nope_cols),
               (a->abs_cols - latent_cols) * f->value_bytes);
    }
}

/* Down, and what is stored; rows of a staged pass leave for all ranks' heads. */
static void project_down(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_layer_weights *layer = f->layer;
    uint32_t n_rows = f->batch->n_rows;
    cmi_operand_begin(&f->s.operand, layer->qkv_a_proj.dtype, c->hidden_size);
    cmi_forward_each_row(f, n_rows, norm_input);
    cmi_product qkv_a = {.f = f,
                         .linear = &layer->qkv_a_proj,
                         .x = &f->s.operand,
                         .n_rows = n_rows,
                         .y = f->s.qkv_a,
                         .y_stride = qkv_a_stride(c)};
    cmi_forward_product(&qkv_a);
    if (c->q_lora_rank > 0) {
        cmi_operand_begin(&f->s.q_a_op, layer->q_b_proj.dtype, c->q_lora_rank);
    }
    if (f->is_staged) {
        cmi_staged_begin_rows(f);
    }
    cmi_forward_each_row(f, n_rows, finish_qkv_a);
}

void cmi_stage_mla_prolog(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_layer_weights *layer = f->layer;
    uint32_t n_rows = f->n_local_rows;
    bool has_q_a = c->q_lora_rank > 0;
    if (f->batch->n_rows > 0) {
        project_down(f);
    }
    if (f->is_staged) {
        f->status = cmi_staged_send_rows(f);
    }
    if (f->status != CMI_OK || n_rows == 0) {
        return;
    }
    cmi_product q_b = {.f = f,
                       .linear = &layer->q_b_proj,
                       .x = has_q_a ? &f->s.q_a_op : &f->s.operand,
                       .n_rows = n_rows,
                       .y = f->s.q,
                       .y_stride = layer->q_b_proj.n_out};
    cmi_forward_product(&q_b);
    cmi_forward_each_row(f, n_rows, rotate_q);
    if (f->n_decode_rows > 0) {
        cmi_team_run(f->opt.team, absorb_head, f, c->num_attention_heads);
    }
}

static void attention_to_operand(cmi_forward *f, uint32_t row)
{
    cmi_operand *op = &f->s.o_proj_op;
    cmi_forward_write_operand(f, f->s.o + (size_t)row * op->n, op, row);
}

void cmi_stage_output_projection(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_linear *o_proj = &f->layer->o_proj;
    if (f->is_staged) {
        f->status = cmi_staged_take_heads(f);
    }
    if (f->status != CMI_OK || f->batch->n_rows == 0) {
        return;
    }
    cmi_operand_begin(&f->s.o_proj_op, o_proj->dtype, o_proj->n_in);
    cmi_forward_each_row(f, f->batch->n_rows, attention_to_operand);
    cmi_product product = {.f = f,
                           .linear = o_proj,
                           .x = &f->s.o_proj_op,
                           .n_rows = f->batch->n_rows,
                           .y = f->s.x,
                           .y_stride = c->hidden_size,
                           .out = CMI_I8_OUT_ADD};
    cmi_forward_product(&product);
}
