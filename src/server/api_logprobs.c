#include "server/api_logprobs.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "server/api_internal.h"
#include "server/json_out.h"

void cmi_api_logprobs_init(cmi_api_logprobs *lp, const cmi_tokenizer *tokenizer, bool chat,
                           uint32_t n_top)
{
    *lp = (cmi_api_logprobs){.tokenizer = tokenizer, .chat = chat, .n_top = n_top};
    cmi_buf_init(&lp->tokens, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&lp->token_logprobs, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&lp->top_logprobs, CMI_API_MAX_TEXT_BYTES);
    cmi_buf_init(&lp->text_offset, CMI_API_MAX_TEXT_BYTES);
}

void cmi_api_logprobs_deinit(cmi_api_logprobs *lp)
{
    cmi_free(lp->waiting);
    cmi_buf_deinit(&lp->tokens);
    cmi_buf_deinit(&lp->token_logprobs);
    cmi_buf_deinit(&lp->top_logprobs);
    cmi_buf_deinit(&lp->text_offset);
}

void cmi_api_logprobs_add(cmi_api_logprobs *lp, const cmi_event *event,
                          const cmi_api_token_span *span)
{
    if (lp->end == lp->cap && lp->first > 0) {
        memmove(lp->waiting, lp->waiting + lp->first, (lp->end - lp->first) * sizeof *lp->waiting);
        lp->end -= lp->first;
        lp->first = 0;
    }
    if (lp->end == lp->cap) {
        lp->cap = 16 + lp->cap * 2;
        lp->waiting = cmi_realloc(lp->waiting, lp->cap, sizeof *lp->waiting);
    }
    cmi_api_waiting_token *token = &lp->waiting[lp->end++];
    token->span = *span;
    token->token_id = event->token_id;
    token->logprob = event->logprob;
    token->n_top = CMI_MIN(event->n_top, lp->n_top);
    memcpy(token->top, event->top, token->n_top * sizeof token->top[0]);
}

/* Minus infinity is no JSON number; vLLM's clients know this one for it. */
static void write_logprob(cmi_buf *out, float logprob)
{
    cmi_json_write_float(out, logprob < -9999.0f ? -9999.0f : logprob);
}

static void write_bytes(cmi_buf *out, const char *bytes, size_t n)
{
    cmi_buf_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        cmi_buf_printf(out, i == 0 ? "%u" : ",%u", (unsigned char)bytes[i]);
    }
    cmi_buf_char(out, ']');
}

/* {"token":..,"logprob":..,"bytes":.. without the closing brace. */
static void write_chat_token(const cmi_api_logprobs *lp, uint32_t id, float logprob, cmi_buf *out)
{
    size_t n;
    const char *bytes = cmi_tokenizer_token_bytes(lp->tokenizer, id, &n);
    cmi_buf_str(out, "{\"token\":");
    cmi_json_write_string(out, bytes, n);
    cmi_buf_str(out, ",\"logprob\":");
    write_logprob(out, logprob);
    cmi_buf_str(out, ",\"bytes\":");
    write_bytes(out, bytes, n);
}

static void write_chat_entry(cmi_api_logprobs *lp, const cmi_api_waiting_token *token)
{
    cmi_buf *out = &lp->tokens;
    cmi_buf_str(out, lp->n_written > 0 ? "," : "");
    write_chat_token(lp, token->token_id, token->logprob, out);
    cmi_buf_str(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < token->n_top; i++) {
        cmi_buf_str(out, i > 0 ? "," : "");
        write_chat_token(lp, token->top[i].token_id, token->top[i].logprob, out);
        cmi_buf_char(out, '}');
    }
    cmi_buf_str(out, "]}");
}

/* A token as a name: tokens that are not text by themselves are spelled as OpenAI does, so that
 * they stay apart as keys of an object. */
static void write_token_name(const cmi_api_logprobs *lp, uint32_t id, cmi_buf *out)
{
    size_t n;
    const char *bytes = cmi_tokenizer_token_bytes(lp->tokenizer, id, &n);
    if (bytes == NULL) { /* a row that pads the vocabulary */
        cmi_buf_printf(out, "\"token_id:%u\"", id);
        return;
    }
    if (cmi_utf8_valid_prefix(bytes, n) == n) {
        cmi_json_write_string(out, bytes, n);
        return;
    }
    cmi_buf_str(out, "\"bytes:");
    for (size_t i = 0; i < n; i++) {
        cmi_buf_printf(out, "\\\\x%02x", (unsigned char)bytes[i]);
    }
    cmi_buf_char(out, '"');
}

/* The top tokens and, when it is not among them, the token itself. */
static void write_top_map(const cmi_api_logprobs *lp, const cmi_api_waiting_token *token,
                          cmi_buf *out)
{
    bool has_token = false;
    cmi_buf_char(out, '{');
    for (uint32_t i = 0; i <= token->n_top; i++) {
        bool is_top = i < token->n_top;
        uint32_t id = is_top ? token->top[i].token_id : token->token_id;
        if (!is_top && has_token) {
            break;
        }
        has_token = has_token || id == token->token_id;
        cmi_buf_str(out, i > 0 ? "," : "");
        write_token_name(lp, id, out);
        cmi_buf_char(out, ':');
        write_logprob(out, is_top ? token->top[i].logprob : token->logprob);
    }
    cmi_buf_char(out, '}');
}

static void write_completion_entry(cmi_api_logprobs *lp, const cmi_api_waiting_token *token)
{
    const char *comma = lp->n_written > 0 ? "," : "";
    cmi_buf_str(&lp->tokens, comma);
    write_token_name(lp, token->token_id, &lp->tokens);
    cmi_buf_str(&lp->token_logprobs, comma);
    cmi_buf_str(&lp->top_logprobs, comma);
    if (isnan(token->logprob)) { /* the first token of a prompt */
        cmi_buf_str(&lp->token_logprobs, "null");
        cmi_buf_str(&lp->top_logprobs, "null");
    } else {
        write_logprob(&lp->token_logprobs, token->logprob);
        write_top_map(lp, token, &lp->top_logprobs);
    }
    cmi_buf_printf(&lp->text_offset, "%s%zu", comma, token->span.start_chars);
}

static void write_first(cmi_api_logprobs *lp)
{
    const cmi_api_waiting_token *token = &lp->waiting[lp->first++];
    if (lp->chat) {
        write_chat_entry(lp, token);
    } else {
        write_completion_entry(lp, token);
    }
    lp->n_written++;
}

void cmi_api_logprobs_release(cmi_api_logprobs *lp, size_t n_bytes)
{
    while (lp->first < lp->end) {
        const cmi_api_token_span *span = &lp->waiting[lp->first].span;
        if (span->end > n_bytes || (span->is_part && span->end == n_bytes)) {
            break;
        }
        write_first(lp);
    }
}

void cmi_api_logprobs_cut(cmi_api_logprobs *lp, size_t n_bytes)
{
    while (lp->first < lp->end && lp->waiting[lp->first].span.start < n_bytes) {
        write_first(lp);
    }
    lp->first = lp->end;
}

void cmi_api_logprobs_take(cmi_api_logprobs *lp, cmi_buf *out)
{
    if (lp->n_written == 0) {
        cmi_buf_str(out, "null");
        return;
    }
    const struct {
        const char *name;
        const cmi_buf *list;
    } parts[] = {
        {lp->chat ? "{\"content\":[" : "{\"tokens\":[", &lp->tokens},
        {"],\"token_logprobs\":[", &lp->token_logprobs},
        {"],\"top_logprobs\":[", &lp->top_logprobs},
        {"],\"text_offset\":[", &lp->text_offset},
    };
    for (size_t i = 0; i < (lp->chat ? 1 : CMI_LEN(parts)); i++) {
        cmi_buf_str(out, parts[i].name);
        cmi_buf_append(out, parts[i].list->data, parts[i].list->len);
    }
    cmi_buf_str(out, "]}");
    cmi_api_logprobs_drop(lp);
}

void cmi_api_logprobs_drop(cmi_api_logprobs *lp)
{
    cmi_buf_clear(&lp->tokens);
    cmi_buf_clear(&lp->token_logprobs);
    cmi_buf_clear(&lp->top_logprobs);
    cmi_buf_clear(&lp->text_offset);
    lp->n_written = 0;
}

bool cmi_api_logprobs_overflow(const cmi_api_logprobs *lp)
{
    return lp->tokens.overflow || lp->token_logprobs.overflow || lp->top_logprobs.overflow ||
           lp->text_offset.overflow;
}
