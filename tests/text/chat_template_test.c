/* Where chat templates come from, and what they are given. */
#include "tests/test.h"

#include <stdlib.h>

#include "tests/model/fixture.h"
#include "text/chat_template.h"

typedef struct fixture {
    temp_dir dir;
    cmi_chat_template *t;
    cmi_error err;
    cmi_buf out;
    json_t *messages, *tools, *kwargs;
} fixture;

static int set_up(void **state)
{
    static fixture f;
    f = (fixture){.messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi"),
                  .tools = json_pack("[{s:s}]", "name", "f")};
    temp_dir_make(&f.dir);
    cmi_buf_init(&f.out, 10000);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    cmi_chat_template_destroy(f->t);
    cmi_buf_deinit(&f->out);
    json_decref(f->messages);
    json_decref(f->tools);
    json_decref(f->kwargs);
    temp_dir_remove(&f->dir);
    return 0;
}

static cmi_status load(fixture *f)
{
    cmi_chat_template_destroy(f->t);
    f->t = NULL;
    return cmi_chat_template_load(&f->t, f->dir.path, &f->err);
}

static cmi_status render(fixture *f, const json_t *tools)
{
    cmi_chat_template_input input = {.messages = f->messages,
                                     .tools = tools,
                                     .kwargs = f->kwargs,
                                     .add_generation_prompt = true};
    cmi_buf_clear(&f->out);
    return cmi_chat_template_render(f->t, &input, &f->out, &f->err);
}

static void expect_prompt(fixture *f, const json_t *tools, const char *want)
{
    if (render(f, tools) != CMI_OK) {
        fail_msg("%s", f->err.text);
    }
    assert_string_equal(cmi_buf_cstr(&f->out), want);
}

/* The error names the file and ends like this. */
static void expect_load_error(fixture *f, cmi_status want, const char *file, const char *end)
{
    assert_int_equal(load(f), want);
    assert_null(f->t);
    assert_non_null(strstr(f->err.text, file));
    size_t n = strlen(f->err.text);
    assert_true(n > strlen(end));
    assert_string_equal(f->err.text + n - strlen(end), end);
}

static void template_comes_from_the_config(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": \"{{ bos_token }}{{ messages[0].content }}\","
                    "\"bos_token\": \"<s>\"}");
    assert_int_equal(load(f), CMI_OK);
    assert_true(cmi_chat_template_exists(f->t));
    expect_prompt(f, NULL, "<s>hi");
}

static void template_file_comes_first(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "chat_template.jinja", "file {{ eos_token }}\n");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, NULL, "file ");
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": \"config\", \"eos_token\": \"</s>\"}");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, NULL, "file </s>");
}

static void named_templates_are_picked_by_tools(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"{%\"},"
                    "{\"name\": \"tool_use\", \"template\": \"with {{ tools[0].name }}\"},"
                    "{\"name\": \"default\", \"template\": \"plain\"}]}");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, NULL, "plain");
    expect_prompt(f, f->tools, "with f");
    temp_write_text(
        &f->dir, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"{{ tools }}\"}]}");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, f->tools, "[{'name': 'f'}]");
    expect_prompt(f, NULL, "None");
}

static void model_without_template_says_so_when_asked(void **state)
{
    fixture *f = *state;
    assert_int_equal(load(f), CMI_OK);
    assert_false(cmi_chat_template_exists(f->t));
    assert_int_equal(render(f, NULL), CMI_ERR_NOT_FOUND);
    assert_string_equal(f->err.text,
                        "the model has no chat template; give one with --chat-template");
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": null}");
    assert_int_equal(load(f), CMI_OK);
    assert_int_equal(render(f, NULL), CMI_ERR_NOT_FOUND);
}

static void user_may_choose_a_template(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": \"own\", \"bos_token\": \"<s>\"}");
    temp_write_text(&f->dir, "other.jinja", "other {{ bos_token }}");
    assert_int_equal(cmi_chat_template_load_choice(&f->t, f->dir.path,
                                                   temp_path(&f->dir, "other.jinja"), &f->err),
                     CMI_OK);
    expect_prompt(f, NULL, "other <s>");
    cmi_chat_template_destroy(f->t);
    f->t = NULL;
    assert_int_equal(
        cmi_chat_template_load_choice(&f->t, f->dir.path, "text {{ bos_token }}", &f->err), CMI_OK);
    expect_prompt(f, NULL, "text <s>");
    cmi_chat_template_destroy(f->t);
    f->t = NULL;
    assert_int_equal(cmi_chat_template_load_choice(&f->t, f->dir.path, "nosuch.jinja", &f->err),
                     CMI_ERR_NOT_FOUND);
    assert_int_equal(cmi_chat_template_load_choice(&f->t, f->dir.path, "{{ 1 + }}", &f->err),
                     CMI_ERR_BAD_DATA);
    assert_string_equal(f->err.text, "chat template: line 1: expected an expression, got '}}'");
}

static void special_tokens_have_their_names(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": \"{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}"
                    "{{ pad_token }}{{ additional_special_tokens }}\","
                    "\"bos_token\": {\"__type\": \"AddedToken\", \"content\": \"<｜b▁s｜>\"},"
                    "\"eos_token\": \"</s>\", \"unk_token\": null, \"pad_token\": {\"content\": 1},"
                    "\"additional_special_tokens\": [\"<a>\", {\"content\": \"<b>\"}, 3]}");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, NULL, "<｜b▁s｜></s>False['<a>', '<b>']");
}

static void variables_are_those_of_transformers(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "chat_template.jinja",
                    "{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ thinking }}");
    assert_int_equal(load(f), CMI_OK);
    expect_prompt(f, NULL, "None None True ");
    f->kwargs = json_pack("{s:b, s:[s]}", "thinking", 1, "documents", "d");
    expect_prompt(f, f->tools, "[{'name': 'f'}] ['d'] True True");
}

static void kwargs_hide_tokens_but_not_the_request(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json",
                    "{\"chat_template\": \"{{ bos_token }}\", \"bos_token\": \"<s>\"}");
    assert_int_equal(load(f), CMI_OK);
    f->kwargs = json_pack("{s:s}", "bos_token", "other");
    expect_prompt(f, NULL, "other");
    json_object_set_new(f->kwargs, "messages", json_array());
    assert_int_equal(render(f, NULL), CMI_ERR_INVALID);
    assert_string_equal(f->err.text, "chat_template_kwargs must not contain 'messages'");
}

static void the_date_is_an_argument(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "chat_template.jinja", "{{ strftime_now('%Y-%m-%d') }}");
    assert_int_equal(load(f), CMI_OK);
    cmi_chat_template_input input = {.messages = f->messages, .now_unix_s = 1700000000};
    assert_int_equal(cmi_chat_template_render(f->t, &input, &f->out, &f->err), CMI_OK);
    assert_string_equal(cmi_buf_cstr(&f->out), "2023-11-14");
}

static void errors_of_a_render_say_whose_they_are(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "chat_template.jinja",
                    "{% if tools %}{{ raise_exception('no tools, please') }}{% endif %}\n"
                    "{{ 'x' + messages[0].name }}");
    assert_int_equal(load(f), CMI_OK);
    assert_int_equal(render(f, f->tools), CMI_ERR_INVALID);
    assert_string_equal(f->err.text, "no tools, please");
    assert_int_equal(render(f, NULL), CMI_ERR_BAD_DATA);
    assert_string_equal(f->err.text, "chat template: line 2: dict has no attribute or item 'name'");
}

static void broken_files_are_named(void **state)
{
    fixture *f = *state;
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": \"\n");
    expect_load_error(f, CMI_ERR_BAD_DATA,
                      "tokenizer_config.json: line 1: ", "unexpected newline near '\"'");
    temp_write_text(&f->dir, "tokenizer_config.json", "[]");
    expect_load_error(f, CMI_ERR_BAD_DATA, "tokenizer_config.json: line 1: ", "must be an object");
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": 1}");
    expect_load_error(f, CMI_ERR_BAD_DATA, "tokenizer_config.json: chat_template: ",
                      "must be a string or a list of templates");
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"x\"}]}");
    expect_load_error(f, CMI_ERR_BAD_DATA, "tokenizer_config.json: chat_template: ",
                      "an entry of the list needs a name and a template");
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": []}");
    expect_load_error(f, CMI_ERR_BAD_DATA, "tokenizer_config.json: chat_template: ",
                      "has no template named \"default\"");
    temp_write_text(&f->dir, "tokenizer_config.json", "{\"chat_template\": \"a\\n{% if %}\"}");
    expect_load_error(f, CMI_ERR_BAD_DATA, "tokenizer_config.json: chat_template: ",
                      "line 2: expected an expression, got '%}'");
    temp_write_text(&f->dir, "chat_template.jinja", "{{");
    expect_load_error(f, CMI_ERR_BAD_DATA, "chat_template.jinja: ",
                      "line 1: expected an expression, got the end of the template");
}

int main(void)
{
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_DIR(template_comes_from_the_config),
        WITH_DIR(template_file_comes_first),
        WITH_DIR(named_templates_are_picked_by_tools),
        WITH_DIR(model_without_template_says_so_when_asked),
        WITH_DIR(user_may_choose_a_template),
        WITH_DIR(special_tokens_have_their_names),
        WITH_DIR(variables_are_those_of_transformers),
        WITH_DIR(kwargs_hide_tokens_but_not_the_request),
        WITH_DIR(the_date_is_an_argument),
        WITH_DIR(errors_of_a_render_say_whose_they_are),
        WITH_DIR(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
