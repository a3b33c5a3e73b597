/* Attention of decode rows, absorbed (DeepSeek-V2 2.1.2): scores and values come straight from the
 * stored rows; W_UV is applied once at the end.
 *
 * A task takes up to 64 query rows, heads times rows of a span, so that a page is read once for all
 * of them. With enough sequences a task walks all blocks of its query rows. With few, or one that
 * is much longer than the others, blocks become tasks: they are computed apart, some for each
 * thread, and then merged in their order, which has the same bits. */
#include <math.h>

#include "model/forward_internal.h"

/* Where the query rows of a task add up. */
typedef struct decode_sums {
    float *m, *l, *o;
} decode_sums;

static decode_sums unit_sums(const cmi_forward *f, const cmi_decode_unit *unit)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_attention_scratch *a = &f->s.attn;
    size_t first = cmi_query_row(unit->span, c->num_attention_heads, unit->row, unit->head);
    return (decode_sums){a->m + first, a->l + first, a->o_latent + first * c->kv_lora_rank};
}

static decode_sums part_sums(const cmi_forward *f, uint32_t part)
{
    const cmi_attention_scratch *a = &f->s.attn;
    size_t first = part * (size_t)CMI_ATTENTION_ROWS;
    return (decode_sums){a->part_m + first, a->part_l + first,
                         a->part_o + first * f->opt.config->kv_lora_rank};
}

static uint32_t n_query_rows(const cmi_decode_unit *unit)
{
    return unit->n_heads * unit->n_rows;
}

static uint32_t n_blocks(const cmi_decode_unit *unit)
{
    return CMI_DIV_UP(unit->n_keys, (uint32_t)CMI_ATTN_BLOCK);
}

static void clear_sums(const cmi_forward *f, decode_sums sums, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        sums.m[i] = -INFINITY;
        sums.l[i] = 0.0f;
    }
    memset(sums.o, 0, n * (size_t)f->opt.config->kv_lora_rank * sizeof *sums.o);
}

/* The latent tile of a stored page as operands; INT8 goes through the worker's scratch, where page
 * number i of a block has its place. */
static const void *latent_tile(const cmi_forward *f, const cmi_attention_worker *w,
                               const uint8_t *kv, uint32_t i, uint32_t n_keys)
{
    const cmi_kv_layout *layout = &f->opt.kv_layout;
    if (layout->dtype != CMI_DTYPE_I8) {
        return kv;
    }
    uint8_t *tile = w->pages + i * cmi_value_tile_bytes(2, layout->latent_cols);
    cmi_attn_dequantize_args args = {.q = kv,
                                     .scales = (const void *)(kv + layout->scales_offset),
                                     .tile = tile,
                                     .n_t = n_keys,
                                     .n_cols = layout->latent_cols};
    f->opt.kernels->attn_dequantize_i8(&args);
    return tile;
}

/* Scores of a block, page by page. Returns the keys that the unit's last row sees in it. */
static uint32_t block_scores(const cmi_forward *f, const cmi_decode_unit *unit, uint32_t block,
                             const cmi_attention_worker *w, const void *tiles[CMI_BLOCK_PAGES])
{
    const cmi_kv_layout *layout = &f->opt.kv_layout;
    uint32_t n_keys = CMI_MIN(unit->n_keys - block * CMI_ATTN_BLOCK, (uint32_t)CMI_ATTN_BLOCK);
    size_t first =
        cmi_query_row(unit->span, f->opt.config->num_attention_heads, unit->row, unit->head);
    for (uint32_t t = 0; t < n_keys; t += CMI_KV_PAGE_TOKENS) {
        uint32_t page = (block * CMI_ATTN_BLOCK + t) / CMI_KV_PAGE_TOKENS;
        bool is_last = (page + 1) * CMI_KV_PAGE_TOKENS >= unit->n_keys;
        const uint8_t *kv = cmi_span_page(f, unit->span, page);
        uint32_t n_tile = CMI_ROUND_UP(CMI_MIN(n_keys - t, (uint32_t)CMI_KV_PAGE_TOKENS), 16u);
        tiles[t / CMI_KV_PAGE_TOKENS] = latent_tile(f, w, kv, t / CMI_KV_PAGE_TOKENS, n_tile);
        cmi_attn_latent_scores_args args = {
            .q = cmi_operand_at(f, f->s.attn.q_abs_op, first * f->s.attn.abs_cols),
            .latent = tiles[t / CMI_KV_PAGE_TOKENS],
            .rope = kv + layout->rope_offset,
            .s = w->scores + t,
            .q_stride = f->s.attn.abs_cols,
            .s_stride = CMI_ATTN_BLOCK,
            .n_rows = n_query_rows(unit),
            .n_keys = n_tile,
            .n_latent = layout->latent_cols,
            .n_rope = layout->rope_cols,
            .ahead = is_last ? NULL : cmi_span_page(f, unit->span, page + 1),
            .ahead_bytes = is_last ? 0 : layout->layer_bytes};
        f->attn.latent_scores(&args);
    }
    return n_keys;
}

/* Adds a block to the sums of the unit's query rows. */
static void attend_block(const cmi_forward *f, const cmi_decode_unit *unit, uint32_t block,
                         const cmi_attention_worker *w, decode_sums sums)
{
    uint32_t begin = block * CMI_ATTN_BLOCK, n = n_query_rows(unit);
    const void *tiles[CMI_BLOCK_PAGES];
    uint32_t n_keys = block_scores(f, unit, block, w, tiles);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t end = cmi_row_position(f, unit->row + i % unit->n_rows) + 1;
        w->n_visible[i] = end <= begin ? 0 : CMI_MIN(end - begin, n_keys);
    }
    cmi_attn_softmax_args softmax = {.s = w->scores,
                                     .p = w->p,
                                     .n_visible = w->n_visible,
                                     .m = sums.m,
                                     .l = sums.l,
                                     .alpha = w->alpha,
                                     .beta = w->beta,
                                     .s_stride = CMI_ATTN_BLOCK,
                                     .p_stride = CMI_ATTN_BLOCK,
                                     .n_rows = n,
                                     .n_keys = CMI_ROUND_UP(n_keys, 16u),
                                     .n_hidden = block == 0 ? f->kv_begin : 0,
                                     .scale = f->softmax_scale};
    f->attn.softmax(&softmax);
    cmi_attn_values_args values = {.p = w->p,
                                   .v = tiles,
                                   .alpha = w->alpha,
                                   .beta = w->beta,
                                   .o = sums.o,
                                   .p_stride = CMI_ATTN_BLOCK,
                                   .o_stride = f->opt.config->kv_lora_rank,
                                   .n_rows = n,
                                   .n_t = CMI_ROUND_UP(n_keys, f->opt.kv_layout.lane_values),
                                   .n_cols = f->opt.config->kv_lora_rank};
    f->attn.values(&values);
}

/* Divides by the sums and writes operands for W_UV. */
static void finish_unit(const cmi_forward *f, const cmi_decode_unit *unit)
{
    size_t rank = f->opt.config->kv_lora_rank;
    decode_sums sums = unit_sums(f, unit);
    for (uint32_t i = 0; i < n_query_rows(unit); i++) {
        size_t to = (unit->head + i / unit->n_rows) * (size_t)f->n_decode_rows + unit->row +
                    i % unit->n_rows;
        cmi_attention_divide(sums.o + i * rank, sums.l[i], (uint32_t)rank);
        cmi_forward_to_operand(f, sums.o + i * rank, (uint32_t)rank,
                               cmi_operand_at(f, f->s.attn.o_op, to * rank));
    }
}

/* ---- all blocks of a unit in one task ----------------------------------------------------------
 */

static void unit_task(void *arg, uint32_t task, uint32_t worker)
{
    cmi_forward *f = arg;
    const cmi_decode_unit *unit = &f->s.attn.units[task];
    decode_sums sums = unit_sums(f, unit);
    cmi_forward_move_on(f, worker);
    clear_sums(f, sums, n_query_rows(unit));
    for (uint32_t block = 0; block < n_blocks(unit); block++) {
        attend_block(f, unit, block, &f->s.attn.workers[worker], sums);
    }
    finish_unit(f, unit);
}

/* ---- blocks as tasks ---------------------------------------------------------------------------
 */

static void part_task(void *arg, uint32_t task, uint32_t worker)
{
    cmi_forward *f = arg;
    const cmi_decode_part *part = &f->s.attn.parts[task];
    decode_sums sums = part_sums(f, task);
    cmi_forward_move_on(f, worker);
    clear_sums(f, sums, n_query_rows(part->unit));
    attend_block(f, part->unit, part->block_idx, &f->s.attn.workers[worker], sums);
}

/* A head's rows of all parts, each added to those before. Consecutive parts of a unit have
 * ascending blocks. */
static void merge_task(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    for (uint32_t i = 0; i < f->s.attn.n_parts; i++) {
        const cmi_decode_unit *unit = f->s.attn.parts[i].unit;
        if (head < unit->head || head >= unit->head + unit->n_heads) {
            continue;
        }
        size_t rank = f->opt.config->kv_lora_rank;
        size_t first = (head - unit->head) * (size_t)unit->n_rows;
        decode_sums from = part_sums(f, i), to = unit_sums(f, unit);
        cmi_attn_merge_args args = {.m_b = from.m + first,
                                    .l_b = from.l + first,
                                    .o_b = from.o + first * rank,
                                    .m = to.m + first,
                                    .l = to.l + first,
                                    .o = to.o + first * rank,
                                    .o_stride = rank,
                                    .n_rows = unit->n_rows,
                                    .n_cols = (uint32_t)rank};
        f->opt.kernels->attn_merge(&args);
    }
}

static void clear_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_forward *f = arg;
    const cmi_decode_unit *unit = &f->s.attn.units[task];
    clear_sums(f, unit_sums(f, unit), n_query_rows(unit));
}

static void finish_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_forward *f = arg;
    finish_unit(f, &f->s.attn.units[task]);
}

static void run_parts(cmi_forward *f)
{
    cmi_team_run(f->opt.team, part_task, f, f->s.attn.n_parts);
    cmi_team_run(f->opt.team, merge_task, f, f->opt.config->num_attention_heads);
    f->s.attn.n_parts = 0;
}

static void attend_in_parts(cmi_forward *f)
{
    cmi_attention_scratch *a = &f->s.attn;
    cmi_team_run(f->opt.team, clear_task, f, a->n_units);
    for (uint32_t i = 0; i < a->n_units; i++) {
        for (uint32_t block = 0; block < n_blocks(&a->units[i]); block++) {
            a->parts[a->n_parts++] = (cmi_decode_part){&a->units[i], block};
            if (a->n_parts == a->n_parts_max) {
                run_parts(f);
            }
        }
    }
    if (a->n_parts > 0) {
        run_parts(f);
    }
    cmi_team_run(f->opt.team, finish_task, f, a->n_units);
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

/* Cuts the decode rows into units of at most n_query_rows_max query rows. Returns their blocks. */
static uint32_t make_units(cmi_forward *f, uint32_t n_query_rows_max)
{
    uint32_t n_heads = f->opt.config->num_attention_heads, n_all = 0;
    f->s.attn.n_units = 0;
    for (uint32_t row = 0; row < f->n_decode_rows;) {
        const cmi_batch_span *span = &f->batch->spans[f->s.row_span[row]];
        uint32_t n_rows =
            CMI_MIN(span->row_idx + span->n_rows - row, (uint32_t)CMI_DECODE_SPAN_ROWS);
        uint32_t n_tiles = CMI_DIV_UP(n_heads, CMI_MAX(n_query_rows_max / n_rows, 1u));
        uint32_t head = 0;
        for (uint32_t tile = 0; tile < n_tiles; tile++) {
            cmi_decode_unit *unit = &f->s.attn.units[f->s.attn.n_units++];
            *unit = (cmi_decode_unit){.span = span,
                                      .row = row,
                                      .n_rows = n_rows,
                                      .head = head,
                                      .n_heads = CMI_DIV_UP(n_heads - head, n_tiles - tile),
                                      .n_keys = cmi_row_position(f, row + n_rows - 1) + 1};
            head += unit->n_heads;
            n_all += n_blocks(unit);
        }
        row += n_rows;
    }
    return n_all;
}

/* The greatest tasks of which every thread gets two, if there are any. */
static uint32_t plan_units(cmi_forward *f)
{
    uint32_t n_threads = cmi_team_size(f->opt.team), n = CMI_ATTENTION_ROWS;
    uint32_t n_all = make_units(f, n);
    while (n > CMI_ATTENTION_ROWS_MIN && n_all < 2 * n_threads) {
        n /= 2;
        n_all = make_units(f, n);
    }
    return n_all;
}

/* Whether a unit is so long that the others would be done long before it. */
static bool is_uneven(const cmi_forward *f, uint32_t n_all)
{
    uint32_t n_threads = cmi_team_size(f->opt.team), longest = 0;
    for (uint32_t i = 0; i < f->s.attn.n_units; i++) {
        longest = CMI_MAX(longest, n_blocks(&f->s.attn.units[i]));
    }
    return n_threads > 1 && longest > 1 && (uint64_t)longest * n_threads * 2 > n_all;
}

/* One head of all decode rows: o = W_UV o_latent. */
static void unabsorb_head(void *arg, uint32_t head, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    const cmi_model_config *c = f->opt.config;
    const cmi_linear *w_uv = &f->layer->w_uv;
    size_t rows = head * (size_t)f->n_decode_rows;
    cmi_gemm_args args = {.x = cmi_operand_at(f, f->s.attn.o_op, rows * c->kv_lora_rank),
                          .w = cmi_operand_at(f, w_uv->w, head * f->layer->w_uv_head_stride),
                          .y = f->s.o + head * (size_t)c->v_head_dim,
                          .x_stride = c->kv_lora_rank,
                          .w_stride = w_uv->stride,
                          .y_stride = c->num_attention_heads * (size_t)c->v_head_dim,
                          .n_rows = f->n_decode_rows,
                          .n_cols = c->v_head_dim,
                          .n_k = c->kv_lora_rank};
    cmi_forward_gemm(f, f->dtype, &args);
}

void cmi_attend_decode_rows(cmi_forward *f)
{
    uint32_t n_all = plan_units(f);
    if (is_uneven(f, n_all)) {
        attend_in_parts(f);
    } else {
        cmi_team_run(f->opt.team, unit_task, f, f->s.attn.n_units);
    }
    cmi_team_run(f->opt.team, unabsorb_head, f, f->opt.config->num_attention_heads);
}
