#include "tests/server/api_util.h"

static void a_whole_answer_has_openais_shape(void **state)
{
    (void)state;
    const api_script s = {.text = " there"};
    api_run run = api_play(CMI_API_COMPLETIONS, "{'prompt': 'Hello'}", &s);
    assert_int_equal(run.status, CMI_OK);
    json_t *body = api_body(&run);
    assert_memory_equal(json_string_value(json_object_get(body, "id")), "cmpl-", 5);
    json_object_del(body, "id");
    api_assert_json(body,
                    "{'object': 'text_completion', 'created': 1700000000, 'model': 'matrix-tiny',"
                    " 'choices': [{'index': 0, 'text': ' there', 'logprobs': null,"
                    "  'finish_reason': 'stop', 'stop_reason': null}],"
                    " 'service_tier': null, 'system_fingerprint': null,"
                    " 'usage': {'prompt_tokens': 2, 'completion_tokens': 2, 'total_tokens': 4,"
                    "  'prompt_tokens_details': {'cached_tokens': 0},"
                    "  'completion_tokens_details': {'reasoning_tokens': 0}}}");
    json_decref(body);
    api_run_end(&run);
}

static void a_stream_has_openais_chunks_in_order(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("ab", 2);
    const api_script s = {.ids = ids.data, .n_ids = ids.len, .finish = CMI_FINISH_LENGTH};
    api_run run = api_play(CMI_API_COMPLETIONS, "{'prompt': 'Hello', 'stream': true}", &s);
    json_t *chunks = api_chunks(&run);
    json_t *choices = json_array();
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *chunk = json_array_get(chunks, i);
        api_assert_json(json_object_get(chunk, "object"), "'text_completion'");
        assert_int_equal(json_object_size(chunk), 5);
        json_array_append(choices, json_array_get(json_object_get(chunk, "choices"), 0));
    }
    api_assert_json(choices,
                    "[{'index': 0, 'text': 'a', 'logprobs': null, 'finish_reason': null},"
                    " {'index': 0, 'text': 'b', 'logprobs': null, 'finish_reason': null},"
                    " {'index': 0, 'text': '', 'logprobs': null, 'finish_reason': 'length',"
                    "  'stop_reason': null}]");
    json_decref(choices);
    json_decref(chunks);
    api_run_end(&run);
    cmi_ids_deinit(&ids);
}

typedef struct text_case {
    const char *body; /* without stream */
    const char *text;
    const char *shown;
} text_case;

static void the_text_is_as_asked_for(void **state)
{
    (void)state;
    static const text_case cases[] = {
        /* markup is text here, whatever the chat endpoint makes of it */
        {"{'prompt': 'x'", "<think>a</think>b", "C{<think>a</think>b} stop null"},
        {"{'prompt': 'x', 'stop': 'b'", "<think>a</think>b", "C{<think>a</think>} stop \"b\""},
        {"{'prompt': 'x', 'skip_special_tokens': false", "a<｜▁pad▁｜>b",
         "C{a<｜▁pad▁｜>b} stop null"},
        {"{'prompt': 'x'", "a<｜▁pad▁｜>b", "C{ab} stop null"},
        /* echo gives the prompt as it was written */
        {"{'prompt': 'Say: ', 'echo': true", "a", "C{Say: a} stop null"},
        {"{'prompt': '<｜begin▁of▁sentence｜>x', 'echo': true", "a",
         "C{<｜begin▁of▁sentence｜>xa} stop null"},
        {"{'prompt': [0, 1279], 'echo': true", "a", "C{Helloa} stop null"},
        {"{'prompt': [0, 1279], 'echo': true, 'skip_special_tokens': false", "a",
         "C{<｜begin▁of▁sentence｜>Helloa} stop null"},
        {"{'prompt': 'stop', 'echo': true, 'stop': 'op'", "no stop", "C{stopno st} stop \"op\""},
        {"{'prompt': 'x', 'echo': true, 'max_tokens': 0", "a", "C{x} length null"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        const api_script s = {.text = cases[i].text};
        for (int stream = 0; stream <= 1; stream++) {
            char body[1024];
            snprintf(body, sizeof body, "%s, 'stream': %s}", cases[i].body,
                     stream ? "true" : "false");
            api_run run = api_play(CMI_API_COMPLETIONS, body, &s);
            cmi_buf line;
            cmi_buf_init(&line, 10000);
            if (stream) {
                api_describe_stream(&run, 0, &line);
            } else {
                api_describe_body(&run, 0, &line);
            }
            if (strcmp(cmi_buf_cstr(&line), cases[i].shown) != 0) {
                fail_msg("%s\n got %s\nwant %s", body, cmi_buf_cstr(&line), cases[i].shown);
            }
            cmi_buf_deinit(&line);
            api_run_end(&run);
        }
    }
}

static json_t *logprobs_of(const api_run *run)
{
    json_t *body = api_body(run);
    json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
    json_t *logprobs = json_incref(json_object_get(choice, "logprobs"));
    json_decref(body);
    return logprobs;
}

static void logprobs_have_openais_lists(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("H\xC3\xA9", 3); /* logprobs -0.5, -0.5, -0.25 */
    const api_script s = {.ids = ids.data, .n_ids = ids.len};
    static const struct {
        int n;
        const char *lists;
    } cases[] = {
        {0, "{'tokens': ['H', 'bytes:\\\\xc3', 'bytes:\\\\xa9'],"
            " 'token_logprobs': [-0.5, -0.5, -0.25],"
            " 'top_logprobs': [{'H': -0.5}, {'bytes:\\\\xc3': -0.5}, {'bytes:\\\\xa9': -0.25}],"
            " 'text_offset': [0, 1, 1]}"},
        {2, "{'tokens': ['H', 'bytes:\\\\xc3', 'bytes:\\\\xa9'],"
            " 'token_logprobs': [-0.5, -0.5, -0.25],"
            " 'top_logprobs': [{'H': -0.5, 'I': -1.5},"
            "  {'bytes:\\\\xc3': -0.5, 'bytes:\\\\xc4': -1.5},"
            "  {'bytes:\\\\xa9': -0.25, 'bytes:\\\\xaa': -1.25}],"
            " 'text_offset': [0, 1, 1]}"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        char body[100];
        snprintf(body, sizeof body, "{'prompt': 'x', 'logprobs': %d}", cases[i].n);
        api_run run = api_play(CMI_API_COMPLETIONS, body, &s);
        json_t *logprobs = logprobs_of(&run);
        api_assert_json(logprobs, cases[i].lists);
        json_decref(logprobs);
        api_run_end(&run);
    }
    cmi_ids_deinit(&ids);
}

static void echo_shows_the_prompts_logprobs(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("!", 1);
    const api_script s = {.ids = ids.data, .n_ids = ids.len};
    static const char *const lists[] = {
        "{'tokens': ['<｜begin▁of▁sentence｜>', 'Hello', '!'],"
        " 'token_logprobs': [null, -9999.0, -0.75],"
        " 'top_logprobs': [null, {'Hello': -9999.0}, {'!': -0.75}], 'text_offset': [0, 0, 5]}",
        "{'tokens': ['<｜begin▁of▁sentence｜>', 'Hello'], 'token_logprobs': [null, -9999.0],"
        " 'top_logprobs': [null, {'Hello': -9999.0}], 'text_offset': [0, 0]}",
    };
    for (int zero = 0; zero <= 1; zero++) {
        char body[200];
        snprintf(body, sizeof body,
                 "{'prompt': 'Hello', 'echo': true, 'logprobs': 1, 'max_tokens': %d}", 1 - zero);
        api_run run = api_play(CMI_API_COMPLETIONS, body, &s);
        assert_int_equal(run.usage.n_output_tokens, zero ? 0 : 2);
        json_t *logprobs = logprobs_of(&run);
        api_assert_json(logprobs, lists[zero]);
        json_decref(logprobs);
        api_run_end(&run);
    }
    cmi_ids_deinit(&ids);
}

static void streamed_logprobs_add_up_to_the_whole(void **state)
{
    (void)state;
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    const api_script s = {.text = "The caf\xC3\xA9 is open. END of it"};
    const char *body = "{'prompt': 'So: ', 'echo': true, 'logprobs': 3, 'stop': 'END', 'stream': ";
    char text[256];
    snprintf(text, sizeof text, "%sfalse}", body);
    api_run whole = api_play(CMI_API_COMPLETIONS, text, &s);
    snprintf(text, sizeof text, "%strue}", body);
    api_run streamed = api_play(CMI_API_COMPLETIONS, text, &s);
    json_t *want = logprobs_of(&whole);
    json_t *got = json_pack("{s[]s[]s[]s[]}", names[0], names[1], names[2], names[3]);
    json_t *chunks = api_chunks(&streamed);
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        const json_t *choices = json_object_get(json_array_get(chunks, i), "choices");
        const json_t *part = json_object_get(json_array_get(choices, 0), "logprobs");
        for (int j = 0; j < 4 && json_is_object(part); j++) {
            json_array_extend(json_object_get(got, names[j]), json_object_get(part, names[j]));
        }
    }
    assert_true(json_array_size(json_object_get(got, "tokens")) > 5);
    assert_true(json_equal(got, want));
    json_decref(chunks);
    json_decref(got);
    json_decref(want);
    api_run_end(&whole);
    api_run_end(&streamed);
}

static void several_prompts_have_n_choices_each(void **state)
{
    (void)state;
    const api_script s = {.text = "!", .n_cached = 1};
    static const char *const bodies[] = {
        "{'prompt': ['A', 'Hello'], 'n': 2, 'echo': true, 'seed': 3}",
        "{'prompt': [[0, 35], [0, 1279]], 'n': 2, 'best_of': 2, 'echo': true, 'seed': 3}",
    };
    for (int i = 0; i < 2; i++) {
        api_run run = api_play(CMI_API_COMPLETIONS, bodies[i], &s);
        assert_int_equal(run.status, CMI_OK);
        json_t *body = api_body(&run);
        const json_t *choices = json_object_get(body, "choices");
        assert_int_equal(json_array_size(choices), 4);
        for (size_t j = 0; j < 4; j++) {
            const json_t *choice = json_array_get(choices, j);
            assert_int_equal(json_integer_value(json_object_get(choice, "index")), j);
            assert_string_equal(json_string_value(json_object_get(choice, "text")),
                                j < 2 ? "A!" : "Hello!");
            const cmi_request *r = cmi_api_job_request(run.job, (uint32_t)j);
            assert_int_equal(r->request_id, API_JOB_NUMBER * CMI_API_MAX_CHOICES + j);
            assert_true((r->seed == 3) == (j % 2 == 0));
        }
        api_assert_json(json_object_get(body, "usage"),
                        "{'prompt_tokens': 4, 'completion_tokens': 8, 'total_tokens': 12,"
                        " 'prompt_tokens_details': {'cached_tokens': 2},"
                        " 'completion_tokens_details': {'reasoning_tokens': 0}}");
        json_decref(body);
        api_run_end(&run);
    }
}

static void events_of_others_and_late_ones_are_ignored(void **state)
{
    (void)state;
    const api_script s = {.text = "a"};
    api_run run = api_play(CMI_API_COMPLETIONS, "{'prompt': 'x'}", &s);
    size_t n = run.out.len;
    bool cancel;
    cmi_event e = {.version = CMI_MESSAGE_VERSION,
                   .type = CMI_EVENT_TOKEN,
                   .request_id = API_JOB_NUMBER * CMI_API_MAX_CHOICES};
    assert_int_equal(cmi_api_job_event(run.job, &e, &run.out, &cancel, &run.err), CMI_OK);
    e.request_id += 1;
    assert_int_equal(cmi_api_job_event(run.job, &e, &run.out, &cancel, &run.err), CMI_OK);
    e.request_id = 0;
    assert_int_equal(cmi_api_job_event(run.job, &e, &run.out, &cancel, &run.err), CMI_OK);
    assert_int_equal(run.out.len, n);
    api_run_end(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_answer_has_openais_shape),
        cmocka_unit_test(a_stream_has_openais_chunks_in_order),
        cmocka_unit_test(the_text_is_as_asked_for),
        cmocka_unit_test(logprobs_have_openais_lists),
        cmocka_unit_test(echo_shows_the_prompts_logprobs),
        cmocka_unit_test(streamed_logprobs_add_up_to_the_whole),
        cmocka_unit_test(several_prompts_have_n_choices_each),
        cmocka_unit_test(events_of_others_and_late_ones_are_ignored),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
