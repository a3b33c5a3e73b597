/* For random answers, cut into tokens at random: a stream adds up to the whole answer, and neither
 * depends on the cuts. */
#include "tests/server/api_util.h"

#include "base/rng.h"

typedef struct draw {
    uint64_t seed, n_drawn;
} draw;

static uint32_t below(draw *d, uint32_t n)
{
    uint32_t w[4];
    cmi_philox4x32(d->seed, d->n_drawn++, 0, w);
    return w[0] % n;
}

static void random_text(draw *d, cmi_buf *text)
{
    static const char *const parts[] = {
        "<think>",
        "</think>",
        "\n",
        "\n\n",
        "Hello",
        " world",
        "END",
        "EN",
        "E",
        "\xC3\xA9",
        "\xF0\x9F\x98\x80",
        "<",
        "</",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "f",
        "function",
        "<｜tool▁sep｜>",
        "```json\n",
        "{\"a\": 1}",
        "\n```",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "\"",
        "\\",
        "\t",
    };
    if (below(d, 2) == 0) {
        cmi_buf_str(text, "so</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>");
    }
    for (uint32_t n = below(d, 14); n > 0; n--) {
        cmi_buf_str(text, parts[below(d, CMI_LEN(parts))]);
    }
}

/* Tokens whose bytes are text's: some for single bytes, some for random stretches of it. */
static cmi_ids random_tokens(draw *d, const cmi_buf *text)
{
    cmi_ids all = {0};
    for (size_t at = 0; at < text->len;) {
        size_t n = 1 + below(d, 40);
        n = CMI_MIN(n, text->len - at);
        cmi_ids some = {0};
        cmi_error err;
        if (below(d, 3) == 0 ||
            cmi_tokenizer_encode(world.tokenizer, text->data + at, n, CMI_ENCODE_ADDED_TOKENS,
                                 &some, &err) != CMI_OK) {
            n = CMI_MIN(n, 5);
            some = api_byte_ids(text->data + at, n);
        }
        cmi_ids_append(&all, some.data, some.len);
        cmi_ids_deinit(&some);
        at += n;
    }
    return all;
}

static void random_body(draw *d, bool chat, cmi_buf *body)
{
    static const char *const stops[] = {"'END'", "['world', 'E']", "['\xC3\xA9', '\\n\\n']", "[]"};
    cmi_buf_printf(body, "{%s",
                   chat ? "'messages': [{'role': 'user', 'content': 'Hi'}]"
                        : "'prompt': 'Hi \xC3\xA9'");
    if (below(d, 2) == 0) {
        cmi_buf_printf(body, ", 'stop': %s", stops[below(d, CMI_LEN(stops))]);
    }
    if (chat && below(d, 4) > 0) {
        cmi_buf_str(body, ", 'tools': [{'function': {'name': 'f'}}]");
    }
    cmi_buf_str(body, chat && below(d, 4) == 0 ? ", 'reasoning_effort': 'none'" : "");
    cmi_buf_str(body, below(d, 4) == 0 ? ", 'include_stop_str_in_output': true" : "");
    cmi_buf_str(body, !chat && below(d, 4) == 0 ? ", 'echo': true" : "");
    if (below(d, 4) == 0) {
        cmi_buf_str(body, chat ? ", 'logprobs': true, 'top_logprobs': 2" : ", 'logprobs': 2");
    }
}

static void answer(const char *fields, bool chat, bool stream, const api_script *s, cmi_buf *line)
{
    char body[2000];
    snprintf(body, sizeof body, "%s, 'n': 2, 'stream': %s}", fields, stream ? "true" : "false");
    api_run run = api_play(chat ? CMI_API_CHAT_COMPLETIONS : CMI_API_COMPLETIONS, body, s);
    assert_int_equal(run.status, CMI_OK);
    cmi_buf second;
    cmi_buf_init(&second, 100000);
    if (stream) {
        api_describe_stream(&run, 0, line);
        api_describe_stream(&run, 1, &second);
    } else {
        api_describe_body(&run, 0, line);
        api_describe_body(&run, 1, &second);
    }
    assert_string_equal(cmi_buf_cstr(line), cmi_buf_cstr(&second));
    cmi_buf_deinit(&second);
    api_run_end(&run);
}

static void a_stream_adds_up_to_the_whole(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        draw d = {.seed = seed};
        cmi_buf text, body, first;
        cmi_buf_init(&text, 10000);
        cmi_buf_init(&body, 10000);
        cmi_buf_init(&first, 100000);
        bool chat = below(&d, 4) > 0;
        random_text(&d, &text);
        random_body(&d, chat, &body);
        for (int way = 0; way < 4; way++) {
            cmi_ids ids = random_tokens(&d, &text);
            const api_script s = {.ids = ids.data, .n_ids = ids.len};
            cmi_buf line;
            cmi_buf_init(&line, 100000);
            answer(body.data, chat, way % 2 == 0, &s, way == 0 ? &first : &line);
            if (way > 0 && strcmp(cmi_buf_cstr(&first), cmi_buf_cstr(&line)) != 0) {
                fail_msg("seed %d, way %d: %s\ntext  %s\nfirst %s\nthis  %s", (int)seed, way,
                         body.data, cmi_buf_cstr(&text), cmi_buf_cstr(&first), cmi_buf_cstr(&line));
            }
            cmi_buf_deinit(&line);
            cmi_ids_deinit(&ids);
        }
        cmi_buf_deinit(&text);
        cmi_buf_deinit(&body);
        cmi_buf_deinit(&first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_stream_adds_up_to_the_whole)};
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
