#include "model/pipeline.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "model/forward_internal.h"

/* Between two spans rather than inside of one, if halves differ by no more than an eighth. */
static const double border_share = 1.0 / 16;

typedef struct microbatch {
    cmi_forward *forward;
    cmi_batch batch;
    cmi_batch_span *spans; /* [its max_rows] */
    cmi_status status;
} microbatch;

struct cmi_pipeline {
    microbatch halves[2]; /* the first one's forward is the caller's */
    uint32_t second_rows;
};

/* ---- making one ---- */

static cmi_forward_options second_options(const cmi_forward_options *opt, cmi_exchange *second)
{
    cmi_forward_options options = *opt;
    options.max_rows = cmi_pipeline_second_rows(opt->max_rows);
    options.max_decode_rows = CMI_MIN(opt->max_decode_rows, options.max_rows);
    options.exchange = second;
    options.stage = NULL; /* staged passes are not cut */
    return options;
}

cmi_status cmi_pipeline_create(cmi_pipeline **pipeline_out, cmi_forward *forward,
                               cmi_exchange *second, cmi_error *err)
{
    const cmi_forward_options options = second_options(&forward->opt, second);
    assert(forward->opt.exchange != NULL && second != NULL && second->max_rows >= options.max_rows);
    cmi_pipeline *p = cmi_alloc(1, sizeof *p);
    cmi_status st = cmi_forward_create(&p->halves[1].forward, &options, err);
    if (st != CMI_OK) {
        cmi_free(p);
        return st;
    }
    p->second_rows = options.max_rows;
    p->halves[0].forward = forward;
    p->halves[0].spans = cmi_alloc(forward->opt.max_rows, sizeof *p->halves[0].spans);
    p->halves[1].spans = cmi_alloc(options.max_rows, sizeof *p->halves[1].spans);
    *pipeline_out = p;
    return CMI_OK;
}

void cmi_pipeline_destroy(cmi_pipeline *p)
{
    if (p != NULL) {
        cmi_forward_destroy(p->halves[1].forward);
        cmi_free(p->halves[0].spans);
        cmi_free(p->halves[1].spans);
        cmi_free(p);
    }
}

uint64_t cmi_pipeline_estimate_bytes(const cmi_forward_options *opt, const cmi_exchange *second)
{
    cmi_exchange sizes = *second;
    const cmi_forward_options options = second_options(opt, &sizes);
    const uint64_t n_spans = (uint64_t)opt->max_rows + options.max_rows;
    return cmi_forward_estimate_bytes(&options) + n_spans * sizeof(cmi_batch_span);
}

/* ---- where to cut ---- */

/* What a row costs beside attention, in positions that a prefill row looks at: multiply-adds of its
 * linears by those of one such position. */
static double row_positions(const cmi_model_config *c)
{
    const double hidden = c->hidden_size, heads = c->num_attention_heads;
    const double q_in = c->q_lora_rank > 0 ? c->q_lora_rank : hidden;
    const double qk = c->qk_nope_head_dim + c->qk_rope_head_dim;
    const double experts = c->num_experts_per_tok + c->n_shared_experts;
    const double linears = hidden * c->q_lora_rank + q_in * heads * qk +
                           hidden * (c->kv_lora_rank + c->qk_rope_head_dim) +
                           c->kv_lora_rank * heads * (c->qk_nope_head_dim + c->v_head_dim) +
                           heads * c->v_head_dim * hidden +
                           experts * 3 * hidden * c->moe_intermediate_size;
    return linears / (heads * (qk + c->v_head_dim));
}

/* Positions that a row looks at, in those of a prefill row. */
static double position_cost(const cmi_model_config *c, bool is_prefill)
{
    const double expanded = c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim;
    return is_prefill ? 1 : (2.0 * c->kv_lora_rank + c->qk_rope_head_dim) / expanded;
}

static double rows_cost(const cmi_model_config *c, const cmi_batch_span *span, uint32_t n_rows)
{
    const double n = n_rows, seen = n * (span->position + (n + 1) / 2);
    return n * row_positions(c) + seen * position_cost(c, span->is_prefill);
}

/* Of a span's rows those whose cost comes nearest; their cost grows from row to row. */
static uint32_t rows_worth(const cmi_model_config *c, const cmi_batch_span *span, double cost)
{
    uint32_t low = 0, high = span->n_rows;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (rows_cost(c, span, middle + 1) + rows_cost(c, span, middle) > 2 * cost) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

uint32_t cmi_pipeline_cut(const cmi_pipeline *p, const cmi_batch *batch)
{
    const cmi_model_config *c = p->halves[0].forward->opt.config;
    const uint32_t least =
        batch->n_rows > p->second_rows ? batch->n_rows - p->second_rows : CMI_MIN(1, batch->n_rows);
    double total = 0, before = 0;
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        total += rows_cost(c, &batch->spans[i], batch->spans[i].n_rows);
    }
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const cmi_batch_span *span = &batch->spans[i];
        const uint32_t end = span->row_idx + span->n_rows;
        const double cost = rows_cost(c, span, span->n_rows), missing = total / 2 - before;
        const bool is_begin_good = missing <= total * border_share && span->row_idx >= least;
        const bool is_end_good = cost - missing <= total * border_share && end >= least;
        before += cost;
        if (before < total / 2 || end < least) {
            continue;
        }
        if (is_begin_good && (!is_end_good || missing <= cost - missing)) {
            return span->row_idx;
        }
        if (!is_end_good && span->is_prefill) {
            return CMI_MAX(span->row_idx + rows_worth(c, span, missing), least);
        }
        return missing < cost - missing && span->row_idx >= least ? span->row_idx : end;
    }
    return batch->n_rows;
}

/* The rows begin .. end of a batch. */
static void take_rows(microbatch *half, const cmi_batch *batch, uint32_t begin, uint32_t end)
{
    const uint32_t top_k = half->forward->opt.config->num_experts_per_tok;
    half->batch = *batch;
    half->batch.token_ids = batch->token_ids + begin;
    half->batch.spans = half->spans;
    half->batch.n_rows = end - begin;
    half->batch.n_spans = 0;
    if (batch->expert_ids != NULL) {
        half->batch.expert_ids = batch->expert_ids + (size_t)begin * top_k;
    }
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        cmi_batch_span span = batch->spans[i];
        const uint32_t first = CMI_MAX(begin, span.row_idx);
        const uint32_t last = CMI_MIN(end, span.row_idx + span.n_rows);
        if (first < last) {
            span.position += first - span.row_idx;
            span.row_idx = first - begin;
            span.n_rows = last - first;
            half->spans[half->batch.n_spans++] = span;
        }
    }
}

/* ---- taking turns ---- */

static bool leaves_rows_on_their_way(cmi_stage stage)
{
    return stage == CMI_STAGE_DISPATCH || stage == CMI_STAGE_GROUPED_EXPERTS;
}

/* What of a layer the first one has done the second one may build on: KV of a sequence in both. */
static bool is_ahead(const cmi_forward *first, const cmi_forward *second)
{
    return first->layer_idx > second->layer_idx ||
           (first->layer_idx == second->layer_idx && first->stage_idx > second->stage_idx);
}

/* Runs a microbatch to where it would wait for other ranks. */
static cmi_status take_turn(microbatch *half)
{
    cmi_stage stage;
    do {
        stage = cmi_forward_next_stage(half->forward);
        half->status = cmi_forward_advance(half->forward);
    } while (half->status == CMI_IN_PROGRESS && !leaves_rows_on_their_way(stage));
    return half->status;
}

static cmi_status run_both(cmi_pipeline *p)
{
    microbatch *first = &p->halves[0], *second = &p->halves[1];
    cmi_status st = CMI_IN_PROGRESS;
    cmi_forward_begin(first->forward, &first->batch);
    cmi_forward_begin(second->forward, &second->batch);
    while (st == CMI_IN_PROGRESS) { /* both have the same turns */
        st = take_turn(first);
        if (st == CMI_OK || st == CMI_IN_PROGRESS) {
            assert(is_ahead(first->forward, second->forward));
            const cmi_status other = take_turn(second);
            assert(other == st || (other != CMI_OK && other != CMI_IN_PROGRESS));
            st = other;
        }
    }
    return st;
}

static void join_halves(cmi_pipeline *p)
{
    cmi_forward *first = p->halves[0].forward, *second = p->halves[1].forward;
    const size_t width = first->opt.config->hidden_size;
    memcpy(first->s.hidden + p->halves[0].batch.n_rows * width, second->s.hidden,
           p->halves[1].batch.n_rows * width * sizeof *first->s.hidden);
    first->heard = CMI_MAX(first->heard, second->heard);
    first->heard_vote = CMI_MAX(first->heard_vote, second->heard_vote);
}

cmi_status cmi_pipeline_run(cmi_pipeline *p, const cmi_batch *batch, uint32_t n_microbatches)
{
    if (n_microbatches < 2 || batch->mtp_hidden != NULL || batch->is_staged) {
        return cmi_forward_run(p->halves[0].forward, batch);
    }
    const uint32_t cut = cmi_pipeline_cut(p, batch);
    take_rows(&p->halves[0], batch, 0, cut);
    take_rows(&p->halves[1], batch, cut, batch->n_rows);
    p->halves[0].batch.n_layers_done = NULL; /* a layer is done when the second one's is */
    cmi_status st = run_both(p);
    if (st == CMI_OK) {
        join_halves(p);
    }
    return st;
}
