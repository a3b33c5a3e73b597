/* Requests that wait for the engine: who leaves when, and what the others see of it. */
#include "tests/test.h"

#include "tests/server/server_fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"

#define NS_PER_S UINT64_C(1000000000)

static server_fixture f;

static int start(void **state)
{
    (void)state;
    server_fixture_start(&f, NULL, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    return 0;
}

static void ask(http_client *c, const char *body)
{
    http_client_connect(c, f.port);
    http_client_request(c, "POST", "/v1/completions", "", body);
}

/* Tokens of one request, then its end. */
static void say(uint64_t id, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    }
    scripted_engine_finish(f.engine, id, CMI_FINISH_LENGTH);
}

static uint32_t count(const char *text, const char *part)
{
    uint32_t n = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        n++;
    }
    return n;
}

static void an_answer_comes_whole_with_its_last_token(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_COMPLETION);
    uint64_t id = scripted_engine_request(f.engine, 0);
    scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    assert_true(http_client_is_silent(&c));
    say(id, 2);
    http_response r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    assert_string_equal(http_response_header(&r, "Content-Type"), "application/json");
    assert_non_null(http_response_header(&r, "Content-Length"));
    assert_non_null(strstr(r.body.data, "\"text\""));
    http_response_free(&r);
    http_client_close(&c);
}

static void a_stream_sends_its_head_at_once_and_each_token_when_it_is_there(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_STREAM);
    http_response r = http_client_response_head(&c); /* the engine has not said a word */
    assert_int_equal(r.status, 200);
    assert_string_equal(http_response_header(&r, "Content-Type"),
                        "text/event-stream; charset=utf-8");
    assert_string_equal(http_response_header(&r, "Cache-Control"), "no-cache");
    assert_string_equal(http_response_header(&r, "X-Accel-Buffering"), "no");
    http_response_free(&r);
    uint64_t id = scripted_engine_request(f.engine, 0);
    for (uint32_t i = 0; i < 3; i++) {
        cmi_buf_clear(&c.in);
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
        assert_true(http_client_wait_for(&c, "\n\n"));
        assert_non_null(strstr(c.in.data, "data: {"));
    }
    scripted_engine_finish(f.engine, id, CMI_FINISH_LENGTH);
    assert_true(http_client_wait_for(&c, "data: [DONE]\n\n\r\n0\r\n\r\n"));
    http_client_request(&c, "GET", "/health", "", NULL);
    cmi_buf_clear(&c.in);
    r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    http_client_close(&c);
}

static void a_silent_stream_is_kept_open_by_comments(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    server_fixture_start(&f, &(cmi_server_options){.ping_interval_ns = 20000000}, NULL);
    http_client c;
    ask(&c, ASK_STREAM);
    assert_true(http_client_wait_for(&c, "8\r\n: ping\n\n\r\n8\r\n: ping\n\n\r\n"));
    uint64_t id = scripted_engine_request(f.engine, 0);
    say(id, 1);
    assert_true(http_client_wait_for(&c, "data: [DONE]\n\n"));
    http_client_close(&c);
}

static void a_client_that_leaves_is_cancelled_wherever_it_is(void **state)
{
    (void)state;
    static const char *const bodies[] = {ASK_COMPLETION, ASK_STREAM, ASK_COMPLETION_3,
                                         ASK_STREAM_3};
    uint32_t n = 0;
    for (size_t b = 0; b < CMI_LEN(bodies); b++) {
        for (int n_tokens = 0; n_tokens < 3; n_tokens++) { /* in the queue; in the answer */
            http_client c;
            ask(&c, bodies[b]);
            uint32_t n_choices = strstr(bodies[b], "\"n\":3") != NULL ? 3 : 1;
            uint64_t id = scripted_engine_request(f.engine, n + n_choices - 1);
            for (int i = 0; i < n_tokens; i++) {
                scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
            }
            if (n_tokens == 2 && strstr(bodies[b], "stream") != NULL) {
                assert_true(http_client_wait_for(&c, "data: {"));
            }
            http_client_close(&c);
            for (uint32_t k = 0; k < n_choices; k++) {
                scripted_engine_wait_cancelled(f.engine, scripted_engine_request(f.engine, n + k));
            }
            n += n_choices;
        }
    }
    assert_int_equal(scripted_engine_n_submitted(f.engine), n);
    scripted_engine_wait_idle(f.engine);
}

static void a_client_that_says_it_will_send_no_more_has_left(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, 0);
    shutdown(c.fd, SHUT_WR);
    scripted_engine_wait_cancelled(f.engine, id);
    http_client_wait_closed(&c);
    http_client_close(&c);
}

static void a_reset_connection_is_cancelled(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_COMPLETION);
    uint64_t id = scripted_engine_request(f.engine, 0);
    struct linger now = {.l_onoff = 1};
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    http_client_close(&c);
    scripted_engine_wait_cancelled(f.engine, id);
}

/* An engine that takes its time to cancel goes on sending tokens of a client that is long gone;
 * whoever gets its descriptor and its place in the table must not see them. */
static void late_events_reach_nobody(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    server_fixture_start(&f, NULL, &(scripted_engine_options){.ignores_cancel = true});
    uint64_t gone[8];
    for (uint32_t i = 0; i < CMI_LEN(gone); i++) {
        http_client c;
        ask(&c, i % 2 == 0 ? ASK_STREAM : ASK_COMPLETION);
        gone[i] = scripted_engine_request(f.engine, i);
        http_client_close(&c);
        scripted_engine_wait_cancelled(f.engine, gone[i]);
    }
    http_client c;
    ask(&c, ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, CMI_LEN(gone));
    for (uint32_t i = 0; i < CMI_LEN(gone); i++) {
        scripted_engine_token(f.engine, gone[i], SERVER_FIXTURE_TOKEN);
    }
    say(id, 1);
    for (uint32_t i = 0; i < CMI_LEN(gone); i++) {
        say(gone[i], 1);
    }
    http_response r = http_client_response(&c);
    assert_true(r.complete);
    assert_int_equal(count(r.body.data, "\"text\":\"J\""), 1);
    http_response_free(&r);
    http_client_close(&c);
    ask(&c, ASK_COMPLETION); /* the places are free again, under new numbers */
    id = scripted_engine_request(f.engine, CMI_LEN(gone) + 1);
    for (uint32_t i = 0; i < CMI_LEN(gone); i++) {
        assert_int_not_equal(id, gone[i]);
    }
    say(id, 1);
    r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    http_client_close(&c);
}

static void a_full_queue_is_429_and_cancels_what_was_taken(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    scripted_engine_options engine = {.info = {.vocab_size = 2048,
                                               .max_model_len = 2048,
                                               .max_queued_requests = 2,
                                               .n_kv_pages = 8,
                                               .kv_page_tokens = 64}};
    server_fixture_start(&f, NULL, &engine);
    static const char *const bodies[] = {ASK_COMPLETION_3, ASK_STREAM_3};
    for (uint32_t i = 0; i < CMI_LEN(bodies); i++) {
        http_client c;
        ask(&c, bodies[i]);
        http_response r = http_client_response(&c);
        assert_int_equal(r.status, 429);
        assert_string_equal(http_response_header(&r, "Retry-After"), "3"); /* of 2001 ms */
        assert_non_null(strstr(r.body.data, "\"type\":\"RateLimitError\""));
        http_response_free(&r);
        http_client_close(&c);
        scripted_engine_wait_idle(f.engine);
        assert_int_equal(scripted_engine_n_submitted(f.engine), 2 * (i + 1));
    }
}

/* The body is not even JSON: nobody has looked. */
static void a_full_queue_refuses_before_the_body_is_read(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    scripted_engine_options engine = {
        .info = {.vocab_size = 2048, .max_model_len = 2048, .max_queued_requests = 2},
        .refusal = {CMI_ADMISSION_QUEUED_TOKENS, 61000}};
    server_fixture_start(&f, NULL, &engine);
    enum { N_BODY = 1 << 20 };
    char *body = cmi_alloc(1, N_BODY + 1);
    memset(body, 'x', N_BODY);
    const char *const bodies[] = {ASK_COMPLETION, "no JSON", body};
    uint64_t n_tokens[CMI_LEN(bodies)];
    for (uint32_t i = 0; i < CMI_LEN(bodies); i++) {
        http_client c;
        ask(&c, bodies[i]);
        http_response r = http_client_response(&c);
        assert_int_equal(r.status, 429);
        assert_string_equal(http_response_header(&r, "Retry-After"), "61");
        n_tokens[i] = scripted_engine_n_tokens_min(f.engine);
        http_response_free(&r);
        http_client_close(&c);
    }
    assert_int_equal(n_tokens[0], 1);
    assert_int_equal(n_tokens[1], 1);
    assert_true(n_tokens[2] > 100 && n_tokens[2] <= N_BODY / 6);
    assert_int_equal(scripted_engine_n_submitted(f.engine), 0);
    cmi_free(body);
}

static void a_stop_string_ends_the_work_and_is_no_abort(void **state)
{
    (void)state;
    static const char *const bodies[] = {ASK_HEAD ",\"stop\":\"JJ\"}",
                                         ASK_HEAD ",\"stop\":\"JJ\",\"stream\":true}"};
    for (uint32_t i = 0; i < CMI_LEN(bodies); i++) {
        http_client c;
        ask(&c, bodies[i]);
        uint64_t id = scripted_engine_request(f.engine, i);
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
        scripted_engine_wait_cancelled(f.engine, id);
        http_response r = http_client_response(&c);
        assert_int_equal(r.status, 200);
        assert_non_null(strstr(r.body.data, "\"finish_reason\":\"stop\""));
        assert_null(strstr(r.body.data, "error"));
        http_response_free(&r);
        http_client_close(&c);
    }
    assert_true(server_fixture_metric(&f, "vllm:request_success_total{model_name=\"matrix-tiny\","
                                          "engine=\"0\",finished_reason=\"stop\"}") == 2);
}

static void an_engine_error_is_told_truthfully(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_COMPLETION_3);
    uint64_t id = scripted_engine_request(f.engine, 2);
    scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    scripted_engine_finish(f.engine, id, CMI_FINISH_ERROR);
    http_response r = http_client_response(&c);
    assert_true(r.status >= 500);
    assert_non_null(strstr(r.body.data, "{\"error\":{"));
    http_response_free(&r);
    http_client_close(&c);
    scripted_engine_wait_idle(f.engine); /* the other two were cancelled */

    ask(&c, ASK_STREAM);
    id = scripted_engine_request(f.engine, 3);
    scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    scripted_engine_finish(f.engine, id, CMI_FINISH_ERROR);
    r = http_client_response(&c);
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_non_null(strstr(r.body.data, "data: {\"error\":{"));
    assert_non_null(strstr(r.body.data, "data: [DONE]\n\n"));
    http_response_free(&r);
    http_client_close(&c);
}

static void a_client_that_does_not_read_is_cut_off_and_nobody_else(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    server_fixture_start(&f, &(cmi_server_options){.max_unsent_bytes = 100000}, NULL);
    http_client slow, other;
    http_client_connect_slow(&slow, f.port);
    http_client_request(&slow, "POST", "/v1/completions", "", ASK_STREAM);
    uint64_t slow_id = scripted_engine_request(f.engine, 0);
    ask(&other, ASK_STREAM);
    uint64_t other_id = scripted_engine_request(f.engine, 1);
    assert_true(http_client_wait_for(&other, "\r\n\r\n"));
    for (int i = 0; i < 200000; i++) { /* more than all buffers between the two hold */
        scripted_engine_token(f.engine, slow_id, SERVER_FIXTURE_TOKEN);
        if (i % 10000 == 0) {
            cmi_buf_clear(&other.in);
            scripted_engine_token(f.engine, other_id, SERVER_FIXTURE_TOKEN);
            assert_true(http_client_wait_for(&other, "data: {"));
        }
    }
    scripted_engine_wait_cancelled(f.engine, slow_id);
    say(other_id, 1);
    assert_true(http_client_wait_for(&other, "data: [DONE]\n\n"));
    http_client_close(&other);
    http_response r = http_client_response(&slow); /* now it reads, and learns why */
    assert_true(r.complete);
    assert_non_null(strstr(r.body.data, "data: {\"error\":{"));
    assert_non_null(strstr(r.body.data, "reads too slowly"));
    http_response_free(&r);
    http_client_close(&slow);
}

static void many_clients_wait_at_once(void **state)
{
    (void)state;
    enum { N = 200 };
    http_client c[N];
    for (uint32_t i = 0; i < N; i++) {
        ask(&c[i], i % 2 == 0 ? ASK_STREAM : ASK_COMPLETION);
    }
    scripted_engine_request(f.engine, N - 1);
    for (uint32_t i = 0; i < N; i += 5) {
        http_client_close(&c[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        say(scripted_engine_request(f.engine, i), 2);
    }
    for (uint32_t i = 0; i < N; i++) {
        if (i % 5 != 0) {
            http_response r = http_client_response(&c[i]);
            assert_int_equal(r.status, 200);
            assert_true(r.complete);
            http_response_free(&r);
            http_client_close(&c[i]);
        }
    }
}

static void stopping_ends_what_runs_with_an_error(void **state)
{
    (void)state;
    http_client stream, plain, idle;
    ask(&stream, ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, 0);
    ask(&plain, ASK_COMPLETION_3);
    scripted_engine_request(f.engine, 3);
    http_client_connect(&idle, f.port);
    scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    assert_true(http_client_wait_for(&stream, "data: {"));
    cmi_server_stop(f.server, 0);
    f.server = NULL;
    scripted_engine_wait_idle(f.engine);
    http_response r = http_client_response(&stream);
    assert_true(r.complete);
    assert_non_null(strstr(r.body.data, "data: {\"error\":{"));
    assert_non_null(strstr(r.body.data, "data: [DONE]\n\n"));
    http_response_free(&r);
    r = http_client_response(&plain);
    assert_int_equal(r.status, 503);
    http_response_free(&r);
    http_client_wait_closed(&idle);
    http_client_close(&stream);
    http_client_close(&plain);
    http_client_close(&idle);
}

static void *stop_in_background(void *arg)
{
    (void)arg;
    cmi_server_stop(f.server, 10 * NS_PER_S);
    return NULL;
}

static void stopping_lets_running_work_finish_and_takes_no_more(void **state)
{
    (void)state;
    http_client c;
    ask(&c, ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_in_background, NULL), 0);
    int status;
    do { /* until the other thread has begun */
        http_response r = http_ask(f.port, "GET", "/readiness", "", NULL);
        status = r.status;
        http_response_free(&r);
    } while (status == 200);
    assert_int_equal(status, 503);
    http_response r = http_ask(f.port, "POST", "/v1/completions", "", ASK_COMPLETION);
    assert_int_equal(r.status, 503);
    http_response_free(&r);
    say(id, 2);
    r = http_client_response(&c);
    assert_true(r.complete);
    assert_null(strstr(r.body.data, "error"));
    http_response_free(&r);
    pthread_join(thread, NULL);
    f.server = NULL;
    http_client_close(&c);
}

static void stopping_does_not_wait_for_a_client_that_does_not_read(void **state)
{
    (void)state;
    http_client slow;
    http_client_connect_slow(&slow, f.port);
    http_client_request(&slow, "POST", "/v1/completions", "", ASK_STREAM);
    uint64_t id = scripted_engine_request(f.engine, 0);
    for (int i = 0; i < 50000; i++) {
        scripted_engine_token(f.engine, id, SERVER_FIXTURE_TOKEN);
    }
    cmi_server_stop(f.server, 0);
    f.server = NULL;
    http_client_close(&slow);
}

/* An engine that never answers a cancel must not keep the server from stopping. */
static void stopping_does_not_wait_for_an_engine_that_hangs(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    server_fixture_start(&f, NULL, &(scripted_engine_options){.ignores_cancel = true});
    http_client c;
    ask(&c, ASK_COMPLETION);
    scripted_engine_request(f.engine, 0);
    cmi_server_stop(f.server, 0);
    f.server = NULL;
    http_response r = http_client_response(&c);
    assert_int_equal(r.status, 503);
    http_response_free(&r);
    http_client_close(&c);
}

/* Clients that do everything at random, at once. Whatever they do, nothing stays behind. */
typedef struct chaos_client {
    uint64_t seed;
    uint32_t n_done;
} chaos_client;

static uint32_t draw(const chaos_client *client, uint64_t counter, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(client->seed, counter, 0, words);
    return words[0] % n;
}

static void *chaos(void *arg)
{
    chaos_client *client = arg;
    static const char *const bodies[] = {ASK_COMPLETION, ASK_STREAM, ASK_COMPLETION_3, ASK_STREAM_3,
                                         "{\"broken\":"};
    for (uint64_t i = 0; i < 150; i++) {
        http_client c;
        http_client_connect(&c, f.port);
        uint32_t n_pipelined = 1 + draw(client, 8 * i, 3);
        for (uint32_t k = 0; k < n_pipelined; k++) {
            http_client_request(&c, "POST", "/v1/completions", "",
                                bodies[draw(client, 8 * i + 1 + k, CMI_LEN(bodies))]);
        }
        uint32_t n_read = draw(client, 8 * i + 5, 4); /* 3: all of them */
        for (uint32_t k = 0; k < CMI_MIN(n_read, n_pipelined); k++) {
            http_response r = http_client_response(&c);
            client->n_done += r.complete;
            http_response_free(&r);
        }
        if (draw(client, 8 * i + 6, 4) == 0) {
            shutdown(c.fd, SHUT_WR);
        }
        http_client_close(&c);
    }
    return NULL;
}

static void chaos_leaves_nothing_behind(void **state)
{
    (void)state;
    server_fixture_stop(&f);
    server_fixture_start(
        &f, &(cmi_server_options){.max_connections = 64},
        &(scripted_engine_options){.n_auto_tokens = 5, .auto_token_id = SERVER_FIXTURE_TOKEN});
    enum { N = 4 };
    chaos_client clients[N];
    pthread_t threads[N];
    for (uint32_t i = 0; i < N; i++) {
        clients[i] = (chaos_client){.seed = 1000 + i};
        assert_int_equal(pthread_create(&threads[i], NULL, chaos, &clients[i]), 0);
    }
    uint32_t n_done = 0;
    for (uint32_t i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        n_done += clients[i].n_done;
    }
    assert_true(n_done > 100);
    scripted_engine_wait_idle(f.engine);
    cmi_server_stop(f.server, 10 * NS_PER_S); /* aborts on an exchange that is not detached */
    f.server = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
        TEST(an_answer_comes_whole_with_its_last_token),
        TEST(a_stream_sends_its_head_at_once_and_each_token_when_it_is_there),
        TEST(a_silent_stream_is_kept_open_by_comments),
        TEST(a_client_that_leaves_is_cancelled_wherever_it_is),
        TEST(a_client_that_says_it_will_send_no_more_has_left),
        TEST(a_reset_connection_is_cancelled),
        TEST(late_events_reach_nobody),
        TEST(a_full_queue_is_429_and_cancels_what_was_taken),
        TEST(a_full_queue_refuses_before_the_body_is_read),
        TEST(a_stop_string_ends_the_work_and_is_no_abort),
        TEST(an_engine_error_is_told_truthfully),
        TEST(a_client_that_does_not_read_is_cut_off_and_nobody_else),
        TEST(many_clients_wait_at_once),
        TEST(stopping_ends_what_runs_with_an_error),
        TEST(stopping_lets_running_work_finish_and_takes_no_more),
        TEST(stopping_does_not_wait_for_a_client_that_does_not_read),
        TEST(stopping_does_not_wait_for_an_engine_that_hangs),
        TEST(chaos_leaves_nothing_behind),
#undef TEST
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
