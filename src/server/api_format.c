/* What an answer must look like, as clients of OpenAI, vLLM and SGLang ask for it, as one tree for
 * the engine's grammar (grammar/grammar.h). Whether a schema or an expression can be kept to is for
 * the engine to say: it compiles them. */
#include <string.h>

#include "base/alloc.h"
#include "server/api_internal.h"

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

json_t *cmi_api_node(const char *kind, const json_t *value)
{
    json_t *node = json_object();
    json_object_set(node, kind, (json_t *)value);
    return node;
}

/* ---- by kind ---- */

typedef cmi_status read_fn(const json_t *value, const char *field, json_t **node_out,
                           cmi_api_error *err);

/* A schema, or the text of one. */
static cmi_status read_schema(const json_t *value, const char *field, json_t **node_out,
                              cmi_api_error *err)
{
    json_t *parsed = NULL;
    if (json_is_string(value)) {
        json_error_t why;
        parsed =
            json_loadb(json_string_value(value), json_string_length(value), JSON_ALLOW_NUL, &why);
        if (parsed == NULL) {
            return cmi_api_refuse(err, field, "%s is not valid JSON: line %d, column %d: %s.",
                                  field, why.line, why.column, why.text);
        }
        value = parsed;
    }
    cmi_status st = CMI_OK;
    if (json_is_object(value)) {
        *node_out = cmi_api_node("json", value);
    } else {
        st = cmi_api_refuse(err, field, "%s must be a JSON schema: an object.", field);
    }
    json_decref(parsed);
    return st;
}

static cmi_status read_regex(const json_t *value, const char *field, json_t **node_out,
                             cmi_api_error *err)
{
    if (!json_is_string(value) || json_string_length(value) == 0) {
        return cmi_api_refuse(err, field, "%s must be a regular expression: a string.", field);
    }
    *node_out = cmi_api_node("regex", value);
    return CMI_OK;
}

static cmi_status read_choice(const json_t *value, const char *field, json_t **node_out,
                              cmi_api_error *err)
{
    bool ok = json_array_size(value) > 0;
    json_t *texts = json_array();
    for (size_t i = 0; ok && i < json_array_size(value); i++) {
        const json_t *text = json_array_get(value, i);
        ok = json_is_string(text) && json_string_length(text) > 0;
        json_array_append_new(texts, cmi_api_node("text", text));
    }
    if (ok) {
        *node_out = cmi_api_node("any", texts);
    }
    json_decref(texts);
    return ok ? CMI_OK
              : cmi_api_refuse(err, field,
                               "%s must be an array of strings, not empty and none of them empty.",
                               field);
}

static json_t *any_object_node(void)
{
    json_t *schema = json_object();
    json_object_set_new(schema, "type", json_string("object"));
    json_t *node = cmi_api_node("json", schema);
    json_decref(schema);
    return node;
}

static cmi_status read_any_object(const json_t *value, const char *field, json_t **node_out,
                                  cmi_api_error *err)
{
    if (!json_is_boolean(value)) {
        return cmi_api_refuse(err, field, "%s must be a boolean.", field);
    }
    *node_out = json_is_true(value) ? any_object_node() : NULL;
    return CMI_OK;
}

/* ---- by field ---- */

static cmi_status read_response_format(const json_t *value, const char *field, json_t **node_out,
                                       cmi_api_error *err)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    if (type == NULL) {
        return cmi_api_refuse(err, field, "response_format must be an object with a \"type\".");
    }
    if (strcmp(type, "text") == 0) {
        return CMI_OK;
    }
    if (strcmp(type, "json_object") == 0) {
        const json_t *schema = json_object_get(value, "schema"); /* as llama.cpp has it */
        if (!is_absent(schema)) {
            return read_schema(schema, "response_format.schema", node_out, err);
        }
        *node_out = any_object_node();
        return CMI_OK;
    }
    if (strcmp(type, "json_schema") == 0) {
        const json_t *format = json_object_get(value, "json_schema");
        const json_t *schema = json_object_get(format, "schema");
        if (is_absent(schema)) {
            return cmi_api_refuse(err, field,
                                  "response_format.json_schema must be an object with a "
                                  "\"schema\".");
        }
        return read_schema(schema, "response_format.json_schema.schema", node_out, err);
    }
    return cmi_api_refuse(err, field,
                          "response_format \"%.60s\" is not supported: it can be \"text\", "
                          "\"json_object\" or \"json_schema\".",
                          type);
}

/* vLLM's; one of its members, and options of backends that this server does not have. */
static cmi_status read_structured_outputs(const json_t *value, const char *field, json_t **node_out,
                                          cmi_api_error *err)
{
    static const struct {
        const char *name, *path;
        read_fn *read; /* NULL: not supported */
    } members[] = {
        {"json", "structured_outputs.json", read_schema},
        {"regex", "structured_outputs.regex", read_regex},
        {"choice", "structured_outputs.choice", read_choice},
        {"json_object", "structured_outputs.json_object", read_any_object},
        {"grammar", "structured_outputs.grammar", NULL},
        {"structural_tag", "structured_outputs.structural_tag", NULL},
        {"whitespace_pattern", "structured_outputs.whitespace_pattern", NULL},
    };
    size_t n = 0;
    cmi_status st = json_is_object(value)
                        ? CMI_OK
                        : cmi_api_refuse(err, field, "structured_outputs must be an object.");
    for (size_t i = 0; st == CMI_OK && i < CMI_LEN(members); i++) {
        const json_t *member = json_object_get(value, members[i].name);
        if (is_absent(member)) {
            continue;
        }
        if (members[i].read == NULL) {
            st = cmi_api_refuse(err, field,
                                "%s is not supported: it can be json, regex, choice or "
                                "json_object.",
                                members[i].path);
        } else if (n++ > 0) {
            st = cmi_api_refuse(err, field, "structured_outputs must have one kind of format.");
        } else {
            st = members[i].read(member, members[i].path, node_out, err);
        }
    }
    if (st == CMI_OK && n == 0) {
        st = cmi_api_refuse(err, field,
                            "structured_outputs must have json, regex, choice or json_object.");
    }
    return st;
}

static const struct {
    const char *name;
    read_fn *read;
} fields[] = {
    {"response_format", read_response_format},
    {"structured_outputs", read_structured_outputs},
    {"guided_json", read_schema},
    {"guided_regex", read_regex},
    {"guided_choice", read_choice},
    {"json_schema", read_schema},
    {"regex", read_regex},
};

/* The node that the text of the answer must fit; NULL: any text. */
static cmi_status read_text_format(const json_t *root, json_t **node_out, const char **field_out,
                                   cmi_api_error *err)
{
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < CMI_LEN(fields); i++) {
        const json_t *value = json_object_get(root, fields[i].name);
        json_t *node = NULL;
        if (is_absent(value)) {
            continue;
        }
        st = fields[i].read(value, fields[i].name, &node, err);
        if (st == CMI_OK && node != NULL && *node_out != NULL) {
            st = cmi_api_refuse(err, fields[i].name,
                                "%s and %s both say what the answer must look like; one can.",
                                *field_out, fields[i].name);
        }
        if (st == CMI_OK && node != NULL) {
            *node_out = json_incref(node);
            *field_out = fields[i].name;
        }
        json_decref(node);
    }
    return st;
}

/* ---- the tree ---- */

/* Text behind the end of the reasoning, where models write a newline or two that are not shown. */
static json_t *behind_reasoning(json_t *node)
{
    json_t *newlines = json_array(), *parts = json_array();
    static const char *const texts[] = {"", "\n", "\n\n"};
    for (size_t i = 0; i < CMI_LEN(texts); i++) {
        json_t *text = json_string(texts[i]);
        json_array_append_new(newlines, cmi_api_node("text", text));
        json_decref(text);
    }
    json_array_append_new(parts, cmi_api_node("any", newlines));
    json_array_append(parts, node);
    json_t *tree = cmi_api_node("sequence", parts);
    json_decref(newlines);
    json_decref(parts);
    return tree;
}

/* Either of two nodes; b may be NULL. */
static json_t *either(json_t *a, json_t *b)
{
    if (b == NULL) {
        return json_incref(a);
    }
    json_t *both = json_array();
    json_array_append(both, a);
    json_array_append(both, b);
    json_t *node = cmi_api_node("any", both);
    json_decref(both);
    return node;
}

static cmi_status start_behind_reasoning(const cmi_api *api, cmi_api_format *format,
                                         cmi_api_error *err)
{
    static const char close[] = "</think>";
    uint32_t id = cmi_tokenizer_find(api->opt.tokenizer, close, sizeof close - 1);
    if (id == CMI_TOKEN_NONE || !cmi_tokenizer_is_added(api->opt.tokenizer, id)) {
        return cmi_api_refuse(err, format->field,
                              "%s: this model has no token that ends its reasoning, so what "
                              "follows cannot be bound. Turn the reasoning off.",
                              format->field);
    }
    format->start_ids[format->n_start_ids++] = id;
    return CMI_OK;
}

static cmi_status keep_tree(cmi_api_format *format, const json_t *tree, cmi_api_error *err)
{
    size_t n = json_dumpb(tree, NULL, 0, JSON_COMPACT);
    if (n == 0) {
        return cmi_api_refuse(err, format->field, "%s is nested too deeply.", format->field);
    }
    if (n > CMI_MAX_GRAMMAR_BYTES) {
        return cmi_api_refuse(err, format->field, "%s has %zu bytes of schemas; at most %d can be.",
                              format->field, n, CMI_MAX_GRAMMAR_BYTES);
    }
    format->tree = cmi_alloc(n, 1);
    format->n_bytes = json_dumpb(tree, format->tree, n, JSON_COMPACT);
    return CMI_OK;
}

/* The text's format, calls as they are bound, or both, and where that begins. */
static cmi_status make_tree(const cmi_api *api, json_t *text, const cmi_api_calls *calls,
                            bool in_reasoning, cmi_api_format *format, cmi_api_error *err)
{
    const bool is_triggered = text == NULL && !calls->forced;
    cmi_status st = CMI_OK;
    if (in_reasoning) {
        st = start_behind_reasoning(api, format, err);
    }
    format->must_begin = !is_triggered;
    json_t *tree = NULL;
    if (is_triggered) {
        format->start_ids[format->n_start_ids++] = calls->begin_id;
        tree = json_incref(calls->rest);
    } else if (calls->forced) {
        tree = json_incref(calls->whole);
    } else {
        tree = either(text, calls->whole);
    }
    if (in_reasoning && !is_triggered) {
        json_t *inner = tree;
        tree = behind_reasoning(inner);
        json_decref(inner);
    }
    if (st == CMI_OK) {
        st = keep_tree(format, tree, err);
    }
    json_decref(tree);
    return st;
}

cmi_status cmi_api_format_read(const cmi_api *api, const json_t *root, const cmi_api_params *params,
                               bool is_chat, bool in_reasoning, cmi_api_format *format,
                               cmi_api_error *err)
{
    json_t *text = NULL;
    cmi_api_calls calls = {0};
    cmi_status st = read_text_format(root, &text, &format->field, err);
    if (st == CMI_OK && is_chat) {
        st = cmi_api_calls_read(api, root, params, text != NULL, &calls, err);
    }
    if (st == CMI_OK && (text != NULL || calls.bound)) {
        format->field = calls.forced ? "tool_choice" : text != NULL ? format->field : "tools";
        st = make_tree(api, text, &calls, in_reasoning, format, err);
    }
    cmi_api_calls_deinit(&calls);
    json_decref(text);
    return st;
}

void cmi_api_format_deinit(cmi_api_format *format)
{
    cmi_free(format->tree);
}
