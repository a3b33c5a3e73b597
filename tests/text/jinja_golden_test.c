/* The interpreter against what Python's Jinja2 made of the same templates (jinja_golden.py). */
#include "tests/test.h"

#include <stdlib.h>

#include "text/chat_template.h"
#include "text/jinja.h"

enum { OUTPUT_BYTES_MAX = 1 << 20 };

static json_t *golden;
static json_t *conversations;

static json_t *read_json(const char *path)
{
    json_error_t where;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &where);
    if (root == NULL) {
        fail_msg("%s: %s", path, where.text);
    }
    return root;
}

/* Fails the test unless the status and text are what the item says. */
static void check(const json_t *item, const char *name, cmi_status st, const cmi_buf *out,
                  const cmi_error *err)
{
    const json_t *want = json_object_get(item, "text");
    if (want == NULL) {
        if (st == CMI_OK) {
            fail_msg("%s: rendered \"%s\" instead of %s", name, cmi_buf_cstr(out),
                     json_string_value(json_object_get(item, "error")));
        }
        assert_int_equal(out->len, 0);
        assert_true(strlen(err->text) > 0);
        return;
    }
    if (st != CMI_OK) {
        fail_msg("%s: %s", name, err->text);
    }
    if (out->len != json_string_length(want) ||
        memcmp(cmi_buf_cstr(out), json_string_value(want), out->len) != 0) {
        fail_msg("%s:\nrendered \"%s\"\nexpected \"%s\"", name, cmi_buf_cstr(out),
                 json_string_value(want));
    }
}

static void check_case(const json_t *item, const cmi_jinja_var *vars, size_t n_vars)
{
    const json_t *source = json_object_get(item, "template");
    const char *name = json_string_value(json_object_get(item, "name"));
    cmi_jinja_options options = CMI_JINJA_OPTIONS_DEFAULT;
    options.now_unix_s = json_integer_value(json_object_get(golden, "now_unix_s"));
    cmi_jinja *jinja = NULL;
    cmi_error err = {.status = CMI_OK};
    cmi_buf out;
    cmi_buf_init(&out, OUTPUT_BYTES_MAX);
    cmi_status st =
        cmi_jinja_parse(&jinja, json_string_value(source), json_string_length(source), &err);
    if (st == CMI_OK) {
        st = cmi_jinja_render(jinja, vars, n_vars, &options, &out, &err);
    }
    check(item, name, st, &out, &err);
    cmi_jinja_destroy(jinja);
    cmi_buf_deinit(&out);
}

static void small_templates_render_as_in_python(void **state)
{
    (void)state;
    cmi_jinja_var vars[32];
    size_t n_vars = 0;
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(golden, "vars"), key, value)
    {
        assert_true(n_vars < CMI_LEN(vars));
        vars[n_vars++] = (cmi_jinja_var){.name = key, .value = value};
    }
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) > 100);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(json_array_get(cases, i), vars, n_vars);
    }
}

static const json_t *find_conversation(const char *name)
{
    for (size_t i = 0; i < json_array_size(conversations); i++) {
        const json_t *c = json_array_get(conversations, i);
        if (strcmp(json_string_value(json_object_get(c, "name")), name) == 0) {
            return c;
        }
    }
    fail_msg("there is no conversation \"%s\"", name);
    return NULL;
}

static void check_chat(const json_t *item)
{
    const char *file = json_string_value(json_object_get(item, "template"));
    const char *name = json_string_value(json_object_get(item, "conversation"));
    const json_t *conversation = find_conversation(name);
    const json_t *tools = json_object_get(conversation, "tools");
    char dir[1024], path[1024], label[256];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    snprintf(path, sizeof path, "%s/templates/%s", getenv("CMI_TEST_DATA"), file);
    snprintf(label, sizeof label, "%s: %s", file, name);
    cmi_chat_template *t = NULL;
    cmi_error err = {.status = CMI_OK};
    if (cmi_chat_template_load_choice(&t, dir, path, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    json_t *kwargs = json_object();
    json_object_set(kwargs, "enable_thinking", json_object_get(conversation, "enable_thinking"));
    cmi_chat_template_input input = {
        .messages = json_object_get(conversation, "messages"),
        .tools = json_is_null(tools) ? NULL : tools,
        .kwargs = kwargs,
        .add_generation_prompt =
            json_is_true(json_object_get(conversation, "add_generation_prompt")),
    };
    cmi_buf out;
    cmi_buf_init(&out, OUTPUT_BYTES_MAX);
    cmi_status st = cmi_chat_template_render(t, &input, &out, &err);
    check(item, label, st, &out, &err);
    cmi_buf_deinit(&out);
    json_decref(kwargs);
    cmi_chat_template_destroy(t);
}

static void chat_templates_render_as_in_python(void **state)
{
    (void)state;
    const json_t *chats = json_object_get(golden, "chats");
    assert_true(json_array_size(chats) > 100);
    for (size_t i = 0; i < json_array_size(chats); i++) {
        check_chat(json_array_get(chats, i));
    }
}

static int load(void **state)
{
    (void)state;
    char path[1024];
    snprintf(path, sizeof path, "%s/jinja_golden.json", getenv("CMI_TEST_DATA"));
    golden = read_json(path);
    snprintf(path, sizeof path, "%s/matrix-tiny/chat_golden.json", getenv("CMI_MODELS"));
    conversations = read_json(path);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(golden);
    json_decref(conversations);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_templates_render_as_in_python),
        cmocka_unit_test(chat_templates_render_as_in_python),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
