/* engine/engine_sample.c - from the hidden states of a step to tokens and events.
 *
 * Rows are sampled on the team, a row a task; what a row gives depends on its logits and its
 * request only. Events go out in the order of the rows. */
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

typedef struct sample_job {
    cmi_engine *engine;
    cmi_sampled_row *rows;
    const float *logits;
} sample_job;

static void sample_row(void *arg, uint32_t task, uint32_t worker)
{
    const sample_job *job = arg;
    const cmi_instance *in = job->engine->instance;
    cmi_sampled_row *row = &job->rows[task];
    const cmi_engine_slot *slot = &job->engine->slots[row->slot];
    const float *logits = job->logits + (size_t)task * in->config.vocab_size;
    cmi_sample sample = {.request = slot->request,
                         .logits = logits,
                         .position = slot->request->n_prompt_tokens + (uint64_t)slot->n_output,
                         .output = slot->output,
                         .n_output = slot->n_output,
                         .banned = slot->end_tokens,
                         .n_banned =
                             slot->n_output < slot->request->min_tokens ? slot->n_end_tokens : 0};
    row->event.token_id = cmi_sampler_sample(&job->engine->samplers[worker], &sample);
    if ((slot->request->flags & CMI_REQUEST_LOGPROBS) != 0) {
        add_logprobs(in, slot->request, &row->event, logits);
    }
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

/* Takes the token into the output and sends it. */
static void accept_row(cmi_engine *engine, cmi_sampled_row *row)
{
    cmi_engine_slot *slot = &engine->slots[row->slot];
    cmi_event *event = &row->event;
    event->index = slot->n_output;
    event->now_ns = cmi_clock_monotonic_ns();
    if (slot->n_output == 0) {
        slot->first_token_ns = event->now_ns;
    }
    event->first_token_ns = slot->first_token_ns;
    slot->output[slot->n_output++] = event->token_id;
    engine->counts.n_generation_tokens++;
    if (ends_request(slot, event->token_id)) {
        slot->reason = CMI_FINISH_STOP;
        slot->stop_token_id = event->token_id;
        event->finish_reason = CMI_FINISH_STOP;
        event->stop_token_id = event->token_id;
    } else if (slot->n_output == slot->max_output) {
        slot->reason = CMI_FINISH_LENGTH;
    }
    (void)cmi_event_ring_push(&engine->ring, event);
}

/* The hidden states of some rows, side by side as the head wants them. */
static void gather_hidden(cmi_engine *engine, const cmi_sampled_row *rows, uint32_t n)
{
    const size_t width = engine->instance->config.hidden_size;
    const float *hidden = cmi_forward_hidden(engine->instance->forward);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(engine->hidden + i * width, hidden + rows[i].row_idx * width,
               width * sizeof *hidden);
    }
}

void cmi_engine_sample_rows(cmi_engine *engine, uint32_t n_rows)
{
    cmi_instance *in = engine->instance;
    for (uint32_t begin = 0; begin < n_rows; begin += CMI_FORWARD_MAX_HEAD_ROWS) {
        cmi_sampled_row *rows = engine->rows + begin;
        uint32_t n = CMI_MIN(n_rows - begin, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            rows[i].event = cmi_engine_event(engine, rows[i].slot, CMI_EVENT_TOKEN);
        }
        gather_hidden(engine, rows, n);
        cmi_forward_logits(in->forward, engine->hidden, n, in->logits);
        sample_job job = {engine, rows, in->logits};
        cmi_team_run(in->team, sample_row, &job, n);
        for (uint32_t i = 0; i < n; i++) {
            accept_row(engine, &rows[i]);
        }
    }
}
