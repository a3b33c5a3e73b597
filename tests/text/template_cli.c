/* tests/text/template_cli.c - renders templates for tests in other languages.
 *
 * One JSON object a line on standard input, one a line on standard output. With "template" the text
 * is rendered with the variables of "vars"; with "dir" the chat template of that model directory
 * (or "choice") is rendered with "messages", "tools", "kwargs" and "add_generation_prompt". The
 * answer is {"text": ...} or {"status": "...", "error": ...}. "now" is the time in seconds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "text/chat_template.h"
#include "text/jinja.h"

enum { OUTPUT_BYTES_MAX = 64 << 20 };

static cmi_status render_plain(const json_t *line, cmi_buf *out, cmi_error *err)
{
    const json_t *source = json_object_get(line, "template");
    json_t *vars_object = json_object_get(line, "vars");
    cmi_jinja *jinja = NULL;
    cmi_status st =
        cmi_jinja_parse(&jinja, json_string_value(source), json_string_length(source), err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_jinja_var *vars = cmi_alloc(json_object_size(vars_object), sizeof *vars);
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(vars_object, key, value)
    {
        vars[n++] = (cmi_jinja_var){.name = key, .value = value};
    }
    cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    options.now_unix_s = json_integer_value(json_object_get(line, "now"));
    st = cmi_jinja_render(jinja, vars, n, &options, out, err);
    cmi_free(vars);
    cmi_jinja_destroy(jinja);
    return st;
}

static cmi_status render_chat(const json_t *line, cmi_buf *out, cmi_error *err)
{
    cmi_chat_template *t = NULL;
    const char *dir = json_string_value(json_object_get(line, "dir"));
    const char *choice = json_string_value(json_object_get(line, "choice"));
    const json_t *tools = json_object_get(line, "tools");
    cmi_status st = choice == NULL ? cmi_chat_template_load(&t, dir, err)
                                   : cmi_chat_template_load_choice(&t, dir, choice, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_chat_template_input input = {
        .messages = json_object_get(line, "messages"),
        .tools = json_is_null(tools) ? NULL : tools,
        .kwargs = json_object_get(line, "kwargs"),
        .add_generation_prompt = json_is_true(json_object_get(line, "add_generation_prompt")),
        .now_unix_s = json_integer_value(json_object_get(line, "now")),
    };
    st = cmi_chat_template_render(t, &input, out, err);
    cmi_chat_template_destroy(t);
    return st;
}

static json_t *answer(const json_t *line)
{
    cmi_buf out;
    cmi_error err = {.status = CMI_OK};
    cmi_buf_init(&out, OUTPUT_BYTES_MAX);
    cmi_status st = json_object_get(line, "template") != NULL ? render_plain(line, &out, &err)
                                                              : render_chat(line, &out, &err);
    json_t *result = json_object();
    if (st == CMI_OK) {
        json_object_set_new(result, "text", json_stringn(cmi_buf_cstr(&out), out.len));
    } else {
        json_object_set_new(result, "status", json_string(cmi_status_text(st)));
        json_object_set_new(result, "error", json_string(err.text));
    }
    cmi_buf_deinit(&out);
    return result;
}

int main(void)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&text, &cap, stdin)) > 0) {
        json_error_t error;
        json_t *line = json_loadb(text, (size_t)n, JSON_ALLOW_NUL, &error);
        if (line == NULL) {
            fprintf(stderr, "template_cli: %s\n", error.text);
            return 2;
        }
        json_t *result = answer(line);
        json_dumpf(result, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(result);
        json_decref(line);
    }
    cmi_free(text);
    return 0;
}
