/* Clients that are too slow, with a second's patience: who is ended, and who is not. */
#include "tests/test.h"

#include "tests/server/server_fixture.h"

#define SLOW_CLIENTS "cminfer:slow_clients_total{"

static server_fixture f;

static int start(void **state)
{
    (void)state;
    cmi_server_options opt = {
        .slow_timeout_s = 1,
        .slow_bytes_per_s = 1 << 30,
        .max_unsent_bytes = 2 << 20, /* more than the kernel's buffers hold */
    };
    server_fixture_start(&f, &opt, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    return 0;
}

static void a_body_that_does_not_come_is_not_waited_for(void **state)
{
    (void)state;
    http_client whole, half;
    http_client_connect(&whole, f.port);
    http_client_connect(&half, f.port);
    http_client_request(&whole, "POST", "/v1/completions", "", ASK_COMPLETION);
    http_client_send_str(&half, "POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                                "Content-Length: 1000\r\n\r\n{");
    uint64_t id = scripted_engine_request(f.engine, 0);
    http_client_wait_closed(&half);
    assert_int_equal(half.in.len, 0);
    assert_true(server_fixture_metric(&f, SLOW_CLIENTS) == 1);
    assert_true(http_client_is_silent(&whole)); /* it waits for the engine: no deadline */
    scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    scripted_engine_finish(f.engine, id, CMI_FINISH_LENGTH);
    http_response r = http_client_response(&whole);
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    http_client_close(&whole);
    http_client_close(&half);
}

static void what_is_left_of_a_stream_is_not_kept_for_ever(void **state)
{
    (void)state;
    http_client slow;
    http_client_connect_slow(&slow, f.port);
    http_client_request(&slow, "POST", "/v1/completions", "", ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, 0);
    for (int i = 0; i < 20000; i++) { /* more than all buffers hold */
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    }
    scripted_engine_wait_cancelled(f.engine, id);
    while (server_fixture_metric(&f, SLOW_CLIENTS) < 1) {
    }
    http_response r = http_client_response(&slow);
    assert_false(r.complete);
    http_response_free(&r);
    http_client_close(&slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
        TEST(a_body_that_does_not_come_is_not_waited_for),
        TEST(what_is_left_of_a_stream_is_not_kept_for_ever),
#undef TEST
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
