/* From events to text: a token goes through the detokenizer (whole characters), the stop-string
 * matcher (what cannot be part of one), and then to its endpoint's shape. What is shown depends on
 * the tokens only, not on whether it is streamed. */
#include <math.h>

#include "server/api_internal.h"

uint32_t cmi_api_job_n_requests(const cmi_api_job *job)
{
    return job->n_choices;
}

const cmi_request *cmi_api_job_request(const cmi_api_job *job, uint32_t choice)
{
    return job->choices[choice].request;
}

void cmi_api_job_set_service(cmi_api_job *job, const cmi_api_service *service)
{
    for (uint32_t i = 0; i < job->n_choices; i++) {
        cmi_request *request = job->choices[i].request;
        request->ttft_target_us = service->ttft_us;
        request->tpot_target_us = service->tpot_us;
        request->timeout_ms = service->timeout_ms;
        request->age_us = service->age_us;
        request->tenant = service->tenant;
    }
}

uint32_t cmi_api_job_n(const cmi_api_job *job)
{
    return (uint32_t)job->params.n;
}

bool cmi_api_job_is_stream(const cmi_api_job *job)
{
    return job->params.stream;
}

const char *cmi_api_job_format_field(const cmi_api_job *job)
{
    return job->format.tree == NULL ? NULL : job->format.field;
}

const char *cmi_api_job_id(const cmi_api_job *job)
{
    return job->id;
}

cmi_api_usage cmi_api_job_usage(const cmi_api_job *job)
{
    cmi_api_usage usage = {0};
    for (uint32_t i = 0; i < job->n_choices; i++) {
        const cmi_api_choice *c = &job->choices[i];
        usage.n_output_tokens += c->n_output_tokens;
        if (i % (uint32_t)job->params.n == 0) { /* a prompt counts once, whatever n is */
            usage.n_prompt_tokens += c->request->n_prompt_tokens;
            usage.n_cached_tokens += c->n_cached_tokens;
        }
    }
    return usage;
}

static bool is_chat(const cmi_api_job *job)
{
    return job->endpoint == CMI_API_CHAT_COMPLETIONS;
}

static void open_choice(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if (c->opened) {
        return;
    }
    c->opened = true;
    if (is_chat(job)) {
        cmi_api_chat_open(job, c, out);
    } else {
        cmi_api_completion_open(job, c, out);
    }
}

/* Shows the text in job->released. */
static void give_released(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if (job->released.len == 0) {
        return;
    }
    if (is_chat(job)) {
        cmi_api_chat_text(job, c, &job->released, out);
    } else {
        cmi_api_completion_text(job, c, &job->released, out);
    }
}

static void close_choice(cmi_api_job *job, cmi_api_choice *c, cmi_api_finish finish, cmi_buf *out)
{
    c->text_done = true;
    c->finish = finish;
    if (is_chat(job)) {
        cmi_api_chat_close(job, c, out);
    } else {
        cmi_api_completion_close(job, c, out);
    }
}

/* Takes the new text in job->decoded. Closes the choice when it completes a stop string. */
static void take_decoded(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    const cmi_buf *text = &job->decoded;
    int found = -1;
    cmi_buf_clear(&job->released);
    if (c->n_output_tokens <= job->params.min_tokens) {
        cmi_buf_append(&job->released, text->data, text->len);
    } else {
        found = cmi_stop_matcher_feed(&c->matcher, text->data, text->len,
                                      job->params.include_stop_string, &job->released);
    }
    c->n_released += job->released.len;
    if (found < 0) {
        cmi_api_logprobs_release(&c->logprobs, c->n_released);
        give_released(job, c, out);
        return;
    }
    cmi_api_logprobs_cut(&c->logprobs, c->n_released);
    give_released(job, c, out);
    c->stop_string = found;
    close_choice(job, c, CMI_API_FINISH_STOP, out);
}

static void on_token(cmi_api_job *job, cmi_api_choice *c, const cmi_event *event, cmi_buf *out,
                     bool *cancel_out)
{
    if (c->text_done || job->discard_output) {
        return;
    }
    open_choice(job, c, out);
    c->n_output_tokens++;
    if (event->finish_reason == CMI_FINISH_STOP && !job->params.include_stop_string) {
        return; /* the token that ended it is counted and not shown */
    }
    bool was_reasoning = cmi_answer_parser_in_reasoning(&c->parser);
    cmi_api_token_span span = {.start = c->n_decoded, .start_chars = c->n_chars};
    cmi_buf_clear(&job->decoded);
    cmi_detokenizer_push(&c->detokenizer, event->token_id, &job->decoded);
    c->n_decoded += job->decoded.len;
    c->n_chars += cmi_api_count_chars(cmi_buf_cstr(&job->decoded), job->decoded.len);
    if (c->logprobs.tokenizer != NULL) {
        span.end = c->n_decoded;
        span.is_part = c->detokenizer.n_held > 0;
        cmi_api_logprobs_add(&c->logprobs, event, &span);
    }
    take_decoded(job, c, out);
    *cancel_out = c->text_done;
    if (was_reasoning || cmi_answer_parser_in_reasoning(&c->parser)) {
        c->n_reasoning_tokens++;
    }
}

/* The engine has no more tokens: what was held back is text now. */
static void end_text(cmi_api_job *job, cmi_api_choice *c, cmi_api_finish finish, cmi_buf *out)
{
    open_choice(job, c, out);
    cmi_buf_clear(&job->decoded);
    cmi_detokenizer_finish(&c->detokenizer, &job->decoded);
    take_decoded(job, c, out);
    if (c->text_done) {
        return;
    }
    cmi_buf_clear(&job->released);
    cmi_stop_matcher_flush(&c->matcher, &job->released);
    cmi_api_logprobs_release(&c->logprobs, SIZE_MAX);
    give_released(job, c, out);
    close_choice(job, c, finish, out);
}

/* The model's own end token is no news to the client, even if it asked for it. */
static bool is_clients_stop(const cmi_api_job *job, const cmi_request *request, uint32_t token_id)
{
    const uint32_t *ids = cmi_request_stop_token_ids(request);
    if (token_id == cmi_tokenizer_eos_id(job->api->opt.tokenizer) && !job->params.ignore_eos) {
        return false;
    }
    for (uint32_t i = 0; i < request->n_stop_token_ids; i++) {
        if (ids[i] == token_id) {
            return true;
        }
    }
    return false;
}

static const char *why_failed(cmi_status st)
{
    switch (st) {
    case CMI_ERR_TIMEOUT:
        return "The request's time was up before its answer was complete.";
    case CMI_ERR_NO_CAPACITY:
        return "The request waited twice its TTFT target and had not begun; try again.";
    case CMI_ERR_UNSUPPORTED:
        return "The model has no token that goes on as the format wants.";
    default:
        return cmi_status_text(st);
    }
}

/* What a request ended with, when that is no answer. */
static cmi_status check_finished(const cmi_api_choice *c, const cmi_event *event,
                                 cmi_api_error *err)
{
    if (event->finish_reason == CMI_FINISH_ERROR) {
        cmi_status st = (cmi_status)event->status;
        st = st < CMI_OK ? st : CMI_ERR_IO;
        return cmi_api_fail(err, st, why_failed(st));
    }
    if (event->finish_reason == CMI_FINISH_ABORT && !c->text_done) {
        return cmi_api_fail(err, CMI_ERR_CANCELLED, "The request was stopped by the server.");
    }
    return CMI_OK;
}

static cmi_status on_finished(cmi_api_job *job, cmi_api_choice *c, const cmi_event *event,
                              cmi_buf *out, cmi_api_error *err)
{
    cmi_status st = check_finished(c, event, err);
    if (st != CMI_OK) {
        return st;
    }
    bool stopped = event->finish_reason == CMI_FINISH_STOP && !job->discard_output;
    if (!c->text_done) {
        if (stopped && is_clients_stop(job, c->request, event->stop_token_id)) {
            c->stop_token_id = event->stop_token_id;
        }
        end_text(job, c, stopped ? CMI_API_FINISH_STOP : CMI_API_FINISH_LENGTH, out);
    }
    c->ended = true;
    c->n_cached_tokens = CMI_MIN(event->n_cached_tokens, c->request->n_prompt_tokens);
    job->n_open--;
    return CMI_OK;
}

static bool is_too_large(const cmi_api_choice *c)
{
    return c->echo.overflow || c->content.overflow || c->reasoning.overflow || c->calls.overflow ||
           cmi_api_logprobs_overflow(&c->logprobs);
}

static cmi_status finish_job(cmi_api_job *job, cmi_buf *out, cmi_api_error *err)
{
    for (uint32_t i = 0; i < job->n_choices; i++) {
        if (is_too_large(&job->choices[i])) {
            return cmi_api_fail(err, CMI_ERR_NO_MEMORY, "The answer is too large.");
        }
    }
    if (job->params.stream) {
        cmi_api_write_stream_end(job, out);
    } else if (is_chat(job)) {
        cmi_api_chat_body(job, out);
    } else {
        cmi_api_completion_body(job, out);
    }
    return CMI_OK;
}

cmi_status cmi_api_job_event(cmi_api_job *job, const cmi_event *event, cmi_buf *out,
                             bool *cancel_out, cmi_api_error *err)
{
    *cancel_out = false;
    uint64_t choice_idx = event->request_id - job->number * CMI_API_MAX_CHOICES;
    if (choice_idx >= job->n_choices || job->choices[choice_idx].ended) {
        return job->n_open > 0 ? CMI_IN_PROGRESS : CMI_OK;
    }
    cmi_api_choice *c = &job->choices[choice_idx];
    cmi_status st = CMI_OK;
    size_t before = out->len;
    switch ((cmi_event_type)event->type) {
    case CMI_EVENT_PROMPT_TOKEN:
        if (!is_chat(job)) {
            cmi_api_completion_prompt_token(c, event);
        }
        break;
    case CMI_EVENT_TOKEN:
        on_token(job, c, event, out, cancel_out);
        break;
    case CMI_EVENT_FINISHED:
        st = on_finished(job, c, event, out, err);
        break;
    }
    if (st == CMI_OK) {
        st = job->n_open > 0 ? CMI_IN_PROGRESS : finish_job(job, out, err);
    }
    if (st < CMI_OK && out->len > before) {
        cmi_buf_truncate(out, before);
    }
    return st;
}
