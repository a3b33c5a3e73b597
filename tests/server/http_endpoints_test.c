#include "tests/test.h"

#include "tests/server/server_fixture.h"

#include "base/alloc.h"

static server_fixture f;

static int start(void **state)
{
    api_world_setup(state);
    server_fixture_start(
        &f, NULL,
        &(scripted_engine_options){.n_auto_tokens = 3, .auto_token_id = SERVER_FIXTURE_TOKEN});
    return 0;
}

static int stop(void **state)
{
    server_fixture_stop(&f);
    api_world_teardown(state);
    return 0;
}

static void expect_status(const char *method, const char *path, const char *headers,
                          const char *body, int status)
{
    http_response r = http_ask(f.port, method, path, headers, body);
    if (r.status != status) {
        print_error("%s %s: %s\n", method, path, cmi_buf_cstr(&r.body));
    }
    assert_int_equal(r.status, status);
    assert_true(r.complete);
    http_response_free(&r);
}

/* Asks and expects an error in OpenAI's shape, with a length and a type. */
static void expect_error(const char *method, const char *path, const char *headers,
                         const char *body, int status, const char *type)
{
    http_response r = http_ask(f.port, method, path, headers, body);
    assert_int_equal(r.status, status);
    assert_non_null(http_response_header(&r, "Content-Length"));
    assert_string_equal(http_response_header(&r, "Content-Type"), "application/json");
    char want[100];
    snprintf(want, sizeof want, "\"type\":\"%s\",\"param\":null,\"code\":%d}}", type, status);
    assert_non_null(strstr(r.body.data, "{\"error\":{\"message\":\""));
    assert_non_null(strstr(r.body.data, want));
    http_response_free(&r);
}

static void probes_say_alive_and_ready(void **state)
{
    (void)state;
    static const char *const paths[] = {"/health", "/liveness", "/ping", "/readiness", "/ready"};
    for (size_t i = 0; i < CMI_LEN(paths); i++) {
        http_response r = http_ask(f.port, "GET", paths[i], "", NULL);
        assert_int_equal(r.status, 200);
        assert_string_equal(http_response_header(&r, "Content-Length"), "0");
        http_response_free(&r);
    }
}

static void a_server_without_its_model_is_alive_but_not_ready(void **state)
{
    (void)state;
    server_fixture g = f;
    server_fixture_start_unattached(&f, NULL, NULL);
    expect_status("GET", "/health", "", NULL, 200);
    expect_status("GET", "/metrics", "", NULL, 200);
    expect_status("GET", "/version", "", NULL, 200);
    expect_error("GET", "/readiness", "", NULL, 503, "ServiceUnavailableError");
    expect_error("GET", "/v1/models", "", NULL, 503, "ServiceUnavailableError");
    expect_error("POST", "/tokenize", "", "{}", 503, "ServiceUnavailableError");
    expect_error("POST", "/v1/completions", "", ASK_COMPLETION, 503, "ServiceUnavailableError");
    cmi_error err;
    assert_int_equal(cmi_server_attach(f.server, world.api, f.engine, &err), CMI_OK);
    expect_status("GET", "/ready", "", NULL, 200);
    cmi_server_set_ready(f.server, false);
    expect_error("GET", "/ready", "", NULL, 503, "ServiceUnavailableError");
    expect_error("POST", "/v1/completions", "", ASK_COMPLETION, 503, "ServiceUnavailableError");
    server_fixture_stop(&f);
    f = g;
}

static void small_endpoints_answer(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "GET", "/version?verbose=1", "", NULL);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.data, "{\"version\":\"" CMI_VERSION "\"}");
    http_response_free(&r);
    expect_status("GET", "/v1/models", "", NULL, 200);
    expect_status("POST", "/tokenize", "", "{\"model\":\"matrix-tiny\",\"prompt\":\"hello\"}", 200);
    expect_status("POST", "/detokenize", "", "{\"model\":\"matrix-tiny\",\"tokens\":[77]}", 200);
}

static void a_model_is_found_by_its_id(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "GET", "/v1/models/matrix-tiny", "", NULL);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body.data, "\"id\":\"matrix-tiny\""));
    assert_null(strstr(r.body.data, "\"list\""));
    http_response_free(&r);
    expect_error("GET", "/v1/models/other/one", "", NULL, 404, "NotFoundError");
    expect_error("GET", "/v1/models/%FF%22", "", NULL, 404, "NotFoundError");
}

static void unknown_paths_are_404(void **state)
{
    (void)state;
    expect_error("POST", "/v1/embeddings", "", "{\"model\":\"matrix-tiny\",\"input\":\"x\"}", 404,
                 "NotFoundError");
    expect_error("GET", "/", "", NULL, 404, "NotFoundError");
    expect_error("GET", "/v1/models/", "", NULL, 404, "NotFoundError");
    expect_error("DELETE", "/v1/files/%0A%00x", "", NULL, 404, "NotFoundError");
}

static void a_wrong_method_is_405_with_the_right_ones(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "GET", "/v1/chat/completions", "", NULL);
    assert_int_equal(r.status, 405);
    assert_string_equal(http_response_header(&r, "Allow"), "POST, OPTIONS");
    http_response_free(&r);
    expect_error("PUT", "/v1/models", "", "{}", 405, "MethodNotAllowedError");
    expect_error("BREW", "/health", "", NULL, 405, "MethodNotAllowedError");
}

static void head_is_get_without_a_body(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "HEAD", "/version", "", NULL);
    assert_int_equal(r.status, 200);
    assert_string_not_equal(http_response_header(&r, "Content-Length"), "0");
    http_response_free(&r);
}

static void browsers_may_ask_from_anywhere(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "OPTIONS", "/v1/chat/completions",
                               "Origin: http://a.example\r\n"
                               "Access-Control-Request-Method: POST\r\n"
                               "Access-Control-Request-Headers: authorization, x-stainless-os\r\n",
                               NULL);
    assert_int_equal(r.status, 204);
    assert_string_equal(http_response_header(&r, "Access-Control-Allow-Origin"), "*");
    assert_string_equal(http_response_header(&r, "Access-Control-Allow-Headers"),
                        "authorization, x-stainless-os");
    assert_non_null(strstr(http_response_header(&r, "Access-Control-Allow-Methods"), "POST"));
    http_response_free(&r);
    r = http_ask(f.port, "GET", "/v1/models", "Origin: http://a.example\r\n", NULL);
    assert_string_equal(http_response_header(&r, "Access-Control-Allow-Origin"), "*");
    http_response_free(&r);
}

static void keys_guard_everything_but_the_probes(void **state)
{
    (void)state;
    server_fixture g = f;
    static const char *const keys[] = {"first-key", "k2"};
    server_fixture_start(
        &f, &(cmi_server_options){.api_keys = keys, .n_api_keys = 2},
        &(scripted_engine_options){.n_auto_tokens = 1, .auto_token_id = SERVER_FIXTURE_TOKEN});
    static const struct {
        const char *method, *path, *body;
    } guarded[] = {
        {"GET", "/v1/models", NULL},       {"GET", "/v1/models/matrix-tiny", NULL},
        {"GET", "/version", NULL},         {"GET", "/metrics", NULL},
        {"POST", "/tokenize", "{}"},       {"POST", "/detokenize", "{}"},
        {"POST", "/v1/completions", "{}"}, {"POST", "/v1/chat/completions", "{}"},
        {"POST", "/v1/embeddings", "{}"},  {"GET", "/nowhere", NULL},
    };
    static const char *const wrong[] = {
        "",
        "Authorization: Bearer first-kez\r\n",
        "Authorization: Bearer first-ke\r\n",
        "Authorization: Bearer first-keyy\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Basic first-key\r\n",
        "Authorization: first-key\r\n",
        "X-Authorization: Bearer k2\r\n",
    };
    for (size_t i = 0; i < CMI_LEN(guarded); i++) {
        for (size_t k = 0; k < CMI_LEN(wrong); k++) {
            expect_error(guarded[i].method, guarded[i].path, wrong[k], guarded[i].body, 401,
                         "AuthenticationError");
        }
    }
    expect_status("GET", "/v1/models", "Authorization: Bearer first-key\r\n", NULL, 200);
    expect_status("GET", "/metrics", "authorization: bearer  k2\r\n", NULL, 200);
    expect_status("POST", "/v1/completions", "Authorization: Bearer k2\r\n", ASK_COMPLETION, 200);
    expect_status("GET", "/health", "", NULL, 200);
    expect_status("GET", "/liveness", "", NULL, 200);
    expect_status("GET", "/readiness", "", NULL, 200);
    expect_status("OPTIONS", "/v1/completions", "", NULL, 204);
    http_response r = http_ask(f.port, "GET", "/v1/models", "", NULL);
    assert_string_equal(http_response_header(&r, "WWW-Authenticate"), "Bearer");
    http_response_free(&r);
    server_fixture_stop(&f);
    f = g;
}

static void request_ids_are_echoed_or_made(void **state)
{
    (void)state;
    http_response r = http_ask(f.port, "GET", "/nowhere", "X-Request-Id: my-id/1~\r\n", NULL);
    assert_string_equal(http_response_header(&r, "X-Request-Id"), "my-id/1~");
    http_response_free(&r);
    char too_long[200];
    snprintf(too_long, sizeof too_long, "X-Request-Id: %0129d\r\n", 1);
    const char *const bad[] = {"", "X-Request-Id: a b\r\n", "X-Request-Id: \xc3\xa4\r\n",
                               "X-Request-Id:\r\n", too_long};
    char last[64] = "";
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        r = http_ask(f.port, "GET", "/health", bad[i], NULL);
        const char *id = http_response_header(&r, "X-Request-Id");
        assert_int_equal(strlen(id), 32);
        assert_string_not_equal(id, last);
        snprintf(last, sizeof last, "%s", id);
        http_response_free(&r);
    }
}

static void bodies_that_are_no_request_are_400(void **state)
{
    (void)state;
    expect_error("POST", "/v1/completions", "", "", 400, "BadRequestError");
    expect_error("POST", "/v1/completions", "", "{\"prompt\":", 400, "BadRequestError");
    expect_error("POST", "/v1/chat/completions", "", "[[[[[[", 400, "BadRequestError");
    expect_error("POST", "/v1/chat/completions", "", NULL, 400, "BadRequestError");
    expect_status("POST", "/v1/completions", "Content-Type: text/plain\r\n", ASK_COMPLETION, 200);
}

/* n bytes of a JSON string, framed as the test wants. */
static char *long_body(size_t n)
{
    char *body = cmi_alloc(n + 1, 1);
    memset(body, 'x', n);
    body[0] = body[n - 1] = '"';
    return body;
}

static void a_body_over_the_limit_is_413(void **state)
{
    (void)state;
    server_fixture g = f;
    server_fixture_start(&f, &(cmi_server_options){.max_body_bytes = 100000}, NULL);
    char *body = long_body(100001);
    expect_error("POST", "/v1/completions", "", body, 413, "PayloadTooLargeError");
    body[100000] = '\0'; /* at the limit: read, and found to be no request */
    expect_error("POST", "/v1/completions", "", body, 400, "BadRequestError");
    cmi_free(body);

    http_client c; /* chunked, so that the length is not known in advance */
    http_client_connect(&c, f.port);
    http_client_request(&c, "POST", "/v1/completions", "Transfer-Encoding: chunked\r\n", NULL);
    for (int i = 0; i < 11; i++) {
        http_client_send_str(&c, "2710\r\n");
        char chunk[10002];
        memset(chunk, 'x', 10000);
        memcpy(chunk + 10000, "\r\n", 2);
        http_client_send(&c, chunk, sizeof chunk);
    }
    http_client_send_str(&c, "0\r\n\r\n");
    http_response r = http_client_response(&c);
    assert_int_equal(r.status, 413);
    http_response_free(&r);
    http_client_request(&c, "GET", "/health", "", NULL); /* the connection is still good */
    r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    http_client_close(&c);
    server_fixture_stop(&f);
    f = g;
}

static void a_body_that_would_never_be_read_is_refused_at_once(void **state)
{
    (void)state;
    http_client c;
    http_client_connect(&c, f.port);
    http_client_request(&c, "POST", "/v1/completions", "Content-Length: 1000000000000\r\n", NULL);
    http_response r = http_client_response(&c);
    assert_int_equal(r.status, 413);
    http_response_free(&r);
    http_client_wait_closed(&c);
    http_client_close(&c);

    http_client_connect(&c, f.port); /* chunks without end */
    http_client_request(&c, "POST", "/v1/completions", "Transfer-Encoding: chunked\r\n", NULL);
    char *chunk = long_body((1 << 20) + 2);
    memcpy(chunk + (1 << 20), "\r\n", 2);
    for (int i = 0; i < 64; i++) {
        http_client_send_str(&c, "100000\r\n");
        http_client_send(&c, chunk, (1 << 20) + 2);
    }
    cmi_free(chunk);
    http_client_wait_closed(&c);
    http_client_close(&c);
}

static void expect_100_continue_is_honoured(void **state)
{
    (void)state;
    http_client c;
    http_client_connect(&c, f.port);
    char head[96];
    snprintf(head, sizeof head, "Expect: 100-continue\r\nContent-Length: %zu\r\n",
             strlen(ASK_COMPLETION));
    http_client_request(&c, "POST", "/v1/completions", head, NULL);
    assert_true(http_client_wait_for(&c, "HTTP/1.1 100 Continue\r\n\r\n"));
    http_client_send_str(&c, ASK_COMPLETION);
    http_response r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    http_client_close(&c);

    http_client_connect(&c, f.port); /* what is refused is refused before the body is sent */
    http_client_request(&c, "POST", "/v1/completionz", head, NULL);
    r = http_client_response(&c);
    assert_int_equal(r.status, 404);
    http_response_free(&r);
    http_client_close(&c);
}

static void malformed_http_is_refused_or_closed(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "GARBAGE\r\n\r\n",
        "\r\n\r\n\r\n \x01\x02\xff\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n{}",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Content-Length: 2\r\n\r\n{}",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        "Content-Length: 3\r\n\r\n{}x",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Transfer-Encoding: gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "fffffffffffffffff\r\n{}",
    };
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        http_client c;
        http_client_connect(&c, f.port);
        http_client_send_str(&c, bad[i]);
        http_client_wait_closed(&c);
        if (c.in.len > 0 && strncmp(c.in.data, "HTTP/1.1 4", 10) != 0 &&
            strncmp(c.in.data, "HTTP/1.1 5", 10) != 0) {
            fail_msg("%s was answered by %s", bad[i], c.in.data);
        }
        http_client_close(&c);
    }
    expect_status("GET", "/health", "", NULL, 200);
}

static void heads_that_are_too_long_are_refused(void **state)
{
    (void)state;
    char *filler = long_body(100000);
    for (int i = 0; i < 2; i++) {
        http_client c;
        http_client_connect(&c, f.port);
        http_client_send_str(&c, i == 0 ? "GET /" : "GET / HTTP/1.1\r\nHost: x\r\nX: ");
        http_client_send(&c, filler, 100000);
        http_client_wait_closed(&c);
        assert_true(c.in.len == 0 || strncmp(c.in.data, "HTTP/1.1 4", 10) == 0);
        http_client_close(&c);
    }
    cmi_free(filler);
    expect_status("GET", "/health", "", NULL, 200);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    http_client c;
    http_client_connect(&c, f.port);
    http_client_request(&c, "GET", "/version", "X-Request-Id: 1\r\n", NULL);
    http_client_request(&c, "POST", "/v1/completions", "X-Request-Id: 2\r\n", ASK_COMPLETION);
    http_client_request(&c, "POST", "/v1/completions", "X-Request-Id: 3\r\n", ASK_STREAM);
    http_client_request(&c, "GET", "/nowhere", "X-Request-Id: 4\r\n", NULL);
    static const int want[] = {200, 200, 200, 404};
    for (int i = 0; i < 4; i++) {
        http_response r = http_client_response(&c);
        assert_int_equal(r.status, want[i]);
        assert_int_equal(http_response_header(&r, "X-Request-Id")[0], '1' + i);
        assert_true(r.complete);
        http_response_free(&r);
    }
    http_client_close(&c);
}

static void half_a_request_harms_nobody(void **state)
{
    (void)state;
    char whole[512];
    int n_whole = snprintf(whole, sizeof whole,
                           "POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           strlen(ASK_COMPLETION), ASK_COMPLETION);
    for (size_t n = 0; n < (size_t)n_whole; n++) {
        http_client c;
        http_client_connect(&c, f.port);
        http_client_send(&c, whole, n);
        http_client_close(&c);
    }
    expect_status("GET", "/health", "", NULL, 200);
}

static void a_client_that_stops_sending_is_timed_out(void **state)
{
    (void)state;
    server_fixture g = f;
    server_fixture_start(&f, &(cmi_server_options){.idle_timeout_s = 1}, NULL);
    http_client c[2];
    http_client_connect(&c[0], f.port);
    http_client_send_str(&c[0], "POST /v1/comple");
    http_client_connect(&c[1], f.port);
    http_client_request(&c[1], "POST", "/v1/completions", "Content-Length: 10\r\n", NULL);
    for (int i = 0; i < 2; i++) {
        http_client_wait_closed(&c[i]);
        http_client_close(&c[i]);
    }
    server_fixture_stop(&f);
    f = g;
}

static void http_1_0_clients_are_served(void **state)
{
    (void)state;
    http_client c;
    http_client_connect(&c, f.port);
    char head[96];
    snprintf(head, sizeof head, "POST /v1/completions HTTP/1.0\r\nContent-Length: %zu\r\n\r\n",
             strlen(ASK_STREAM));
    http_client_send_str(&c, head);
    http_client_send_str(&c, ASK_STREAM);
    http_client_wait_closed(&c);
    assert_non_null(strstr(c.in.data, " 200 OK\r\n"));
    assert_non_null(strstr(c.in.data, "data: [DONE]\n\n"));
    http_client_close(&c);
}

static void a_taken_port_is_named_with_its_holder(void **state)
{
    (void)state;
    cmi_server *second = NULL;
    cmi_error err = {0};
    cmi_server_options opt = {.port = f.port};
    assert_int_equal(cmi_server_start(&second, &opt, &err), CMI_ERR_IO);
    assert_null(second);
    char want[64];
    snprintf(want, sizeof want, "port %u is taken by process ", f.port);
    assert_non_null(strstr(err.text, want));
    assert_non_null(strstr(err.text, "--port"));
    opt = (cmi_server_options){.host = "203.0.113.1"};
    assert_int_equal(cmi_server_start(&second, &opt, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "--host"));
    opt = (cmi_server_options){.host = "no.such.name.invalid"};
    assert_int_equal(cmi_server_start(&second, &opt, &err), CMI_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_say_alive_and_ready),
        cmocka_unit_test(a_server_without_its_model_is_alive_but_not_ready),
        cmocka_unit_test(small_endpoints_answer),
        cmocka_unit_test(a_model_is_found_by_its_id),
        cmocka_unit_test(unknown_paths_are_404),
        cmocka_unit_test(a_wrong_method_is_405_with_the_right_ones),
        cmocka_unit_test(head_is_get_without_a_body),
        cmocka_unit_test(browsers_may_ask_from_anywhere),
        cmocka_unit_test(keys_guard_everything_but_the_probes),
        cmocka_unit_test(request_ids_are_echoed_or_made),
        cmocka_unit_test(bodies_that_are_no_request_are_400),
        cmocka_unit_test(a_body_over_the_limit_is_413),
        cmocka_unit_test(a_body_that_would_never_be_read_is_refused_at_once),
        cmocka_unit_test(expect_100_continue_is_honoured),
        cmocka_unit_test(malformed_http_is_refused_or_closed),
        cmocka_unit_test(heads_that_are_too_long_are_refused),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(half_a_request_harms_nobody),
        cmocka_unit_test(a_client_that_stops_sending_is_timed_out),
        cmocka_unit_test(http_1_0_clients_are_served),
        cmocka_unit_test(a_taken_port_is_named_with_its_holder),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
