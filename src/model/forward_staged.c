/* Offers, and a staged pass's begin and end. See forward_staged.h. */
#include "model/forward_staged_internal.h"

#include <assert.h>

#include "base/alloc.h"
#include "os/host_memory.h"

enum { N_OFFER_WINDOWS = 2 };

/* ---- making ---- */

static size_t take(size_t *at_inout, size_t n, size_t item_bytes)
{
    const size_t at = *at_inout;
    *at_inout += CMI_ROUND_UP(n * item_bytes, (size_t)CMI_CACHE_LINE);
    return at;
}

static uint32_t q_in_values(const cmi_model_config *c)
{
    return c->q_lora_rank > 0 ? c->q_lora_rank : c->hidden_size;
}

/* max_positions do not matter to the layout of an offer. */
static cmi_stage_offer_limits limits_of(const cmi_model_config *c, const cmi_stage_shape *shape,
                                        uint32_t max_positions)
{
    return (cmi_stage_offer_limits){shape->max_rows, max_positions, c->vocab_size};
}

static cmi_stage_layout make_layout(const cmi_model_config *c, const cmi_kv_layout *kv,
                                    const cmi_stage_shape *shape)
{
    const cmi_stage_offer_limits limits = limits_of(c, shape, 0);
    const size_t n_ranks = shape->n_ranks, max_rows = shape->max_rows, rows = n_ranks * max_rows;
    const uint32_t q_n = q_in_values(c);
    const size_t q_bytes = CMI_MAX(cmi_operand_row_bytes(CMI_DTYPE_I8, q_n),
                                   cmi_operand_row_bytes(kv->operand_dtype, q_n));
    uint32_t most_heads;
    (void)cmi_staged_heads(c->num_attention_heads, shape->n_ranks, 0, &most_heads);
    cmi_stage_layout l = {.offer_bytes = cmi_stage_offer_bytes(&limits)};
    l.offers = take(&l.n_bytes, N_OFFER_WINDOWS * n_ranks, l.offer_bytes);
    l.q_values = take(&l.n_bytes, rows, q_bytes);
    l.q_scales = take(&l.n_bytes, rows, sizeof(float));
    l.kv_rows = take(&l.n_bytes, rows, kv->row_bytes);
    l.pages = take(&l.n_bytes, shape->max_pages, kv->layer_bytes);
    l.heads_bytes = max_rows * most_heads * c->v_head_dim * sizeof(float);
    l.heads = take(&l.n_bytes, n_ranks, l.heads_bytes);
    l.hidden_in = take(&l.n_bytes, max_rows, c->hidden_size * sizeof(float));
    l.hidden_out = take(&l.n_bytes, max_rows, c->hidden_size * sizeof(float));
    return l;
}

uint64_t cmi_forward_stage_window_bytes(const cmi_model_config *config, const cmi_kv_layout *layout,
                                        const cmi_stage_shape *shape)
{
    return make_layout(config, layout, shape).n_bytes;
}

/* Heads and queries of this rank, and where its scratch lies in a block; returns its bytes. base
 * NULL: only counts. */
static size_t cut_scratch(cmi_staged *s, const cmi_forward_options *opt, uint8_t *base)
{
    const cmi_model_config *c = opt->config;
    const cmi_kv_layout *kv = &opt->kv_layout;
    const size_t rows = cmi_staged_all_rows(&opt->stage->shape);
    const uint32_t width = c->qk_nope_head_dim + c->qk_rope_head_dim;
    const size_t q_cols = CMI_ROUND_UP(c->qk_nope_head_dim, kv->lane_values) + kv->rope_cols;
    size_t n_bytes = 0;
    s->first_head = cmi_staged_heads(c->num_attention_heads, opt->stage->shape.n_ranks,
                                     opt->stage->rank, &s->n_heads);
    s->q_skip = s->first_head * width % CMI_I8_BLOCK_COLS;
    s->q_stride = s->q_skip + s->n_heads * (size_t)width;
    const size_t q = take(&n_bytes, rows * s->q_stride, sizeof *s->q);
    const size_t q_op =
        take(&n_bytes, rows * s->n_heads * q_cols, cmi_dtype_bytes(kv->operand_dtype));
    const size_t o = take(&n_bytes, rows * s->n_heads * c->v_head_dim, sizeof *s->o);
    const size_t m = take(&n_bytes, rows * s->n_heads, sizeof *s->m);
    const size_t l = take(&n_bytes, rows * s->n_heads, sizeof *s->l);
    if (base != NULL) {
        s->q = (float *)(void *)(base + q);
        s->q_op = base + q_op;
        s->o = (float *)(void *)(base + o);
        s->m = (float *)(void *)(base + m);
        s->l = (float *)(void *)(base + l);
    }
    return n_bytes;
}

uint64_t cmi_staged_estimate_bytes(const cmi_forward_options *opt)
{
    cmi_staged unused;
    return opt->stage != NULL ? cut_scratch(&unused, opt, NULL) : 0;
}

cmi_status cmi_staged_create(cmi_staged **staged_out, const cmi_forward_options *opt,
                             cmi_error *err)
{
    const cmi_stage_shape *shape = &opt->stage->shape;
    assert(shape->max_rows == opt->max_rows);
    cmi_staged *s = cmi_alloc(1, sizeof *s);
    s->exchange = opt->stage;
    s->at = make_layout(opt->config, &opt->kv_layout, shape);
    s->limits = limits_of(opt->config, shape, opt->max_positions);
    s->scratch_bytes = cut_scratch(s, opt, NULL);
    if (s->scratch_bytes > 0) { /* 0: more ranks than heads */
        cmi_status st =
            cmi_host_memory_map(&s->scratch_block, s->scratch_bytes, "staged scratch", err);
        if (st != CMI_OK) {
            cmi_free(s);
            return st;
        }
        memset(s->scratch_block, 0, s->scratch_bytes); /* its pages are taken now */
        cut_scratch(s, opt, s->scratch_block);
    }
    s->spans = cmi_alloc(shape->max_rows, sizeof *s->spans);
    s->token_ids = cmi_alloc(shape->max_rows, sizeof *s->token_ids);
    s->given_row = cmi_alloc(shape->max_rows, sizeof *s->given_row);
    s->prompt_span = cmi_alloc(shape->max_rows, sizeof *s->prompt_span);
    s->offers = cmi_alloc(shape->n_ranks, sizeof *s->offers);
    s->row_prompt = cmi_alloc(cmi_staged_all_rows(shape), sizeof *s->row_prompt);
    s->plan.prompts = cmi_alloc(shape->max_pages, sizeof *s->plan.prompts);
    s->plan.first_row = cmi_alloc(shape->n_ranks + 1, sizeof *s->plan.first_row);
    s->plan.n_home_rows = cmi_alloc(shape->n_ranks, sizeof *s->plan.n_home_rows);
    *staged_out = s;
    return CMI_OK;
}

void cmi_staged_destroy(cmi_staged *s)
{
    if (s == NULL) {
        return;
    }
    cmi_host_memory_unmap(s->scratch_block, s->scratch_bytes);
    cmi_free(s->spans);
    cmi_free(s->token_ids);
    cmi_free(s->given_row);
    cmi_free(s->prompt_span);
    cmi_free(s->offers);
    cmi_free(s->row_prompt);
    cmi_free(s->plan.prompts);
    cmi_free(s->plan.first_row);
    cmi_free(s->plan.n_home_rows);
    cmi_free(s);
}

/* ---- offers ---- */

cmi_status cmi_staged_put_to_all(const cmi_staged *s, size_t at, size_t n_bytes)
{
    cmi_status st = CMI_OK;
    for (uint32_t i = 1; st == CMI_OK && i < s->exchange->shape.n_ranks; i++) {
        st = cmi_staged_put(s, cmi_staged_peer(s, i), at, s->exchange->window + at, n_bytes);
    }
    return st;
}

static uint8_t *offer_of(const cmi_staged *s, uint32_t rank)
{
    const size_t window = (size_t)s->offers_idx * s->exchange->shape.n_ranks;
    return s->exchange->window + s->at.offers + (window + rank) * s->at.offer_bytes;
}

static const uint32_t *tokens_of(const cmi_staged *s, uint32_t rank)
{
    return (const uint32_t *)(const void *)(offer_of(s, rank) +
                                            cmi_stage_offer_tokens_at(&s->limits));
}

static cmi_status make_offer(cmi_staged *s, const cmi_batch *given)
{
    uint8_t *offer = offer_of(s, s->exchange->rank);
    const size_t prompts_at = cmi_stage_offer_prompts_at();
    const size_t tokens_at = cmi_stage_offer_tokens_at(&s->limits);
    cmi_stage_offer_head *head = (cmi_stage_offer_head *)(void *)offer;
    cmi_stage_prompt *prompts = (cmi_stage_prompt *)(void *)(offer + prompts_at);
    uint32_t *tokens = (uint32_t *)(void *)(offer + tokens_at);
    uint32_t n_rows = 0;
    *head = (cmi_stage_offer_head){0};
    for (uint32_t i = 0; i < given->n_spans; i++) {
        const cmi_batch_span *span = &given->spans[i];
        if (!span->is_prefill) {
            head->n_own_rows += span->n_rows;
            continue;
        }
        s->prompt_span[head->n_prompts] = i;
        prompts[head->n_prompts++] = (cmi_stage_prompt){span->n_rows, span->position};
        memcpy(tokens + n_rows, given->token_ids + span->row_idx, span->n_rows * sizeof *tokens);
        n_rows += span->n_rows;
    }
    const size_t at = (size_t)(offer - s->exchange->window);
    cmi_status st =
        cmi_staged_put_to_all(s, at, prompts_at + head->n_prompts * sizeof(cmi_stage_prompt));
    return st == CMI_OK ? cmi_staged_put_to_all(s, at + tokens_at, n_rows * sizeof *tokens) : st;
}

cmi_status cmi_forward_offer(cmi_forward *f, const cmi_batch *batch, bool *is_staged_out)
{
    cmi_staged *s = f->staged;
    const cmi_stage_exchange_calls *calls = s->exchange->calls;
    assert(batch->mtp_hidden == NULL && batch->expert_ids == NULL);
    s->offers_idx = (uint32_t)(calls->next_step(s->exchange) % N_OFFER_WINDOWS);
    *is_staged_out = false;
    cmi_status st = make_offer(s, batch);
    st = st == CMI_OK ? calls->tell(s->exchange) : st;
    st = st == CMI_OK ? calls->hear(s->exchange) : st;
    for (uint32_t i = 0; st == CMI_OK && i < s->exchange->shape.n_ranks; i++) {
        if (!cmi_stage_offer_read(&s->offers[i], &s->limits, offer_of(s, i))) {
            st = calls->blame(s->exchange, i);
        }
    }
    if (st == CMI_OK) {
        cmi_staged_plan_make(&s->plan, &s->exchange->shape, s->offers, CMI_KV_PAGE_TOKENS);
        *is_staged_out = s->plan.n_prompts > 0;
    }
    return st;
}

/* ---- opening ---- */

static void add_rows(cmi_staged *s, const cmi_batch_span *span, const uint32_t *token_ids)
{
    cmi_batch *b = &s->batch;
    memcpy(s->token_ids + b->n_rows, token_ids, span->n_rows * sizeof *token_ids);
    s->spans[b->n_spans] = *span;
    s->spans[b->n_spans++].row_idx = b->n_rows;
    b->n_rows += span->n_rows;
}

/* What is computed at home: all that decodes, and prompts that the plan does not have. */
static void add_local_rows(cmi_staged *s)
{
    const cmi_staged_prompt *next = s->plan.prompts, *end = next + s->plan.n_prompts;
    const uint32_t rank = s->exchange->rank;
    uint32_t prompt_idx = 0;
    while (next < end && next->home != rank) {
        next++;
    }
    for (uint32_t i = 0; i < s->given->n_spans; i++) {
        const cmi_batch_span *span = &s->given->spans[i];
        if (span->is_prefill) {
            const bool is_staged =
                next < end && next->home == rank && next->prompt_idx == prompt_idx;
            prompt_idx++;
            if (is_staged) {
                next++;
                continue;
            }
        }
        for (uint32_t row = 0; row < span->n_rows; row++) {
            s->given_row[s->batch.n_rows + row] = span->row_idx + row;
        }
        add_rows(s, span, s->given->token_ids + span->row_idx);
    }
}

/* This rank's share, a span for each prompt that it has a part of; and whose all staged rows are.
 */
static void add_shared_rows(cmi_staged *s)
{
    const uint32_t begin = cmi_staged_first_row(s);
    const uint32_t end = begin + cmi_staged_n_rows(s, s->exchange->rank);
    for (uint32_t i = 0; i < s->plan.n_prompts; i++) {
        const cmi_staged_prompt *p = &s->plan.prompts[i];
        for (uint32_t row = 0; row < p->n_rows; row++) {
            s->row_prompt[p->first_row + row] = i;
        }
        const uint32_t first = CMI_MAX(begin, p->first_row);
        const uint32_t last = CMI_MIN(end, p->first_row + p->n_rows);
        if (first < last) {
            const uint32_t skip = first - p->first_row;
            const cmi_batch_span part = {
                .n_rows = last - first, .position = p->position + skip, .is_prefill = true};
            add_rows(s, &part, tokens_of(s, p->home) + p->home_row + skip);
        }
    }
}

void cmi_staged_open(cmi_forward *f, const cmi_batch *batch)
{
    cmi_staged *s = f->staged;
    s->given = batch;
    s->batch = *batch;
    s->batch.spans = s->spans;
    s->batch.token_ids = s->token_ids;
    s->batch.n_rows = s->batch.n_spans = 0;
    add_local_rows(s);
    f->n_local_rows = s->batch.n_rows;
    f->n_local_spans = s->batch.n_spans;
    add_shared_rows(s);
    f->batch = &s->batch;
}

/* ---- closing ---- */

static void norm_row(cmi_forward *f, uint32_t row)
{
    const cmi_staged *s = f->staged;
    const size_t n = f->opt.config->hidden_size;
    float *out = (float *)(void *)(s->exchange->window + s->at.hidden_out);
    float *to = row < f->n_local_rows ? f->s.hidden + s->given_row[row] * n
                                      : out + (row - f->n_local_rows) * n;
    cmi_forward_final_norm(f, f->s.x + row * n, to);
}

/* Hidden states of the share go home, a prompt's in one put. */
static cmi_status send_home(const cmi_staged *s, size_t row_bytes)
{
    const uint32_t begin = cmi_staged_first_row(s);
    const uint32_t end = begin + cmi_staged_n_rows(s, s->exchange->rank);
    cmi_status st = CMI_OK;
    for (uint32_t row = begin; st == CMI_OK && row < end;) {
        const cmi_staged_prompt *p = &s->plan.prompts[s->row_prompt[row]];
        const uint32_t last = CMI_MIN(end, p->first_row + p->n_rows);
        const size_t home_row = p->home_row + (row - p->first_row);
        st = cmi_staged_put(s, p->home, s->at.hidden_in + home_row * row_bytes,
                            s->exchange->window + s->at.hidden_out + (row - begin) * row_bytes,
                            (last - row) * row_bytes);
        row = last;
    }
    return st;
}

cmi_status cmi_staged_close(cmi_forward *f)
{
    cmi_staged *s = f->staged;
    const cmi_stage_exchange_calls *calls = s->exchange->calls;
    const size_t n = f->opt.config->hidden_size, row_bytes = n * sizeof(float);
    cmi_forward_each_row(f, f->batch->n_rows, norm_row);
    cmi_status st = send_home(s, row_bytes);
    st = st == CMI_OK ? calls->tell(s->exchange) : st;
    st = st == CMI_OK ? calls->hear(s->exchange) : st;
    for (uint32_t i = 0; st == CMI_OK && i < s->plan.n_prompts; i++) {
        const cmi_staged_prompt *p = &s->plan.prompts[i];
        if (p->home == s->exchange->rank) {
            memcpy(f->s.hidden + cmi_staged_own_span(s, p)->row_idx * n,
                   s->exchange->window + s->at.hidden_in + p->home_row * row_bytes,
                   p->n_rows * row_bytes);
        }
    }
    return st;
}
