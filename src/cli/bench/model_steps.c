#include "cli/bench/model_steps.h"

#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cli/bench/rig.h"

static const uint64_t token_seed = 0x70726F6D707473;

/* ---- phases ---- */

const char *cmi_bench_phase_name(uint32_t phase)
{
    return phase == CMI_BENCH_HEAD ? "head" : cmi_stage_name((cmi_stage)phase);
}

static const struct {
    cmi_cost_part_id part;
    uint32_t phase;
} phase_of_part[] = {
    {CMI_COST_MTP_INPUT, CMI_STAGE_MLA_PROLOG},
    {CMI_COST_PROLOG, CMI_STAGE_MLA_PROLOG},
    {CMI_COST_ABSORPTION, CMI_STAGE_MLA_PROLOG},
    {CMI_COST_EXPANSION, CMI_STAGE_ATTENTION},
    {CMI_COST_ATTENTION, CMI_STAGE_ATTENTION},
    {CMI_COST_VALUES_UP, CMI_STAGE_ATTENTION},
    {CMI_COST_OUTPUT, CMI_STAGE_OUTPUT_PROJECTION},
    {CMI_COST_DENSE, CMI_STAGE_DENSE_FFN},
    {CMI_COST_GATE, CMI_STAGE_GATE},
    {CMI_COST_SHARED, CMI_STAGE_GROUPED_EXPERTS},
    {CMI_COST_ROUTED, CMI_STAGE_GROUPED_EXPERTS},
    {CMI_COST_HEAD, CMI_BENCH_HEAD},
};
_Static_assert(CMI_LEN(phase_of_part) == CMI_COST_N_PARTS, "a part has no phase");

void cmi_bench_phase_add(cmi_bench_phase_cost *sum, uint32_t phase, const cmi_cost *cost,
                         const cmi_cost_rates *rates)
{
    for (size_t i = 0; i < CMI_LEN(phase_of_part); i++) {
        const cmi_cost_part *part = &cost->parts[phase_of_part[i].part];
        if (phase_of_part[i].phase == phase) {
            sum->ops += part->ops;
            sum->bytes += part->bytes;
            cmi_cost_add_part_time(&sum->least, part, rates);
        }
    }
}

/* ---- making ---- */

void cmi_bench_steps_init(cmi_bench_steps *s, cmi_instance *in, cmi_bench_routing routing)
{
    const size_t max_rows = in->max_num_batched_tokens;
    *s = (cmi_bench_steps){.instance = in, .routing = routing};
    s->cost_model = (cmi_cost_model){.config = &in->config,
                                     .weights_dtype = in->weights_dtype,
                                     .int8_head = in->weights->lm_head.dtype == CMI_DTYPE_I8,
                                     .kv_layout = in->kv_pool.layout};
    s->token_ids = cmi_alloc(max_rows, sizeof *s->token_ids);
    if (routing != CMI_BENCH_ROUTING_GATE && in->config.n_routed_experts > 0) {
        s->expert_ids = cmi_alloc(max_rows * in->config.num_experts_per_tok, sizeof *s->expert_ids);
    }
    s->head_rows = cmi_alloc(max_rows, sizeof *s->head_rows);
    s->spans = cmi_alloc(max_rows, sizeof *s->spans);
    s->cost_spans = cmi_alloc(max_rows, sizeof *s->cost_spans);
    s->page_ids = cmi_alloc(in->kv_pool.n_pages, sizeof *s->page_ids);
    for (uint32_t i = 0; i < in->kv_pool.n_pages; i++) {
        s->page_ids[i] = i;
    }
    s->head_hidden = cmi_alloc((size_t)CMI_FORWARD_MAX_HEAD_ROWS * in->config.hidden_size,
                               sizeof *s->head_hidden);
}

void cmi_bench_steps_deinit(cmi_bench_steps *s)
{
    cmi_free(s->head_hidden);
    cmi_free(s->page_ids);
    cmi_free(s->cost_spans);
    cmi_free(s->spans);
    cmi_free(s->head_rows);
    cmi_free(s->expert_ids);
    cmi_free(s->token_ids);
}

/* n rows of a sequence after those that are done. A cached prefix is expanded once. */
static void add_span(cmi_bench_steps *s, const cmi_bench_test *test, uint32_t sequence,
                     uint32_t done, uint32_t n)
{
    const uint32_t n_slots = test->depth + test->n_tokens + test->n_drafts;
    const uint32_t pages_each = CMI_DIV_UP(n_slots, (uint32_t)CMI_KV_PAGE_TOKENS);
    s->spans[s->n_spans] = (cmi_batch_span){.page_ids = s->page_ids + sequence * pages_each,
                                            .row_idx = s->n_rows,
                                            .n_rows = n,
                                            .position = test->depth + done,
                                            .is_prefill = test->is_prefill};
    s->cost_spans[s->n_spans] = (cmi_cost_span){.n_rows = n,
                                                .position = test->depth + done,
                                                .n_expanded = n + (done == 0 ? test->depth : 0),
                                                .is_prefill = test->is_prefill};
    s->n_spans++;
    s->n_rows += n;
    for (uint32_t i = test->is_prefill ? n - 1 : 0; i < n; i++) {
        if (!test->is_prefill || done + n == test->n_tokens) {
            s->head_rows[s->n_head++] = s->n_rows - n + i;
        }
    }
}

static void choose_tokens_and_experts(cmi_bench_steps *s, uint64_t n_done)
{
    const cmi_model_config *c = &s->instance->config;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        uint32_t words[4];
        cmi_philox4x32(token_seed, n_done + i, 0, words);
        s->token_ids[i] = words[0] % c->vocab_size;
    }
    s->n_experts = s->expert_ids != NULL
                       ? cmi_bench_route(s->routing, c, n_done, s->n_rows, s->expert_ids)
                       : 0;
}

uint32_t cmi_bench_step_make(cmi_bench_steps *s, const cmi_bench_test *test, uint64_t n_done)
{
    const uint32_t max_rows = s->instance->max_num_batched_tokens;
    s->n_rows = s->n_spans = s->n_head = 0;
    const uint32_t done_each = (uint32_t)(n_done / test->batch);
    for (uint32_t i = 0; !test->is_prefill && i < test->batch; i++) {
        add_span(s, test, i, done_each, CMI_MIN(1 + test->n_drafts, test->n_tokens - done_each));
    }
    s->n_mtp_passes = test->n_drafts;
    while (test->is_prefill && s->n_rows < max_rows) {
        uint32_t sequence = (uint32_t)((n_done + s->n_rows) / test->n_tokens);
        uint32_t done = (uint32_t)((n_done + s->n_rows) % test->n_tokens);
        if (sequence == test->batch) {
            break;
        }
        add_span(s, test, sequence, done, CMI_MIN(max_rows - s->n_rows, test->n_tokens - done));
    }
    choose_tokens_and_experts(s, n_done);
    return s->n_rows;
}

void cmi_bench_step_cost(const cmi_bench_steps *s, cmi_bench_cost_fn *add, void *arg)
{
    cmi_cost_batch batch = {s->cost_spans, s->n_spans, s->n_head, s->n_experts};
    cmi_cost cost = cmi_cost_step(&s->cost_model, &batch);
    add(arg, &cost);
    batch.n_head_rows = s->n_spans;
    for (uint32_t i = 0; i < s->n_mtp_passes; i++) {
        cost = cmi_cost_mtp_pass(&s->cost_model, &batch);
        add(arg, &cost);
        for (uint32_t k = 0; k < s->n_spans; k++) { /* the next draft is of the last one alone */
            s->cost_spans[k].position += s->cost_spans[k].n_rows;
            s->cost_spans[k].n_rows = 1;
        }
    }
}

/* ---- running ---- */

/* Returns when it ended. */
static double run_head(cmi_bench_steps *s, double begin, double *seconds)
{
    cmi_instance *in = s->instance;
    const size_t width = in->config.hidden_size;
    const float *hidden = cmi_forward_hidden(in->forward);
    for (uint32_t at = 0; at < s->n_head; at += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n = CMI_MIN(s->n_head - at, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            memcpy(s->head_hidden + i * width, hidden + s->head_rows[at + i] * width,
                   width * sizeof *hidden);
        }
        cmi_forward_logits(in->forward, s->head_hidden, n, in->logits);
    }
    double now = cmi_bench_seconds();
    *seconds += now - begin;
    return now;
}

/* Returns when it ended. */
static double run_pass(cmi_bench_steps *s, const float *mtp_hidden, double begin, double *seconds)
{
    cmi_forward *forward = s->instance->forward;
    const cmi_batch batch = {.token_ids = s->token_ids,
                             .spans = s->spans,
                             .n_rows = s->n_rows,
                             .n_spans = s->n_spans,
                             .mtp_hidden = mtp_hidden,
                             .expert_ids = s->expert_ids};
    cmi_forward_begin(forward, &batch);
    for (cmi_status st = CMI_IN_PROGRESS; st == CMI_IN_PROGRESS;) {
        cmi_stage stage = cmi_forward_next_stage(forward);
        st = cmi_forward_advance(forward);
        double now = cmi_bench_seconds();
        seconds[stage] += now - begin;
        begin = now;
    }
    return begin;
}

/* The rows of the first pass are the step's; the next draft is made of the last one alone. */
static void extend_drafts(cmi_bench_steps *s)
{
    cmi_instance *in = s->instance;
    const size_t width = in->config.hidden_size;
    for (uint32_t i = 0; i < s->n_spans; i++) {
        cmi_batch_span *span = &s->spans[i];
        const uint32_t last = span->row_idx + span->n_rows - 1; /* >= i */
        memmove(in->mtp_hidden + i * width, cmi_forward_hidden(in->forward) + last * width,
                width * sizeof *in->mtp_hidden);
        span->position += span->n_rows;
        span->row_idx = i;
        span->n_rows = 1;
    }
    s->n_rows = s->n_spans;
}

void cmi_bench_step_run(cmi_bench_steps *s, double seconds[CMI_BENCH_N_PHASES])
{
    cmi_instance *in = s->instance;
    double begin = cmi_bench_seconds();
    begin = run_pass(s, NULL, begin, seconds);
    begin = run_head(s, begin, &seconds[CMI_BENCH_HEAD]);
    for (uint32_t i = 0; i < s->n_mtp_passes; i++) {
        if (i == 0) {
            memcpy(in->mtp_hidden, cmi_forward_hidden(in->forward),
                   s->n_rows * (size_t)in->config.hidden_size * sizeof *in->mtp_hidden);
        } else {
            extend_drafts(s);
        }
        begin = run_pass(s, in->mtp_hidden, begin, seconds);
        s->n_head = s->n_spans;
        for (uint32_t k = 0; k < s->n_spans; k++) {
            s->head_rows[k] = s->spans[k].row_idx + s->spans[k].n_rows - 1;
        }
        begin = run_head(s, begin, &seconds[CMI_BENCH_HEAD]);
    }
}
