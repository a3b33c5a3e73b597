/* engine/engine_sample.c - from the hidden states of a step to tokens and events.
 *
 * Spans are sampled on the team, one a task; what a span gives depends on its logits and its
 * request only. Events go out in the order of the spans.
 *
 * A draft is right when it is the token that the model's own logits and the request's noise give at
 * its position, so the output is the same with and without drafts. */
#include <math.h>

#include "engine/engine_internal.h"
#include "os/clock.h"

cmi_event cmi_engine_event(const cmi_engine *engine, uint32_t slot_idx, cmi_event_type type)
{
    const cmi_engine_slot *slot = &engine->slots[slot_idx];
    return (cmi_event){.version = CMI_MESSAGE_VERSION,
                       .type = type,
                       .request_id = slot->request->request_id,
                       .logprob = NAN,
                       .submitted_ns = slot->submitted_ns,
                       .started_ns = slot->started_ns,
                       .first_token_ns = slot->first_token_ns,
                       .now_ns = cmi_clock_monotonic_ns()};
}

/* logprob of the event's token and the largest ones, from the model's own logits. */
static void add_logprobs(const cmi_instance *in, const cmi_request *request, cmi_event *event,
                         const float *logits)
{
    uint32_t top[CMI_MAX_TOP_LOGPROBS];
    float norm = cmi_sampler_log_sum_exp(&in->kernels, logits, in->config.vocab_size);
    event->logprob = logits[event->token_id] - norm;
    event->n_top = CMI_MIN(request->n_top_logprobs, in->config.vocab_size);
    if (event->n_top > 0) {
        cmi_sampler_top(logits, in->config.vocab_size, event->n_top, top);
    }
    for (uint32_t i = 0; i < event->n_top; i++) {
        event->top[i] = (cmi_top_logprob){top[i], logits[top[i]] - norm};
    }
}

/* ---- prompt logprobs ---------------------------------------------------------------------------
 */

static void push_prompt_token(cmi_engine *engine, uint32_t slot_idx, uint32_t index,
                              const float *logits)
{
    cmi_engine_slot *slot = &engine->slots[slot_idx];
    if (index != slot->n_prompt_events) {
        return; /* sent before a preemption */
    }
    cmi_event event = cmi_engine_event(engine, slot_idx, CMI_EVENT_PROMPT_TOKEN);
    event.index = index;
    event.token_id = cmi_request_prompt(slot->request)[index];
    if (logits != NULL) {
        add_logprobs(engine->instance, slot->request, &event, logits);
    }
    slot->n_prompt_events++;
    (void)cmi_event_ring_push(&engine->ring, &event);
}

void cmi_engine_push_prompt_logprobs(cmi_engine *engine, const cmi_scheduler_span *span,
                                     uint32_t row_idx)
{
    cmi_instance *in = engine->instance;
    uint32_t n_prompt = engine->slots[span->slot].request->n_prompt_tokens;
    if (span->position == 0) {
        push_prompt_token(engine, span->slot, 0, NULL);
    }
    for (uint32_t row = 0; row < span->n_rows; row += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n = CMI_MIN(span->n_rows - row, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        const float *logits = cmi_instance_logits(in, row_idx + row, n);
        for (uint32_t i = 0; i < n && span->position + row + i + 1 < n_prompt; i++) {
            push_prompt_token(engine, span->slot, span->position + row + i + 1,
                              logits + (size_t)i * in->config.vocab_size);
        }
    }
}

/* ---- tokens ------------------------------------------------------------------------------------
 */

/* End tokens must not come before min_tokens, nor before a grammar that must begin; but when a
 * grammar's text allows nothing else they may. */
static bool bans_end(const cmi_engine_slot *slot, uint32_t n_output)
{
    const cmi_output_grammar *grammar = slot->grammar;
    const bool is_bound = cmi_output_grammar_mask(grammar) != NULL;
    if (grammar != NULL && !is_bound &&
        (slot->request->flags & CMI_REQUEST_GRAMMAR_MUST_BEGIN) != 0) {
        return true;
    }
    return n_output < slot->request->min_tokens &&
           (!is_bound ||
            cmi_output_grammar_allows_beside(grammar, slot->end_tokens, slot->n_end_tokens));
}

cmi_sample cmi_engine_sample_of(const cmi_engine_slot *slot, const float *logits, uint32_t n_ahead)
{
    uint32_t n_output = slot->n_output + n_ahead;
    return (cmi_sample){.request = slot->request,
                        .logits = logits,
                        .position = slot->request->n_prompt_tokens + (uint64_t)n_output,
                        .output = slot->output,
                        .n_output = n_output,
                        .banned = slot->end_tokens,
                        .n_banned = bans_end(slot, n_output) ? slot->n_end_tokens : 0,
                        .allowed = cmi_output_grammar_mask(slot->grammar)};
}

static bool ends_request(const cmi_engine_slot *slot, uint32_t token_id)
{
    for (uint32_t i = 0; i < slot->n_end_tokens; i++) {
        if (slot->end_tokens[i] == token_id) {
            return true;
        }
    }
    return false;
}

typedef struct sample_job {
    cmi_engine *engine;
    cmi_sampled_span *spans;
    const float *logits; /* of all rows of the spans */
} sample_job;

static const float *span_logits(const sample_job *job, uint32_t span)
{
    size_t row = 0;
    for (uint32_t i = 0; i < span; i++) {
        row += job->spans[i].n_rows;
    }
    return job->logits + row * job->engine->instance->config.vocab_size;
}

/* A token of each row, as long as the row's own token is right; all of them into the output, and on
 * in the grammar, which later rows are sampled behind. */
static void sample_span(void *arg, uint32_t task, uint32_t worker)
{
    const sample_job *job = arg;
    const cmi_instance *in = job->engine->instance;
    cmi_sampled_span *span = &job->spans[task];
    cmi_engine_slot *slot = &job->engine->slots[span->slot];
    const float *logits = span_logits(job, task);
    for (uint32_t row = 0;; row++) {
        cmi_sample sample = cmi_engine_sample_of(slot, logits, row);
        cmi_event *event = &span->events[row];
        event->token_id = cmi_sampler_sample(&job->engine->samplers[worker], &sample);
        if ((slot->request->flags & CMI_REQUEST_LOGPROBS) != 0) {
            add_logprobs(in, slot->request, event, logits);
        }
        slot->output[slot->n_output + row] = event->token_id;
        span->n_new = row + 1;
        span->last_step =
            slot->grammar == NULL
                ? CMI_OUTPUT_GOES_ON
                : cmi_output_grammar_step(slot->grammar, slot->request, event->token_id);
        if (span->n_new == span->n_rows || event->token_id != slot->drafts[row] ||
            span->last_step != CMI_OUTPUT_GOES_ON || ends_request(slot, event->token_id)) {
            return;
        }
        logits += in->config.vocab_size;
    }
}

void cmi_engine_decide_end(cmi_engine_slot *slot, uint32_t token_id, cmi_output_step step)
{
    if (step == CMI_OUTPUT_ENDED || ends_request(slot, token_id)) {
        slot->reason = CMI_FINISH_STOP;
        slot->stop_token_id = token_id;
    } else if (slot->n_output == slot->max_output) {
        slot->reason = CMI_FINISH_LENGTH;
    } else if (step == CMI_OUTPUT_FAILED) {
        slot->reason = CMI_FINISH_ERROR;
        slot->status = CMI_ERR_UNSUPPORTED;
    }
}

void cmi_engine_accept_token(cmi_engine *engine, cmi_engine_slot *slot, cmi_event *event,
                             cmi_output_step step)
{
    event->index = slot->n_output++;
    event->now_ns = slot->last_token_ns = cmi_clock_monotonic_ns();
    if (event->index == slot->n_given) {
        slot->first_token_ns = event->now_ns;
    }
    event->first_token_ns = slot->first_token_ns;
    engine->counts.n_generation_tokens++;
    cmi_engine_decide_end(slot, event->token_id, step);
    if (slot->reason == CMI_FINISH_STOP) {
        event->finish_reason = CMI_FINISH_STOP;
        event->stop_token_id = event->token_id;
    }
    if (engine->sender == NULL) { /* a decode instance sends it */
        (void)cmi_event_ring_push(&engine->ring, event);
    }
}

static void count_drafts(cmi_engine *engine, cmi_engine_slot *slot, const cmi_sampled_span *span)
{
    uint32_t n_tried = span->n_rows - 1, n_right = span->n_new - 1;
    engine->counts.n_drafts += n_tried > 0 ? 1 : 0;
    engine->counts.n_draft_tokens += n_tried;
    engine->counts.n_accepted_tokens += n_right;
    for (uint32_t i = 0; i < n_right; i++) {
        engine->counts.n_accepted_at[i]++;
    }
    if (n_tried > 0) {
        cmi_acceptance_count(&slot->acceptance, n_tried, n_right);
        cmi_acceptance_count(&engine->acceptance, n_tried, n_right);
    }
    slot->n_tried += n_tried;
    slot->n_right += n_right;
}

/* The hidden states of some spans' rows, side by side as the head wants them. */
static void gather_hidden(cmi_engine *engine, const cmi_sampled_span *spans, uint32_t n)
{
    const size_t width = engine->instance->config.hidden_size;
    const float *hidden = cmi_forward_hidden(engine->instance->forward);
    float *to = engine->hidden;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(to, hidden + spans[i].row_idx * width, spans[i].n_rows * width * sizeof *to);
        to += spans[i].n_rows * width;
    }
}

/* As many of the spans as one call of the head takes. Returns how many. */
static uint32_t sample_some(cmi_engine *engine, cmi_sampled_span *spans, uint32_t n_left)
{
    cmi_instance *in = engine->instance;
    uint32_t n = 0, n_rows = 0;
    for (; n < n_left && n_rows + spans[n].n_rows <= CMI_FORWARD_MAX_HEAD_ROWS; n++) {
        cmi_event event = cmi_engine_event(engine, spans[n].slot, CMI_EVENT_TOKEN);
        for (uint32_t i = 0; i < spans[n].n_rows; i++) {
            spans[n].events[i] = event;
        }
        n_rows += spans[n].n_rows;
    }
    gather_hidden(engine, spans, n);
    cmi_forward_logits(in->forward, engine->hidden, n_rows, in->logits);
    sample_job job = {engine, spans, in->logits};
    cmi_team_run(in->team, sample_span, &job, n);
    for (uint32_t i = 0; i < n; i++) {
        cmi_engine_slot *slot = &engine->slots[spans[i].slot];
        count_drafts(engine, slot, &spans[i]);
        for (uint32_t k = 0; k < spans[i].n_new; k++) {
            cmi_engine_accept_token(engine, slot, &spans[i].events[k],
                                    k + 1 == spans[i].n_new ? spans[i].last_step
                                                            : CMI_OUTPUT_GOES_ON);
        }
    }
    return n;
}

void cmi_engine_sample_spans(cmi_engine *engine, uint32_t n)
{
    for (uint32_t begin = 0; begin < n;) {
        begin += sample_some(engine, engine->sampled + begin, n - begin);
    }
}
