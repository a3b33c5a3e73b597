/* Tool calls as nodes of a tree: the names of the tools, their arguments by schema, and around them
 * the markup that the model writes.
 *
 * The markup is what the chat template makes of calls in an earlier answer, since that is what the
 * model has learned: a conversation with two made-up calls is rendered and cut at their names and
 * arguments. Tokens that the tokenizer adds are marked by their ids, all else by its text. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "server/api_internal.h"
#include "text/chat_template.h"

enum { MAX_PROBE_BYTES = 1 << 20 };

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

/* ---- the markup ---- */

typedef struct span {
    const char *text;
    size_t n_bytes;
} span;

typedef struct markup {
    cmi_buf text; /* that the spans lie in */
    span before;  /* the first name */
    span middle;  /* between a name and its arguments */
    span between; /* arguments and the next name */
    span after;   /* the last arguments */
} markup;

static json_t *probe_call(int k)
{
    char name[16], arguments[24];
    (void)snprintf(name, sizeof name, "probe_name_%d", k);
    (void)snprintf(arguments, sizeof arguments, "{\"probe\": %d}", k);
    json_t *function = json_object(), *call = json_object();
    json_object_set_new(function, "name", json_string(name));
    json_object_set_new(function, "arguments", json_string(arguments));
    json_object_set_new(call, "id", json_string("probe"));
    json_object_set_new(call, "type", json_string("function"));
    json_object_set_new(call, "function", function);
    return call;
}

static json_t *probe_messages(void)
{
    json_t *user = json_object(), *assistant = json_object(), *calls = json_array();
    json_object_set_new(user, "role", json_string("user"));
    json_object_set_new(user, "content", json_string("x"));
    json_array_append_new(calls, probe_call(1));
    json_array_append_new(calls, probe_call(2));
    json_object_set_new(assistant, "role", json_string("assistant"));
    json_object_set_new(assistant, "content", json_null());
    json_object_set_new(assistant, "tool_calls", calls);
    json_t *messages = json_array();
    json_array_append_new(messages, user);
    json_array_append_new(messages, assistant);
    return messages;
}

/* The bytes from *at up to the next needle, which *at then stands behind. */
static bool cut(const char **at, const char *needle, span *before_out)
{
    const char *found = strstr(*at, needle);
    if (found == NULL) {
        return false;
    }
    *before_out = (span){*at, (size_t)(found - *at)};
    *at = found + strlen(needle);
    return true;
}

/* False: the template shows no calls, or not as DeepSeek's do. */
static bool find_markup(const cmi_api *api, markup *m)
{
    static const char begin[] = "<｜tool▁calls▁begin｜>", end[] = "<｜tool▁calls▁end｜>";
    json_t *messages = probe_messages(), *kwargs = json_object();
    const cmi_chat_template_input input = {.messages = messages, .kwargs = kwargs};
    cmi_error why;
    cmi_buf_init(&m->text, MAX_PROBE_BYTES);
    cmi_status st = api->opt.chat_template == NULL
                        ? CMI_ERR_NOT_FOUND
                        : cmi_chat_template_render(api->opt.chat_template, &input, &m->text, &why);
    json_decref(kwargs);
    json_decref(messages);
    const char *at = st == CMI_OK ? strstr(cmi_buf_cstr(&m->text), begin) : NULL;
    span again;
    if (at == NULL || !cut(&at, "probe_name_1", &m->before) ||
        !cut(&at, "{\"probe\": 1}", &m->middle) || !cut(&at, "probe_name_2", &m->between) ||
        !cut(&at, "{\"probe\": 2}", &again) || !cut(&at, end, &m->after)) {
        return false;
    }
    m->after.n_bytes += sizeof end - 1;
    return again.n_bytes == m->middle.n_bytes &&
           memcmp(again.text, m->middle.text, again.n_bytes) == 0;
}

/* ---- nodes ---- */

static void append_text(json_t *parts, const char *text, size_t n)
{
    if (n > 0) {
        json_t *string = json_stringn(text, n);
        json_array_append_new(parts, cmi_api_node("text", string));
        json_decref(string);
    }
}

/* The nodes of a piece of markup; skip: of its tokens so many first ones are left out. */
static bool append_markup(const cmi_api *api, json_t *parts, span piece, size_t skip)
{
    cmi_ids ids = {0};
    cmi_error why;
    cmi_buf text;
    cmi_buf_init(&text, MAX_PROBE_BYTES);
    cmi_status st = cmi_tokenizer_encode(api->opt.tokenizer, piece.text, piece.n_bytes,
                                         CMI_ENCODE_ADDED_TOKENS, &ids, &why);
    for (size_t i = skip; st == CMI_OK && i < ids.len; i++) {
        size_t n;
        const char *bytes = cmi_tokenizer_token_bytes(api->opt.tokenizer, ids.data[i], &n);
        if (!cmi_tokenizer_is_added(api->opt.tokenizer, ids.data[i])) {
            cmi_buf_append(&text, bytes, n);
            continue;
        }
        append_text(parts, cmi_buf_cstr(&text), text.len);
        cmi_buf_clear(&text);
        json_t *id = json_integer(ids.data[i]);
        json_array_append_new(parts, cmi_api_node("token", id));
        json_decref(id);
    }
    append_text(parts, cmi_buf_cstr(&text), text.len);
    cmi_buf_deinit(&text);
    cmi_ids_deinit(&ids);
    return st == CMI_OK;
}

static json_t *sequence_of(json_t *parts)
{
    json_t *node = cmi_api_node("sequence", parts);
    json_decref(parts);
    return node;
}

/* What the arguments of a tool must fit: its parameters, or any object. */
static json_t *arguments_node(const json_t *function, bool by_schema)
{
    const json_t *parameters = json_object_get(function, "parameters");
    json_t *any = json_object();
    json_object_set_new(any, "type", json_string("object"));
    json_t *node = cmi_api_node("json", by_schema && !is_absent(parameters) ? parameters : any);
    json_object_set(node, "name", json_object_get(function, "name"));
    json_decref(any);
    return node;
}

/* What the calls are to be, as tool_choice and the tools say. */
typedef struct wish {
    const json_t *tools;
    const char *only; /* the one function; NULL: any */
    bool forced;
    bool has_strict;
} wish;

static json_t *call_node(const cmi_api *api, const wish *w, const markup *m)
{
    json_t *calls = json_array();
    for (size_t i = 0; i < json_array_size(w->tools); i++) {
        const json_t *function = json_object_get(json_array_get(w->tools, i), "function");
        const json_t *strict = json_object_get(function, "strict");
        const json_t *name = json_object_get(function, "name");
        if (w->only != NULL && strcmp(json_string_value(name), w->only) != 0) {
            continue;
        }
        json_t *parts = json_array();
        append_text(parts, json_string_value(name), json_string_length(name));
        (void)!append_markup(api, parts, m->middle, 0);
        bool by_schema = json_is_true(strict) || (w->forced && is_absent(strict));
        json_array_append_new(parts, arguments_node(function, by_schema));
        json_array_append_new(calls, sequence_of(parts));
    }
    json_t *node = cmi_api_node("any", calls);
    json_decref(calls);
    return node;
}

/* One call, or several unless the client wants one at a time. */
static json_t *calls_node(const cmi_api *api, const wish *w, const markup *m, bool parallel)
{
    json_t *call = call_node(api, w, m);
    if (!parallel) {
        return call;
    }
    json_t *node = cmi_api_node("list", call), *between = json_array();
    (void)!append_markup(api, between, m->between, 0);
    json_object_set_new(node, "between", sequence_of(between));
    json_decref(call);
    return node;
}

/* All of it, or all behind the first token. */
static json_t *framed(const cmi_api *api, json_t *calls, const markup *m, size_t skip)
{
    json_t *parts = json_array();
    (void)!append_markup(api, parts, m->before, skip);
    json_array_append(parts, calls);
    (void)!append_markup(api, parts, m->after, 0);
    return sequence_of(parts);
}

/* The token that opens the calls; false when the markup does not begin with one. */
static bool find_begin(const cmi_api *api, const markup *m, uint32_t *id_out)
{
    cmi_ids ids = {0};
    cmi_error why;
    bool ok = cmi_tokenizer_encode(api->opt.tokenizer, m->before.text, m->before.n_bytes,
                                   CMI_ENCODE_ADDED_TOKENS, &ids, &why) == CMI_OK &&
              ids.len > 0 && cmi_tokenizer_is_added(api->opt.tokenizer, ids.data[0]);
    *id_out = ok ? ids.data[0] : CMI_TOKEN_NONE;
    cmi_ids_deinit(&ids);
    return ok;
}

/* ---- the request ---- */

static cmi_status read_named(const json_t *choice, wish *w, cmi_api_error *err)
{
    const char *type = json_string_value(json_object_get(choice, "type"));
    const json_t *name = json_object_get(json_object_get(choice, "function"), "name");
    if (type == NULL || strcmp(type, "function") != 0 || !json_is_string(name)) {
        return cmi_api_refuse(err, "tool_choice",
                              "tool_choice must be {\"type\": \"function\", \"function\": "
                              "{\"name\": ..}} where it is an object.");
    }
    w->only = json_string_value(name);
    w->forced = true;
    for (size_t i = 0; i < json_array_size(w->tools); i++) {
        const json_t *function = json_object_get(json_array_get(w->tools, i), "function");
        if (json_equal(json_object_get(function, "name"), name)) {
            return CMI_OK;
        }
    }
    return cmi_api_refuse(err, "tool_choice", "tool_choice: there is no tool \"%.64s\".", w->only);
}

static cmi_status read_choice(const json_t *root, wish *w, cmi_api_error *err)
{
    const json_t *choice = json_object_get(root, "tool_choice");
    const char *name = json_string_value(choice);
    w->tools = cmi_api_tools_shown(root);
    if (is_absent(choice) || (name != NULL && strcmp(name, "none") == 0)) {
        return CMI_OK;
    }
    if (json_is_object(choice)) {
        return read_named(choice, w, err);
    }
    w->forced = name != NULL && strcmp(name, "required") == 0;
    if (!w->forced && (name == NULL || strcmp(name, "auto") != 0)) {
        return cmi_api_refuse(err, "tool_choice",
                              "tool_choice must be \"auto\", \"none\", \"required\" or an object "
                              "that names a function.");
    }
    return w->tools != NULL
               ? CMI_OK
               : cmi_api_refuse(err, "tool_choice", "tool_choice can only be given with tools.");
}

/* "strict", and names that can stand in the markup, where calls are bound. */
static cmi_status check_functions(wish *w, cmi_api_error *err)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/";
    char where[64];
    for (size_t i = 0; i < json_array_size(w->tools); i++) {
        const json_t *function = json_object_get(json_array_get(w->tools, i), "function");
        const json_t *strict = json_object_get(function, "strict");
        (void)snprintf(where, sizeof where, "tools[%zu]", i);
        if (!is_absent(strict) && !json_is_boolean(strict)) {
            return cmi_api_refuse(err, where, "%s.function.strict must be a boolean.", where);
        }
        w->has_strict |= json_is_true(strict);
    }
    for (size_t i = 0; (w->has_strict || w->forced) && i < json_array_size(w->tools); i++) {
        const json_t *function = json_object_get(json_array_get(w->tools, i), "function");
        const json_t *name = json_object_get(function, "name");
        const size_t n = json_string_length(name);
        (void)snprintf(where, sizeof where, "tools[%zu]", i);
        if (n > CMI_ANSWER_MAX_CALL_NAME_BYTES || strspn(json_string_value(name), letters) != n) {
            return cmi_api_refuse(err, where,
                                  "%s: the name of a function whose calls are bound must have at "
                                  "most %d letters, digits, _ - . : and /.",
                                  where, CMI_ANSWER_MAX_CALL_NAME_BYTES);
        }
    }
    return CMI_OK;
}

cmi_status cmi_api_calls_read(const cmi_api *api, const json_t *root, const cmi_api_params *params,
                              bool has_format, cmi_api_calls *calls, cmi_api_error *err)
{
    wish w = {0};
    cmi_status st = read_choice(root, &w, err);
    if (st == CMI_OK) {
        st = check_functions(&w, err);
    }
    if (st != CMI_OK || !(w.forced || w.has_strict || (has_format && w.tools != NULL))) {
        return st;
    }
    markup m = {0};
    if (find_markup(api, &m) && find_begin(api, &m, &calls->begin_id)) {
        json_t *list = calls_node(api, &w, &m, params->parallel_tool_calls);
        calls->bound = true;
        calls->forced = w.forced;
        calls->whole = framed(api, list, &m, 0);
        calls->rest = framed(api, list, &m, 1);
        json_decref(list);
    } else if (w.forced || w.has_strict) {
        st = cmi_api_refuse(err, w.forced ? "tool_choice" : "tools",
                            "%s: calls cannot be bound, since this model's chat template does not "
                            "show them between tokens of DeepSeek's.",
                            w.forced ? "tool_choice" : "strict");
    }
    cmi_buf_deinit(&m.text);
    return st;
}

void cmi_api_calls_deinit(cmi_api_calls *calls)
{
    json_decref(calls->whole);
    json_decref(calls->rest);
}
