#include "server/api_internal.h"
#include "server/json_out.h"

static void write_ids(const cmi_ids *ids, cmi_buf *out)
{
    for (size_t i = 0; i < ids->len; i++) {
        cmi_buf_printf(out, i > 0 ? ",%u" : "%u", ids->data[i]);
    }
}

static void write_tokens(const cmi_api *api, const cmi_ids *ids, bool strings, cmi_buf *out)
{
    cmi_buf_printf(out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", ids->len,
                   api->opt.engine.max_model_len);
    write_ids(ids, out);
    cmi_buf_str(out, "],\"token_strs\":");
    if (!strings) {
        cmi_buf_str(out, "null}");
        return;
    }
    cmi_buf_char(out, '[');
    for (size_t i = 0; i < ids->len; i++) {
        size_t n;
        const char *bytes = cmi_tokenizer_token_bytes(api->opt.tokenizer, ids->data[i], &n);
        cmi_buf_str(out, i > 0 ? "," : "");
        cmi_json_write_string(out, bytes, n);
    }
    cmi_buf_str(out, "]}");
}

/* The prompt of either form. */
static cmi_status tokenize(const cmi_api *api, json_t *root, uint64_t now_unix_s,
                           cmi_api_params *params, cmi_api_prompt *prompt, cmi_api_error *err)
{
    bool chat = json_object_get(root, "messages") != NULL;
    *params = (cmi_api_params){.add_generation_prompt = chat, .add_special_tokens = !chat};
    cmi_status st = cmi_api_fields_read(root, CMI_API_IN_TOKENIZE, params, err);
    if (st == CMI_OK && chat) {
        st = cmi_api_messages_normalize(root, err);
        if (st == CMI_OK) {
            st = cmi_api_tools_check(root, err);
        }
        return st != CMI_OK ? st : cmi_api_chat_prompt(api, root, params, now_unix_s, prompt, err);
    }
    const json_t *text = json_object_get(root, "prompt");
    if (st == CMI_OK && !json_is_string(text)) {
        st = cmi_api_refuse(err, "prompt", "prompt must be a string (or give messages).");
    }
    return st != CMI_OK
               ? st
               : cmi_api_text_prompt(api, text, params->add_special_tokens, "prompt", prompt, err);
}

cmi_status cmi_api_tokenize(const cmi_api *api, const char *body, size_t n_bytes,
                            uint64_t now_unix_s, cmi_buf *out, cmi_api_error *err)
{
    json_t *root;
    cmi_status st = cmi_api_parse_body(api, body, n_bytes, &root, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_api_params params;
    cmi_api_prompt prompt = {0};
    st = tokenize(api, root, now_unix_s, &params, &prompt, err);
    if (st == CMI_OK) {
        write_tokens(api, &prompt.ids, params.return_token_strs, out);
    }
    cmi_api_prompt_deinit(&prompt);
    json_decref(root);
    return st;
}

static cmi_status detokenize(const cmi_api *api, const json_t *root, cmi_buf *out,
                             cmi_api_error *err)
{
    const json_t *tokens = json_object_get(root, "tokens");
    if (!json_is_array(tokens)) {
        return cmi_api_refuse(err, "tokens", "tokens must be an array of token ids.");
    }
    cmi_ids ids = {0};
    cmi_buf text;
    cmi_buf_init(&text, CMI_API_MAX_TEXT_BYTES);
    cmi_status st = cmi_api_read_ids(tokens, api->opt.engine.vocab_size, "tokens", &ids, err);
    if (st == CMI_OK) {
        cmi_tokenizer_decode(api->opt.tokenizer, ids.data, ids.len, false, &text);
        if (text.overflow) {
            st = cmi_api_refuse(err, "tokens", "The text of tokens is too large.");
        }
    }
    if (st == CMI_OK) {
        cmi_buf_str(out, "{\"prompt\":");
        cmi_json_write_string(out, text.data, text.len);
        cmi_buf_char(out, '}');
    }
    cmi_ids_deinit(&ids);
    cmi_buf_deinit(&text);
    return st;
}

cmi_status cmi_api_detokenize(const cmi_api *api, const char *body, size_t n_bytes, cmi_buf *out,
                              cmi_api_error *err)
{
    json_t *root;
    cmi_status st = cmi_api_parse_body(api, body, n_bytes, &root, err);
    if (st != CMI_OK) {
        return st;
    }
    st = detokenize(api, root, out, err);
    json_decref(root);
    return st;
}
