#include "tests/server/api_util.h"

#define CALLS "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"

#define HI "'messages': [{'role': 'user', 'content': 'Hi'}]"
#define TOOLS "'tools': [{'type': 'function', 'function': {'name': 'get_time'}}]"
#define TIME_CALL CALL "function" SEP "get_time\n```json\n{\"zone\": \"UTC\"}\n```" CALL_END

static void a_whole_answer_has_openais_shape(void **state)
{
    (void)state;
    const api_script s = {.text = "Say hello.\n</think>\n\nHello!", .n_cached = 4};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS, "{'model': 'alias', " HI "}", &s);
    assert_int_equal(run.status, CMI_OK);
    json_t *body = api_body(&run);
    const char *id = json_string_value(json_object_get(body, "id"));
    assert_string_equal(id, cmi_api_job_id(run.job));
    assert_memory_equal(id, "chatcmpl-", 9);
    assert_int_equal(strlen(id), 9 + 32);
    json_object_del(body, "id");
    api_assert_json(body,
                    "{'object': 'chat.completion', 'created': 1700000000, 'model': 'matrix-tiny',"
                    " 'choices': [{'index': 0, 'message': {'role': 'assistant',"
                    "   'content': 'Hello!', 'refusal': null,"
                    "   'reasoning_content': 'Say hello.\\n', 'reasoning': 'Say hello.\\n'},"
                    "  'logprobs': null, 'finish_reason': 'stop', 'stop_reason': null}],"
                    " 'service_tier': null, 'system_fingerprint': null,"
                    " 'usage': {'prompt_tokens': 7, 'completion_tokens': 10, 'total_tokens': 17,"
                    "  'prompt_tokens_details': {'cached_tokens': 4},"
                    "  'completion_tokens_details': {'reasoning_tokens': 6}}}");
    json_decref(body);
    api_run_end(&run);
}

static void a_stream_has_openais_chunks_in_order(void **state)
{
    (void)state;
    const api_script s = {.text = "Yes</think>\n\nOk"};
    api_run run =
        api_play(CMI_API_CHAT_COMPLETIONS,
                 "{" HI ", 'stream': true, 'stream_options': {'include_usage': true}}", &s);
    assert_int_equal(run.status, CMI_OK);
    json_t *chunks = api_chunks(&run);
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *chunk = json_array_get(chunks, i);
        assert_string_equal(json_string_value(json_object_get(chunk, "id")),
                            cmi_api_job_id(run.job));
        json_object_del(chunk, "id");
        api_assert_json(json_object_get(chunk, "object"), "'chat.completion.chunk'");
        json_object_del(chunk, "object");
        api_assert_json(json_object_get(chunk, "created"), "1700000000");
        json_object_del(chunk, "created");
        api_assert_json(json_object_get(chunk, "model"), "'matrix-tiny'");
        json_object_del(chunk, "model");
    }
    api_assert_json(
        chunks,
        "[{'choices': [{'index': 0, 'delta': {'role': 'assistant', 'content': ''},"
        "   'logprobs': null, 'finish_reason': null}], 'usage': null},"
        " {'choices': [{'index': 0, 'delta': {'reasoning_content': 'Y', 'reasoning': 'Y'},"
        "   'logprobs': null, 'finish_reason': null}], 'usage': null},"
        " {'choices': [{'index': 0, 'delta': {'reasoning_content': 'es', 'reasoning': 'es'},"
        "   'logprobs': null, 'finish_reason': null}], 'usage': null},"
        " {'choices': [{'index': 0, 'delta': {'content': 'O'},"
        "   'logprobs': null, 'finish_reason': null}], 'usage': null},"
        " {'choices': [{'index': 0, 'delta': {'content': 'k'},"
        "   'logprobs': null, 'finish_reason': null}], 'usage': null},"
        " {'choices': [{'index': 0, 'delta': {}, 'logprobs': null, 'finish_reason': 'stop',"
        "   'stop_reason': null}], 'usage': null},"
        " {'choices': [], 'usage': {'prompt_tokens': 7, 'completion_tokens': 7,"
        "   'total_tokens': 14, 'prompt_tokens_details': {'cached_tokens': 0},"
        "   'completion_tokens_details': {'reasoning_tokens': 3}}}]");
    json_decref(chunks);
    api_run_end(&run);
}

typedef struct answer_case {
    const char *fields; /* beside the messages */
    const char *text;
    cmi_finish_reason finish;
    const char *shown;
} answer_case;

/* Streamed or not, the parts of an answer are the same. */
static void check_answers(const answer_case *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        const api_script s = {.text = cases[i].text, .finish = cases[i].finish};
        for (int stream = 0; stream <= 1; stream++) {
            char body[4096];
            snprintf(body, sizeof body, "{" HI ", 'stream': %s%s}", stream ? "true" : "false",
                     cases[i].fields);
            api_run run = api_play(CMI_API_CHAT_COMPLETIONS, body, &s);
            assert_int_equal(run.status, CMI_OK);
            cmi_buf line;
            cmi_buf_init(&line, 1 << 20);
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

static void reasoning_is_told_from_content(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {"", "a</think>\n\nb", 0, "R{a}C{b} stop null"},
        {"", "only thoughts", CMI_FINISH_LENGTH, "R{only thoughts} length null"},
        {"", "", 0, " stop null"},
        {", 'chat_template_kwargs': {'enable_thinking': false}", "b", 0, "C{b} stop null"},
        {", 'chat_template_kwargs': {'enable_thinking': false}", "<think>\na</think>b", 0,
         "R{a}C{b} stop null"},
        {", 'reasoning_effort': 'none'", "b", 0, "C{b} stop null"},
        {", 'reasoning_effort': 'high'", "a</think>b", 0, "R{a}C{b} stop null"},
        {", 'include_reasoning': false", "a</think>\n\nb", 0, "C{b} stop null"},
        {", 'include_reasoning': false", "a", 0, " stop null"},
    };
    check_answers(cases, CMI_LEN(cases));
}

static void tool_calls_are_parsed(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {", " TOOLS, "hm</think>\n\n" CALLS TIME_CALL CALLS_END, 0,
         "R{hm}T0{get_time}A0{{\"zone\": \"UTC\"}} tool_calls null"},
        {", " TOOLS,
         "hm</think>\n\nOk. " CALLS TIME_CALL "\n" CALL "f" SEP
         "{\"a\":\"\\n\"}" CALL_END CALLS_END,
         0,
         "R{hm}C{Ok. }T0{get_time}A0{{\"zone\": \"UTC\"}}T1{f}A1{{\"a\":\"\\n\"}} tool_calls null"},
        {", 'parallel_tool_calls': false, " TOOLS,
         "</think>" CALLS TIME_CALL CALL "f" SEP "{}" CALL_END CALLS_END, 0,
         "T0{get_time}A0{{\"zone\": \"UTC\"}} tool_calls null"},
        {", 'tool_choice': 'auto', " TOOLS, "</think>" CALLS CALL "function" SEP "f\n```json\n{\"a",
         CMI_FINISH_LENGTH, "T0{f}A0{{\"a} length null"},
        {", " TOOLS, "</think>" CALLS CALL "?", 0, "C{" CALLS CALL "?} stop null"},
        {", 'tool_choice': 'none', " TOOLS, "</think>" CALLS TIME_CALL, 0,
         "C{" CALLS TIME_CALL "} stop null"},
        {"", "</think>" CALLS TIME_CALL, 0, "C{" CALLS TIME_CALL "} stop null"},
        {", 'tools': []", "</think>" CALLS TIME_CALL, 0, "C{" CALLS TIME_CALL "} stop null"},
        {", 'stop': ['UTC'], " TOOLS, "</think>" CALLS TIME_CALL, 0,
         "T0{get_time}A0{{\"zone\": \"} tool_calls \"UTC\""},
    };
    check_answers(cases, CMI_LEN(cases));
}

static void tool_calls_have_openais_shape(void **state)
{
    (void)state;
    const api_script s = {.text = "</think>" CALLS TIME_CALL TIME_CALL CALLS_END};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", " TOOLS "}", &s);
    json_t *body = api_body(&run);
    json_t *message =
        json_object_get(json_array_get(json_object_get(body, "choices"), 0), "message");
    json_t *calls = json_object_get(message, "tool_calls");
    const char *id0 = json_string_value(json_object_get(json_array_get(calls, 0), "id"));
    const char *id1 = json_string_value(json_object_get(json_array_get(calls, 1), "id"));
    assert_memory_equal(id0, "call_", 5);
    assert_int_equal(strlen(id0), 29);
    assert_string_not_equal(id0, id1);
    json_object_del(json_array_get(calls, 0), "id");
    json_array_remove(calls, 1);
    api_assert_json(message, "{'role': 'assistant', 'content': null, 'refusal': null,"
                             " 'reasoning_content': null, 'reasoning': null,"
                             " 'tool_calls': [{'type': 'function', 'function': {'name': 'get_time',"
                             "  'arguments': '{\\'zone\\': \\'UTC\\'}'}}]}");
    json_decref(body);
    api_run_end(&run);

    const api_script one = {.text = "</think>" CALLS CALL "f" SEP "12" CALL_END};
    run = api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'stream': true, " TOOLS "}", &one);
    json_t *chunks = api_chunks(&run);
    json_t *deltas = json_array();
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *choices = json_object_get(json_array_get(chunks, i), "choices");
        json_t *delta = json_object_get(json_array_get(choices, 0), "delta");
        json_object_del(json_array_get(json_object_get(delta, "tool_calls"), 0), "id");
        json_array_append(deltas, delta);
    }
    api_assert_json(deltas, "[{'role': 'assistant', 'content': ''},"
                            " {'tool_calls': [{'index': 0, 'type': 'function',"
                            "   'function': {'name': 'f', 'arguments': ''}}]},"
                            " {'tool_calls': [{'index': 0, 'function': {'arguments': '1'}}]},"
                            " {'tool_calls': [{'index': 0, 'function': {'arguments': '2'}}]},"
                            " {}]");
    json_decref(deltas);
    json_decref(chunks);
    api_run_end(&run);
}

static void stop_strings_end_an_answer(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {", 'stop': 'END'", "a</think>b END c", 0, "R{a}C{b } stop \"END\""},
        {", 'stop': ['zz', 'ell']", "</think>Hello", 0, "C{H} stop \"ell\""},
        {", 'stop': ['lo w'], 'include_stop_str_in_output': true", "</think>Hello world", 0,
         "C{Hello w} stop \"lo w\""},
        {", 'stop': ['lo wx']", "</think>Hello wor", 0, "C{Hello wor} stop null"},
        {", 'stop': ['thou']", "my thoughts", 0, "R{my } stop \"thou\""},
        {", 'stop': ['</think>']", "a</think>b", 0, "R{a} stop \"</think>\""},
        {", 'stop': ['a'], 'min_tokens': 3, 'max_tokens': 9", "aaaabaa", 0, "R{aaa} stop \"a\""},
        {", 'stop': []", "</think>b", 0, "C{b} stop null"},
        {", 'stop': null", "</think>b", 0, "C{b} stop null"},
    };
    check_answers(cases, CMI_LEN(cases));
}

static void a_stop_string_cancels_the_request(void **state)
{
    (void)state;
    const api_script s = {.text = "</think>one two three"};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'stop': 'two', 'n': 2}", &s);
    assert_int_equal(run.status, CMI_OK);
    assert_true(run.cancelled);
    /* </think> and "one two" of each choice; later tokens are not the client's */
    cmi_ids ids = api_ids("</think>one two", 15);
    assert_int_equal(run.usage.n_output_tokens, 2 * ids.len);
    assert_int_equal(run.usage.n_prompt_tokens, 7);
    cmi_ids_deinit(&ids);
    api_run_end(&run);
}

static void a_clients_stop_token_is_named(void **state)
{
    (void)state;
    const api_script s = {.text = "</think>b", .stop_token_id = 2036};
    static const char *const shown[] = {"C{b} stop 2036", "C{b<｜Assistant｜>} stop 2036"};
    for (int keep = 0; keep <= 1; keep++) {
        char body[512];
        snprintf(body, sizeof body,
                 "{" HI ", 'stop_token_ids': [7, 2036], 'include_stop_str_in_output': %s}",
                 keep ? "true" : "false");
        api_run run = api_play(CMI_API_CHAT_COMPLETIONS, body, &s);
        cmi_buf line;
        cmi_buf_init(&line, 1000);
        api_describe_body(&run, 0, &line);
        assert_string_equal(cmi_buf_cstr(&line), shown[keep]);
        cmi_buf_deinit(&line);
        api_run_end(&run);
    }
}

static void the_models_end_token_is_no_stop_reason(void **state)
{
    (void)state;
    static const answer_case cases[] = {
        {", 'stop_token_ids': [1]", "</think>b", 0, "C{b} stop null"},
        {", 'stop_token_ids': [1], 'ignore_eos': true", "</think>b", 0, "C{b} stop 1"},
    };
    check_answers(cases, CMI_LEN(cases));
}

static void whole_characters_only_are_sent(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("</think>\xC3\xA9\xF0\x9F", 12); /* half of an emoji */
    const api_script s = {.ids = ids.data, .n_ids = ids.len, .finish = CMI_FINISH_LENGTH};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'stream': true}", &s);
    json_t *chunks = api_chunks(&run);
    assert_int_equal(json_array_size(chunks), 4); /* role, é, U+FFFD, finish */
    cmi_buf line;
    cmi_buf_init(&line, 1000);
    api_describe_stream(&run, 0, &line);
    assert_string_equal(cmi_buf_cstr(&line), "C{\xC3\xA9\xEF\xBF\xBD} length null");
    cmi_buf_deinit(&line);
    json_decref(chunks);
    cmi_ids_deinit(&ids);
    api_run_end(&run);
}

static void choices_are_interleaved(void **state)
{
    (void)state;
    const api_script s = {.text = "</think>Hi", .n_cached = 3};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS,
                           "{" HI ", 'n': 3, 'stream': true, 'stream_options':"
                           " {'include_usage': true, 'continuous_usage_stats': true}}",
                           &s);
    json_t *chunks = api_chunks(&run);
    size_t n = json_array_size(chunks);
    long long last_completion = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        const json_t *chunk = json_array_get(chunks, i);
        const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        assert_int_equal(json_integer_value(json_object_get(choice, "index")), i % 3);
        const json_t *usage = json_object_get(chunk, "usage");
        assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), 7);
        json_int_t completion = json_integer_value(json_object_get(usage, "completion_tokens"));
        assert_true(completion >= last_completion);
        last_completion = completion;
    }
    api_assert_json(json_object_get(json_array_get(chunks, n - 1), "usage"),
                    "{'prompt_tokens': 7, 'completion_tokens': 12, 'total_tokens': 19,"
                    " 'prompt_tokens_details': {'cached_tokens': 3},"
                    " 'completion_tokens_details': {'reasoning_tokens': 3}}");
    json_decref(chunks);
    api_run_end(&run);
}

static void echo_repeats_the_message_that_is_continued(void **state)
{
    (void)state;
    const api_script s = {.text = " world"};
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS,
                           "{'messages': [{'role': 'user', 'content': 'Hi'},"
                           " {'role': 'assistant', 'content': 'Hello'}],"
                           " 'continue_final_message': true, 'echo': true}",
                           &s);
    assert_int_equal(run.status, CMI_OK);
    cmi_buf line;
    cmi_buf_init(&line, 1000);
    api_describe_body(&run, 0, &line);
    assert_string_equal(cmi_buf_cstr(&line), "C{Hello world} stop null");
    cmi_buf_deinit(&line);
    api_run_end(&run);
}

static void failures_are_not_answers(void **state)
{
    (void)state;
    static const struct {
        cmi_finish_reason finish;
        cmi_status status;
        int http_status;
        const char *type;
    } cases[] = {
        {CMI_FINISH_ABORT, CMI_OK, 503, "ServiceUnavailableError"},
        {CMI_FINISH_ERROR, CMI_ERR_IO, 500, "InternalServerError"},
        {CMI_FINISH_ERROR, CMI_ERR_INVALID, 400, "BadRequestError"},
        {CMI_FINISH_ERROR, CMI_ERR_CLOSED, 503, "ServiceUnavailableError"},
        {CMI_FINISH_ERROR, CMI_OK, 500, "InternalServerError"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        const api_script s = {.text = "abc", .finish = cases[i].finish, .status = cases[i].status};
        for (int stream = 0; stream <= 1; stream++) {
            char body[256];
            snprintf(body, sizeof body, "{" HI ", 'stream': %s}", stream ? "true" : "false");
            api_run run = api_play(CMI_API_CHAT_COMPLETIONS, body, &s);
            assert_true(run.status < CMI_OK);
            assert_int_equal(run.err.http_status, cases[i].http_status);
            assert_string_equal(run.err.type, cases[i].type);
            assert_null(strstr(cmi_buf_cstr(&run.out), "finish_reason\":\""));
            assert_true(stream || run.out.len == 0);
            api_run_end(&run);
        }
    }
}

static void an_error_can_end_a_stream(void **state)
{
    (void)state;
    const cmi_api_error err = {
        .http_status = 500, .type = "InternalServerError", .message = "a \"b\"\n"};
    cmi_buf out;
    cmi_buf_init(&out, 1000);
    cmi_api_error_write_event(&err, &out);
    assert_string_equal(cmi_buf_cstr(&out),
                        "data: {\"error\":{\"message\":\"a \\\"b\\\"\\n\",\"type\":"
                        "\"InternalServerError\",\"param\":null,\"code\":500}}\n\n"
                        "data: [DONE]\n\n");
    cmi_buf_deinit(&out);
}

static void logprobs_come_with_their_tokens(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("H\xC3\xA9", 3);
    const api_script s = {.ids = ids.data, .n_ids = ids.len};
    api_run run =
        api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'logprobs': true, 'top_logprobs': 1}", &s);
    json_t *body = api_body(&run);
    json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
    api_assert_json(json_object_get(choice, "logprobs"),
                    "{'content': ["
                    " {'token': 'H', 'logprob': -0.5, 'bytes': [72],"
                    "  'top_logprobs': [{'token': 'H', 'logprob': -0.5, 'bytes': [72]}]},"
                    " {'token': '\xEF\xBF\xBD', 'logprob': -0.5, 'bytes': [195],"
                    "  'top_logprobs': [{'token': '\xEF\xBF\xBD', 'logprob': -0.5,"
                    "   'bytes': [195]}]},"
                    " {'token': '\xEF\xBF\xBD', 'logprob': -0.25, 'bytes': [169],"
                    "  'top_logprobs': [{'token': '\xEF\xBF\xBD', 'logprob': -0.25,"
                    "   'bytes': [169]}]}]}");
    json_decref(body);
    cmi_ids_deinit(&ids);
    api_run_end(&run);
}

/* Of a text that a stop string cut, only what is shown has logprobs, streamed or not. */
static void logprobs_stop_where_the_text_stops(void **state)
{
    (void)state;
    cmi_ids ids = api_byte_ids("abcde", 5);
    const api_script s = {.ids = ids.data, .n_ids = ids.len};
    for (int stream = 0; stream <= 1; stream++) {
        char body[256];
        snprintf(body, sizeof body, "{" HI ", 'stop': 'cd', 'logprobs': true, 'stream': %s}",
                 stream ? "true" : "false");
        api_run run = api_play(CMI_API_CHAT_COMPLETIONS, body, &s);
        char shown[64] = "";
        json_t *all = stream ? api_chunks(&run) : json_pack("[o]", api_body(&run));
        for (size_t i = 0; i < json_array_size(all); i++) {
            const json_t *choices = json_object_get(json_array_get(all, i), "choices");
            const json_t *lp = json_object_get(json_array_get(choices, 0), "logprobs");
            const json_t *content = json_object_get(lp, "content");
            for (size_t j = 0; j < json_array_size(content); j++) {
                const json_t *token = json_object_get(json_array_get(content, j), "token");
                size_t n = strlen(shown);
                snprintf(shown + n, sizeof shown - n, "[%s]", json_string_value(token));
            }
        }
        assert_string_equal(shown, "[a][b]");
        json_decref(all);
        api_run_end(&run);
    }
    cmi_ids_deinit(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_answer_has_openais_shape),
        cmocka_unit_test(a_stream_has_openais_chunks_in_order),
        cmocka_unit_test(reasoning_is_told_from_content),
        cmocka_unit_test(tool_calls_are_parsed),
        cmocka_unit_test(tool_calls_have_openais_shape),
        cmocka_unit_test(stop_strings_end_an_answer),
        cmocka_unit_test(a_stop_string_cancels_the_request),
        cmocka_unit_test(a_clients_stop_token_is_named),
        cmocka_unit_test(the_models_end_token_is_no_stop_reason),
        cmocka_unit_test(whole_characters_only_are_sent),
        cmocka_unit_test(choices_are_interleaved),
        cmocka_unit_test(echo_repeats_the_message_that_is_continued),
        cmocka_unit_test(failures_are_not_answers),
        cmocka_unit_test(an_error_can_end_a_stream),
        cmocka_unit_test(logprobs_come_with_their_tokens),
        cmocka_unit_test(logprobs_stop_where_the_text_stops),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
