#include "server/api_internal.h"
#include "server/json_out.h"

static void give_text(cmi_api_job *job, cmi_api_choice *c, const cmi_buf *text, cmi_buf *out)
{
    if (!job->params.stream) {
        cmi_buf_append(&c->content, text->data, text->len);
        return;
    }
    cmi_api_write_chunk_begin(job, c, out);
    cmi_buf_str(out, "\"text\":");
    cmi_json_write_string(out, text->data, text->len);
    cmi_buf_str(out, ",\"logprobs\":");
    cmi_api_logprobs_take(&c->logprobs, out);
    cmi_buf_str(out, ",\"finish_reason\":null");
    cmi_api_write_chunk_end(job, out);
}

/* Adds the prompt's token at idx to the echo; event carries its logprob, or is NULL. */
static void echo_token(cmi_api_choice *c, uint32_t idx, const cmi_event *event)
{
    size_t before = c->echo.len;
    cmi_api_token_span span = {.start = c->n_decoded, .start_chars = c->n_chars};
    if (idx > 0 || !c->prompt->hide_first) {
        cmi_detokenizer_push(&c->echo_detokenizer, cmi_request_prompt(c->request)[idx], &c->echo);
    }
    c->n_decoded += c->echo.len - before;
    c->n_chars += cmi_api_count_chars(cmi_buf_cstr(&c->echo) + before, c->echo.len - before);
    if (event != NULL) {
        span.end = c->n_decoded;
        cmi_api_logprobs_add(&c->logprobs, event, &span);
    }
}

void cmi_api_completion_prompt_token(cmi_api_choice *c, const cmi_event *event)
{
    bool wanted = (c->request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0 && !c->opened;
    if (wanted && event->index < c->request->n_prompt_tokens) {
        echo_token(c, event->index, event);
    }
}

static void give_echo(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if ((c->request->flags & CMI_REQUEST_PROMPT_LOGPROBS) == 0) {
        for (uint32_t i = 0; i < c->request->n_prompt_tokens; i++) {
            echo_token(c, i, NULL);
        }
    }
    size_t before = c->echo.len;
    cmi_detokenizer_finish(&c->echo_detokenizer, &c->echo);
    c->n_decoded += c->echo.len - before;
    c->n_chars += c->echo.len > before;
    c->n_released = c->n_decoded;
    cmi_api_logprobs_release(&c->logprobs, SIZE_MAX);
    give_text(job, c, &c->echo, out);
}

void cmi_api_completion_open(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if (job->params.echo) {
        give_echo(job, c, out);
    }
}

void cmi_api_completion_text(cmi_api_job *job, cmi_api_choice *c, const cmi_buf *text, cmi_buf *out)
{
    give_text(job, c, text, out);
}

static void write_end(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    cmi_buf_str(out, ",\"logprobs\":");
    cmi_api_logprobs_take(&c->logprobs, out);
    cmi_api_write_finish(job, c, out);
}

void cmi_api_completion_close(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if (job->params.stream) {
        cmi_api_write_chunk_begin(job, c, out);
        cmi_buf_str(out, "\"text\":\"\"");
        write_end(job, c, out);
        cmi_api_write_chunk_end(job, out);
    }
}

void cmi_api_completion_body(cmi_api_job *job, cmi_buf *out)
{
    cmi_api_write_body_begin(job, out);
    for (uint32_t i = 0; i < job->n_choices; i++) {
        cmi_api_choice *c = &job->choices[i];
        cmi_buf_printf(out, "%s{\"index\":%u,\"text\":", i > 0 ? "," : "", i);
        cmi_json_write_string(out, c->content.data, c->content.len);
        write_end(job, c, out);
        cmi_buf_char(out, '}');
    }
    cmi_api_write_body_end(job, out);
}
