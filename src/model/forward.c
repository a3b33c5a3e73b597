/* The pass as a whole: scratch memory, the table of stages, and what stands before and after the
 * layers. */
#include "model/forward_internal.h"

#include "base/alloc.h"
#include "os/host_memory.h"

/* ---- scratch
 * ------------------------------------------------------------------------------------- */

/* Hands out 64-byte aligned pieces of one block; with base NULL it only counts. */
typedef struct piece_cutter {
    uint8_t *base;
    size_t at;
} piece_cutter;

static void *cut(piece_cutter *cutter, size_t n, size_t item_bytes)
{
    void *piece = cutter->base == NULL ? NULL : cutter->base + cutter->at;
    cutter->at += CMI_ROUND_UP(n * item_bytes, (size_t)CMI_CACHE_LINE);
    return piece;
}

/* Bytes of a row of n values in the largest type that the weights may have; value is the forward's
 * own. */
static size_t operand_bytes(size_t n, size_t value)
{
    return CMI_MAX(n * value, cmi_operand_row_bytes(CMI_DTYPE_I8, n));
}

static cmi_operand cut_operand(piece_cutter *p, size_t rows, size_t n, size_t value)
{
    cmi_operand op = {0};
    op.values = cut(p, rows, operand_bytes(n, value));
    op.scales = cut(p, rows, sizeof *op.scales);
    return op;
}

/* What every worker needs for the query rows that it has at hand. */
static void cut_attention_workers(piece_cutter *p, cmi_attention_scratch *a,
                                  const cmi_forward_options *opt, size_t value)
{
    const cmi_model_config *c = opt->config;
    size_t rows = CMI_ATTENTION_ROWS, latent_cols = opt->kv_layout.latent_cols;
    bool is_i8 = opt->kv_layout.dtype == CMI_DTYPE_I8;
    uint32_t n_workers = cmi_team_size(opt->team);
    a->expanded_cols = CMI_ROUND_UP(c->qk_nope_head_dim + c->v_head_dim, 16u) + 16;
    a->workers = cut(p, n_workers, sizeof *a->workers);
    for (uint32_t i = 0; i < n_workers; i++) {
        cmi_attention_worker w;
        w.scores = cut(p, rows * CMI_ATTN_BLOCK, sizeof(float));
        w.p = cut(p, rows * CMI_ATTN_BLOCK, value);
        w.alpha = cut(p, rows, sizeof(float));
        w.beta = cut(p, rows, sizeof(float));
        w.n_visible = cut(p, rows, sizeof(uint32_t));
        w.pages = cut(p, is_i8 ? CMI_BLOCK_PAGES : 0, cmi_value_tile_bytes(2, latent_cols));
        w.q = cut(p, (size_t)CMI_PREFILL_ROWS * a->q_cols, value);
        w.expanded = cut(p, (size_t)CMI_KV_PAGE_TOKENS * a->expanded_cols, sizeof(float));
        if (a->workers != NULL) {
            a->workers[i] = w;
        }
    }
}

static void cut_decode_attention(piece_cutter *p, cmi_attention_scratch *a,
                                 const cmi_forward_options *opt, size_t value)
{
    size_t rank = opt->config->kv_lora_rank;
    size_t query_rows = (size_t)opt->max_decode_rows * opt->config->num_attention_heads;
    size_t part_rows;
    a->n_parts_max = CMI_DECODE_PARTS * cmi_team_size(opt->team);
    part_rows = (size_t)a->n_parts_max * CMI_ATTENTION_ROWS;
    a->q_abs_op = cut(p, query_rows * a->abs_cols, value);
    a->m = cut(p, query_rows, sizeof(float));
    a->l = cut(p, query_rows, sizeof(float));
    a->o_latent = cut(p, query_rows * rank, sizeof(float));
    a->o_op = cut(p, query_rows * rank, value);
    a->units = cut(p, query_rows, sizeof *a->units);
    a->parts = cut(p, a->n_parts_max, sizeof *a->parts);
    a->part_m = cut(p, part_rows, sizeof(float));
    a->part_l = cut(p, part_rows, sizeof(float));
    a->part_o = cut(p, part_rows * rank, sizeof(float));
}

static void cut_attention(piece_cutter *p, cmi_forward_scratch *s, const cmi_forward_options *opt,
                          size_t value)
{
    const cmi_model_config *c = opt->config;
    const cmi_kv_layout *layout = &opt->kv_layout;
    cmi_attention_scratch *a = &s->attn;
    size_t rows = opt->max_rows;
    size_t decode = opt->max_decode_rows;
    size_t heads = c->num_attention_heads;
    size_t rank = c->kv_lora_rank;
    uint32_t lane = layout->lane_values;
    a->nope_cols = CMI_ROUND_UP(c->qk_nope_head_dim, lane);
    a->q_cols = a->nope_cols + layout->rope_cols;
    a->abs_cols = layout->latent_cols + layout->rope_cols;
    a->key_bytes = cmi_key_tile_bytes(lane, a->q_cols);
    a->value_bytes = cmi_value_tile_bytes(lane, c->v_head_dim);
    s->qkv_a = cut(p, rows * (c->q_lora_rank + rank + c->qk_rope_head_dim), sizeof(float));
    s->q_a_op = cut_operand(p, rows, c->q_lora_rank, value);
    s->o_proj_op = cut_operand(p, rows, heads * c->v_head_dim, value);
    s->q = cut(p, rows * heads * (c->qk_nope_head_dim + c->qk_rope_head_dim), sizeof(float));
    s->q_abs = cut(p, decode * heads * rank, sizeof(float));
    s->latent = cut(p, CMI_EXPAND_TOKENS * rank, sizeof(float));
    s->latent_op = cut_operand(p, CMI_EXPAND_TOKENS, rank, value);
    s->o = cut(p, rows * heads * c->v_head_dim, sizeof(float));
    a->kv_rows = cut(p, rows, layout->row_bytes);
    a->q_op = cut(p, rows * heads * a->q_cols, value);
    a->latent = cut(p, CMI_EXPAND_TOKENS * rank, value);
    a->keys = cut(p, CMI_EXPAND_TILES, a->key_bytes);
    a->values = cut(p, CMI_EXPAND_TILES, a->value_bytes);
    a->head_m = cut(p, heads * rows, sizeof(float));
    a->head_l = cut(p, heads * rows, sizeof(float));
    cut_decode_attention(p, a, opt, value);
    cut_attention_workers(p, a, opt, value);
}

static void cut_ffn(piece_cutter *p, cmi_forward_scratch *s, const cmi_forward_options *opt,
                    size_t value)
{
    const cmi_model_config *c = opt->config;
    size_t rows = opt->max_rows;
    size_t own_pairs = c->n_routed_experts > 0 ? rows * c->num_experts_per_tok : 0;
    size_t pairs = CMI_MAX(own_pairs, opt->exchange != NULL ? opt->exchange->max_arrivals : 0);
    size_t shared = (size_t)c->n_shared_experts * c->moe_intermediate_size;
    size_t moe = c->moe_intermediate_size;
    size_t hidden = c->hidden_size;
    s->tile_values = 2 * (size_t)CMI_FLOAT_TILE_ROWS * CMI_TILE_COLS_MAX;
    s->tile = cut(p, cmi_team_size(opt->team) * s->tile_values, sizeof(float));
    s->gate_logits = cut(p, rows * c->n_routed_experts, sizeof(float));
    s->expert_ids = cut(p, own_pairs, sizeof(uint32_t));
    s->expert_weights = cut(p, own_pairs, sizeof(float));
    s->expert_begin = cut(p, c->n_routed_experts + 2, sizeof(uint32_t));
    s->slot_of = cut(p, own_pairs, sizeof(uint32_t));
    s->groups = cut(p, cmi_team_nodes(opt->team) * (c->n_routed_experts + 1), sizeof *s->groups);
    s->expert_x = cut_operand(p, pairs, hidden, value);
    s->expert_y = cut(p, pairs * hidden, value);
    s->shared_y = cut(p, shared > 0 ? rows * hidden : 0, value);
    s->ffn_act = cut(p, CMI_MAX(pairs * moe, rows * c->intermediate_size), sizeof(float));
    size_t routed_bytes = pairs * operand_bytes(moe, value);
    size_t dense_bytes = rows * operand_bytes(c->intermediate_size, value);
    s->ffn_op.values = cut(p, CMI_MAX(routed_bytes, dense_bytes), 1);
    s->ffn_op.scales = cut(p, CMI_MAX(pairs, rows), sizeof(float));
    s->shared_act = cut(p, rows * shared, sizeof(float));
    s->shared_op = cut_operand(p, rows, shared, value);
}

/* Places everything at base and returns the bytes; base NULL only counts. */
static size_t cut_scratch(cmi_forward_scratch *s, const cmi_forward_options *opt, void *base)
{
    const cmi_model_config *c = opt->config;
    piece_cutter p = {.base = base};
    size_t rows = opt->max_rows;
    size_t value = cmi_dtype_bytes(opt->kv_layout.operand_dtype);
    bool with_mtp = opt->kv_layout.n_layers > c->num_hidden_layers;
    s->x = cut(&p, rows * c->hidden_size, sizeof(float));
    s->normed = cut(&p, rows * c->hidden_size, sizeof(float));
    s->hidden = cut(&p, rows * c->hidden_size, sizeof(float));
    s->operand = cut_operand(&p, CMI_MAX(rows, (size_t)CMI_FORWARD_MAX_HEAD_ROWS),
                             (size_t)c->hidden_size * (with_mtp ? 2 : 1), value);
    s->joined = cut(&p, with_mtp ? 2 * rows * c->hidden_size : 0, sizeof(float));
    s->row_span = cut(&p, rows, sizeof(uint32_t));
    cut_attention(&p, s, opt, value);
    cut_ffn(&p, s, opt, value);
    return p.at;
}

uint64_t cmi_forward_estimate_bytes(const cmi_forward_options *opt)
{
    cmi_forward_scratch unused;
    uint64_t rope_bytes =
        (uint64_t)opt->max_positions * opt->config->qk_rope_head_dim * sizeof(float);
    return cut_scratch(&unused, opt, NULL) + rope_bytes + cmi_staged_estimate_bytes(opt);
}

static void choose_attention_kernels(cmi_forward *f)
{
    const cmi_kernels *k = f->opt.kernels;
    if (f->dtype == CMI_DTYPE_BF16) {
        f->attn = (cmi_attention_kernels){k->attn_scores_bf16,    k->attn_latent_scores_bf16,
                                          k->attn_softmax_bf16,   k->attn_values_bf16,
                                          k->attn_pack_keys_bf16, k->attn_pack_values_bf16};
    } else {
        f->attn = (cmi_attention_kernels){k->attn_scores_f32,    k->attn_latent_scores_f32,
                                          k->attn_softmax_f32,   k->attn_values_f32,
                                          k->attn_pack_keys_f32, k->attn_pack_values_f32};
    }
}

cmi_status cmi_forward_create(cmi_forward **forward_out, const cmi_forward_options *opt,
                              cmi_error *err)
{
    cmi_forward *f = cmi_alloc(1, sizeof *f);
    f->opt = *opt;
    f->dtype = opt->kv_layout.operand_dtype;
    f->value_bytes = cmi_dtype_bytes(f->dtype);
    f->softmax_scale = cmi_rope_softmax_scale(opt->config);
    choose_attention_kernels(f);
    f->scratch_bytes = cut_scratch(&f->s, opt, NULL);
    cmi_status st = cmi_host_memory_map(&f->scratch_block, f->scratch_bytes, "step scratch", err);
    if (st != CMI_OK) {
        cmi_free(f);
        return st;
    }
    memset(f->scratch_block, 0, f->scratch_bytes); /* its pages are taken now, not in a step */
    cut_scratch(&f->s, opt, f->scratch_block);
    if (opt->stage != NULL && (st = cmi_staged_create(&f->staged, opt, err)) != CMI_OK) {
        cmi_host_memory_unmap(f->scratch_block, f->scratch_bytes);
        cmi_free(f);
        return st;
    }
    cmi_rope_init(&f->rope, opt->config, opt->max_positions);
    *forward_out = f;
    return CMI_OK;
}

void cmi_forward_destroy(cmi_forward *f)
{
    if (f != NULL) {
        cmi_rope_deinit(&f->rope);
        cmi_staged_destroy(f->staged);
        cmi_host_memory_unmap(f->scratch_block, f->scratch_bytes);
        cmi_free(f);
    }
}

/* ---- before and after the layers
 * ------------------------------------------------------------------- */

static void look_up(const cmi_forward *f, uint32_t row, float *to)
{
    const cmi_linear *embed = &f->opt.weights->embed;
    size_t at = f->batch->token_ids[row] * embed->stride;
    if (embed->dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->widen_bf16((const cmi_bf16 *)embed->w + at, embed->n_in, to);
    } else {
        memcpy(to, (const float *)embed->w + at, embed->n_in * sizeof *to);
    }
}

static void embed_row(cmi_forward *f, uint32_t row)
{
    look_up(f, row, f->s.x + (size_t)row * f->opt.config->hidden_size);
}

/* The MTP layer's input: [enorm(embedding of the token); hnorm(hidden state before it)]. */
static void join_mtp_row(cmi_forward *f, uint32_t row)
{
    const cmi_mtp_weights *mtp = f->opt.weights->mtp;
    uint32_t n = f->opt.config->hidden_size;
    float eps = (float)f->opt.config->rms_norm_eps;
    float *joined = f->s.joined + 2 * (size_t)row * n;
    look_up(f, row, joined);
    f->opt.kernels->rmsnorm(joined, mtp->enorm, eps, n, joined);
    f->opt.kernels->rmsnorm(f->batch->mtp_hidden + (size_t)row * n, mtp->hnorm, eps, n, joined + n);
    cmi_forward_write_operand(f, joined, &f->s.operand, row);
}

static void embed_mtp_rows(cmi_forward *f)
{
    const cmi_linear *eh_proj = &f->opt.weights->mtp->eh_proj;
    uint32_t hidden = f->opt.config->hidden_size;
    cmi_operand_begin(&f->s.operand, eh_proj->dtype, 2 * hidden);
    cmi_forward_each_row(f, f->batch->n_rows, join_mtp_row);
    cmi_product product = {.f = f,
                           .linear = eh_proj,
                           .x = &f->s.operand,
                           .n_rows = f->batch->n_rows,
                           .y = f->s.x,
                           .y_stride = hidden};
    cmi_forward_product(&product);
}

void cmi_forward_final_norm(const cmi_forward *f, const float *x, float *to)
{
    const cmi_weights *w = f->opt.weights;
    const float *weight = f->batch->mtp_hidden != NULL ? w->mtp->head_norm : w->norm;
    f->opt.kernels->rmsnorm(x, weight, (float)f->opt.config->rms_norm_eps,
                            f->opt.config->hidden_size, to);
}

static void final_norm_row(cmi_forward *f, uint32_t row)
{
    const size_t at = (size_t)row * f->opt.config->hidden_size;
    cmi_forward_final_norm(f, f->s.x + at, f->s.hidden + at);
}

static void enter_layer(cmi_forward *f)
{
    const cmi_weights *w = f->opt.weights;
    bool is_main = f->layer_idx < f->opt.config->num_hidden_layers;
    f->layer = is_main ? &w->layers[f->layer_idx] : &w->mtp->layer;
}

void cmi_forward_begin(cmi_forward *f, const cmi_batch *batch)
{
    f->batch = batch;
    f->is_staged = batch->is_staged;
    f->n_local_rows = batch->n_rows;
    f->n_local_spans = batch->n_spans;
    f->stage_idx = 0;
    f->status = CMI_OK;
    f->heard = f->heard_vote = 0;
    f->n_decode_rows = 0;
    if (f->is_staged) {
        cmi_staged_open(f, batch);
        batch = f->batch;
    }
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const cmi_batch_span *span = &batch->spans[i];
        for (uint32_t row = span->row_idx; row < span->row_idx + span->n_rows; row++) {
            f->s.row_span[row] = i;
        }
        f->n_decode_rows += span->is_prefill ? 0 : span->n_rows;
    }
    if (batch->mtp_hidden == NULL) {
        f->kv_begin = 0;
        f->layer_idx = 0;
        f->layer_end = f->opt.config->num_hidden_layers;
        cmi_forward_each_row(f, batch->n_rows, embed_row);
    } else {
        f->kv_begin = 1;
        f->layer_idx = f->opt.config->num_hidden_layers;
        f->layer_end = f->layer_idx + 1;
        if (batch->n_rows > 0) {
            embed_mtp_rows(f);
        }
    }
    enter_layer(f);
}

/* ---- the stages of a layer
 * ------------------------------------------------------------------------- */

typedef void stage_fn(cmi_forward *f);

static const struct {
    const char *name;
    stage_fn *fn;
} stages[] = {
    [CMI_STAGE_MLA_PROLOG] = {"mla_prolog", cmi_stage_mla_prolog},
    [CMI_STAGE_ATTENTION] = {"attention", cmi_stage_attention},
    [CMI_STAGE_OUTPUT_PROJECTION] = {"output_projection", cmi_stage_output_projection},
    [CMI_STAGE_DENSE_FFN] = {"dense_ffn", cmi_stage_dense_ffn},
    [CMI_STAGE_GATE] = {"gate", cmi_stage_gate},
    [CMI_STAGE_DISPATCH] = {"dispatch", cmi_stage_dispatch},
    [CMI_STAGE_GROUPED_EXPERTS] = {"grouped_experts", cmi_stage_grouped_experts},
    [CMI_STAGE_COMBINE] = {"combine", cmi_stage_combine},
};

static const cmi_stage dense_stages[] = {CMI_STAGE_MLA_PROLOG, CMI_STAGE_ATTENTION,
                                         CMI_STAGE_OUTPUT_PROJECTION, CMI_STAGE_DENSE_FFN};

static const cmi_stage moe_stages[] = {
    CMI_STAGE_MLA_PROLOG, CMI_STAGE_ATTENTION, CMI_STAGE_OUTPUT_PROJECTION,
    CMI_STAGE_GATE,       CMI_STAGE_DISPATCH,  CMI_STAGE_GROUPED_EXPERTS,
    CMI_STAGE_COMBINE};

const char *cmi_stage_name(cmi_stage stage)
{
    return stages[stage].name;
}

cmi_stage cmi_forward_next_stage(const cmi_forward *f)
{
    return f->layer->is_moe ? moe_stages[f->stage_idx] : dense_stages[f->stage_idx];
}

/* Without rows of its own a rank computes for others only. */
static bool has_work(const cmi_forward *f, cmi_stage stage)
{
    return f->batch->n_rows > 0 || (f->is_staged && stage <= CMI_STAGE_OUTPUT_PROJECTION) ||
           stage == CMI_STAGE_DISPATCH || stage == CMI_STAGE_GROUPED_EXPERTS ||
           stage == CMI_STAGE_COMBINE;
}

cmi_status cmi_forward_advance(cmi_forward *f)
{
    uint32_t n_stages = f->layer->is_moe ? CMI_LEN(moe_stages) : CMI_LEN(dense_stages);
    cmi_stage stage = cmi_forward_next_stage(f);
    if (has_work(f, stage)) {
        stages[stage].fn(f);
    }
    if (f->status != CMI_OK) {
        return f->status;
    }
    if (++f->stage_idx < n_stages) {
        return CMI_IN_PROGRESS;
    }
    f->stage_idx = 0;
    f->layer_idx++;
    if (f->batch->n_layers_done != NULL) {
        atomic_store_explicit(f->batch->n_layers_done, f->layer_idx, memory_order_release);
    }
    if (f->layer_idx < f->layer_end) {
        enter_layer(f);
        return CMI_IN_PROGRESS;
    }
    if (f->is_staged) {
        return f->status = cmi_staged_close(f);
    }
    cmi_forward_each_row(f, f->batch->n_rows, final_norm_row);
    return CMI_OK;
}

cmi_status cmi_forward_run(cmi_forward *f, const cmi_batch *batch)
{
    cmi_status st = CMI_IN_PROGRESS;
    cmi_forward_begin(f, batch);
    while (st == CMI_IN_PROGRESS) {
        st = cmi_forward_advance(f);
    }
    return st;
}

uint32_t cmi_forward_heard(const cmi_forward *f)
{
    return f->heard;
}

uint32_t cmi_forward_heard_vote(const cmi_forward *f)
{
    return f->heard_vote;
}

const float *cmi_forward_hidden(const cmi_forward *f)
{
    return f->s.hidden;
}

void cmi_forward_logits(cmi_forward *f, const float *hidden, uint32_t n, float *logits_out)
{
    const cmi_linear *head = &f->opt.weights->lm_head;
    size_t width = f->opt.config->hidden_size;
    cmi_operand_begin(&f->s.operand, head->dtype, (uint32_t)width);
    for (uint32_t i = 0; i < n; i++) {
        cmi_forward_write_operand(f, hidden + i * width, &f->s.operand, i);
    }
    cmi_product product = {.f = f,
                           .linear = head,
                           .x = &f->s.operand,
                           .n_rows = n,
                           .y = logits_out,
                           .y_stride = head->n_out};
    cmi_forward_product(&product);
}
