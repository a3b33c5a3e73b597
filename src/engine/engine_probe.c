/* engine/engine_probe.c - a few steps of made-up tokens before an engine serves, so that durations
 * can be predicted from the first request on (policy/step_cost.h).
 *
 * Nobody has a page yet, so the rows go into the first ones, whose contents matter to nobody: a
 * page is written before it is read. Sequences share the pages of their contexts and have the one
 * that they write to for themselves. Tokens are drawn, since equal ones would go to equal experts.
 * What sampling costs is learned later. */
#include <assert.h>
#include <string.h>

#include "base/rng.h"
#include "engine/engine_internal.h"
#include "os/clock.h"

enum { MAX_ROUNDS = 3 };

typedef struct probe {
    uint32_t n_decode; /* sequences, a row each */
    uint32_t context;  /* of each; of a chunk its position */
    uint32_t n_prefill;
    bool with_mtp;
} probe;

static const probe probes[] = {
    {1, 64, 0, false},    {16, 64, 0, false},   {0, 0, 128, false}, {64, 64, 0, false},
    {8, 64, 0, true},     {8, 1024, 0, false},  {0, 0, 32, false},  {4, 64, 64, false},
    {0, 1024, 64, false}, {16, 1024, 0, false}, {32, 64, 0, true},  {0, 0, 256, false},
};

static uint32_t draw_token(const cmi_engine *engine, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(n, 0, 0, words);
    return words[0] % engine->instance->config.vocab_size;
}

/* The probe as far as this engine can take it: seats, rows, pages and context. */
static probe fit(const cmi_engine *engine, probe p)
{
    const cmi_instance *in = engine->instance;
    const uint32_t n_pages = in->kv_pool.n_pages, page = CMI_KV_PAGE_TOKENS;
    if (p.context + p.n_prefill >= in->max_model_len || p.context / page >= n_pages) {
        p.context = 0;
    }
    uint32_t n_left = n_pages - p.context / page;
    p.n_decode = CMI_MIN(p.n_decode, in->max_num_seqs - (p.n_prefill > 0 ? 1 : 0));
    p.n_decode = CMI_MIN(p.n_decode, n_left);
    n_left -= p.n_decode;
    p.n_prefill = CMI_MIN(p.n_prefill, in->max_num_batched_tokens - p.n_decode);
    p.n_prefill = CMI_MIN(p.n_prefill, in->max_model_len - 1 - p.context);
    p.n_prefill = (uint32_t)CMI_MIN(p.n_prefill, (uint64_t)n_left * page);
    p.with_mtp = p.with_mtp && engine->max_drafts > 0 && p.context > 0;
    return p;
}

static void add_span(cmi_engine *engine, cmi_batch *batch, uint32_t n_rows, const probe *p,
                     uint32_t *next_page)
{
    const bool is_prefill = batch->n_spans == p->n_decode;
    uint32_t *page_ids = engine->seats[batch->n_spans].page_ids;
    const uint32_t n_shared = p->context / CMI_KV_PAGE_TOKENS;
    const uint32_t n_own = cmi_kv_pages_for(p->context + n_rows) - n_shared;
    for (uint32_t i = 0; i < n_shared + n_own; i++) {
        page_ids[i] = i < n_shared ? i : (*next_page)++;
    }
    engine->spans[batch->n_spans++] = (cmi_batch_span){.page_ids = page_ids,
                                                       .row_idx = batch->n_rows,
                                                       .n_rows = n_rows,
                                                       .position = p->context,
                                                       .is_prefill = is_prefill};
    for (uint32_t i = 0; i < n_rows; i++) {
        engine->token_ids[batch->n_rows] = draw_token(engine, batch->n_rows);
        batch->n_rows++;
    }
}

static void run_mtp(cmi_engine *engine, cmi_batch *batch, cmi_step_shape *shape)
{
    cmi_instance *in = engine->instance;
    const size_t width = in->config.hidden_size;
    const uint32_t n_head = CMI_MIN(batch->n_rows, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
    memcpy(in->mtp_hidden, cmi_forward_hidden(in->forward),
           batch->n_rows * width * sizeof *in->mtp_hidden);
    batch->mtp_hidden = in->mtp_hidden;
    cmi_status st = cmi_forward_run(in->forward, batch);
    assert(st == CMI_OK); /* no rank probes */
    memcpy(engine->hidden, cmi_forward_hidden(in->forward),
           n_head * width * sizeof *engine->hidden);
    cmi_forward_logits(in->forward, engine->hidden, n_head, in->logits);
    shape->n_mtp_passes++;
    shape->n_mtp_rows += batch->n_rows;
    shape->n_head_rows += n_head;
}

/* Runs it, and says what kind of a step that was. */
static cmi_step_shape run_probe(cmi_engine *engine, const probe *p)
{
    cmi_instance *in = engine->instance;
    cmi_batch batch = {.token_ids = engine->token_ids, .spans = engine->spans};
    cmi_step_shape shape = {.n_decode_rows = p->n_decode};
    uint32_t next_page = p->context / CMI_KV_PAGE_TOKENS;
    for (uint32_t i = 0; i < p->n_decode; i++) {
        add_span(engine, &batch, 1, p, &next_page);
        shape.decode_context += p->context + 1;
    }
    if (p->n_prefill > 0) {
        add_span(engine, &batch, p->n_prefill, p, &next_page);
        cmi_step_shape_add_prefill(&shape, p->context, p->n_prefill, false);
    }
    cmi_status st = cmi_forward_run(in->forward, &batch);
    assert(st == CMI_OK);
    shape.n_head_rows = CMI_MIN(CMI_MAX(p->n_decode, 1u), (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
    memcpy(engine->hidden, cmi_forward_hidden(in->forward),
           shape.n_head_rows * (size_t)in->config.hidden_size * sizeof *engine->hidden);
    cmi_forward_logits(in->forward, engine->hidden, shape.n_head_rows, in->logits);
    if (p->with_mtp) {
        run_mtp(engine, &batch, &shape);
    }
    return shape;
}

void cmi_engine_probe(cmi_engine *engine, uint64_t budget_ns)
{
    cmi_step_cost *cost = cmi_scheduler_cost(engine->scheduler);
    const uint64_t begin_ns = cmi_clock_monotonic_ns();
    uint64_t now_ns = begin_ns;
    bool is_cold = true; /* the first step meets cold pages, and is not counted */
    for (uint32_t i = 0; i < MAX_ROUNDS * CMI_LEN(probes); i++) {
        if (now_ns - begin_ns >= budget_ns && cmi_step_cost_is_known(cost)) {
            break;
        }
        const probe p = fit(engine, probes[i % CMI_LEN(probes)]);
        if (p.n_decode + p.n_prefill == 0) {
            continue;
        }
        if (is_cold) {
            (void)run_probe(engine, &p);
            now_ns = cmi_clock_monotonic_ns();
            is_cold = false;
        }
        cmi_step_shape shape = run_probe(engine, &p);
        uint64_t end_ns = cmi_clock_monotonic_ns();
        cmi_step_cost_observe(cost, &shape, end_ns - now_ns);
        cmi_policy_recorder_observed(engine->recorder, &shape, end_ns - now_ns);
        now_ns = end_ns;
    }
    cmi_step_cost_settle(cost);
    cmi_policy_recorder_settled(engine->recorder);
}
