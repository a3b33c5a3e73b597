/* Attention over paged latent KV, in two forms with one order of reduction.
 *
 * Both walk a sequence's pages from the first to the last with an online softmax, one step a page,
 * so a row's bits depend on its position and the KV alone.
 *
 * Decode rows, absorbed (DeepSeek-V2 2.1.2): scores and values come straight from the stored rows,
 * all heads of a tile against one read of a page; W_UV is applied once at the end.
 *
 * Prefill rows, expanded (paper 8.1): a page is turned into keys and values of every head once, and
 * all rows of the span attend to it before the next page. A page on the diagonal is taken row by
 * row, each with the keys that it may see: were hidden keys given weight zero instead, a row's sums
 * would have as many addends as the chunk has rows. */
#include <math.h>

#include "model/forward_internal.h"

/* ---- decode ------------------------------------------------------------------------------------
 */

/* One tile of heads against one page; alpha and scores are the worker's scratch. */
static void decode_page(cmi_forward *f, uint32_t row, uint32_t head, uint32_t n_heads,
                        const void *kv, uint32_t n_t, float *scores, float *alpha)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_kernels *k = f->opt.kernels;
    size_t row_head = (size_t)row * c->num_attention_heads + head;
    size_t abs_dim = c->kv_lora_rank + c->qk_rope_head_dim;
    cmi_gemm_args args = {.x = cmi_operand_at(f, f->s.q_abs_op, row_head * abs_dim),
                          .w = kv,
                          .y = scores,
                          .x_stride = abs_dim,
                          .w_stride = f->opt.kv_layout.row_stride,
                          .y_stride = CMI_KV_PAGE_TOKENS,
                          .n_rows = n_heads,
                          .n_cols = n_t,
                          .n_k = (uint32_t)abs_dim};
    cmi_forward_gemm(f, f->dtype, &args);
    for (uint32_t i = 0; i < n_heads; i++) {
        alpha[i] = k->softmax_block(scores + i * CMI_KV_PAGE_TOKENS, n_t, f->softmax_scale,
                                    &f->s.softmax_m[row_head + i], &f->s.softmax_l[row_head + i]);
    }
    cmi_attn_values_args values = {.p = scores,
                                   .v = kv,
                                   .alpha = alpha,
                                   .o = f->s.o_latent + row_head * c->kv_lora_rank,
                                   .p_stride = CMI_KV_PAGE_TOKENS,
                                   .v_stride = f->opt.kv_layout.row_stride,
                                   .o_stride = c->kv_lora_rank,
                                   .n_rows = n_heads,
                                   .n_t = n_t,
                                   .n_cols = c->kv_lora_rank};
    (f->dtype == CMI_DTYPE_BF16 ? k->attn_values_bf16 : k->attn_values_f32)(&values);
}

static void scale_row(float *o, float factor, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        o[i] *= factor;
    }
}

static void decode_task(void *arg, uint32_t task, uint32_t worker)
{
    cmi_forward *f = arg;
    const cmi_model_config *c = f->opt.config;
    uint32_t n_tiles = CMI_DIV_UP(c->num_attention_heads, CMI_ATTENTION_TILE);
    uint32_t row = task / n_tiles;
    uint32_t head = task % n_tiles * CMI_ATTENTION_TILE;
    uint32_t n_heads = CMI_MIN(c->num_attention_heads - head, (uint32_t)CMI_ATTENTION_TILE);
    const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row]];
    uint32_t n_keys = cmi_row_position(f, row) + 1;
    float *scores = f->s.scores + (size_t)worker * CMI_ATTENTION_TILE * CMI_KV_PAGE_TOKENS;
    float *alpha = f->s.alpha + (size_t)worker * CMI_ATTENTION_TILE;
    for (uint32_t begin = 0; begin < n_keys; begin += CMI_KV_PAGE_TOKENS) {
        uint32_t skip = begin == 0 ? f->kv_begin : 0;
        uint32_t n_t = CMI_MIN(n_keys - begin, (uint32_t)CMI_KV_PAGE_TOKENS) - skip;
        const void *kv = cmi_operand_at(f, cmi_span_page(f, span, begin / CMI_KV_PAGE_TOKENS),
                                        (size_t)skip * f->opt.kv_layout.row_stride);
        decode_page(f, row, head, n_heads, kv, n_t, scores, alpha);
    }
    for (uint32_t i = head; i < head + n_heads; i++) {
        size_t row_head = (size_t)row * c->num_attention_heads + i;
        float *o = f->s.o_latent + row_head * c->kv_lora_rank;
        scale_row(o, 1.0f / f->s.softmax_l[row_head], c->kv_lora_rank);
        cmi_forward_to_operand(f, o, c->kv_lora_rank,
                               cmi_operand_at(f, f->s.o_op, row_head * c->kv_lora_rank));
    }
}

/* One head of all decode rows: o = W_UV o_latent. */
static void unabsorb_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    const cmi_model_config *c = f->opt.config;
    const cmi_linear *w_uv = &f->layer->w_uv;
    cmi_gemm_args args = {.x = cmi_operand_at(f, f->s.o_op, head * (size_t)c->kv_lora_rank),
                          .w = cmi_operand_at(f, w_uv->w, head * f->layer->w_uv_head_stride),
                          .y = f->s.o + head * (size_t)c->v_head_dim,
                          .x_stride = c->num_attention_heads * (size_t)c->kv_lora_rank,
                          .w_stride = w_uv->stride,
                          .y_stride = c->num_attention_heads * (size_t)c->v_head_dim,
                          .n_rows = f->n_decode_rows,
                          .n_cols = c->v_head_dim,
                          .n_k = c->kv_lora_rank};
    cmi_forward_gemm(f, f->dtype, &args);
}

static void attend_decode_rows(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t n_tiles = CMI_DIV_UP(c->num_attention_heads, CMI_ATTENTION_TILE);
    cmi_team_run(f->opt.team, decode_task, f, f->n_decode_rows * n_tiles);
    cmi_team_run(f->opt.team, unabsorb_head, f, c->num_attention_heads);
}

/* ---- prefill -----------------------------------------------------------------------------------
 */

typedef struct prefill_page {
    cmi_forward *f;
    const cmi_batch_span *span;
    uint32_t first_slot; /* position of the page's first key */
    uint32_t n_keys;     /* keys of this page that are stored */
    const void *kv;      /* first stored row */
} prefill_page;

/* Cuts one head's keys and values out of the expanded page, as operands. */
static void pack_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    const prefill_page *page = arg;
    cmi_forward *f = page->f;
    const cmi_model_config *c = f->opt.config;
    size_t nope = c->qk_nope_head_dim;
    size_t rope = c->qk_rope_head_dim;
    size_t width = nope + c->v_head_dim;
    size_t first = head * (size_t)CMI_KV_PAGE_TOKENS;
    for (uint32_t t = 0; t < page->n_keys; t++) {
        const float *row = f->s.kv_block + (t * c->num_attention_heads + head) * width;
        void *k = cmi_operand_at(f, f->s.k_block_op, (first + t) * (nope + rope));
        cmi_forward_to_operand(f, row, c->qk_nope_head_dim, k);
        memcpy(cmi_operand_at(f, k, nope),
               cmi_operand_at(f, page->kv, t * f->opt.kv_layout.row_stride + c->kv_lora_rank),
               rope * f->value_bytes);
        cmi_forward_to_operand(
            f, row + nope, c->v_head_dim,
            cmi_operand_at(f, f->s.v_block_op, (first + t) * (size_t)c->v_head_dim));
    }
}

/* Rows row .. row+n_rows-1 of one head against the first n_t keys of the page. */
static void prefill_rows(const prefill_page *page, uint32_t head, uint32_t row, uint32_t n_rows,
                         uint32_t n_t, uint32_t worker)
{
    cmi_forward *f = page->f;
    const cmi_model_config *c = f->opt.config;
    const cmi_kernels *k = f->opt.kernels;
    size_t heads = c->num_attention_heads;
    size_t head_dim = c->qk_nope_head_dim + c->qk_rope_head_dim;
    size_t first = head * (size_t)CMI_KV_PAGE_TOKENS;
    float *scores = f->s.scores + (size_t)worker * CMI_ATTENTION_TILE * CMI_KV_PAGE_TOKENS;
    float *alpha = f->s.alpha + (size_t)worker * CMI_ATTENTION_TILE;
    cmi_gemm_args args = {.x = cmi_operand_at(f, f->s.q_op, (row * heads + head) * head_dim),
                          .w = cmi_operand_at(f, f->s.k_block_op, first * head_dim),
                          .y = scores,
                          .x_stride = heads * head_dim,
                          .w_stride = head_dim,
                          .y_stride = CMI_KV_PAGE_TOKENS,
                          .n_rows = n_rows,
                          .n_cols = n_t,
                          .n_k = (uint32_t)head_dim};
    cmi_forward_gemm(f, f->dtype, &args);
    for (uint32_t i = 0; i < n_rows; i++) {
        size_t row_head = (row + i) * heads + head;
        alpha[i] = k->softmax_block(scores + i * CMI_KV_PAGE_TOKENS, n_t, f->softmax_scale,
                                    &f->s.softmax_m[row_head], &f->s.softmax_l[row_head]);
    }
    cmi_attn_values_args values = {.p = scores,
                                   .v = cmi_operand_at(f, f->s.v_block_op, first * c->v_head_dim),
                                   .alpha = alpha,
                                   .o = f->s.o + (row * heads + head) * c->v_head_dim,
                                   .p_stride = CMI_KV_PAGE_TOKENS,
                                   .v_stride = c->v_head_dim,
                                   .o_stride = heads * c->v_head_dim,
                                   .n_rows = n_rows,
                                   .n_t = n_t,
                                   .n_cols = c->v_head_dim};
    (f->dtype == CMI_DTYPE_BF16 ? k->attn_values_bf16 : k->attn_values_f32)(&values);
}

static void prefill_task(void *arg, uint32_t task, uint32_t worker)
{
    const prefill_page *page = arg;
    const cmi_batch_span *span = page->span;
    uint32_t n_tiles = CMI_DIV_UP(span->n_rows, CMI_ATTENTION_TILE);
    uint32_t head = task / n_tiles;
    uint32_t begin = task % n_tiles * CMI_ATTENTION_TILE;
    uint32_t end = CMI_MIN(begin + CMI_ATTENTION_TILE, span->n_rows);
    uint32_t last_slot =
        page->first_slot / CMI_KV_PAGE_TOKENS * CMI_KV_PAGE_TOKENS + CMI_KV_PAGE_TOKENS - 1;
    uint32_t i = begin;
    for (; i < end && span->position + i < last_slot; i++) {
        uint32_t position = span->position + i;
        if (position >= page->first_slot) {
            prefill_rows(page, head, span->row_idx + i, 1, position - page->first_slot + 1, worker);
        }
    }
    if (i < end) {
        prefill_rows(page, head, span->row_idx + i, end - i, page->n_keys, worker);
    }
}

static void finish_prefill_row(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    if (row < f->n_decode_rows) {
        return;
    }
    for (uint32_t head = 0; head < c->num_attention_heads; head++) {
        size_t row_head = (size_t)row * c->num_attention_heads + head;
        scale_row(f->s.o + row_head * c->v_head_dim, 1.0f / f->s.softmax_l[row_head],
                  c->v_head_dim);
    }
}

/* A stored row as INT8, for an INT8 kv_b_proj. */
static void quantize_latent(void *arg, uint32_t t, uint32_t worker)
{
    (void)worker;
    const prefill_page *page = arg;
    cmi_forward *f = page->f;
    uint32_t rank = f->opt.config->kv_lora_rank;
    float *latent = f->s.latent + (size_t)t * rank;
    f->opt.kernels->widen_bf16(cmi_operand_at(f, page->kv, t * (size_t)f->opt.kv_layout.row_stride),
                               rank, latent);
    cmi_forward_write_operand(f, latent, &f->s.latent_op, t);
}

/* kv_block = kv_b_proj of the page's stored rows. */
static void expand_page(prefill_page *page, size_t width)
{
    cmi_forward *f = page->f;
    const cmi_linear *kv_b = &f->layer->kv_b_proj;
    cmi_operand stored = {.values = (void *)(uintptr_t)page->kv,
                          .row_bytes = f->opt.kv_layout.row_stride * f->value_bytes,
                          .n = kv_b->n_in,
                          .dtype = f->dtype};
    cmi_product product = {.f = f,
                           .linear = kv_b,
                           .x = &stored,
                           .n_rows = page->n_keys,
                           .y = f->s.kv_block,
                           .y_stride = width};
    if (kv_b->dtype == CMI_DTYPE_I8) {
        cmi_operand_begin(&f->s.latent_op, CMI_DTYPE_I8, kv_b->n_in);
        cmi_team_run(f->opt.team, quantize_latent, page, page->n_keys);
        product.x = &f->s.latent_op;
    }
    cmi_forward_product(&product);
}

static void attend_prefill_span(cmi_forward *f, const cmi_batch_span *span)
{
    const cmi_model_config *c = f->opt.config;
    size_t width = c->num_attention_heads * (size_t)(c->qk_nope_head_dim + c->v_head_dim);
    uint32_t n_stored = span->position + span->n_rows;
    uint32_t n_tasks =
        c->num_attention_heads * CMI_DIV_UP(span->n_rows, (uint32_t)CMI_ATTENTION_TILE);
    for (uint32_t begin = 0; begin < n_stored; begin += CMI_KV_PAGE_TOKENS) {
        uint32_t skip = begin == 0 ? f->kv_begin : 0;
        prefill_page page = {.f = f, .span = span, .first_slot = begin + skip};
        page.n_keys = CMI_MIN(n_stored - begin, (uint32_t)CMI_KV_PAGE_TOKENS) - skip;
        page.kv = cmi_operand_at(f, cmi_span_page(f, span, begin / CMI_KV_PAGE_TOKENS),
                                 (size_t)skip * f->opt.kv_layout.row_stride);
        expand_page(&page, width);
        cmi_team_run(f->opt.team, pack_head, &page, c->num_attention_heads);
        cmi_team_run(f->opt.team, prefill_task, &page, n_tasks);
    }
}

/* Before the first page: nothing seen, nothing summed. */
static void start_row(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    size_t first = (size_t)row * c->num_attention_heads;
    for (size_t i = first; i < first + c->num_attention_heads; i++) {
        f->s.softmax_m[i] = -INFINITY;
        f->s.softmax_l[i] = 0;
    }
    if (row < f->n_decode_rows) {
        memset(f->s.o_latent + first * c->kv_lora_rank, 0,
               c->num_attention_heads * (size_t)c->kv_lora_rank * sizeof(float));
    } else {
        memset(f->s.o + first * c->v_head_dim, 0,
               c->num_attention_heads * (size_t)c->v_head_dim * sizeof(float));
    }
}

void cmi_stage_attention(cmi_forward *f)
{
    cmi_forward_each_row(f, f->batch->n_rows, start_row);
    if (f->n_decode_rows > 0) {
        attend_decode_rows(f);
    }
    for (uint32_t i = 0; i < f->batch->n_spans; i++) {
        if (f->batch->spans[i].is_prefill) {
            attend_prefill_span(f, &f->batch->spans[i]);
        }
    }
    cmi_forward_each_row(f, f->batch->n_rows, finish_prefill_row);
}
