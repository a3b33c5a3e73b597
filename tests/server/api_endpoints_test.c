/* The endpoints that compute nothing. */
#include "tests/server/api_util.h"

typedef struct endpoint_case {
    const char *body;
    const char *answer; /* NULL: refused */
} endpoint_case;

static cmi_status call(bool tokenize, const char *body, cmi_buf *out, cmi_api_error *err)
{
    const char *json = api_json(body);
    cmi_buf_init(out, 1 << 20);
    return tokenize ? cmi_api_tokenize(world.api, json, strlen(json), 0, out, err)
                    : cmi_api_detokenize(world.api, json, strlen(json), out, err);
}

static void check_cases(bool tokenize, const endpoint_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cmi_buf out;
        cmi_api_error err = {0};
        cmi_status st = call(tokenize, cases[i].body, &out, &err);
        if (cases[i].answer == NULL) {
            assert_true(st < CMI_OK);
            assert_true(err.http_status == 400 || err.http_status == 404);
        } else {
            if (st != CMI_OK) {
                fail_msg("%s: %s", cases[i].body, err.message);
            }
            const api_run run = {.out = out};
            json_t *body = api_body(&run);
            api_assert_json(body, cases[i].answer);
            json_decref(body);
        }
        cmi_buf_deinit(&out);
    }
}

static void tokenize_gives_ids(void **state)
{
    (void)state;
    static const endpoint_case cases[] = {
        {"{'model': 'alias', 'prompt': 'Hello'}",
         "{'count': 2, 'max_model_len': 2048, 'tokens': [0, 1279], 'token_strs': null}"},
        {"{'prompt': 'Hello', 'add_special_tokens': false, 'return_token_strs': true}",
         "{'count': 1, 'max_model_len': 2048, 'tokens': [1279], 'token_strs': ['Hello']}"},
        {"{'prompt': '', 'add_special_tokens': false}",
         "{'count': 0, 'max_model_len': 2048, 'tokens': [], 'token_strs': null}"},
        {"{'messages': [{'role': 'user', 'content': 'Hello'}]}",
         "{'count': 6, 'max_model_len': 2048, 'tokens': [0, 2035, 1279, 2036, 2046, 201],"
         " 'token_strs': null}"},
        {"{'messages': [{'role': 'user', 'content': 'Hello'}], 'add_generation_prompt': false,"
         " 'return_token_strs': true}",
         "{'count': 3, 'max_model_len': 2048, 'tokens': [0, 2035, 1279],"
         " 'token_strs': ['<｜begin▁of▁sentence｜>', '<｜User｜>', 'Hello']}"},
        {"{'model': 'x', 'prompt': 'Hello'}", NULL},
        {"{'prompt': 5}", NULL},
        {"{}", NULL},
        {"{'prompt': 'x', 'return_token_strs': 5}", NULL},
        {"{'messages': []}", NULL},
        {"{'messages': [{'role': 'user', 'content': 'Hello'}], 'tools': 5}", NULL},
        {"", NULL},
    };
    check_cases(true, cases, CMI_LEN(cases));
}

static void detokenize_gives_text(void **state)
{
    (void)state;
    static const endpoint_case cases[] = {
        {"{'model': 'alias', 'tokens': [0, 1279]}", "{'prompt': '<｜begin▁of▁sentence｜>Hello'}"},
        {"{'tokens': []}", "{'prompt': ''}"},
        {"{'tokens': [2048]}", NULL},
        {"{'tokens': [-1]}", NULL},
        {"{'tokens': ['x']}", NULL},
        {"{'tokens': 5}", NULL},
        {"{}", NULL},
        {"[]", NULL},
    };
    check_cases(false, cases, CMI_LEN(cases));
}

static void models_lists_every_name(void **state)
{
    (void)state;
    api_run run = {0};
    cmi_buf_init(&run.out, 10000);
    cmi_api_models(world.api, &run.out);
    json_t *body = api_body(&run);
    api_assert_json(body, "{'object': 'list', 'data': ["
                          "{'id': 'matrix-tiny', 'object': 'model', 'created': 1700000000,"
                          " 'owned_by': 'cminfer', 'root': '/models/matrix-tiny', 'parent': null,"
                          " 'max_model_len': 2048, 'permission': []},"
                          "{'id': 'alias', 'object': 'model', 'created': 1700000000,"
                          " 'owned_by': 'cminfer', 'root': '/models/matrix-tiny', 'parent': null,"
                          " 'max_model_len': 2048, 'permission': []}]}");
    json_decref(body);
    cmi_buf_deinit(&run.out);
}

static void an_api_needs_a_name_for_its_model(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "\xFF"};
    cmi_api *api;
    cmi_error err;
    assert_int_equal(cmi_api_create(&api, &(cmi_api_options){0}, &err), CMI_ERR_INVALID);
    for (int i = 0; i < 2; i++) {
        const cmi_api_options opt = {.model_names = &bad[i], .n_model_names = 1};
        assert_int_equal(cmi_api_create(&api, &opt, &err), CMI_ERR_INVALID);
    }
}

static void chat_needs_a_template(void **state)
{
    (void)state;
    static const char *const names[] = {"m"};
    const cmi_api_options opt = {.model_names = names,
                                 .n_model_names = 1,
                                 .tokenizer = world.tokenizer,
                                 .engine = {.vocab_size = 2048, .max_model_len = 100}};
    cmi_api *api;
    cmi_error why;
    assert_int_equal(cmi_api_create(&api, &opt, &why), CMI_OK);
    const char *body = api_json("{'messages': [{'role': 'user', 'content': 'Hi'}]}");
    cmi_api_job *job;
    cmi_api_error err;
    assert_int_equal(
        cmi_api_job_create(&job, api, CMI_API_CHAT_COMPLETIONS, body, strlen(body), 0, 0, &err),
        CMI_ERR_INVALID);
    assert_non_null(strstr(err.message, "no chat template"));
    cmi_api_destroy(api);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenize_gives_ids),
        cmocka_unit_test(detokenize_gives_text),
        cmocka_unit_test(models_lists_every_name),
        cmocka_unit_test(an_api_needs_a_name_for_its_model),
        cmocka_unit_test(chat_needs_a_template),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
