/* Attention of prefill rows, expanded (paper 8.1): stored rows are turned into keys and values of
 * every head, and all rows of the span attend to them.
 *
 * Pages are expanded in groups, some heads at a time, so that the tiles of a group stay in the
 * caches; a group is two runs of the team, one task for a page of a head to expand it, then one for
 * some rows of a head to attend. */
#include <math.h>

#include "model/forward_internal.h"

/* Pages of a span that are expanded together, for heads head .. head + n_heads - 1, which count
 * from heads->first on. */
typedef struct page_group {
    cmi_forward *f;
    const cmi_batch_span *span;
    const cmi_prefill_heads *heads;
    uint32_t begin;  /* position of the first key */
    uint32_t n_keys; /* that are stored */
    uint32_t n_pages;
    uint32_t head, n_heads;
} page_group;

static uint8_t *key_tile(const page_group *g, uint32_t head, uint32_t page)
{
    const cmi_attention_scratch *a = &g->f->s.attn;
    return a->keys + ((head - g->head) * (size_t)g->n_pages + page) * a->key_bytes;
}

static uint8_t *value_tile(const page_group *g, uint32_t head, uint32_t page)
{
    const cmi_attention_scratch *a = &g->f->s.attn;
    return a->values + ((head - g->head) * (size_t)g->n_pages + page) * a->value_bytes;
}

static const uint8_t *stored_page(const page_group *g, uint32_t page)
{
    const uint32_t page_idx = g->begin / CMI_KV_PAGE_TOKENS + page;
    return g->span->page_ids != NULL ? cmi_span_page(g->f, g->span, page_idx)
                                     : g->heads->pages + page_idx * g->f->opt.kv_layout.layer_bytes;
}

/* ---- expansion ---------------------------------------------------------------------------------
 */

enum { LOAD_TOKENS = 16 /* of a task */ };

/* Some stored rows of the group, as operands for kv_b_proj. */
static void load_latent(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const page_group *g = arg;
    cmi_forward *f = g->f;
    uint32_t rank = f->opt.config->kv_lora_rank, t = task * LOAD_TOKENS;
    uint32_t n = CMI_MIN(g->n_keys - t, (uint32_t)LOAD_TOKENS);
    void *rows = cmi_operand_at(f, f->s.attn.latent, t * (size_t)rank);
    if (f->opt.kv_layout.dtype == CMI_DTYPE_I8 && f->s.latent_op.dtype == CMI_DTYPE_I8) {
        for (uint32_t i = t; i < t + n; i++) { /* stored as kv_b_proj wants them */
            f->s.latent_op.scales[i] =
                cmi_kv_load_quantized(&f->opt.kv_layout, stored_page(g, i / CMI_KV_PAGE_TOKENS),
                                      i % CMI_KV_PAGE_TOKENS, cmi_operand_row(&f->s.latent_op, i));
        }
        return;
    }
    cmi_kv_load_latent(&f->opt.kv_layout, stored_page(g, t / CMI_KV_PAGE_TOKENS),
                       t % CMI_KV_PAGE_TOKENS, n, rows, rank);
    for (uint32_t i = 0; i < n && f->s.latent_op.dtype == CMI_DTYPE_I8; i++) {
        float *wide = f->s.latent + (t + i) * (size_t)rank;
        f->opt.kernels->widen_bf16(cmi_operand_at(f, rows, i * (size_t)rank), rank, wide);
        cmi_forward_write_operand(f, wide, &f->s.latent_op, t + i);
    }
}

static void load_group(page_group *g)
{
    cmi_forward *f = g->f;
    const cmi_linear *kv_b = &f->layer->kv_b_proj;
    cmi_operand_begin(&f->s.latent_op, kv_b->dtype, kv_b->n_in);
    cmi_team_run(f->opt.team, load_latent, g, CMI_DIV_UP(g->n_keys, (uint32_t)LOAD_TOKENS));
}

/* A head's columns of kv_b_proj times the stored rows of a page, in the worker's scratch: row after
 * row expanded_cols apart. Products begin at whole blocks of INT8 weights, so some columns of the
 * head before may come first. Returns the head's own first column. */
static const float *expand_head(const page_group *g, uint32_t head, uint32_t page, uint32_t n_keys,
                                uint32_t worker)
{
    cmi_forward *f = g->f;
    const cmi_linear *kv_b = &f->layer->kv_b_proj;
    uint32_t width = f->opt.config->qk_nope_head_dim + f->opt.config->v_head_dim;
    uint32_t first = (g->heads->first + head) * width, skip = first % CMI_I8_BLOCK_COLS;
    float *y = f->s.attn.workers[worker].expanded;
    cmi_operand stored = f->s.latent_op;
    if (kv_b->dtype != CMI_DTYPE_I8) {
        stored.values = f->s.attn.latent;
    }
    for (uint32_t col = first - skip; col < first + width; col += CMI_TILE_COLS_MAX) {
        cmi_linear part = cmi_linear_outputs(kv_b, col, kv_b->n_out - col);
        cmi_product product = {.f = f,
                               .linear = &part,
                               .x = &stored,
                               .x_row = page * (size_t)CMI_KV_PAGE_TOKENS,
                               .n_rows = n_keys,
                               .y = y + (col - (first - skip)),
                               .y_stride = f->s.attn.expanded_cols};
        cmi_product_part(&product, 0, CMI_MIN(first + width - col, (uint32_t)CMI_TILE_COLS_MAX),
                         worker);
    }
    return y + skip;
}

/* One page of one head: its keys, which end with the rope part that all heads share, and values. */
static void expand_task(void *arg, uint32_t task, uint32_t worker)
{
    const page_group *g = arg;
    cmi_forward *f = g->f;
    const cmi_model_config *c = f->opt.config;
    const cmi_kv_layout *layout = &f->opt.kv_layout;
    uint32_t head = g->head + task / g->n_pages, page = task % g->n_pages;
    uint32_t n_keys = CMI_MIN(g->n_keys - page * CMI_KV_PAGE_TOKENS, (uint32_t)CMI_KV_PAGE_TOKENS);
    uint8_t *keys = key_tile(g, head, page);
    cmi_forward_move_on(f, worker);
    const float *expanded = expand_head(g, head, page, n_keys, worker);
    cmi_attn_pack_args pack = {.x = expanded,
                               .tile = keys,
                               .x_stride = f->s.attn.expanded_cols,
                               .n_rows = n_keys,
                               .n_cols = c->qk_nope_head_dim};
    f->attn.pack_keys(&pack);
    memcpy(keys + cmi_key_tile_bytes(layout->lane_values, f->s.attn.nope_cols),
           stored_page(g, page) + layout->rope_offset,
           cmi_key_tile_bytes(layout->lane_values, layout->rope_cols));
    pack.x = expanded + c->qk_nope_head_dim;
    pack.tile = value_tile(g, head, page);
    pack.n_cols = c->v_head_dim;
    f->attn.pack_values(&pack);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

/* Rows row .. row + n_rows - 1 of a head, whose queries are at q. */
typedef struct row_tile {
    const page_group *group;
    const cmi_attention_worker *w;
    const void *q;
    uint32_t head, row, n_rows;
} row_tile;

/* Scores of the n_keys first keys of a block, which starts at key t of the group. */
static void block_scores(const row_tile *tile, uint32_t t, uint32_t n_keys)
{
    const cmi_forward *f = tile->group->f;
    for (uint32_t i = 0; i < n_keys; i += CMI_KV_PAGE_TOKENS) {
        cmi_attn_scores_args args = {
            .q = tile->q,
            .k = key_tile(tile->group, tile->head, (t + i) / CMI_KV_PAGE_TOKENS),
            .s = tile->w->scores + i,
            .q_stride = f->s.attn.q_cols,
            .s_stride = CMI_ATTN_BLOCK,
            .n_rows = tile->n_rows,
            .n_keys = CMI_ROUND_UP(CMI_MIN(n_keys - i, (uint32_t)CMI_KV_PAGE_TOKENS), 16u),
            .n_k = f->s.attn.q_cols};
        f->attn.scores(&args);
    }
}

static void add_values(const row_tile *tile, uint32_t t, uint32_t n_keys)
{
    const cmi_forward *f = tile->group->f;
    const cmi_model_config *c = f->opt.config;
    const cmi_prefill_heads *heads = tile->group->heads;
    size_t o_stride = heads->n * (size_t)c->v_head_dim;
    const void *tiles[CMI_BLOCK_PAGES];
    for (uint32_t i = 0; i < n_keys; i += CMI_KV_PAGE_TOKENS) {
        tiles[i / CMI_KV_PAGE_TOKENS] =
            value_tile(tile->group, tile->head, (t + i) / CMI_KV_PAGE_TOKENS);
    }
    cmi_attn_values_args args = {.p = tile->w->p,
                                 .v = tiles,
                                 .alpha = tile->w->alpha,
                                 .beta = tile->w->beta,
                                 .o = heads->o + tile->row * o_stride +
                                      tile->head * (size_t)c->v_head_dim,
                                 .p_stride = CMI_ATTN_BLOCK,
                                 .o_stride = o_stride,
                                 .n_rows = tile->n_rows,
                                 .n_t = CMI_ROUND_UP(n_keys, f->opt.kv_layout.lane_values),
                                 .n_cols = c->v_head_dim};
    f->attn.values(&args);
}

static uint32_t position_of(const row_tile *tile, uint32_t row)
{
    const cmi_batch_span *span = tile->group->span;
    return span->position + (row - span->row_idx);
}

/* Adds the block at key t of the group, as far as the rows see it. */
static void attend_block(const row_tile *tile, uint32_t t)
{
    const cmi_forward *f = tile->group->f;
    const cmi_prefill_heads *heads = tile->group->heads;
    const cmi_attention_worker *w = tile->w;
    uint32_t begin = tile->group->begin + t;
    uint32_t last = position_of(tile, tile->row + tile->n_rows - 1);
    if (last < begin) {
        return;
    }
    uint32_t n_keys = CMI_MIN(last + 1 - begin, (uint32_t)CMI_ATTN_BLOCK);
    for (uint32_t r = 0; r < tile->n_rows; r++) {
        uint32_t end = position_of(tile, tile->row + r) + 1;
        w->n_visible[r] = end <= begin ? 0 : CMI_MIN(end - begin, n_keys);
    }
    size_t first = tile->head * (size_t)heads->max_rows + tile->row;
    block_scores(tile, t, n_keys);
    cmi_attn_softmax_args softmax = {.s = w->scores,
                                     .p = w->p,
                                     .n_visible = w->n_visible,
                                     .m = heads->m + first,
                                     .l = heads->l + first,
                                     .alpha = w->alpha,
                                     .beta = w->beta,
                                     .s_stride = CMI_ATTN_BLOCK,
                                     .p_stride = CMI_ATTN_BLOCK,
                                     .n_rows = tile->n_rows,
                                     .n_keys = CMI_ROUND_UP(n_keys, 16u),
                                     .n_hidden = begin == 0 ? f->kv_begin : 0,
                                     .scale = f->softmax_scale};
    f->attn.softmax(&softmax);
    add_values(tile, t, n_keys);
}

static void attend_task(void *arg, uint32_t task, uint32_t worker)
{
    const page_group *g = arg;
    const cmi_forward *f = g->f;
    const cmi_attention_worker *w = &f->s.attn.workers[worker];
    uint32_t n_tiles = CMI_DIV_UP(g->span->n_rows, (uint32_t)CMI_PREFILL_ROWS);
    uint32_t head = g->head + task / n_tiles;
    uint32_t row = g->span->row_idx + task % n_tiles * CMI_PREFILL_ROWS;
    uint32_t end = CMI_MIN(row + CMI_PREFILL_ROWS, g->span->row_idx + g->span->n_rows);
    size_t q_cols = f->s.attn.q_cols;
    cmi_forward_move_on(f, worker);
    for (uint32_t r = row; r < end; r++) { /* side by side: strides of 4 KiB collide in the cache */
        size_t from = (r * (size_t)g->heads->n + head) * q_cols;
        memcpy(cmi_operand_at(f, w->q, (r - row) * q_cols), cmi_operand_at(f, g->heads->q_op, from),
               q_cols * f->value_bytes);
    }
    for (uint32_t r = row; r < end; r += CMI_SOFTMAX_ROWS) {
        row_tile tile = {.group = g,
                         .w = w,
                         .q = cmi_operand_at(f, w->q, (r - row) * q_cols),
                         .head = head,
                         .row = r,
                         .n_rows = CMI_MIN(end - r, (uint32_t)CMI_SOFTMAX_ROWS)};
        for (uint32_t t = 0; t < g->n_keys; t += CMI_ATTN_BLOCK) {
            attend_block(&tile, t);
        }
    }
}

/* ---- a span ------------------------------------------------------------------------------------
 */

typedef struct span_rows {
    cmi_forward *f;
    const cmi_batch_span *span;
    const cmi_prefill_heads *heads;
} span_rows;

/* Before the first key: nothing seen, nothing summed. */
static void start_row(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const span_rows *s = arg;
    const cmi_prefill_heads *heads = s->heads;
    uint32_t row = s->span->row_idx + task;
    size_t width = heads->n * (size_t)s->f->opt.config->v_head_dim;
    for (uint32_t head = 0; head < heads->n; head++) {
        size_t at = head * (size_t)heads->max_rows + row;
        heads->m[at] = -INFINITY;
        heads->l[at] = 0.0f;
    }
    memset(heads->o + row * width, 0, width * sizeof(float));
}

static void finish_row(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const span_rows *s = arg;
    const cmi_prefill_heads *heads = s->heads;
    const uint32_t n = s->f->opt.config->v_head_dim;
    uint32_t row = s->span->row_idx + task;
    for (uint32_t head = 0; head < heads->n; head++) {
        cmi_attention_divide(heads->o + (row * (size_t)heads->n + head) * n,
                             heads->l[head * (size_t)heads->max_rows + row], n);
    }
}

void cmi_attend_prefill_span(cmi_forward *f, const cmi_batch_span *span,
                             const cmi_prefill_heads *heads)
{
    uint32_t n_stored = span->position + span->n_rows;
    uint32_t n_row_tiles = CMI_DIV_UP(span->n_rows, (uint32_t)CMI_PREFILL_ROWS);
    span_rows rows = {f, span, heads};
    cmi_team_run(f->opt.team, start_row, &rows, span->n_rows);
    for (uint32_t begin = 0; begin < n_stored; begin += CMI_EXPAND_TOKENS) {
        page_group g = {.f = f, .span = span, .heads = heads, .begin = begin};
        g.n_keys = CMI_MIN(n_stored - begin, (uint32_t)CMI_EXPAND_TOKENS);
        g.n_pages = CMI_DIV_UP(g.n_keys, (uint32_t)CMI_KV_PAGE_TOKENS);
        load_group(&g);
        for (; g.head < heads->n; g.head += g.n_heads) {
            g.n_heads = CMI_MIN(heads->n - g.head, CMI_EXPAND_TILES / g.n_pages);
            cmi_team_run(f->opt.team, expand_task, &g, g.n_heads * g.n_pages);
            cmi_team_run(f->opt.team, attend_task, &g, g.n_heads * n_row_tiles);
        }
    }
    cmi_team_run(f->opt.team, finish_row, &rows, span->n_rows);
}
