/* The bundled model's template against the prompts that its maker wrote down
 * (models/making/chat.py). */
#include "tests/test.h"

#include <stdlib.h>

#include "text/chat_template.h"

static void check_prompt(const cmi_chat_template *t, const json_t *item)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *want = json_object_get(item, "text");
    const json_t *tools = json_object_get(item, "tools");
    json_t *kwargs = json_object();
    json_object_set(kwargs, "enable_thinking", json_object_get(item, "enable_thinking"));
    cmi_chat_template_input input = {
        .messages = json_object_get(item, "messages"),
        .tools = json_is_null(tools) ? NULL : tools,
        .kwargs = kwargs,
        .add_generation_prompt = json_is_true(json_object_get(item, "add_generation_prompt")),
    };
    cmi_buf out;
    cmi_error err = {.status = CMI_OK};
    cmi_buf_init(&out, 1 << 20);
    if (cmi_chat_template_render(t, &input, &out, &err) != CMI_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    if (out.len != json_string_length(want) ||
        memcmp(cmi_buf_cstr(&out), json_string_value(want), out.len) != 0) {
        fail_msg("%s:\nrendered \"%s\"\nexpected \"%s\"", name, cmi_buf_cstr(&out),
                 json_string_value(want));
    }
    cmi_buf_deinit(&out);
    json_decref(kwargs);
}

static void prompts_are_golden(void **state)
{
    (void)state;
    char dir[1024], path[1100];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    snprintf(path, sizeof path, "%s/chat_golden.json", dir);
    json_error_t where;
    json_t *items = json_load_file(path, JSON_ALLOW_NUL, &where);
    cmi_chat_template *t = NULL;
    cmi_error err = {.status = CMI_OK};
    assert_int_equal(cmi_chat_template_load(&t, dir, &err), CMI_OK);
    assert_true(cmi_chat_template_exists(t));
    assert_true(json_array_size(items) >= 18);
    for (size_t i = 0; i < json_array_size(items); i++) {
        check_prompt(t, json_array_get(items, i));
    }
    cmi_chat_template_destroy(t);
    json_decref(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts_are_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
