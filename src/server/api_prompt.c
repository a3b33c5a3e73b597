#include <string.h>

#include "base/alloc.h"
#include "server/api_internal.h"
#include "text/chat_template.h"

enum { MAX_RENDERED_BYTES = 64 << 20 };

/* Stands behind the last message while the template runs, to show where it ends: a private-use
 * character, and the last of its kind in the text even if a client writes it too. */
static const char end_mark[] = "\xEE\x80\x80";

void cmi_api_prompt_deinit(cmi_api_prompt *prompt)
{
    cmi_ids_deinit(&prompt->ids);
    cmi_free(prompt->echo);
}

static cmi_status encode(const cmi_api *api, const char *text, size_t n, unsigned flags,
                         const char *param, cmi_ids *ids_out, cmi_api_error *err)
{
    cmi_error why;
    cmi_status st = cmi_tokenizer_encode(api->opt.tokenizer, text, n, flags, ids_out, &why);
    if (st == CMI_ERR_NO_MEMORY) {
        return cmi_api_fail(err, st, why.text);
    }
    return st == CMI_OK ? CMI_OK : cmi_api_refuse(err, param, "%s: %s", param, why.text);
}

/* Position of the last needle in text, or n. */
static size_t find_last(const char *text, size_t n, const char *needle)
{
    size_t n_needle = strlen(needle);
    size_t found = n;
    const char *at = memmem(text, n, needle, n_needle);
    while (at != NULL) {
        found = (size_t)(at - text);
        at = memmem(at + n_needle, n - found - n_needle, needle, n_needle);
    }
    return found;
}

static bool opens_reasoning(const char *text, size_t n)
{
    size_t open = find_last(text, n, "<think>");
    size_t close = find_last(text, n, "</think>");
    return open < n && (close == n || close < open);
}

static bool ends_in_think(const cmi_buf *text)
{
    static const char think[] = "<think>";
    size_t n = text->len;
    while (n > 0 && text->data[n - 1] == '\n') {
        n--;
    }
    size_t n_think = sizeof think - 1;
    return n >= n_think && memcmp(text->data + n - n_think, think, n_think) == 0;
}

static json_t *last_message(const json_t *root)
{
    const json_t *messages = json_object_get(root, "messages");
    return json_array_get(messages, json_array_size(messages) - 1);
}

/* reasoning_effort as the switches that templates know. */
static cmi_status add_effort(const json_t *root, json_t *kwargs, cmi_api_error *err)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium",
                                          "high", "xhigh",   "max"};
    const json_t *effort = json_object_get(root, "reasoning_effort");
    if (effort == NULL || json_is_null(effort)) {
        return CMI_OK;
    }
    const char *name = json_string_value(effort);
    for (size_t i = 0; name != NULL && i < CMI_LEN(efforts); i++) {
        if (strcmp(name, efforts[i]) == 0) {
            json_object_set(kwargs, "reasoning_effort", (json_t *)effort);
            json_object_set_new(kwargs, "enable_thinking", json_boolean(i > 0));
            json_object_set_new(kwargs, "thinking", json_boolean(i > 0));
            return CMI_OK;
        }
    }
    return cmi_api_refuse(err, "reasoning_effort",
                          "reasoning_effort must be \"none\", \"minimal\", \"low\", \"medium\", "
                          "\"high\", \"xhigh\" or \"max\".");
}

/* The template's extra variables: reasoning_effort, then what chat_template_kwargs says. */
static cmi_status make_kwargs(const json_t *root, json_t *kwargs, cmi_api_error *err)
{
    static const char *const taken[] = {"messages", "tools", "add_generation_prompt"};
    cmi_status st = add_effort(root, kwargs, err);
    if (st != CMI_OK) {
        return st;
    }
    const json_t *given = json_object_get(root, "chat_template_kwargs");
    if (given == NULL || json_is_null(given)) {
        return CMI_OK;
    }
    if (!json_is_object(given)) {
        return cmi_api_refuse(err, "chat_template_kwargs",
                              "chat_template_kwargs must be an object.");
    }
    for (size_t i = 0; i < CMI_LEN(taken); i++) {
        if (json_object_get(given, taken[i]) != NULL) {
            return cmi_api_refuse(err, "chat_template_kwargs",
                                  "chat_template_kwargs must not have \"%s\": it is a field of the "
                                  "request.",
                                  taken[i]);
        }
    }
    json_object_update(kwargs, (json_t *)given);
    return CMI_OK;
}

static cmi_status render(const cmi_api *api, const json_t *root, const cmi_api_params *params,
                         uint64_t now_unix_s, cmi_buf *text, cmi_api_error *err)
{
    json_t *kwargs = json_object();
    cmi_status st = make_kwargs(root, kwargs, err);
    if (st == CMI_OK) {
        const cmi_chat_template_input input = {
            .messages = json_object_get(root, "messages"),
            .tools = cmi_api_tools_shown(root),
            .kwargs = kwargs,
            .add_generation_prompt = params->add_generation_prompt,
            .now_unix_s = (int64_t)now_unix_s,
        };
        cmi_error why;
        st = cmi_chat_template_render(api->opt.chat_template, &input, text, &why);
        if (st == CMI_ERR_NO_MEMORY) {
            cmi_api_fail(err, st, why.text);
        } else if (st != CMI_OK) {
            st = cmi_api_refuse(err, "messages", "The chat template refused: %s", why.text);
        }
    }
    json_decref(kwargs);
    return st;
}

/* Renders with a mark behind the last message and cuts the text there. */
static cmi_status render_continued(const cmi_api *api, const json_t *root,
                                   const cmi_api_params *params, uint64_t now_unix_s, cmi_buf *text,
                                   cmi_api_error *err)
{
    json_t *message = last_message(root);
    json_t *content = json_object_get(message, "content");
    if (!json_is_string(content) || json_string_length(content) == 0) {
        return cmi_api_refuse(err, "messages",
                              "continue_final_message needs a last message with content.");
    }
    json_incref(content);
    cmi_buf marked;
    cmi_buf_init(&marked, CMI_TOKENIZER_MAX_TEXT_BYTES);
    cmi_buf_append(&marked, json_string_value(content), json_string_length(content));
    cmi_buf_str(&marked, end_mark);
    json_object_set_new(message, "content", json_stringn(marked.data, marked.len));
    cmi_buf_deinit(&marked);
    cmi_status st = render(api, root, params, now_unix_s, text, err);
    json_object_set_new(message, "content", content);
    if (st != CMI_OK) {
        return st;
    }
    size_t end = find_last(cmi_buf_cstr(text), text->len, end_mark);
    if (end == text->len) {
        return cmi_api_refuse(err, "continue_final_message",
                              "The chat template does not show the last message.");
    }
    cmi_buf_truncate(text, end);
    return CMI_OK;
}

static void take_echo(const json_t *root, cmi_api_prompt *prompt)
{
    const json_t *message = last_message(root);
    const json_t *content = json_object_get(message, "content");
    const char *role = json_string_value(json_object_get(message, "role"));
    if (json_is_string(content) && strcmp(role, "assistant") == 0) {
        prompt->echo = cmi_strndup(json_string_value(content), json_string_length(content));
        prompt->n_echo_bytes = json_string_length(content);
    }
}

cmi_status cmi_api_chat_prompt(const cmi_api *api, const json_t *root, const cmi_api_params *params,
                               uint64_t now_unix_s, cmi_api_prompt *prompt_out, cmi_api_error *err)
{
    const cmi_chat_template *chat_template = api->opt.chat_template;
    if (chat_template == NULL || !cmi_chat_template_exists(chat_template)) {
        return cmi_api_refuse(err, "messages",
                              "This model has no chat template; use /v1/completions.");
    }
    cmi_buf text;
    cmi_buf_init(&text, MAX_RENDERED_BYTES);
    bool continued = params->continue_final_message;
    cmi_status st = continued ? render_continued(api, root, params, now_unix_s, &text, err)
                              : render(api, root, params, now_unix_s, &text, err);
    if (st == CMI_OK) {
        unsigned flags = CMI_ENCODE_ADDED_TOKENS;
        flags |= params->add_special_tokens ? (unsigned)CMI_ENCODE_BEGIN : 0;
        st = encode(api, cmi_buf_cstr(&text), text.len, flags, "messages", &prompt_out->ids, err);
    }
    if (st == CMI_OK && prompt_out->ids.len == 0) {
        st = cmi_api_refuse(err, "messages", "The chat template made an empty prompt of messages.");
    }
    if (st == CMI_OK) {
        const json_t *content = json_object_get(last_message(root), "content");
        prompt_out->in_reasoning =
            ends_in_think(&text) ||
            (continued && opens_reasoning(json_string_value(content), json_string_length(content)));
        if (params->echo) {
            take_echo(root, prompt_out);
        }
    }
    cmi_buf_deinit(&text);
    return st;
}

cmi_status cmi_api_read_ids(const json_t *array, uint32_t vocab_size, const char *param,
                            cmi_ids *ids_out, cmi_api_error *err)
{
    size_t n = json_array_size(array);
    cmi_ids_reserve(ids_out, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_integer(value)) {
            return cmi_api_refuse(err, param, "%s must be an array of token ids.", param);
        }
        json_int_t id = json_integer_value(value);
        if (id < 0 || id >= vocab_size) {
            return cmi_api_refuse(err, param,
                                  "%s: token id %lld is not in the vocabulary of %u ids.", param,
                                  (long long)id, vocab_size);
        }
        cmi_ids_push(ids_out, (uint32_t)id);
    }
    return CMI_OK;
}

cmi_status cmi_api_text_prompt(const cmi_api *api, const json_t *value, bool add_special_tokens,
                               const char *param, cmi_api_prompt *prompt_out, cmi_api_error *err)
{
    if (json_is_array(value)) {
        return cmi_api_read_ids(value, api->opt.engine.vocab_size, param, &prompt_out->ids, err);
    }
    if (!json_is_string(value)) {
        return cmi_api_refuse(err, param,
                              "%s must be a string, an array of strings, an array of token ids, or "
                              "an array of such arrays.",
                              param);
    }
    const char *text = json_string_value(value);
    size_t n = json_string_length(value);
    unsigned flags = CMI_ENCODE_ADDED_TOKENS;
    flags |= add_special_tokens ? (unsigned)CMI_ENCODE_BEGIN : 0;
    cmi_status st = encode(api, text, n, flags, param, &prompt_out->ids, err);
    if (st != CMI_OK) {
        return st;
    }
    size_t n_begin;
    uint32_t begin = cmi_tokenizer_bos_id(api->opt.tokenizer);
    const char *begin_text = cmi_tokenizer_token_bytes(api->opt.tokenizer, begin, &n_begin);
    bool written = n_begin <= n && n_begin > 0 && memcmp(text, begin_text, n_begin) == 0;
    prompt_out->hide_first =
        prompt_out->ids.len > 0 && prompt_out->ids.data[0] == begin && !written;
    prompt_out->show_special = true;
    return CMI_OK;
}
