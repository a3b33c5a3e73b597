/* text/chat_template.c - finding, parsing and rendering a model's chat template.
 *
 * Templates are parsed once, at load, so that a broken one is reported at start-up and every
 * request pays for rendering only. Special tokens stay jansson values: they are handed to the
 * interpreter as variables, borrowed for the render like the messages themselves. */
#include "text/chat_template.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "os/file.h"
#include "text/jinja.h"

enum {
    CONFIG_BYTES_MAX = 16 << 20,
    PATH_BYTES_MAX = 4096,
};

/* Special tokens that transformers hands to templates under their names in tokenizer_config.json.
 */
static const char *const token_names[] = {
    "bos_token", "eos_token", "unk_token",  "sep_token",
    "pad_token", "cls_token", "mask_token", "additional_special_tokens",
};

enum { N_TOKENS = CMI_LEN(token_names) };

struct cmi_chat_template {
    cmi_jinja *usual;         /* NULL: the model has no template */
    cmi_jinja *with_tools;    /* NULL: the same */
    json_t *tokens[N_TOKENS]; /* NULL: the model has no such token */
};

/* ---- loading ---- */

/* A token is its text or an object around it; NULL when it is neither. */
static json_t *token_text(json_t *token)
{
    json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_is_string(text) && json_string_length(text) > 0 ? json_incref(text) : NULL;
}

static json_t *token_list(const json_t *tokens)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_t *text = token_text(json_array_get(tokens, i));
        if (text != NULL) {
            json_array_append_new(list, text);
        }
    }
    return list;
}

static void load_tokens(cmi_chat_template *t, const json_t *config)
{
    for (size_t i = 0; i < N_TOKENS; i++) {
        json_t *token = json_object_get(config, token_names[i]);
        t->tokens[i] = json_is_array(token) ? token_list(token) : token_text(token);
    }
}

static cmi_status parse_named(cmi_chat_template *t, const json_t *entry, cmi_error *err)
{
    const json_t *name = json_object_get(entry, "name");
    const json_t *text = json_object_get(entry, "template");
    if (!json_is_string(name) || !json_is_string(text)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "an entry of the list needs a name and a template");
    }
    cmi_jinja **place = strcmp(json_string_value(name), "default") == 0    ? &t->usual
                        : strcmp(json_string_value(name), "tool_use") == 0 ? &t->with_tools
                                                                           : NULL;
    if (place == NULL || *place != NULL) {
        return CMI_OK; /* for another purpose, or named before */
    }
    return cmi_jinja_parse(place, json_string_value(text), json_string_length(text), err);
}

static cmi_status parse_configured(cmi_chat_template *t, const json_t *value, cmi_error *err)
{
    if (json_is_string(value)) {
        return cmi_jinja_parse(&t->usual, json_string_value(value), json_string_length(value), err);
    }
    if (!json_is_array(value)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "must be a string or a list of templates");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        cmi_status st = parse_named(t, json_array_get(value, i), err);
        if (st != CMI_OK) {
            return st;
        }
    }
    if (t->usual == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "has no template named \"default\"");
    }
    return CMI_OK;
}

/* The special tokens and, unless there is one already, the template of tokenizer_config.json. A
 * directory without that file is fine. */
static cmi_status load_config(cmi_chat_template *t, const char *path, bool want_template,
                              cmi_error *err)
{
    cmi_buf text;
    json_error_t json_error;
    json_t *config = NULL;
    cmi_status st = CMI_OK;
    if (!cmi_file_exists(path)) {
        return CMI_OK;
    }
    st = cmi_file_read(&text, path, CONFIG_BYTES_MAX, err);
    if (st != CMI_OK) {
        goto deinit;
    }
    config = json_loadb(cmi_buf_cstr(&text), text.len, JSON_ALLOW_NUL, &json_error);
    if (!json_is_object(config)) {
        st = cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: line %d: %s", path,
                           config == NULL ? json_error.line : 1,
                           config == NULL ? json_error.text : "must be an object");
        goto deinit;
    }
    load_tokens(t, config);
    const json_t *value = json_object_get(config, "chat_template");
    if (want_template && value != NULL && !json_is_null(value)) {
        st = parse_configured(t, value, err);
        if (st != CMI_OK) {
            cmi_error_prefix(err, "%s: chat_template", path);
        }
    }
deinit:
    json_decref(config);
    cmi_buf_deinit(&text);
    return st;
}

static cmi_status load_jinja_file(cmi_jinja **jinja_out, const char *path, cmi_error *err)
{
    cmi_buf text;
    cmi_status st = cmi_file_read(&text, path, CMI_JINJA_SOURCE_BYTES_MAX, err);
    if (st == CMI_OK) {
        st = cmi_jinja_parse(jinja_out, cmi_buf_cstr(&text), text.len, err);
        if (st != CMI_OK) {
            cmi_error_prefix(err, "%s", path);
        }
    }
    cmi_buf_deinit(&text);
    return st;
}

/* Whether the user gave the template itself instead of its path. */
static bool is_template_text(const char *choice)
{
    return strstr(choice, "{{") != NULL || strstr(choice, "{%") != NULL;
}

/* choice: the user's template or its path, or NULL for the model's own. */
static cmi_status load(cmi_chat_template *t, const char *dir, const char *choice, cmi_error *err)
{
    char config_path[PATH_BYTES_MAX];
    char jinja_path[PATH_BYTES_MAX];
    cmi_status st = CMI_OK;
    int n = snprintf(config_path, sizeof config_path, "%s/tokenizer_config.json", dir);
    if (n < 0 || (size_t)n >= sizeof config_path) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the path of the model is too long");
    }
    snprintf(jinja_path, sizeof jinja_path, "%s/chat_template.jinja", dir);
    if (choice != NULL && is_template_text(choice)) {
        st = cmi_jinja_parse(&t->usual, choice, strlen(choice), err);
        if (st != CMI_OK) {
            cmi_error_prefix(err, "chat template");
        }
    } else if (choice != NULL) {
        st = load_jinja_file(&t->usual, choice, err);
    } else if (cmi_file_exists(jinja_path)) {
        st = load_jinja_file(&t->usual, jinja_path, err);
    }
    return st != CMI_OK ? st : load_config(t, config_path, t->usual == NULL, err);
}

static cmi_status create(cmi_chat_template **template_out, const char *dir, const char *choice,
                         cmi_error *err)
{
    cmi_chat_template *t = cmi_alloc(1, sizeof *t);
    cmi_status st = load(t, dir, choice, err);
    if (st != CMI_OK) {
        cmi_chat_template_destroy(t);
        return st;
    }
    *template_out = t;
    return CMI_OK;
}

cmi_status cmi_chat_template_load(cmi_chat_template **template_out, const char *dir, cmi_error *err)
{
    return create(template_out, dir, NULL, err);
}

cmi_status cmi_chat_template_load_choice(cmi_chat_template **template_out, const char *dir,
                                         const char *choice, cmi_error *err)
{
    return create(template_out, dir, choice, err);
}

void cmi_chat_template_destroy(cmi_chat_template *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < N_TOKENS; i++) {
        json_decref(t->tokens[i]);
    }
    cmi_jinja_destroy(t->usual);
    cmi_jinja_destroy(t->with_tools);
    cmi_free(t);
}

bool cmi_chat_template_exists(const cmi_chat_template *t)
{
    return t->usual != NULL;
}

/* ---- rendering ---- */

/* The variables in the order in which later ones hide earlier ones. */
typedef struct variables {
    cmi_jinja_var *vars;
    size_t n;
} variables;

static void add_variable(variables *v, const char *name, const json_t *value)
{
    v->vars[v->n++] = (cmi_jinja_var){.name = name, .value = value};
}

static cmi_status add_kwargs(variables *v, const json_t *kwargs, cmi_error *err)
{
    static const char *const taken[] = {"messages", "tools", "add_generation_prompt"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)kwargs, key, value)
    {
        for (size_t i = 0; i < CMI_LEN(taken); i++) {
            if (strcmp(key, taken[i]) == 0) {
                return cmi_error_set(err, CMI_ERR_INVALID,
                                     "chat_template_kwargs must not contain '%s'", key);
            }
        }
        add_variable(v, key, value);
    }
    return CMI_OK;
}

cmi_status cmi_chat_template_render(const cmi_chat_template *t,
                                    const cmi_chat_template_input *input, cmi_buf *out,
                                    cmi_error *err)
{
    enum { N_OWN = 4 };
    if (t->usual == NULL) {
        return cmi_error_set(err, CMI_ERR_NOT_FOUND,
                             "the model has no chat template; give one with --chat-template");
    }
    variables v = {
        .vars = cmi_alloc(N_OWN + N_TOKENS + json_object_size(input->kwargs), sizeof *v.vars)};
    add_variable(&v, "documents", NULL);
    for (size_t i = 0; i < N_TOKENS; i++) {
        if (t->tokens[i] != NULL) {
            add_variable(&v, token_names[i], t->tokens[i]);
        }
    }
    cmi_status st = add_kwargs(&v, input->kwargs, err);
    if (st == CMI_OK) {
        add_variable(&v, "messages", input->messages);
        add_variable(&v, "tools", input->tools);
        add_variable(&v, "add_generation_prompt",
                     input->add_generation_prompt ? json_true() : json_false());
        cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
        options.now_unix_s = input->now_unix_s;
        const cmi_jinja *jinja =
            input->tools != NULL && t->with_tools != NULL ? t->with_tools : t->usual;
        st = cmi_jinja_render(jinja, v.vars, v.n, &options, out, err);
        if (st != CMI_OK && st != CMI_ERR_INVALID) {
            cmi_error_prefix(err, "chat template");
        }
    }
    cmi_free(v.vars);
    return st;
}
