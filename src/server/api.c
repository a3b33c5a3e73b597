#include "server/api.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "server/api_internal.h"
#include "server/json_out.h"

#define JSON_ESCAPE_BYTES 6 /* \u0000 */

/* A value takes up to 250 bytes in the tree that jansson makes, a hundred times its text. This is
 * room for the token ids of six contexts of DeepSeek-V3. */
#define MAX_JSON_VALUES (1 << 20)

static char *copy(const char *s)
{
    return cmi_strndup(s, strlen(s));
}

static size_t longest_token(const cmi_tokenizer *tokenizer)
{
    size_t longest = 1;
    for (uint32_t id = 0; id < cmi_tokenizer_n_ids(tokenizer); id++) {
        size_t n = 0;
        (void)cmi_tokenizer_token_bytes(tokenizer, id, &n);
        longest = CMI_MAX(longest, n);
    }
    return longest;
}

cmi_status cmi_api_create(cmi_api **api_out, const cmi_api_options *opt, cmi_error *err)
{
    if (opt->n_model_names == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the model needs a name for its clients");
    }
    for (size_t i = 0; i < opt->n_model_names; i++) {
        const char *name = opt->model_names[i];
        if (name[0] == '\0' || cmi_utf8_valid_prefix(name, strlen(name)) != strlen(name)) {
            return cmi_error_set(err, CMI_ERR_INVALID, "model name \"%s\" is not UTF-8, or empty",
                                 name);
        }
    }
    cmi_api *api = cmi_alloc(1, sizeof *api);
    api->opt = *opt;
    api->model_names = cmi_alloc(opt->n_model_names, sizeof *api->model_names);
    for (size_t i = 0; i < opt->n_model_names; i++) {
        api->model_names[i] = copy(opt->model_names[i]);
    }
    api->opt.model_names = (const char *const *)api->model_names;
    api->opt.model_root = copy(opt->model_root == NULL ? "" : opt->model_root);
    api->longest_token_bytes = longest_token(opt->tokenizer);
    *api_out = api;
    return CMI_OK;
}

uint64_t cmi_api_body_tokens(const cmi_api *api, size_t n_bytes)
{
    return CMI_MAX(n_bytes / (JSON_ESCAPE_BYTES * api->longest_token_bytes), (size_t)1);
}

void cmi_api_destroy(cmi_api *api)
{
    if (api == NULL) {
        return;
    }
    for (size_t i = 0; i < api->opt.n_model_names; i++) {
        cmi_free(api->model_names[i]);
    }
    cmi_free(api->model_names);
    cmi_free((void *)api->opt.model_root);
    cmi_free(api);
}

void cmi_api_models(const cmi_api *api, cmi_buf *out)
{
    cmi_buf_str(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < api->opt.n_model_names; i++) {
        cmi_buf_str(out, i == 0 ? "{\"id\":" : ",{\"id\":");
        cmi_json_write_cstr(out, api->model_names[i]);
        cmi_buf_printf(out, ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"cminfer\"",
                       (unsigned long long)api->opt.created_unix_s);
        cmi_buf_str(out, ",\"root\":");
        cmi_json_write_cstr(out, api->opt.model_root);
        cmi_buf_printf(out, ",\"parent\":null,\"max_model_len\":%u,\"permission\":[]}",
                       api->opt.engine.max_model_len);
    }
    cmi_buf_str(out, "]}");
}

/* Unlike Python's parser, jansson refuses integers over 64 bits, lone surrogates, and more than
 * 2,048 levels; each has its line here. */
static cmi_status bad_json(const json_error_t *why, cmi_api_error *err)
{
    return cmi_api_refuse(err, NULL, "The body is not valid JSON: line %d, column %d: %s.",
                          why->line, why->column, why->text);
}

/* At least as many values as a parser would make of the body. */
static size_t count_values(const char *body, size_t n_bytes)
{
    size_t n = 1;
    bool in_string = false;
    for (size_t i = 0; i < n_bytes; i++) {
        char c = body[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else {
            in_string = c == '"';
            n += c == ',' || c == '[' || c == '{';
        }
    }
    return n;
}

static cmi_status check_model(const cmi_api *api, const json_t *root, cmi_api_error *err)
{
    const json_t *model = json_object_get(root, "model");
    if (model == NULL || json_is_null(model)) {
        return CMI_OK; /* there is one only */
    }
    const char *name = json_string_value(model);
    if (name == NULL) {
        return cmi_api_refuse(err, "model", "model must be a string.");
    }
    for (size_t i = 0; i < api->opt.n_model_names; i++) {
        size_t n = strlen(api->model_names[i]);
        if (n == json_string_length(model) && memcmp(name, api->model_names[i], n) == 0) {
            return CMI_OK;
        }
    }
    return cmi_api_refuse_as(err, 404, "model",
                             "The model \"%.200s\" does not exist. This server has \"%.200s\".",
                             name, api->model_names[0]);
}

cmi_status cmi_api_parse_body(const cmi_api *api, const char *body, size_t n_bytes,
                              json_t **root_out, cmi_api_error *err)
{
    if (count_values(body, n_bytes) > MAX_JSON_VALUES) {
        return cmi_api_refuse(err, NULL, "The body has more than %d JSON values.", MAX_JSON_VALUES);
    }
    json_error_t why;
    json_t *root = json_loadb(n_bytes == 0 ? "" : body, n_bytes, JSON_ALLOW_NUL, &why);
    if (root == NULL) {
        return bad_json(&why, err);
    }
    cmi_status st = CMI_OK;
    if (!json_is_object(root)) {
        st = cmi_api_refuse(err, NULL, "The body must be a JSON object.");
    }
    if (st == CMI_OK) {
        st = check_model(api, root, err);
    }
    if (st != CMI_OK) {
        json_decref(root);
        return st;
    }
    *root_out = root;
    return CMI_OK;
}
