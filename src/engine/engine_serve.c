/* engine/engine_serve.c - one request from its prompt to its FINISHED event. */
#include <math.h>

#include "engine/engine_internal.h"
#include "os/clock.h"

/* The request being served; everything that its events repeat. */
typedef struct serving {
    cmi_engine *engine;
    const cmi_request *request;
    const uint32_t *prompt;
    uint64_t submitted_ns, started_ns, first_token_ns;
    uint32_t n_output;
    uint32_t stop_token_id;
    uint32_t banned[CMI_MAX_STOP_TOKEN_IDS + CMI_LEN(((cmi_model_config *)0)->eos_token_ids)];
    uint32_t n_banned; /* tokens that end the request: not to be sampled before min_tokens */
} serving;

static cmi_event new_event(const serving *s, cmi_event_type type)
{
    return (cmi_event){.version = CMI_MESSAGE_VERSION,
                       .type = type,
                       .request_id = s->request->request_id,
                       .logprob = NAN,
                       .submitted_ns = s->submitted_ns,
                       .started_ns = s->started_ns,
                       .first_token_ns = s->first_token_ns,
                       .now_ns = cmi_clock_monotonic_ns()};
}

/* logprob of the event's token and the largest ones, from the model's own logits. */
static void add_logprobs(const serving *s, cmi_event *event, const float *logits)
{
    const cmi_instance *in = s->engine->instance;
    uint32_t top[CMI_MAX_TOP_LOGPROBS];
    float norm = cmi_sampler_log_sum_exp(&in->kernels, logits, in->config.vocab_size);
    event->logprob = logits[event->token_id] - norm;
    event->n_top = CMI_MIN(s->request->n_top_logprobs, in->config.vocab_size);
    if (event->n_top > 0) {
        cmi_sampler_top(logits, in->config.vocab_size, event->n_top, top);
    }
    for (uint32_t i = 0; i < event->n_top; i++) {
        event->top[i] = (cmi_top_logprob){top[i], logits[top[i]] - norm};
    }
}

static void push_prompt_token(const serving *s, uint32_t index, const float *logits)
{
    cmi_event event = new_event(s, CMI_EVENT_PROMPT_TOKEN);
    event.index = index;
    event.token_id = s->prompt[index];
    if (logits != NULL) {
        add_logprobs(s, &event, logits);
    }
    (void)cmi_event_ring_push(&s->engine->ring, &event);
}

/* Events for the prompt tokens that follow the rows of the step just run. */
static void push_prompt_logprobs(const serving *s, uint32_t first, uint32_t n_rows)
{
    cmi_instance *in = s->engine->instance;
    for (uint32_t row = 0; row < n_rows; row += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n = CMI_MIN(n_rows - row, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        const float *logits = cmi_instance_logits(in, row, n);
        for (uint32_t i = 0; i < n && first + row + i + 1 < s->request->n_prompt_tokens; i++) {
            push_prompt_token(s, first + row + i + 1, logits + (size_t)i * in->config.vocab_size);
        }
    }
}

/* Runs the prompt in chunks. *ended_out: cancelled on the way. */
static cmi_status prefill(serving *s, bool *ended_out)
{
    cmi_engine *engine = s->engine;
    uint32_t n_prompt = s->request->n_prompt_tokens;
    bool with_logprobs = (s->request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0;
    if (with_logprobs) {
        push_prompt_token(s, 0, NULL);
    }
    for (uint32_t at = 0; at < n_prompt;) {
        if (cmi_engine_check_cancel(engine)) {
            *ended_out = true;
            return CMI_OK;
        }
        uint32_t n = CMI_MIN(n_prompt - at, engine->instance->max_num_batched_tokens);
        cmi_status st =
            cmi_instance_step(engine->instance, &engine->sequence, s->prompt + at, n, true);
        if (st != CMI_OK) {
            return st;
        }
        cmi_engine_count_step(engine, n, true);
        if (with_logprobs) {
            push_prompt_logprobs(s, at, n);
        }
        at += n;
    }
    return CMI_OK;
}

static bool ends_request(const serving *s, uint32_t token_id)
{
    for (uint32_t i = 0; i < s->n_banned; i++) {
        if (s->banned[i] == token_id) {
            return true;
        }
    }
    return false;
}

/* Samples the next token and sends it. Returns why the request ends with it, or CMI_FINISH_NONE. */
static cmi_finish_reason sample_token(serving *s, const float *logits, uint32_t *token_out)
{
    cmi_engine *engine = s->engine;
    uint32_t position = s->request->n_prompt_tokens + s->n_output;
    uint32_t n_banned = s->n_output < s->request->min_tokens ? s->n_banned : 0;
    uint32_t token = cmi_sampler_sample(&engine->sampler, logits, position, s->banned, n_banned);
    cmi_sampler_accept(&engine->sampler, token);
    cmi_engine_count_token(engine);
    if (s->n_output == 0) {
        s->first_token_ns = cmi_clock_monotonic_ns();
    }
    cmi_event event = new_event(s, CMI_EVENT_TOKEN);
    event.index = s->n_output++;
    event.token_id = token;
    if ((s->request->flags & CMI_REQUEST_LOGPROBS) != 0) {
        add_logprobs(s, &event, logits);
    }
    cmi_finish_reason reason = CMI_FINISH_NONE;
    if (ends_request(s, token)) {
        reason = CMI_FINISH_STOP;
        event.finish_reason = CMI_FINISH_STOP;
        event.stop_token_id = s->stop_token_id = token;
    } else if (s->n_output == s->request->max_tokens ||
               position + 1 == engine->instance->max_model_len) {
        reason = CMI_FINISH_LENGTH;
    }
    (void)cmi_event_ring_push(&engine->ring, &event);
    *token_out = token;
    return reason;
}

static cmi_status generate(serving *s, cmi_finish_reason *reason_out)
{
    cmi_engine *engine = s->engine;
    uint32_t last_row =
        (s->request->n_prompt_tokens - 1) % engine->instance->max_num_batched_tokens;
    for (;;) {
        const float *logits = cmi_instance_logits(engine->instance, last_row, 1);
        uint32_t token;
        cmi_finish_reason reason = sample_token(s, logits, &token);
        bool cancelled = cmi_engine_check_cancel(engine);
        if (reason != CMI_FINISH_NONE || cancelled) {
            *reason_out = reason != CMI_FINISH_NONE ? reason : CMI_FINISH_ABORT;
            return CMI_OK;
        }
        cmi_status st = cmi_instance_step(engine->instance, &engine->sequence, &token, 1, false);
        if (st != CMI_OK) {
            return st;
        }
        cmi_engine_count_step(engine, 1, false);
        last_row = 0;
    }
}

static void collect_end_tokens(serving *s)
{
    const cmi_model_config *config = &s->engine->instance->config;
    const uint32_t *stop = cmi_request_stop_token_ids(s->request);
    if ((s->request->flags & CMI_REQUEST_IGNORE_EOS) == 0) {
        for (uint32_t i = 0; i < config->n_eos_token_ids; i++) {
            s->banned[s->n_banned++] = config->eos_token_ids[i];
        }
    }
    for (uint32_t i = 0; i < s->request->n_stop_token_ids; i++) {
        s->banned[s->n_banned++] = stop[i];
    }
}

/* The request is over for cancel and statistics before its FINISHED event can be seen. */
static void leave_running(cmi_engine *engine)
{
    cmi_sequence_reset(&engine->sequence, engine->instance);
    pthread_mutex_lock(&engine->lock);
    engine->is_running = false;
    engine->stats.n_kv_pages_used = 0;
    pthread_mutex_unlock(&engine->lock);
}

void cmi_engine_serve(cmi_engine *engine, const cmi_queued_request *queued)
{
    serving s = {.engine = engine,
                 .request = queued->request,
                 .prompt = cmi_request_prompt(queued->request),
                 .submitted_ns = queued->submitted_ns,
                 .started_ns = cmi_clock_monotonic_ns()};
    cmi_finish_reason reason = CMI_FINISH_ABORT;
    bool ended = false;
    collect_end_tokens(&s);
    cmi_sampler_begin(&engine->sampler, queued->request);
    cmi_status st = prefill(&s, &ended);
    if (st == CMI_OK && !ended) {
        st = generate(&s, &reason);
    }
    leave_running(engine);
    cmi_event event = new_event(&s, CMI_EVENT_FINISHED);
    event.finish_reason = st == CMI_OK ? reason : CMI_FINISH_ERROR;
    event.status = st;
    event.stop_token_id = s.stop_token_id;
    event.n_prompt_tokens = s.request->n_prompt_tokens;
    event.n_output_tokens = s.n_output;
    (void)cmi_event_ring_push(&engine->ring, &event);
}
