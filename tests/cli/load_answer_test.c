#include "tests/test.h"

#include "base/alloc.h"
#include "cli/bench/load_answer.h"

#define EVENTS "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define CHUNKED EVENTS "Transfer-Encoding: chunked\r\n\r\n"
#define ROLE "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define CONTENT(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FINISH "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE                                                                                      \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,"                \
    "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"
#define DONE "data: [DONE]\n\n"

/* What an answer comes to when its bytes come in two parts, at 1 ns and at 2 ns. */
static void read_answer(cmi_load_answer *answer, cmi_load_record *record, const char *bytes,
                        size_t n, size_t cut)
{
    *record = (cmi_load_record){0};
    cmi_load_answer_init(answer);
    cmi_load_answer_begin(answer, record, true);
    bool is_over = cut > 0 && cmi_load_answer_feed(answer, bytes, cut, 1);
    if (!is_over) {
        is_over = cut < n && cmi_load_answer_feed(answer, bytes + cut, n - cut, 2);
    }
    if (!is_over) {
        cmi_load_answer_end(answer, 3);
    }
    assert_true(record->outcome != CMI_LOAD_OPEN);
}

static void forget(cmi_load_answer *answer, cmi_load_record *record)
{
    cmi_load_answer_deinit(answer);
    cmi_load_record_deinit(record);
}

typedef struct expected {
    cmi_load_outcome outcome;
    int status;
    uint32_t n_chunks;
    const char *text;
    const char *error;
    bool keeps_alive;
} expected;

static void check(const char *bytes, expected want)
{
    size_t n = strlen(bytes);
    for (size_t cut = 0; cut <= n; cut++) {
        cmi_load_answer answer;
        cmi_load_record record;
        read_answer(&answer, &record, bytes, n, cut);
        if (record.outcome != want.outcome || record.n_chunks != want.n_chunks ||
            record.http_status != want.status) {
            fail_msg("cut at %zu: outcome %d, status %d, %u chunks, \"%s\"", cut, record.outcome,
                     record.http_status, record.n_chunks, record.error != NULL ? record.error : "");
        }
        assert_string_equal(cmi_buf_cstr(&record.text), want.text);
        if (want.error != NULL) {
            assert_non_null(strstr(record.error, want.error));
        }
        assert_int_equal(cmi_load_answer_keeps_alive(&answer), want.keeps_alive);
        forget(&answer, &record);
    }
}

/* The same events in chunks of some bytes each. */
static void write_chunked(cmi_buf *out, const char *body, size_t chunk)
{
    cmi_buf_str(out, CHUNKED);
    for (size_t at = 0, n = strlen(body); at < n; at += chunk) {
        size_t size = CMI_MIN(chunk, n - at);
        cmi_buf_printf(out, "%zx;ext=1\r\n%.*s\r\n", size, (int)size, body + at);
    }
    cmi_buf_str(out, "0\r\nTrailer: x\r\n\r\n");
}

static void a_stream_is_read_however_it_is_cut(void **state)
{
    (void)state;
    static const char body[] = ": ping\n\n" ROLE CONTENT("a") CONTENT("b") FINISH USAGE DONE;
    const expected good = {CMI_LOAD_COMPLETED, 200, 2, "ab", NULL, true};
    static const size_t chunks[] = {1, 7, 100, 10000};
    for (size_t i = 0; i < CMI_LEN(chunks); i++) {
        cmi_buf bytes;
        cmi_buf_init(&bytes, 1 << 20);
        write_chunked(&bytes, body, chunks[i]);
        check(cmi_buf_cstr(&bytes), good);
        cmi_buf_deinit(&bytes);
    }
    check(EVENTS "Connection: close\r\n\r\n" ROLE CONTENT("a") FINISH,
          (expected){CMI_LOAD_COMPLETED, 200, 1, "a", NULL, false});
    check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 59\n\n"
          "data: {\"choices\":[{\"text\":\"x\",\"finish_reason\":\"length\"}]}\n\n",
          (expected){CMI_LOAD_COMPLETED, 200, 1, "x", NULL, true});
}

static void usage_and_times_are_kept(void **state)
{
    (void)state;
    static const char bytes[] = EVENTS "\r\n" ROLE CONTENT("a") CONTENT("b") FINISH USAGE DONE;
    cmi_load_answer answer;
    cmi_load_record record;
    size_t cut = strlen(EVENTS "\r\n" ROLE CONTENT("a"));
    read_answer(&answer, &record, bytes, strlen(bytes), cut);
    assert_true(record.has_usage);
    assert_int_equal(record.prompt_tokens, 9);
    assert_int_equal(record.output_tokens, 3);
    assert_int_equal(record.cached_tokens, 4);
    assert_int_equal(record.chunk_ns[0], 1);
    assert_int_equal(record.chunk_ns[1], 2);
    assert_int_equal(record.last_ns, 2);
    assert_int_equal(record.end_ns, 3);
    forget(&answer, &record);
}

static void line_ends_and_fields_are_those_of_the_standard(void **state)
{
    (void)state;
    check(EVENTS "\r\n\xEF\xBB\xBF"
                 "data: {\"choices\":[\r\ndata: {\"text\":\"a\"}]}\r\n\r\n"
                 "event: x\rdata:{\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\r\r"
                 "id: 1\nretry: 9\ndatas: no\n\n:\n\ndata: [DONE]",
          (expected){CMI_LOAD_COMPLETED, 200, 2, "ab", NULL, false});
}

static void a_chunk_counts_when_it_holds_a_token(void **state)
{
    (void)state;
    /* a token without text; an end with text; a role with text; a call; reasoning */
    check(EVENTS "\r\n" ROLE CONTENT("") CONTENT("") FINISH,
          (expected){CMI_LOAD_COMPLETED, 200, 2, "", NULL, false});
    check(EVENTS "\r\ndata: {\"choices\":[{\"text\":\"z\",\"finish_reason\":\"stop\"}]}\n\n",
          (expected){CMI_LOAD_COMPLETED, 200, 1, "z", NULL, false});
    check(EVENTS "\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"a\",\"content\":\"b\"}}]}\n\n"
                 "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n\n"
                 "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"r\"}}]}\n\n" FINISH,
          (expected){CMI_LOAD_COMPLETED, 200, 3, "b", NULL, false});
    /* nothing but an end: it is the first token */
    check(EVENTS "\r\n" ROLE FINISH, (expected){CMI_LOAD_COMPLETED, 200, 1, "", NULL, false});
}

static void errors_have_their_reason(void **state)
{
    (void)state;
    check("HTTP/1.1 429 Too Many\r\nRetry-After: 2\r\nContent-Length: 34\r\n\r\n"
          "{\"error\":{\"message\":\"queue full\"}}",
          (expected){CMI_LOAD_HTTP_ERROR, 429, 0, "", "HTTP 429: queue full", true});
    check("HTTP/1.1 503 x\r\nConnection: close\r\n\r\n{\"object\":\"error\",\"message\":\"m\"}",
          (expected){CMI_LOAD_HTTP_ERROR, 503, 0, "", "HTTP 503: m", false});
    check("HTTP/1.1 500 x\r\nContent-Length: 90\r\n\r\ncut off",
          (expected){CMI_LOAD_HTTP_ERROR, 500, 0, "", "cut off", false});
    check("HTTP/1.1 204 x\r\n\r\n", (expected){CMI_LOAD_INCOMPLETE, 204, 0, "", NULL, true});
    check(CHUNKED "5\r\nab", (expected){CMI_LOAD_CONNECTION, 200, 0, "", "middle", false});
    check("", (expected){CMI_LOAD_CONNECTION, 0, 0, "", "without an answer", false});
    check(EVENTS "\r\n" CONTENT("a") "data: {\"error\":{\"message\":\"oh\"}}\n\n" DONE,
          (expected){CMI_LOAD_ERROR_EVENT, 200, 1, "a", "oh", false});
    check(EVENTS "\r\n" CONTENT("a") "data: {\"error\":\"oh\"}\n\n",
          (expected){CMI_LOAD_ERROR_EVENT, 200, 1, "a", "oh", false});
    check(EVENTS "\r\n" CONTENT("a"),
          (expected){CMI_LOAD_INCOMPLETE, 200, 1, "a", "finish", false});
    check(EVENTS "\r\n" DONE,
          (expected){CMI_LOAD_INCOMPLETE, 200, 0, "", "without a token", false});
    check(EVENTS "\r\n" CONTENT("a") "data: {\"choices\n\n",
          (expected){CMI_LOAD_MALFORMED, 200, 1, "a", "no JSON", false});
    check("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
          (expected){CMI_LOAD_MALFORMED, 200, 0, "", "no stream", false});
}

static void what_is_not_http_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"HTTP/2 200 OK\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 20\r\n",
                                      "HTTP/1.1 099 x\r\n"};
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        check(bad[i], (expected){CMI_LOAD_MALFORMED, 0, 0, "", "no HTTP", false});
    }
    static const char *const bad_heads[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
        CHUNKED "x\r\n",
        CHUNKED "\r\n",
        CHUNKED "fffffffffffffffff\r\n",
        CHUNKED "1\r\nab\r\n"};
    for (size_t i = 0; i < CMI_LEN(bad_heads); i++) {
        check(bad_heads[i], (expected){CMI_LOAD_MALFORMED, 200, 0, "", NULL, false});
    }
}

static void heads_have_a_limit(void **state)
{
    (void)state;
    cmi_buf bytes;
    cmi_buf_init(&bytes, 1 << 20);
    cmi_buf_str(&bytes, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 10000; i++) {
        cmi_buf_printf(&bytes, "X-%d: y\r\n", i);
    }
    static const size_t cuts[] = {0, 10000, 60000};
    for (size_t i = 0; i < CMI_LEN(cuts); i++) {
        cmi_load_answer answer;
        cmi_load_record record;
        read_answer(&answer, &record, bytes.data, bytes.len, cuts[i]);
        assert_int_equal(record.outcome, CMI_LOAD_MALFORMED);
        forget(&answer, &record);
    }
    cmi_buf_deinit(&bytes);
}

static void a_done_answer_stands_without_the_bodys_end(void **state)
{
    (void)state;
    static const char body[] = CONTENT("a") DONE;
    cmi_buf bytes;
    cmi_buf_init(&bytes, 1 << 16);
    cmi_buf_printf(&bytes, "%s%zx\r\n%s\r\n", CHUNKED, strlen(body), body);
    check(cmi_buf_cstr(&bytes), (expected){CMI_LOAD_COMPLETED, 200, 1, "a", NULL, false});
    cmi_buf_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_is_read_however_it_is_cut),
        cmocka_unit_test(usage_and_times_are_kept),
        cmocka_unit_test(line_ends_and_fields_are_those_of_the_standard),
        cmocka_unit_test(a_chunk_counts_when_it_holds_a_token),
        cmocka_unit_test(errors_have_their_reason),
        cmocka_unit_test(what_is_not_http_is_refused),
        cmocka_unit_test(heads_have_a_limit),
        cmocka_unit_test(a_done_answer_stands_without_the_bodys_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
