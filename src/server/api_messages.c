/* Messages reach the template as the client's own objects, changed in place: roles and content take
 * the one form that templates are written for, everything else stays as it is, known or not. */
#include <stdio.h>
#include <string.h>

#include "server/api_internal.h"

/* Where a message is, for errors: "messages[3].content". */
typedef struct place {
    char text[64];
} place;

static place place_of(size_t message_idx, const char *field)
{
    place p;
    snprintf(p.text, sizeof p.text, "messages[%zu]%s", message_idx, field);
    return p;
}

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static cmi_status normalize_role(json_t *message, size_t idx, const char **role_out,
                                 cmi_api_error *err)
{
    /* roles that mean the same to a template of this family */
    static const struct {
        const char *name, *as;
    } roles[] = {
        {"system", "system"},       {"developer", "system"}, {"user", "user"},
        {"assistant", "assistant"}, {"tool", "tool"},        {"function", "tool"},
    };
    place p = place_of(idx, ".role");
    const char *role = json_string_value(json_object_get(message, "role"));
    for (size_t i = 0; role != NULL && i < CMI_LEN(roles); i++) {
        if (strcmp(role, roles[i].name) == 0) {
            *role_out = roles[i].as;
            json_object_set_new(message, "role", json_string(roles[i].as));
            return CMI_OK;
        }
    }
    return cmi_api_refuse(err, p.text,
                          "%s must be \"system\", \"developer\", \"user\", \"assistant\", \"tool\" "
                          "or \"function\".",
                          p.text);
}

/* Appends the text of one part of a content list. */
static cmi_status append_part(const json_t *part, const char *where, cmi_buf *text,
                              cmi_api_error *err)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type == NULL) {
        return cmi_api_refuse(err, where, "%s: a part must be an object with a \"type\".", where);
    }
    if (strcmp(type, "text") != 0) {
        return cmi_api_refuse(err, where,
                              "%s: a part of type \"%.60s\" is not supported: this model reads "
                              "text only.",
                              where, type);
    }
    const json_t *value = json_object_get(part, "text");
    if (!json_is_string(value)) {
        return cmi_api_refuse(err, where, "%s: \"text\" of a part must be a string.", where);
    }
    cmi_buf_str(text, text->len > 0 ? "\n" : "");
    cmi_buf_append(text, json_string_value(value), json_string_length(value));
    return CMI_OK;
}

static cmi_status join_parts(json_t *message, const json_t *parts, const char *where,
                             cmi_api_error *err)
{
    cmi_buf text;
    cmi_buf_init(&text, CMI_TOKENIZER_MAX_TEXT_BYTES);
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < json_array_size(parts); i++) {
        st = append_part(json_array_get(parts, i), where, &text, err);
    }
    if (st == CMI_OK) {
        json_object_set_new(message, "content", json_stringn(cmi_buf_cstr(&text), text.len));
    }
    cmi_buf_deinit(&text);
    return st;
}

/* One string. Beside tool calls an empty content is null, as templates test for it. */
static cmi_status normalize_content(json_t *message, size_t idx, const char *role, bool has_calls,
                                    cmi_api_error *err)
{
    place p = place_of(idx, ".content");
    const json_t *content = json_object_get(message, "content");
    if (json_is_array(content)) {
        cmi_status st = join_parts(message, content, p.text, err);
        if (st != CMI_OK) {
            return st;
        }
        content = json_object_get(message, "content");
    }
    if (is_absent(content)) {
        if (strcmp(role, "assistant") != 0 && strcmp(role, "tool") != 0) {
            return cmi_api_refuse(err, p.text, "%s is missing.", p.text);
        }
        json_object_set_new(message, "content", has_calls ? json_null() : json_string(""));
        return CMI_OK;
    }
    if (!json_is_string(content)) {
        return cmi_api_refuse(err, p.text, "%s must be a string or an array of parts.", p.text);
    }
    if (has_calls && json_string_length(content) == 0) {
        json_object_set_new(message, "content", json_null());
    }
    return CMI_OK;
}

static cmi_status normalize_call(json_t *call, const char *where, cmi_api_error *err)
{
    const json_t *type = json_object_get(call, "type");
    json_t *function = json_object_get(call, "function");
    if (!json_is_object(call) || !json_is_object(function) ||
        !json_is_string(json_object_get(function, "name"))) {
        return cmi_api_refuse(err, where,
                              "%s: a call must be an object with a \"function\" that has a "
                              "\"name\".",
                              where);
    }
    if (is_absent(type)) {
        json_object_set_new(call, "type", json_string("function"));
    } else if (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0) {
        return cmi_api_refuse(err, where, "%s: the type of a call must be \"function\".", where);
    }
    const json_t *arguments = json_object_get(function, "arguments");
    if (is_absent(arguments)) {
        json_object_set_new(function, "arguments", json_string("{}"));
    } else if (!json_is_string(arguments)) {
        return cmi_api_refuse(
            err, where, "%s: the arguments of a call must be a string that holds JSON.", where);
    }
    return CMI_OK;
}

/* *has_calls_out: the message has at least one. A template need not know "null" and "[]". */
static cmi_status normalize_calls(json_t *message, size_t idx, const char *role,
                                  bool *has_calls_out, cmi_api_error *err)
{
    place p = place_of(idx, ".tool_calls");
    json_t *calls = json_object_get(message, "tool_calls");
    *has_calls_out = json_array_size(calls) > 0 && strcmp(role, "assistant") == 0;
    if (!is_absent(calls) && !json_is_array(calls)) {
        return cmi_api_refuse(err, p.text, "%s must be an array.", p.text);
    }
    if (!*has_calls_out) {
        json_object_del(message, "tool_calls");
        return CMI_OK;
    }
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < json_array_size(calls); i++) {
        st = normalize_call(json_array_get(calls, i), p.text, err);
    }
    return st;
}

/* Fields that a template may put into the prompt. */
static cmi_status check_strings(const json_t *message, size_t idx, cmi_api_error *err)
{
    static const char *const names[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        const json_t *value = json_object_get(message, names[i]);
        if (!is_absent(value) && !json_is_string(value)) {
            place p = place_of(idx, "");
            return cmi_api_refuse(err, p.text, "%s.%s must be a string.", p.text, names[i]);
        }
    }
    return CMI_OK;
}

static cmi_status normalize_message(json_t *message, size_t idx, cmi_api_error *err)
{
    if (!json_is_object(message)) {
        place p = place_of(idx, "");
        return cmi_api_refuse(err, p.text, "%s must be an object.", p.text);
    }
    const char *role = NULL;
    bool has_calls = false;
    cmi_status st = normalize_role(message, idx, &role, err);
    if (st == CMI_OK) {
        st = normalize_calls(message, idx, role, &has_calls, err);
    }
    if (st == CMI_OK) {
        st = normalize_content(message, idx, role, has_calls, err);
    }
    return st != CMI_OK ? st : check_strings(message, idx, err);
}

cmi_status cmi_api_messages_normalize(json_t *root, cmi_api_error *err)
{
    json_t *messages = json_object_get(root, "messages");
    if (is_absent(messages)) {
        return cmi_api_refuse(err, "messages", "messages is missing.");
    }
    if (!json_is_array(messages)) {
        return cmi_api_refuse(err, "messages", "messages must be an array.");
    }
    if (json_array_size(messages) == 0) {
        return cmi_api_refuse(err, "messages", "messages must not be empty.");
    }
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < json_array_size(messages); i++) {
        st = normalize_message(json_array_get(messages, i), i, err);
    }
    return st;
}

cmi_status cmi_api_tools_check(json_t *root, cmi_api_error *err)
{
    const json_t *tools = json_object_get(root, "tools");
    if (!is_absent(tools) && !json_is_array(tools)) {
        return cmi_api_refuse(err, "tools", "tools must be an array.");
    }
    for (size_t i = 0; i < json_array_size(tools); i++) {
        char where[64];
        snprintf(where, sizeof where, "tools[%zu]", i);
        json_t *tool = json_array_get(tools, i);
        const json_t *function = json_object_get(tool, "function");
        const json_t *type = json_object_get(tool, "type");
        const json_t *name = json_object_get(function, "name");
        if (!json_is_string(name) || json_string_length(name) == 0) {
            return cmi_api_refuse(
                err, where, "%s must be an object with a \"function\" that has a \"name\".", where);
        }
        if (is_absent(type)) {
            json_object_set_new(tool, "type", json_string("function"));
        } else if (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0) {
            return cmi_api_refuse(err, where, "%s.type must be \"function\".", where);
        }
        const json_t *parameters = json_object_get(function, "parameters");
        if (!is_absent(parameters) && !json_is_object(parameters)) {
            return cmi_api_refuse(err, where, "%s.function.parameters must be an object.", where);
        }
    }
    return CMI_OK;
}

const json_t *cmi_api_tools_shown(const json_t *root)
{
    const char *choice = json_string_value(json_object_get(root, "tool_choice"));
    const json_t *tools = json_object_get(root, "tools");
    bool hidden = choice != NULL && strcmp(choice, "none") == 0;
    return hidden || json_array_size(tools) == 0 ? NULL : tools;
}
