#include "base/rng.h"
#include "server/api_internal.h"
#include "server/json_out.h"

static void chunk_begin(const cmi_api_job *job, const cmi_api_choice *c, cmi_buf *out)
{
    cmi_api_write_chunk_begin(job, c, out);
    cmi_buf_str(out, "\"delta\":{");
}

static void chunk_end(const cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    cmi_buf_str(out, "},\"logprobs\":");
    cmi_api_logprobs_take(&c->logprobs, out);
    cmi_buf_str(out, ",\"finish_reason\":null");
    cmi_api_write_chunk_end(job, out);
}

static void give_content(const cmi_api_job *job, cmi_api_choice *c, const char *text, size_t n,
                         cmi_buf *out)
{
    if (!job->params.stream) {
        cmi_buf_append(&c->content, text, n);
        return;
    }
    chunk_begin(job, c, out);
    cmi_buf_str(out, "\"content\":");
    cmi_json_write_string(out, text, n);
    chunk_end(job, c, out);
}

/* Both names are in use: reasoning_content in DeepSeek's own API, reasoning in newer ones. */
static void write_reasoning(cmi_buf *out, const char *text, size_t n)
{
    cmi_buf_str(out, "\"reasoning_content\":");
    cmi_json_write_string_or_null(out, text, n);
    cmi_buf_str(out, ",\"reasoning\":");
    cmi_json_write_string_or_null(out, text, n);
}

static void give_reasoning(const cmi_api_job *job, cmi_api_choice *c, const char *text, size_t n,
                           cmi_buf *out)
{
    if (!job->params.include_reasoning) {
        cmi_api_logprobs_drop(&c->logprobs); /* nothing else was shown before */
        return;
    }
    if (!job->params.stream) {
        cmi_buf_append(&c->reasoning, text, n);
        return;
    }
    chunk_begin(job, c, out);
    write_reasoning(out, text, n);
    chunk_end(job, c, out);
}

/* Up to where the arguments go. */
static void write_call(const cmi_api_job *job, const cmi_api_choice *c,
                       const cmi_answer_piece *piece, cmi_buf *out)
{
    uint64_t place = (uint64_t)c->idx << 32 | piece->call_idx;
    uint32_t w[4];
    cmi_philox4x32(job->api->opt.id_seed ^ place, job->number, (uint64_t)CMI_API_DRAW_CALL << 32,
                   w);
    cmi_buf_printf(out, "\"id\":\"call_%08x%08x%08x\",\"type\":\"function\",", w[0], w[1], w[2]);
    cmi_buf_str(out, "\"function\":{\"name\":");
    cmi_json_write_string(out, piece->text, piece->n_bytes);
    cmi_buf_str(out, ",\"arguments\":\"");
}

static void keep_call(const cmi_api_job *job, cmi_api_choice *c, const cmi_answer_piece *piece)
{
    if (piece->type == CMI_ANSWER_ARGUMENTS) {
        cmi_json_write_escaped(&c->calls, piece->text, piece->n_bytes);
        return;
    }
    cmi_buf_str(&c->calls, c->n_calls > 1 ? "\"}},{" : "{");
    write_call(job, c, piece, &c->calls);
}

static void give_call(const cmi_api_job *job, cmi_api_choice *c, const cmi_answer_piece *piece,
                      cmi_buf *out)
{
    if (piece->call_idx > 0 && !job->params.parallel_tool_calls) {
        return;
    }
    c->n_calls = piece->call_idx + 1;
    if (!job->params.stream) {
        keep_call(job, c, piece);
        return;
    }
    chunk_begin(job, c, out);
    cmi_buf_printf(out, "\"tool_calls\":[{\"index\":%u,", piece->call_idx);
    if (piece->type == CMI_ANSWER_CALL) {
        write_call(job, c, piece, out);
    } else {
        cmi_buf_str(out, "\"function\":{\"arguments\":\"");
        cmi_json_write_escaped(out, piece->text, piece->n_bytes);
    }
    cmi_buf_str(out, "\"}}]");
    chunk_end(job, c, out);
}

static void give_pieces(const cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    cmi_answer_piece piece;
    while (cmi_answer_parser_next(&c->parser, &piece)) {
        if (piece.type == CMI_ANSWER_CONTENT) {
            give_content(job, c, piece.text, piece.n_bytes, out);
        } else if (piece.type == CMI_ANSWER_REASONING) {
            give_reasoning(job, c, piece.text, piece.n_bytes, out);
        } else {
            give_call(job, c, &piece, out);
        }
    }
}

void cmi_api_chat_open(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    if (job->params.stream) {
        chunk_begin(job, c, out);
        cmi_buf_str(out, "\"role\":\"assistant\",\"content\":\"\"");
        chunk_end(job, c, out);
    }
    if (c->prompt->n_echo_bytes > 0) {
        give_content(job, c, c->prompt->echo, c->prompt->n_echo_bytes, out);
    }
}

void cmi_api_chat_text(cmi_api_job *job, cmi_api_choice *c, const cmi_buf *text, cmi_buf *out)
{
    cmi_answer_parser_feed(&c->parser, text->data, text->len);
    give_pieces(job, c, out);
}

void cmi_api_chat_close(cmi_api_job *job, cmi_api_choice *c, cmi_buf *out)
{
    cmi_answer_parser_end(&c->parser);
    give_pieces(job, c, out);
    if (c->finish == CMI_API_FINISH_STOP && c->n_calls > 0) {
        c->finish = CMI_API_FINISH_TOOL_CALLS;
    }
    if (job->params.stream) {
        cmi_api_write_chunk_begin(job, c, out);
        cmi_buf_str(out, "\"delta\":{},\"logprobs\":");
        cmi_api_logprobs_take(&c->logprobs, out);
        cmi_api_write_finish(job, c, out);
        cmi_api_write_chunk_end(job, out);
    }
}

static void write_message(const cmi_api_choice *c, cmi_buf *out)
{
    cmi_buf_str(out, "{\"role\":\"assistant\",\"content\":");
    if (c->n_calls > 0 || c->reasoning.len > 0) {
        cmi_json_write_string_or_null(out, c->content.data, c->content.len);
    } else {
        cmi_json_write_string(out, c->content.data, c->content.len);
    }
    cmi_buf_str(out, ",\"refusal\":null,");
    write_reasoning(out, c->reasoning.data, c->reasoning.len);
    if (c->n_calls > 0) {
        cmi_buf_str(out, ",\"tool_calls\":[");
        cmi_buf_append(out, c->calls.data, c->calls.len);
        cmi_buf_str(out, "\"}}]");
    }
    cmi_buf_char(out, '}');
}

void cmi_api_chat_body(cmi_api_job *job, cmi_buf *out)
{
    cmi_api_write_body_begin(job, out);
    for (uint32_t i = 0; i < job->n_choices; i++) {
        cmi_api_choice *c = &job->choices[i];
        cmi_buf_printf(out, "%s{\"index\":%u,\"message\":", i > 0 ? "," : "", i);
        write_message(c, out);
        cmi_buf_str(out, ",\"logprobs\":");
        cmi_api_logprobs_take(&c->logprobs, out);
        cmi_api_write_finish(job, c, out);
        cmi_buf_char(out, '}');
    }
    cmi_api_write_body_end(job, out);
}
