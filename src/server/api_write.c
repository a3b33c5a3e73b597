#include "server/api_internal.h"
#include "server/json_out.h"
#include "server/sse.h"

size_t cmi_api_count_chars(const char *text, size_t n_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        n += (text[i] & 0xC0) != 0x80;
    }
    return n;
}

void cmi_api_write_head(cmi_api_job *job)
{
    const char *object = "text_completion";
    if (job->endpoint == CMI_API_CHAT_COMPLETIONS) {
        object = job->params.stream ? "chat.completion.chunk" : "chat.completion";
    }
    cmi_buf *head = &job->head;
    cmi_buf_printf(head, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%llu,\"model\":", job->id,
                   object, (unsigned long long)job->created_unix_s);
    cmi_json_write_cstr(head, job->api->opt.model_names[0]);
    cmi_buf_str(head, ",\"choices\":[");
}

static void write_usage(const cmi_api_job *job, bool details, cmi_buf *out)
{
    cmi_api_usage usage = cmi_api_job_usage(job);
    cmi_buf_printf(out,
                   "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u",
                   usage.n_prompt_tokens, usage.n_output_tokens,
                   usage.n_prompt_tokens + usage.n_output_tokens);
    if (details) {
        uint32_t n_reasoning = 0;
        for (uint32_t i = 0; i < job->n_choices; i++) {
            n_reasoning += job->choices[i].n_reasoning_tokens;
        }
        cmi_buf_printf(out,
                       ",\"prompt_tokens_details\":{\"cached_tokens\":%u}"
                       ",\"completion_tokens_details\":{\"reasoning_tokens\":%u}",
                       usage.n_cached_tokens, n_reasoning);
    }
    cmi_buf_char(out, '}');
}

void cmi_api_write_chunk_begin(const cmi_api_job *job, const cmi_api_choice *choice, cmi_buf *out)
{
    cmi_sse_begin(out);
    cmi_buf_append(out, job->head.data, job->head.len);
    cmi_buf_printf(out, "{\"index\":%u,", choice->idx);
}

void cmi_api_write_chunk_end(const cmi_api_job *job, cmi_buf *out)
{
    cmi_buf_str(out, "}]");
    if (job->params.include_usage || job->params.continuous_usage) {
        cmi_buf_char(out, ',');
        if (job->params.continuous_usage) {
            write_usage(job, false, out); /* the details are known at the end */
        } else {
            cmi_buf_str(out, "\"usage\":null");
        }
    }
    cmi_buf_char(out, '}');
    cmi_sse_end(out);
}

void cmi_api_write_finish(const cmi_api_job *job, const cmi_api_choice *choice, cmi_buf *out)
{
    static const char *const names[] = {"null", "\"stop\"", "\"length\"", "\"tool_calls\""};
    cmi_buf_printf(out, ",\"finish_reason\":%s,\"stop_reason\":", names[choice->finish]);
    if (choice->stop_string >= 0) {
        const cmi_stop_string *stop = &job->stops.strings[choice->stop_string];
        cmi_json_write_string(out, stop->text, stop->n_bytes);
    } else if (choice->stop_token_id >= 0) {
        cmi_buf_printf(out, "%lld", (long long)choice->stop_token_id);
    } else {
        cmi_buf_str(out, "null");
    }
}

void cmi_api_write_body_begin(const cmi_api_job *job, cmi_buf *out)
{
    cmi_buf_append(out, job->head.data, job->head.len);
}

void cmi_api_write_body_end(const cmi_api_job *job, cmi_buf *out)
{
    cmi_buf_str(out, "],\"service_tier\":null,\"system_fingerprint\":null,");
    write_usage(job, true, out);
    cmi_buf_char(out, '}');
}

void cmi_api_write_stream_end(const cmi_api_job *job, cmi_buf *out)
{
    if (job->params.include_usage) {
        cmi_sse_begin(out);
        cmi_buf_append(out, job->head.data, job->head.len);
        cmi_buf_str(out, "],");
        write_usage(job, true, out);
        cmi_buf_char(out, '}');
        cmi_sse_end(out);
    }
    cmi_sse_done(out);
}
