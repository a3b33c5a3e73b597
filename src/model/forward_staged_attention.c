/* The layers of a staged pass: rows to all ranks, attention with this rank's heads, and heads back
 * to their rows. See forward_staged.h. */
#include "model/forward_staged_internal.h"

/* ---- rows leave ---- */

void cmi_staged_begin_rows(cmi_forward *f)
{
    cmi_staged *s = f->staged;
    const cmi_model_config *c = f->opt.config;
    s->q_in = (cmi_operand){.values = s->exchange->window + s->at.q_values,
                            .scales = (float *)(void *)(s->exchange->window + s->at.q_scales)};
    cmi_operand_begin(&s->q_in, f->layer->q_b_proj.dtype,
                      c->q_lora_rank > 0 ? c->q_lora_rank : c->hidden_size);
}

void cmi_staged_finish_row(cmi_forward *f, uint32_t row)
{
    cmi_staged *s = f->staged;
    const uint32_t at = cmi_staged_first_row(s) + (row - f->n_local_rows);
    if (f->opt.config->q_lora_rank > 0) {
        cmi_forward_norm_q_a(f, row, &s->q_in, at);
    } else {
        memcpy(cmi_operand_row(&s->q_in, at), cmi_operand_row(&f->s.operand, row),
               s->q_in.row_bytes);
        s->q_in.scales[at] = f->s.operand.scales[row];
    }
    cmi_forward_prepare_kv(f, row,
                           s->exchange->window + s->at.kv_rows + at * f->opt.kv_layout.row_bytes);
}

/* Where a page of the layer of a prompt lies at this rank. */
static uint8_t *page_of(const cmi_forward *f, const cmi_staged_prompt *p, uint32_t page_idx)
{
    const cmi_staged *s = f->staged;
    if (p->home == s->exchange->rank) {
        return cmi_span_page(f, cmi_staged_own_span(s, p), page_idx);
    }
    return s->exchange->window + s->at.pages +
           (p->first_page + page_idx) * f->opt.kv_layout.layer_bytes;
}

/* What the others lack of a prompt at home: KV of the positions before this pass. The last page is
 * put from a copy, since new rows come into it meanwhile. */
static cmi_status send_context(const cmi_forward *f, const cmi_staged_prompt *p)
{
    const cmi_staged *s = f->staged;
    const size_t n_bytes = f->opt.kv_layout.layer_bytes;
    cmi_status st = CMI_OK;
    for (uint32_t page = 0; st == CMI_OK && page * CMI_KV_PAGE_TOKENS < p->position; page++) {
        const size_t at = s->at.pages + (p->first_page + page) * n_bytes;
        const uint8_t *from = page_of(f, p, page);
        if (p->position - page * CMI_KV_PAGE_TOKENS < CMI_KV_PAGE_TOKENS) {
            from = memcpy(s->exchange->window + at, from, n_bytes);
        }
        for (uint32_t i = 1; st == CMI_OK && i < s->exchange->shape.n_ranks; i++) {
            st = cmi_staged_put(s, cmi_staged_peer(s, i), at, from, n_bytes);
        }
    }
    return st;
}

cmi_status cmi_staged_send_rows(cmi_forward *f)
{
    cmi_staged *s = f->staged;
    const size_t begin = cmi_staged_first_row(s), row_bytes = f->opt.kv_layout.row_bytes;
    const size_t n = cmi_staged_n_rows(s, s->exchange->rank);
    cmi_status st = CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && i < s->plan.n_prompts; i++) {
        if (s->plan.prompts[i].home == s->exchange->rank) {
            st = send_context(f, &s->plan.prompts[i]);
        }
    }
    if (st == CMI_OK && n > 0) {
        st = cmi_staged_put_to_all(s, s->at.q_values + begin * s->q_in.row_bytes,
                                   n * s->q_in.row_bytes);
    }
    if (st == CMI_OK && n > 0 && s->q_in.dtype == CMI_DTYPE_I8) {
        st = cmi_staged_put_to_all(s, s->at.q_scales + begin * sizeof(float), n * sizeof(float));
    }
    if (st == CMI_OK && n > 0) {
        st = cmi_staged_put_to_all(s, s->at.kv_rows + begin * row_bytes, n * row_bytes);
    }
    return st == CMI_OK ? s->exchange->calls->tell(s->exchange) : st;
}

/* ---- attention ---- */

/* Stores rows whose slots share lanes; the first of them does it for all. */
static void store_row(cmi_forward *f, uint32_t row)
{
    const cmi_staged *s = f->staged;
    const cmi_kv_layout *layout = &f->opt.kv_layout;
    const cmi_staged_prompt *p = &s->plan.prompts[s->row_prompt[row]];
    const uint32_t position = p->position + (row - p->first_row), lane = layout->slot_lanes;
    const bool is_wanted = s->n_heads > 0 || p->home == s->exchange->rank;
    if (!is_wanted || (row > p->first_row && position % lane != 0)) {
        return;
    }
    const uint32_t n = CMI_MIN(p->first_row + p->n_rows - row, lane - position % lane);
    cmi_kv_store(layout, page_of(f, p, position / CMI_KV_PAGE_TOKENS),
                 position % CMI_KV_PAGE_TOKENS,
                 s->exchange->window + s->at.kv_rows + row * layout->row_bytes, n, 0);
}

static void rotate_row(cmi_forward *f, uint32_t row)
{
    const cmi_staged *s = f->staged;
    const cmi_staged_prompt *p = &s->plan.prompts[s->row_prompt[row]];
    cmi_forward_rotate_heads(
        f, s->q + row * s->q_stride + s->q_skip, p->position + (row - p->first_row), s->n_heads,
        cmi_operand_at(f, s->q_op, row * (size_t)s->n_heads * f->s.attn.q_cols));
}

/* The queries of all rows. */
static void project_up(cmi_forward *f)
{
    const cmi_staged *s = f->staged;
    const uint32_t width = f->opt.config->qk_nope_head_dim + f->opt.config->qk_rope_head_dim;
    const cmi_linear heads = cmi_linear_outputs(
        &f->layer->q_b_proj, s->first_head * width - s->q_skip, (uint32_t)s->q_stride);
    const cmi_product q_b = {.f = f,
                             .linear = &heads,
                             .x = &s->q_in,
                             .n_rows = s->plan.n_rows,
                             .y = s->q,
                             .y_stride = s->q_stride};
    cmi_forward_product(&q_b);
    cmi_forward_each_row(f, s->plan.n_rows, rotate_row);
}

static void attend(cmi_forward *f)
{
    const cmi_staged *s = f->staged;
    cmi_prefill_heads heads = {.first = s->first_head,
                               .n = s->n_heads,
                               .max_rows = cmi_staged_all_rows(&s->exchange->shape),
                               .q_op = s->q_op,
                               .o = s->o,
                               .m = s->m,
                               .l = s->l};
    for (uint32_t i = 0; i < s->plan.n_prompts; i++) {
        const cmi_staged_prompt *p = &s->plan.prompts[i];
        const cmi_batch_span span = {
            .page_ids = p->home == s->exchange->rank ? cmi_staged_own_span(s, p)->page_ids : NULL,
            .row_idx = p->first_row,
            .n_rows = p->n_rows,
            .position = p->position,
            .is_prefill = true};
        heads.pages =
            s->exchange->window + s->at.pages + p->first_page * f->opt.kv_layout.layer_bytes;
        cmi_attend_prefill_span(f, &span, &heads);
    }
}

static cmi_status send_heads(const cmi_staged *s, uint32_t v_head_dim)
{
    const size_t row_bytes = s->n_heads * (size_t)v_head_dim * sizeof(float);
    const size_t at = s->at.heads + s->exchange->rank * s->at.heads_bytes;
    cmi_status st = CMI_OK;
    for (uint32_t i = 1; st == CMI_OK && i < s->exchange->shape.n_ranks; i++) {
        const uint32_t rank = cmi_staged_peer(s, i);
        st =
            cmi_staged_put(s, rank, at, (const uint8_t *)s->o + s->plan.first_row[rank] * row_bytes,
                           cmi_staged_n_rows(s, rank) * row_bytes);
    }
    return st == CMI_OK ? s->exchange->calls->tell(s->exchange) : st;
}

cmi_status cmi_staged_attend(cmi_forward *f)
{
    cmi_staged *s = f->staged;
    cmi_status st = s->exchange->calls->hear(s->exchange);
    if (st != CMI_OK) {
        return st;
    }
    cmi_forward_each_row(f, s->plan.n_rows, store_row);
    if (s->n_heads > 0 && s->plan.n_rows > 0) {
        cmi_staged_begin_rows(f); /* a rank without rows has not */
        project_up(f);
        attend(f);
    }
    return send_heads(s, f->opt.config->v_head_dim);
}

/* ---- heads return ---- */

static void take_row(cmi_forward *f, uint32_t i)
{
    const cmi_staged *s = f->staged;
    const uint32_t n_all = f->opt.config->num_attention_heads, n_ranks = s->exchange->shape.n_ranks;
    const size_t v = f->opt.config->v_head_dim;
    float *to = f->s.o + (f->n_local_rows + i) * n_all * v;
    for (uint32_t rank = 0; rank < n_ranks; rank++) {
        uint32_t n_heads;
        const uint32_t first = cmi_staged_heads(n_all, n_ranks, rank, &n_heads);
        const uint8_t *came = s->exchange->window + s->at.heads + rank * s->at.heads_bytes;
        const float *from = rank == s->exchange->rank ? s->o + cmi_staged_first_row(s) * n_heads * v
                                                      : (const float *)(const void *)came;
        memcpy(to + first * v, from + i * n_heads * v, n_heads * v * sizeof *to);
    }
}

cmi_status cmi_staged_take_heads(cmi_forward *f)
{
    cmi_staged *s = f->staged;
    cmi_status st = s->exchange->calls->hear(s->exchange);
    if (st == CMI_OK) {
        cmi_forward_each_row(f, cmi_staged_n_rows(s, s->exchange->rank), take_row);
    }
    return st;
}
