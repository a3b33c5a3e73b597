#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>

#include "cli/bench/load_prompt.h"
#include "cli/bench/load_target.h"

#define AZURE_HEAD "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"

static void mooncake_lines_become_requests(void **state)
{
    (void)state;
    static const char text[] =
        "{\"timestamp\": 1000, \"input_length\": 1100, \"output_length\": 5, "
        "\"hash_ids\": [7, 8, 9]}\n\n"
        "{\"timestamp\": 1500.5, \"input_length\": 0, \"output_length\": 0}\n"
        "{\"timestamp\": 900, \"input_length\": 10, \"output_length\": 2, \"hash_ids\": [7, 1]}";
    cmi_load_data data = {0};
    assert_int_equal(cmi_load_data_mooncake(&data, text, strlen(text), 0, "t", NULL), CMI_OK);
    assert_int_equal(data.n, 3);
    assert_true(data.has_times);
    assert_int_equal(data.requests[0].due_ns, 0);
    assert_int_equal(data.requests[0].input_tokens, 1100);
    assert_int_equal(data.requests[0].n_blocks, 3);
    assert_int_equal(data.blocks[2], 9);
    assert_int_equal(data.requests[1].due_ns, 500500000);
    assert_int_equal(data.requests[1].input_tokens, 1);
    assert_int_equal(data.requests[1].output_tokens, 1);
    assert_int_equal(data.requests[2].due_ns, 0);
    assert_int_equal(data.requests[2].n_blocks, 1); /* the second lies behind the prompt's end */
    cmi_load_data_deinit(&data);
    assert_int_equal(cmi_load_data_mooncake(&data, text, strlen(text), 1, "t", NULL), CMI_OK);
    assert_int_equal(data.n, 1);
    cmi_load_data_deinit(&data);
}

typedef cmi_status reader(cmi_load_data *data, const char *text, size_t n, size_t max,
                          const char *path, cmi_error *err);

static void refuse(reader *read, const char *text, const char *words)
{
    cmi_load_data data = {0};
    cmi_error err = {0};
    assert_int_equal(read(&data, text, strlen(text), 0, "file", &err), CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "file"));
    assert_non_null(strstr(err.text, words));
    cmi_load_data_deinit(&data);
}

static void broken_lines_are_named(void **state)
{
    (void)state;
    refuse(cmi_load_data_mooncake, "", "no requests");
    refuse(cmi_load_data_mooncake, "\n\n[]\n", "line 3");
    refuse(cmi_load_data_mooncake, "{\"timestamp\":\"x\"}", "timestamp");
    refuse(cmi_load_data_mooncake, "{\"timestamp\":-1}", "timestamp");
    refuse(cmi_load_data_mooncake, "{\"timestamp\":1,\"input_length\":1}", "output_length");
    refuse(cmi_load_data_mooncake,
           "{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[\"a\"]}",
           "hash_ids");
    refuse(cmi_load_data_azure, AZURE_HEAD, "no requests");
    refuse(cmi_load_data_azure, AZURE_HEAD "2023-11-16 18:17:03,1\n", "line 2");
    refuse(cmi_load_data_azure, "2023-11-16 18:17:03,1,2x\n", "line 1");
    refuse(cmi_load_data_azure, "2023-11-16 18:17:03,1,99999999999999\n", "line 1");
    refuse(cmi_load_data_azure, "yesterday,1,2\n", "line 1");
    refuse(cmi_load_data_custom, "{\"prompt\":1}", "line 1");
    refuse(cmi_load_data_custom, "{\"prompt\":\"a\",\"output_tokens\":-1}", "output_tokens");
}

static void azure_lines_become_requests(void **state)
{
    (void)state;
    static const char text[] = AZURE_HEAD "2023-11-16 18:17:03.9799600,4808,10\r\n"
                                          "2023-11-16 18:17:04.0319600,3180,8\r\n";
    cmi_load_data data = {0};
    assert_int_equal(cmi_load_data_azure(&data, text, strlen(text), 0, "t", NULL), CMI_OK);
    assert_int_equal(data.n, 2);
    assert_int_equal(data.requests[0].input_tokens, 4808);
    assert_int_equal(data.requests[1].due_ns, 52000000);
    assert_int_equal(data.requests[1].output_tokens, 8);
    cmi_load_data_deinit(&data);
}

static void times_are_counted_from_1970(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ns;
    } cases[] = {
        {"1970-01-01 00:00:00", 0},
        {"2000-02-29T00:00:01Z", 951782401000000000},
        {"2023-11-16 18:17:03.9799600", 1700158623979960000},
        {"2024-05-10 00:00:00.009930+00:00", 1715299200009930000},
    };
    uint64_t ns;
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_true(cmi_load_time_parse(cases[i].text, strlen(cases[i].text), &ns));
        assert_int_equal(ns, cases[i].ns);
    }
    static const char *const wrong[] = {"", "2023-11-16", "2023-13-16 18:17:03",
                                        "2023-11-16 18:17:03x", "1969-01-01 00:00:00"};
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_false(cmi_load_time_parse(wrong[i], strlen(wrong[i]), &ns));
    }
}

static void lengths_are_clipped_and_requests_repeated(void **state)
{
    (void)state;
    cmi_load_data data = {0};
    *cmi_load_data_add(&data) = (cmi_load_request){.input_tokens = 100, .output_tokens = 10};
    *cmi_load_data_add(&data) = (cmi_load_request){.input_tokens = 5, .output_tokens = 90};
    cmi_load_data_repeat(&data, 5);
    assert_int_equal(data.n, 5);
    cmi_load_data_clip(&data, 50);
    assert_int_equal(data.requests[4].input_tokens, 40);
    assert_int_equal(data.requests[4].output_tokens, 10);
    assert_int_equal(data.requests[1].input_tokens, 5);
    assert_int_equal(data.requests[1].output_tokens, 25);
    cmi_load_data_deinit(&data);
}

static void random_lengths_keep_to_their_range(void **state)
{
    (void)state;
    const cmi_load_random_sizes sizes = {
        .n = 2000, .prefix_tokens = 7, .input_tokens = 100, .output_tokens = 3, .range_ratio = 0.5};
    cmi_load_data data = {0};
    cmi_load_data_random(&data, &sizes, 3);
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;
    for (size_t i = 0; i < data.n; i++) {
        least = CMI_MIN(least, data.requests[i].input_tokens);
        most = CMI_MAX(most, data.requests[i].input_tokens);
        assert_true(data.requests[i].output_tokens >= 1 && data.requests[i].output_tokens <= 5);
    }
    assert_int_equal(least, 57);
    assert_int_equal(most, 157);
    cmi_load_data_deinit(&data);
}

/* The body of request idx as JSON. */
static json_t *body_of(const cmi_load_prompts *prompts, const cmi_load_data *data, size_t idx)
{
    cmi_buf out;
    cmi_buf_init(&out, 1 << 20);
    cmi_load_prompts_write(prompts, data, idx, &out);
    json_t *json = json_loadb(cmi_buf_cstr(&out), out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    cmi_buf_deinit(&out);
    return json;
}

static const char trace[] =
    "{\"timestamp\":0,\"input_length\":1100,\"output_length\":5,\"hash_ids\":[1,2,3]}\n"
    "{\"timestamp\":0,\"input_length\":1030,\"output_length\":6,\"hash_ids\":[1,2,4]}\n";

static void equal_blocks_are_equal_tokens(void **state)
{
    (void)state;
    cmi_load_data data = {0};
    cmi_load_prompts prompts;
    const cmi_load_prompts_options opt = {
        .token_ids = true, .vocab_size = 500, .model = "m", .ignore_eos = true, .temperature = -1};
    assert_int_equal(cmi_load_data_mooncake(&data, trace, strlen(trace), 0, "t", NULL), CMI_OK);
    assert_int_equal(cmi_load_prompts_init(&prompts, &opt, NULL), CMI_OK);
    json_t *a = body_of(&prompts, &data, 0);
    json_t *b = body_of(&prompts, &data, 1);
    json_t *a_ids = json_object_get(a, "prompt");
    json_t *b_ids = json_object_get(b, "prompt");
    assert_int_equal(json_array_size(a_ids), 1100);
    assert_int_equal(json_array_size(b_ids), 1030);
    size_t n_same = 0;
    for (size_t i = 0; i < 1030; i++) {
        json_int_t id = json_integer_value(json_array_get(a_ids, i));
        bool same = id == json_integer_value(json_array_get(b_ids, i));
        assert_true(id >= 32 && id < 500);
        assert_true(same || i >= 1024);
        n_same += same ? 1 : 0;
    }
    assert_true(n_same < 1030);
    assert_int_equal(json_integer_value(json_object_get(a, "max_tokens")), 5);
    assert_true(json_is_true(json_object_get(a, "ignore_eos")));
    assert_null(json_object_get(a, "temperature"));
    json_decref(a);
    json_decref(b);
    cmi_load_prompts_deinit(&prompts);
    cmi_load_data_deinit(&data);
}

static void words_of_a_tokenizer_are_one_token_each(void **state)
{
    (void)state;
    cmi_tokenizer *tokenizer;
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    assert_int_equal(cmi_tokenizer_load(&tokenizer, dir, NULL), CMI_OK);
    cmi_load_data data = {0};
    cmi_load_prompts prompts;
    const cmi_load_prompts_options opt = {.tokenizer = tokenizer, .model = "m", .temperature = 0};
    assert_int_equal(cmi_load_data_mooncake(&data, trace, strlen(trace), 0, "t", NULL), CMI_OK);
    assert_int_equal(cmi_load_prompts_init(&prompts, &opt, NULL), CMI_OK);
    json_t *body = body_of(&prompts, &data, 0);
    const json_t *prompt = json_object_get(body, "prompt");
    cmi_ids ids = {0};
    assert_int_equal(cmi_tokenizer_encode(tokenizer, json_string_value(prompt),
                                          json_string_length(prompt),
                                          CMI_ENCODE_ADDED_TOKENS | CMI_ENCODE_BEGIN, &ids, NULL),
                     CMI_OK);
    assert_int_equal(ids.len, 1100);
    cmi_ids_deinit(&ids);
    json_decref(body);
    cmi_load_prompts_deinit(&prompts);
    cmi_load_data_deinit(&data);
    cmi_tokenizer_destroy(tokenizer);
}

static void chats_and_extra_fields(void **state)
{
    (void)state;
    static const char text[] = "{\"prompt\": \"say \\\"hi\\\"\"}\n"
                               "{\"messages\": [{\"role\":\"user\",\"content\":\"yo\"}], "
                               "\"output_tokens\": 9}\n";
    cmi_load_data data = {0};
    cmi_load_prompts prompts;
    cmi_load_prompts_options opt = {
        .is_chat = true, .model = "m", .temperature = 1, .extra_body = "{\"temperature\":0.5}"};
    assert_int_equal(cmi_load_data_custom(&data, text, strlen(text), 0, "t", NULL), CMI_OK);
    assert_int_equal(cmi_load_prompts_init(&prompts, &opt, NULL), CMI_OK);
    json_t *body = body_of(&prompts, &data, 0);
    const json_t *message = json_array_get(json_object_get(body, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(message, "content")), "say \"hi\"");
    assert_true(json_real_value(json_object_get(body, "temperature")) == 0.5);
    json_decref(body);
    body = body_of(&prompts, &data, 1);
    message = json_array_get(json_object_get(body, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(message, "content")), "yo");
    assert_int_equal(json_integer_value(json_object_get(body, "max_completion_tokens")), 9);
    json_decref(body);
    cmi_load_prompts_deinit(&prompts);
    static const char *const wrong[] = {"", "[]", "{\"stream\":false}", "{\"prompt\":\"\"}"};
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        opt.extra_body = wrong[i];
        assert_int_equal(cmi_load_prompts_init(&prompts, &opt, NULL), CMI_ERR_INVALID);
        cmi_load_prompts_deinit(&prompts);
    }
    cmi_load_data_deinit(&data);
}

static void urls_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host, *port, *path;
    } cases[] = {
        {"http://localhost:8000", "localhost", "8000", "/v1/completions"},
        {"HTTP://a.b", "a.b", "80", "/v1/completions"},
        {"127.0.0.1:1/", "127.0.0.1", "1", "/v1/completions"},
        {"http://[::1]:80/x/", "::1", "80", "/x/v1/completions"},
        {"http://h:1/v1", "h", "1", "/v1/completions"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_load_target target;
        cmi_buf path;
        cmi_buf_init(&path, 1000);
        assert_int_equal(cmi_load_target_parse(&target, cases[i].url, NULL), CMI_OK);
        cmi_load_target_path(&target, "/v1/completions", &path);
        assert_string_equal(target.host, cases[i].host);
        assert_string_equal(target.port, cases[i].port);
        assert_string_equal(cmi_buf_cstr(&path), cases[i].path);
        cmi_buf_deinit(&path);
    }
    static const char *const wrong[] = {"",
                                        "http://",
                                        "http://:1",
                                        "http://a:b",
                                        "http://[::1",
                                        "http://a:",
                                        "http://a b",
                                        "http://a\r\nx",
                                        "http://u@h",
                                        "http://[::1]x",
                                        "http://a:123456789"};
    cmi_load_target target;
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_int_equal(cmi_load_target_parse(&target, wrong[i], NULL), CMI_ERR_INVALID);
    }
    assert_int_equal(cmi_load_target_parse(&target, "https://a", NULL), CMI_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mooncake_lines_become_requests),
        cmocka_unit_test(broken_lines_are_named),
        cmocka_unit_test(azure_lines_become_requests),
        cmocka_unit_test(times_are_counted_from_1970),
        cmocka_unit_test(lengths_are_clipped_and_requests_repeated),
        cmocka_unit_test(random_lengths_keep_to_their_range),
        cmocka_unit_test(equal_blocks_are_equal_tokens),
        cmocka_unit_test(words_of_a_tokenizer_are_one_token_each),
        cmocka_unit_test(chats_and_extra_fields),
        cmocka_unit_test(urls_are_taken_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
