/* What a body becomes: the engine's requests, or an error that names the field. */
#include "tests/server/api_util.h"

#include <math.h>

#include "base/alloc.h"

#define HI "'messages': [{'role': 'user', 'content': 'Hi'}]"
#define USER "{'role': 'user', 'content': 'Hi'}"

typedef struct refusal {
    const char *body;
    const char *param; /* "": null */
    const char *says;  /* part of the message */
} refusal;

static void check_refusals(cmi_api_endpoint endpoint, const refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        api_run run = api_play(endpoint, cases[i].body, NULL);
        if (run.status != CMI_ERR_INVALID || run.err.http_status != 400 ||
            strcmp(run.err.type, "BadRequestError") != 0 ||
            strcmp(run.err.param, cases[i].param) != 0 ||
            strstr(run.err.message, cases[i].says) == NULL) {
            fail_msg("%s: status %d, %d, param \"%s\": %s", cases[i].body, run.status,
                     run.err.http_status, run.err.param, run.err.message);
        }
        api_run_end(&run);
    }
}

/* Values of both endpoints; %s is what else the endpoint needs. */
static const refusal refused_by_both[] = {
    {"{%s, 'model': 1}", "model", "string"},
    {"{%s, 'stream': 'yes'}", "stream", "boolean, not a string"},
    {"{%s, 'stream_options': {'include_usage': true}}", "stream_options", "stream is true"},
    {"{%s, 'stream': true, 'stream_options': 1}", "stream_options", "object"},
    {"{%s, 'stream': true, 'stream_options': {'include_usage': 1}}", "stream_options", "boolean"},
    {"{%s, 'max_tokens': 0}", "max_tokens", "at least 1"},
    {"{%s, 'max_tokens': -1}", "max_tokens", "between 0"},
    {"{%s, 'max_tokens': 1.5}", "max_tokens", "integer, not a number with a fraction"},
    {"{%s, 'max_tokens': '16'}", "max_tokens", "integer, not a string"},
    {"{%s, 'max_tokens': 2048}", "max_tokens", "2048 tokens"},
    {"{%s, 'max_completion_tokens': 0}", "max_completion_tokens", "at least 1"},
    {"{%s, 'max_completion_tokens': 99999}", "max_completion_tokens", "not 99999"},
    {"{%s, 'max_tokens': 3000000000}", "max_tokens", "between"},
    {"{%s, 'temperature': -0.1}", "temperature", "between 0 and 2"},
    {"{%s, 'temperature': 2.1}", "temperature", "between 0 and 2"},
    {"{%s, 'temperature': true}", "temperature", "number, not a boolean"},
    {"{%s, 'top_p': 0}", "top_p", "over 0 and at most 1"},
    {"{%s, 'top_p': 1e-60}", "top_p", "over 0"},
    {"{%s, 'top_p': 1.01}", "top_p", "at most 1"},
    {"{%s, 'top_k': -2}", "top_k", "between -1"},
    {"{%s, 'min_p': -0.5}", "min_p", "between 0 and 1"},
    {"{%s, 'frequency_penalty': 2.5}", "frequency_penalty", "between -2 and 2"},
    {"{%s, 'presence_penalty': -3}", "presence_penalty", "between -2 and 2"},
    {"{%s, 'presence_penalty': {}}", "presence_penalty", "number, not an object"},
    {"{%s, 'repetition_penalty': 0}", "repetition_penalty", "between 0.01 and 100"},
    {"{%s, 'seed': 'x'}", "seed", "integer, not a string"},
    {"{%s, 'seed': 1e300}", "seed", "integer"},
    {"{%s, 'n': 0}", "n", "between 1 and 128"},
    {"{%s, 'n': 129}", "n", "between 1 and 128"},
    {"{%s, 'best_of': 2}", "best_of", "equal n"},
    {"{%s, 'stop': 1}", "stop", "string"},
    {"{%s, 'stop': ''}", "stop", "1 to"},
    {"{%s, 'stop': ['a', '']}", "stop", "1 to"},
    {"{%s, 'stop': ['a', null]}", "stop", "string"},
    {"{%s, 'stop': ['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17']}",
     "stop", "at most 16"},
    {"{%s, 'stop_token_ids': 1}", "stop_token_ids", "array"},
    {"{%s, 'stop_token_ids': [2048]}", "stop_token_ids", "2048 is not in the vocabulary"},
    {"{%s, 'stop_token_ids': [-1]}", "stop_token_ids", "-1 is not"},
    {"{%s, 'stop_token_ids': [1.0]}", "stop_token_ids", "token ids"},
    {"{%s, 'min_tokens': 17, 'max_tokens': 16}", "min_tokens", "at most max_tokens (16)"},
    {"{%s, 'min_tokens': -1}", "min_tokens", "between 0"},
    {"{%s, 'logit_bias': []}", "logit_bias", "object"},
    {"{%s, 'logit_bias': {'x': 1}}", "logit_bias", "\"x\" is not"},
    {"{%s, 'logit_bias': {'2048': 1}}", "logit_bias", "\"2048\" is not"},
    {"{%s, 'logit_bias': {'99999999999': 1}}", "logit_bias", "is not"},
    {"{%s, 'logit_bias': {'-1': 1}}", "logit_bias", "\"-1\" is not"},
    {"{%s, 'logit_bias': {'': 1}}", "logit_bias", "\"\" is not"},
    {"{%s, 'logit_bias': {'5': 101}}", "logit_bias", "-100 and 100"},
    {"{%s, 'logit_bias': {'5': '1'}}", "logit_bias", "-100 and 100"},
    {"{%s, 'ignore_eos': 1}", "ignore_eos", "boolean"},
    {"{%s, 'skip_special_tokens': 'no'}", "skip_special_tokens", "boolean"},
    {"{%s, 'include_stop_str_in_output': []}", "include_stop_str_in_output", "boolean"},
    {"{%s, 'echo': 0}", "echo", "boolean"},
    {"{%s, 'user': 5}", "user", "string"},
    {"{%s, 'add_special_tokens': 5}", "add_special_tokens", "boolean"},
    {"{%s, 'response_format': 'text'}", "response_format", "object"},
};

static const refusal refused_by_chat[] = {
    {"{}", "messages", "missing"},
    {"{'messages': null}", "messages", "missing"},
    {"{'messages': 'Hi'}", "messages", "array"},
    {"{'messages': []}", "messages", "empty"},
    {"{'messages': [1]}", "messages[0]", "object"},
    {"{'messages': [" USER ", {'content': 'x'}]}", "messages[1].role", "must be"},
    {"{'messages': [{'role': 'king', 'content': 'x'}]}", "messages[0].role", "must be"},
    {"{'messages': [{'role': 1, 'content': 'x'}]}", "messages[0].role", "must be"},
    {"{'messages': [{'role': 'user'}]}", "messages[0].content", "missing"},
    {"{'messages': [{'role': 'system', 'content': null}]}", "messages[0].content", "missing"},
    {"{'messages': [{'role': 'user', 'content': 5}]}", "messages[0].content", "string"},
    {"{'messages': [{'role': 'user', 'content': ['x']}]}", "messages[0].content", "part"},
    {"{'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {}}]}]}",
     "messages[0].content", "\"image_url\" is not supported"},
    {"{'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 5}]}]}",
     "messages[0].content", "string"},
    {"{'messages': [{'role': 'user', 'content': 'x', 'name': 5}]}", "messages[0]", "name"},
    {"{'messages': [{'role': 'assistant', 'tool_calls': 5}]}", "messages[0].tool_calls", "array"},
    {"{'messages': [{'role': 'assistant', 'tool_calls': [{}]}]}", "messages[0].tool_calls",
     "function"},
    {"{'messages': [{'role': 'assistant', 'tool_calls': [{'type': 'x', 'function': {'name': "
     "'f'}}]}]}",
     "messages[0].tool_calls", "type"},
    {"{'messages': [{'role': 'assistant', 'tool_calls': [{'function': {'name': 'f',"
     " 'arguments': {}}}]}]}",
     "messages[0].tool_calls", "string that holds JSON"},
    {"{" HI ", 'logprobs': 5}", "logprobs", "boolean"},
    {"{" HI ", 'logprobs': true, 'top_logprobs': 21}", "top_logprobs", "between 0 and 20"},
    {"{" HI ", 'top_logprobs': 2}", "top_logprobs", "logprobs is true"},
    {"{" HI ", 'tools': {}}", "tools", "array"},
    {"{" HI ", 'tools': [5]}", "tools[0]", "function"},
    {"{" HI ", 'tools': [{'type': 'function', 'function': {}}]}", "tools[0]", "name"},
    {"{" HI ", 'tools': [{'type': 'x', 'function': {'name': 'f'}}]}", "tools[0]", "type"},
    {"{" HI ", 'tools': [{'function': {'name': 'f', 'parameters': 5}}]}", "tools[0]", "parameters"},
    {"{" HI ", 'tool_choice': 'auto'}", "tool_choice", "with tools"},
    {"{" HI ", 'tool_choice': 'sometimes'}", "tool_choice", "must be"},
    {"{" HI ", 'tool_choice': 5}", "tool_choice", "must be"},
    {"{" HI ", 'parallel_tool_calls': 5}", "parallel_tool_calls", "boolean"},
    {"{" HI ", 'chat_template': 'x'}", "chat_template", "not supported"},
    {"{" HI ", 'chat_template_kwargs': []}", "chat_template_kwargs", "object"},
    {"{" HI ", 'chat_template_kwargs': {'messages': []}}", "chat_template_kwargs", "messages"},
    {"{" HI ", 'reasoning_effort': 'huge'}", "reasoning_effort", "must be"},
    {"{" HI ", 'reasoning_effort': 5}", "reasoning_effort", "must be"},
    {"{" HI ", 'include_reasoning': 5}", "include_reasoning", "boolean"},
    {"{" HI ", 'continue_final_message': true, 'add_generation_prompt': true}",
     "continue_final_message", "exclude"},
    {"{'messages': [" USER ", {'role': 'assistant', 'content': ''}],"
     " 'continue_final_message': true}",
     "messages", "content"},
};

static const refusal refused_by_completions[] = {
    {"{}", "prompt", "missing"},
    {"{'prompt': null}", "prompt", "missing"},
    {"{'prompt': ''}", "prompt", "empty"},
    {"{'prompt': []}", "prompt", "empty"},
    {"{'prompt': ['x', '']}", "prompt", "empty"},
    {"{'prompt': [[]]}", "prompt", "empty"},
    {"{'prompt': 5}", "prompt", "string"},
    {"{'prompt': {}}", "prompt", "string"},
    {"{'prompt': ['x', 5]}", "prompt", "string"},
    {"{'prompt': [5, 'x']}", "prompt", "token ids"},
    {"{'prompt': [5, 2048]}", "prompt", "2048 is not"},
    {"{'prompt': [-5]}", "prompt", "-5 is not"},
    {"{'prompt': [1.5]}", "prompt", "token ids"},
    {"{'prompt': ['x', 'y'], 'n': 65}", "prompt", "at most 128 choices"},
    {"{'prompt': 'x', 'suffix': 'y'}", "suffix", "not supported"},
    {"{'prompt': 'x', 'logprobs': true}", "logprobs", "integer, not a boolean"},
    {"{'prompt': 'x', 'logprobs': 21}", "logprobs", "between 0 and 20"},
};

static void bad_fields_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const needed[] = {HI, "'prompt': 'x'"};
    for (size_t i = 0; i < CMI_LEN(refused_by_both); i++) {
        for (int endpoint = 0; endpoint <= 1; endpoint++) {
            char body[1000];
            snprintf(body, sizeof body, refused_by_both[i].body, needed[endpoint]);
            refusal one = refused_by_both[i];
            one.body = body;
            check_refusals(endpoint == 0 ? CMI_API_CHAT_COMPLETIONS : CMI_API_COMPLETIONS, &one, 1);
        }
    }
    check_refusals(CMI_API_CHAT_COMPLETIONS, refused_by_chat, CMI_LEN(refused_by_chat));
    check_refusals(CMI_API_COMPLETIONS, refused_by_completions, CMI_LEN(refused_by_completions));
}

static void malformed_bodies_are_refused(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {"", "", "not valid JSON"},
        {"{", "", "not valid JSON"},
        {"[]", "", "object"},
        {"5", "", "not valid JSON"},
        {"{'a': 1,}", "", "line 1, column 9"},
        {"{'a': 123456789012345678901234567890}", "", "too big integer"},
        {"{'a': 1e999}", "", "real number overflow"},
        {"{'a': '\\ud800'}", "", "invalid Unicode"},
        {"{'a': '\xFF'}", "", "decode byte 0xff"},
        {"{'a': NaN}", "", "not valid JSON"},
        {"{} x", "", "not valid JSON"},
    };
    check_refusals(CMI_API_CHAT_COMPLETIONS, cases, CMI_LEN(cases));
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    char *body = cmi_alloc(DEPTH, 1);
    memset(body, '[', DEPTH);
    api_run run = api_play_bytes(CMI_API_COMPLETIONS, body, DEPTH, NULL);
    assert_int_equal(run.err.http_status, 400);
    assert_non_null(strstr(run.err.message, "depth"));
    api_run_end(&run);
    cmi_free(body);
}

/* Counted in front of the parser, which would make hundreds of megabytes of them. */
static void more_values_than_any_request_needs_are_refused(void **state)
{
    (void)state;
    enum { N_VALUES = 1 << 20 };
    for (int extra = 0; extra <= 1; extra++) {
        cmi_buf body;
        cmi_buf_init(&body, 4 * N_VALUES);
        cmi_buf_str(&body, "{\"user\":\"[\\\",{,\",\"prompt\":[[0"); /* a string's are none */
        for (int i = 5; i < N_VALUES + extra; i++) {
            cmi_buf_str(&body, ",0");
        }
        cmi_buf_str(&body, "]]}");
        api_run run = api_play_bytes(CMI_API_COMPLETIONS, body.data, body.len, NULL);
        assert_int_equal(run.err.http_status, 400);
        bool refused = strstr(run.err.message, "more than 1048576 JSON values") != NULL;
        assert_int_equal(refused, extra == 1);
        api_run_end(&run);
        cmi_buf_deinit(&body);
    }
}

static void an_unknown_model_is_not_found(void **state)
{
    (void)state;
    api_run run = api_play(CMI_API_CHAT_COMPLETIONS, "{'model': 'gpt', " HI "}", NULL);
    assert_int_equal(run.status, CMI_ERR_NOT_FOUND);
    assert_int_equal(run.err.http_status, 404);
    assert_string_equal(run.err.type, "NotFoundError");
    assert_string_equal(run.err.param, "model");
    cmi_buf out;
    cmi_buf_init(&out, 1000);
    cmi_api_error_write(&run.err, &out);
    assert_string_equal(cmi_buf_cstr(&out),
                        "{\"error\":{\"message\":\"The model \\\"gpt\\\" does not exist. This "
                        "server has \\\"matrix-tiny\\\".\",\"type\":\"NotFoundError\","
                        "\"param\":\"model\",\"code\":404}}");
    cmi_buf_deinit(&out);
    api_run_end(&run);
}

static void null_unknown_and_repeated_fields_are_fine(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{" HI ", 'model': null, 'stream': null, 'max_tokens': null, 'temperature': null,"
        " 'top_p': null, 'seed': null, 'n': null, 'stop': null, 'logit_bias': null, 'tools': null,"
        " 'tool_choice': null, 'response_format': null, 'stream_options': null, 'user': null,"
        " 'logprobs': null, 'top_logprobs': null, 'chat_template_kwargs': null,"
        " 'reasoning_effort': null, 'stop_token_ids': null}",
        "{" HI ", 'priority': 3, 'cache_salt': 'x', 'metadata': {}, 'unheard_of': [1, {}]}",
        "{'messages': 5, " HI "}",
        "{" HI ", 'response_format': {'type': 'text'}, 'tool_choice': 'none', 'max_tokens': 16.0}",
        "{" HI ", 'seed': 9223372036854775807}",
        "{" HI ", 'seed': -9223372036854775808}",
        "{'messages': [{'role': 'developer', 'content': [{'type': 'text', 'text': 'Be brief.'},"
        "  {'type': 'text', 'text': 'Be kind.'}]}, " USER ","
        "  {'role': 'assistant', 'content': null, 'tool_calls': [{'id': 'c1',"
        "   'function': {'name': 'f'}}]}, {'role': 'tool', 'tool_call_id': 'c1', 'content': 'ok'},"
        "  {'role': 'function', 'name': 'f', 'content': 'ok'},"
        "  {'role': 'assistant', 'content': '', 'tool_calls': []}, " USER "]}",
    };
    for (size_t i = 0; i < CMI_LEN(bodies); i++) {
        api_run run = api_play(CMI_API_CHAT_COMPLETIONS, bodies[i], NULL);
        if (run.status != CMI_OK) {
            fail_msg("%s: %s", bodies[i], run.err.message);
        }
        api_run_end(&run);
    }
}

static void sampling_fields_reach_the_engine(void **state)
{
    (void)state;
    api_run run = api_play(CMI_API_COMPLETIONS,
                           "{'prompt': 'Hello', 'temperature': 0.25, 'top_p': 0.5, 'top_k': 40,"
                           " 'min_p': 0.125, 'frequency_penalty': 1.5, 'presence_penalty': -1,"
                           " 'repetition_penalty': 1.25, 'seed': -3, 'max_tokens': 9,"
                           " 'min_tokens': 2, 'ignore_eos': true, 'stop_token_ids': [7, 8],"
                           " 'logit_bias': {'5': -100, '0': 2.5}, 'logprobs': 3, 'echo': true}",
                           NULL);
    assert_int_equal(run.status, CMI_OK);
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_true(r->temperature == 0.25f && r->top_p == 0.5f && r->min_p == 0.125f);
    assert_true(r->frequency_penalty == 1.5f && r->presence_penalty == -1.0f);
    assert_true(r->repetition_penalty == 1.25f);
    assert_int_equal(r->top_k, 40);
    assert_int_equal((int64_t)r->seed, -3);
    assert_int_equal(r->max_tokens, 9);
    assert_int_equal(r->min_tokens, 2);
    assert_int_equal(r->flags,
                     CMI_REQUEST_IGNORE_EOS | CMI_REQUEST_LOGPROBS | CMI_REQUEST_PROMPT_LOGPROBS);
    assert_int_equal(r->n_top_logprobs, 3);
    assert_int_equal(r->n_stop_token_ids, 2);
    assert_int_equal(cmi_request_stop_token_ids(r)[1], 8);
    assert_int_equal(r->n_logit_bias, 2);
    assert_int_equal(cmi_request_logit_bias(r)[0].token_id, 5);
    assert_true(cmi_request_logit_bias(r)[1].bias == 2.5f);
    api_run_end(&run);
}

static void absent_fields_have_defaults(void **state)
{
    (void)state;
    api_run run = api_play(CMI_API_COMPLETIONS, "{'prompt': 'Hello'}", NULL);
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_true(r->temperature == 0.6f && r->top_p == 0.95f); /* what the model recommends */
    assert_true(r->repetition_penalty == 1.0f && r->min_p == 0.0f);
    assert_int_equal(r->top_k, 0);
    assert_int_equal(r->max_tokens, 16);
    assert_int_equal(r->flags, 0);
    api_run_end(&run);

    run = api_play(CMI_API_CHAT_COMPLETIONS, "{" HI ", 'top_k': -1, 'temperature': 1e-7}", NULL);
    r = cmi_api_job_request(run.job, 0);
    assert_int_equal(r->max_tokens, API_MAX_MODEL_LEN - r->n_prompt_tokens);
    assert_true(r->temperature == 0.0f);
    api_run_end(&run);

    run = api_play(CMI_API_CHAT_COMPLETIONS,
                   "{" HI ", 'max_tokens': 5, 'max_completion_tokens': 7}", NULL);
    assert_int_equal(cmi_api_job_request(run.job, 0)->max_tokens, 7);
    api_run_end(&run);
}

static void a_seed_is_made_from_the_jobs_number(void **state)
{
    (void)state;
    uint64_t seeds[3];
    for (uint64_t i = 0; i < 3; i++) {
        const char *body = api_json("{'prompt': 'x', 'n': 2}");
        cmi_api_job *job;
        cmi_api_error err;
        assert_int_equal(cmi_api_job_create(&job, world.api, CMI_API_COMPLETIONS, body,
                                            strlen(body), i % 2, 0, &err),
                         CMI_OK);
        seeds[i] = cmi_api_job_request(job, 0)->seed;
        assert_int_not_equal(seeds[i], cmi_api_job_request(job, 1)->seed);
        cmi_api_job_destroy(job);
    }
    assert_int_equal(seeds[0], seeds[2]);
    assert_int_not_equal(seeds[0], seeds[1]);
}

/* A prompt of n tokens, as ids. */
static void long_prompt(size_t n, const char *fields, cmi_buf *body)
{
    cmi_buf_clear(body);
    cmi_buf_str(body, "{\"prompt\":[0");
    for (size_t i = 1; i < n; i++) {
        cmi_buf_str(body, ",5");
    }
    cmi_buf_printf(body, "]%s}", api_json(fields));
}

static void prompt_and_answer_fit_the_context(void **state)
{
    (void)state;
    static const struct {
        size_t n_prompt;
        const char *fields;
        uint32_t max_tokens; /* 0: refused */
    } cases[] = {
        {API_MAX_MODEL_LEN - 1, "", 1},
        {API_MAX_MODEL_LEN - 10, "", 10},
        {API_MAX_MODEL_LEN - 10, ", 'max_tokens': 10", 10},
        {API_MAX_MODEL_LEN - 10, ", 'max_tokens': 11", 0},
        {API_MAX_MODEL_LEN, "", 0},
        {API_MAX_MODEL_LEN, ", 'max_tokens': 0, 'echo': true", 0},
        {API_MAX_MODEL_LEN - 1, ", 'max_tokens': 0, 'echo': true", 1},
        {3 * API_MAX_MODEL_LEN, "", 0},
    };
    cmi_buf body;
    cmi_buf_init(&body, 1 << 20);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        long_prompt(cases[i].n_prompt, cases[i].fields, &body);
        api_run run = api_play_bytes(CMI_API_COMPLETIONS, body.data, body.len, NULL);
        if (cases[i].max_tokens == 0) {
            assert_int_equal(run.err.http_status, 400);
            assert_non_null(strstr(run.err.message, "context of 2048 tokens"));
        } else {
            assert_int_equal(run.status, CMI_OK);
            assert_int_equal(cmi_api_job_request(run.job, 0)->max_tokens, cases[i].max_tokens);
        }
        api_run_end(&run);
    }
    cmi_buf_deinit(&body);
}

static void assert_prompt_is(cmi_api_endpoint endpoint, const char *body, const char *text)
{
    api_run run = api_play(endpoint, body, NULL);
    if (run.status != CMI_OK) {
        fail_msg("%s: %s", body, run.err.message);
    }
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    cmi_ids ids = api_ids(text, strlen(text));
    assert_int_equal(r->n_prompt_tokens, ids.len);
    assert_memory_equal(cmi_request_prompt(r), ids.data, ids.len * sizeof *ids.data);
    cmi_ids_deinit(&ids);
    api_run_end(&run);
}

static void prompts_become_the_models_tokens(void **state)
{
    (void)state;
    static const struct {
        cmi_api_endpoint endpoint;
        const char *body, *text;
    } cases[] = {
        {CMI_API_COMPLETIONS, "{'prompt': 'Hello'}", "<｜begin▁of▁sentence｜>Hello"},
        {CMI_API_COMPLETIONS, "{'prompt': '<｜begin▁of▁sentence｜>Hello'}",
         "<｜begin▁of▁sentence｜>Hello"},
        {CMI_API_COMPLETIONS, "{'prompt': 'Hello', 'add_special_tokens': false}", "Hello"},
        {CMI_API_COMPLETIONS, "{'prompt': [1279]}", "Hello"},
        {CMI_API_COMPLETIONS, "{'prompt': '<｜User｜>Hello<｜Assistant｜>'}",
         "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜>"},
        {CMI_API_CHAT_COMPLETIONS, "{" HI "}",
         "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n"},
        {CMI_API_CHAT_COMPLETIONS, "{" HI ", 'reasoning_effort': 'none'}",
         "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n\n</think>\n\n"},
        {CMI_API_CHAT_COMPLETIONS,
         "{" HI ", 'reasoning_effort': 'none', 'chat_template_kwargs': {'enable_thinking': true}}",
         "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n"},
        {CMI_API_CHAT_COMPLETIONS, "{" HI ", 'add_generation_prompt': false}",
         "<｜begin▁of▁sentence｜><｜User｜>Hi"},
        {CMI_API_CHAT_COMPLETIONS,
         "{'messages': [" USER ", {'role': 'assistant', 'content': 'Hel'}],"
         " 'continue_final_message': true}",
         "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hel"},
        {CMI_API_CHAT_COMPLETIONS,
         "{'messages': [{'role': 'developer', 'content': [{'type': 'text', 'text': 'A'},"
         " {'type': 'text', 'text': 'B'}]}, " USER "]}",
         "<｜begin▁of▁sentence｜>A\nB<｜User｜>Hi<｜Assistant｜><think>\n"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_prompt_is(cases[i].endpoint, cases[i].body, cases[i].text);
    }
}

static void u0000_is_text_like_any_other(void **state)
{
    (void)state;
    const char *body = api_json("{'messages': [{'role': 'user', 'content': 'a\\u0000b'}]}");
    api_run run = api_play_bytes(CMI_API_CHAT_COMPLETIONS, body, strlen(body), NULL);
    assert_int_equal(run.status, CMI_OK);
    static const char text[] = "<｜begin▁of▁sentence｜><｜User｜>a\0b<｜Assistant｜><think>\n";
    cmi_ids ids = api_ids(text, sizeof text - 1);
    const cmi_request *r = cmi_api_job_request(run.job, 0);
    assert_int_equal(r->n_prompt_tokens, ids.len);
    assert_memory_equal(cmi_request_prompt(r), ids.data, ids.len * sizeof *ids.data);
    cmi_ids_deinit(&ids);
    api_run_end(&run);
}

/* Ten million characters that make no long runs; refused for their number of tokens, soon. */
static void a_huge_body_is_refused_soon(void **state)
{
    (void)state;
    cmi_buf body;
    cmi_buf_init(&body, 1 << 24);
    cmi_buf_str(&body, api_json("{'messages': [{'role': 'user', 'content': '"));
    /* An emulated processor may need longer for 10 MiB than the tokenizer's deadline allows. */
    size_t n_bytes = getenv("CMI_FEW") != NULL ? 1 << 20 : 10 << 20;
    while (body.len < n_bytes) {
        cmi_buf_str(&body, "lorem ipsum 123 ");
    }
    cmi_buf_str(&body, "\"}]}");
    api_run run = api_play_bytes(CMI_API_CHAT_COMPLETIONS, body.data, body.len, NULL);
    assert_int_equal(run.err.http_status, 400);
    assert_non_null(strstr(run.err.message, "context of 2048"));
    api_run_end(&run);
    cmi_buf_deinit(&body);
}

static void reasoning_starts_where_the_prompt_says(void **state)
{
    (void)state;
    static const struct {
        const char *content, *shown;
    } cases[] = {
        {"<think>\\nlet me", "R{ see}C{ok} stop null"},
        {"<think>a</think>b", "C{ see</think>ok} stop null"},
        {"plain", "C{ see</think>ok} stop null"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        const api_script s = {.text = " see</think>ok"};
        char body[400];
        snprintf(body, sizeof body,
                 "{'messages': [" USER ", {'role': 'assistant', 'content': '%s'}],"
                 " 'continue_final_message': true}",
                 cases[i].content);
        api_run run = api_play(CMI_API_CHAT_COMPLETIONS, body, &s);
        cmi_buf line;
        cmi_buf_init(&line, 1000);
        api_describe_body(&run, 0, &line);
        assert_string_equal(cmi_buf_cstr(&line), cases[i].shown);
        cmi_buf_deinit(&line);
        api_run_end(&run);
    }
}

static void how_to_serve_it_reaches_the_engine(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int32_t priority;
        uint32_t max_drafts;
    } cases[] = {
        {"{" HI "}", 0, CMI_MAX_DRAFTS},
        {"{" HI ", 'priority': -7, 'num_speculative_tokens': 1}", -7, 1},
        {"{" HI ", 'priority': 2147483647, 'speculative': true}", INT32_MAX, CMI_MAX_DRAFTS},
        {"{" HI ", 'speculative': false, 'num_speculative_tokens': 3}", 0, 0},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        api_run run = api_play(CMI_API_CHAT_COMPLETIONS, cases[i].body, NULL);
        const cmi_request *r = cmi_api_job_request(run.job, 0);
        assert_int_equal(r->priority, cases[i].priority);
        assert_int_equal(r->max_drafts, cases[i].max_drafts);
        assert_int_equal(r->tpot_target_us, 0);
        const cmi_api_service service = {1, 2, 3, 4, 5};
        cmi_api_job_set_service(run.job, &service);
        assert_int_equal(r->ttft_target_us, 1);
        assert_int_equal(r->tpot_target_us, 2);
        assert_int_equal(r->timeout_ms, 3);
        assert_int_equal(r->age_us, 4);
        assert_int_equal(r->tenant, 5);
        api_run_end(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_fields_are_refused_by_name),
        cmocka_unit_test(malformed_bodies_are_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(more_values_than_any_request_needs_are_refused),
        cmocka_unit_test(an_unknown_model_is_not_found),
        cmocka_unit_test(null_unknown_and_repeated_fields_are_fine),
        cmocka_unit_test(sampling_fields_reach_the_engine),
        cmocka_unit_test(absent_fields_have_defaults),
        cmocka_unit_test(how_to_serve_it_reaches_the_engine),
        cmocka_unit_test(a_seed_is_made_from_the_jobs_number),
        cmocka_unit_test(prompt_and_answer_fit_the_context),
        cmocka_unit_test(prompts_become_the_models_tokens),
        cmocka_unit_test(u0000_is_text_like_any_other),
        cmocka_unit_test(a_huge_body_is_refused_soon),
        cmocka_unit_test(reasoning_starts_where_the_prompt_says),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
