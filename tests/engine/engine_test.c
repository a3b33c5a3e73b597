/* The engine as the server sees it: messages in, events out, exactly one end a request. */
#include "tests/test.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/engine.h"
#include "engine/instance.h"

static const uint32_t prompt[] = {0, 2038, 45, 67, 89, 10, 11, 12, 13, 2039};
enum { N_PROMPT = sizeof prompt / sizeof prompt[0], DEADLINE_MS = 60000 };

typedef struct fixture {
    cmi_instance *instance;
    cmi_engine *engine;
} fixture;

static int open_model(void **state)
{
    static fixture f;
    char dir[512];
    cmi_error err = {0};
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options options = {.model_dir = dir,
                                    .dtype = CMI_DTYPE_BF16,
                                    .isa = cmi_isa_best(cmi_cpu_flags()),
                                    .n_threads = 2,
                                    .max_num_batched_tokens = 4,
                                    .max_model_len = 256};
    *state = &f;
    return cmi_instance_open(&f.instance, &options, &err) == CMI_OK ? 0 : -1;
}

static int close_model(void **state)
{
    fixture *f = *state;
    cmi_instance_close(f->instance);
    return 0;
}

static void start(fixture *f, uint32_t max_queued, uint32_t n_events)
{
    cmi_engine_options opt = {.max_queued_requests = max_queued, .n_events = n_events};
    cmi_error err = {0};
    assert_int_equal(cmi_engine_start(&f->engine, f->instance, &opt, &err), CMI_OK);
}

static cmi_status submit_head(fixture *f, const cmi_request *head)
{
    cmi_error err = {0};
    cmi_request *request = cmi_request_create(head, prompt, N_PROMPT, NULL, 0, NULL, 0);
    cmi_status st = cmi_engine_submit(f->engine, request, &err);
    cmi_free(request);
    return st;
}

static cmi_status submit(fixture *f, uint64_t id, uint32_t max_tokens)
{
    cmi_request head = cmi_request_defaults();
    head.request_id = id;
    head.max_tokens = max_tokens;
    head.flags = CMI_REQUEST_IGNORE_EOS;
    return submit_head(f, &head);
}

/* Waits for the next event; fails the test at the deadline. */
static cmi_event next_event(fixture *f)
{
    cmi_event event;
    while (cmi_engine_poll(f->engine, &event, 1) == 0) {
        struct pollfd readable = {.fd = cmi_engine_event_fd(f->engine), .events = POLLIN};
        assert_int_equal(poll(&readable, 1, DEADLINE_MS), 1);
        uint64_t count;
        assert_int_equal(read(readable.fd, &count, sizeof count), sizeof count);
    }
    return event;
}

static cmi_event next_of_type(fixture *f, cmi_event_type type)
{
    for (;;) {
        cmi_event event = next_event(f);
        if (event.type == type) {
            return event;
        }
    }
}

static void requests_run_in_order_and_end_once(void **state)
{
    fixture *f = *state;
    start(f, 0, 0);
    for (uint64_t id = 1; id <= 5; id++) {
        assert_int_equal(submit(f, id, 8), CMI_OK);
    }
    for (uint64_t id = 1; id <= 5; id++) {
        for (uint32_t i = 0; i < 8; i++) {
            cmi_event token = next_event(f);
            assert_int_equal(token.type, CMI_EVENT_TOKEN);
            assert_int_equal(token.request_id, id);
            assert_int_equal(token.index, i);
            assert_true(isnan(token.logprob));
        }
        cmi_event end = next_event(f);
        assert_int_equal(end.type, CMI_EVENT_FINISHED);
        assert_int_equal(end.finish_reason, CMI_FINISH_LENGTH);
        assert_int_equal(end.n_prompt_tokens, N_PROMPT);
        assert_int_equal(end.n_output_tokens, 8);
        assert_true(end.submitted_ns <= end.started_ns && end.started_ns <= end.first_token_ns &&
                    end.first_token_ns <= end.now_ns);
    }
    cmi_engine_stats stats;
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_prompt_tokens, 5 * N_PROMPT);
    assert_int_equal(stats.n_generation_tokens, 5 * 8);
    /* chunks of 4, 4 and 2 rows; the first token comes from the last of them */
    assert_int_equal(stats.n_steps, 5 * (3 + 7));
    assert_int_equal(stats.n_step_tokens, 5 * (N_PROMPT + 7));
    assert_int_equal(stats.n_waiting, 0);
    assert_int_equal(stats.n_kv_pages_used, 0);
    cmi_engine_stop(f->engine);
}

static void the_full_queue_refuses_and_cancel_makes_room(void **state)
{
    fixture *f = *state;
    start(f, 2, 4); /* four events: the first request soon waits for its poller */
    assert_int_equal(submit(f, 1, 200), CMI_OK);
    assert_int_equal(next_event(f).request_id, 1); /* it runs, so the queue is empty */
    assert_int_equal(submit(f, 2, 200), CMI_OK);
    assert_int_equal(submit(f, 3, 2), CMI_OK);
    assert_int_equal(submit(f, 4, 200), CMI_ERR_NO_CAPACITY);
    cmi_engine_cancel(f->engine, 2);
    cmi_engine_cancel(f->engine, 1);
    cmi_engine_cancel(f->engine, 77);
    uint32_t n_ended[4] = {0};
    for (uint32_t n = 0; n < 3; n++) {
        cmi_event end = next_of_type(f, CMI_EVENT_FINISHED);
        assert_in_range(end.request_id, 1, 3);
        assert_int_equal(n_ended[end.request_id % 4]++, 0);
        assert_int_equal(end.finish_reason,
                         end.request_id == 3 ? CMI_FINISH_LENGTH : CMI_FINISH_ABORT);
        assert_true(end.n_output_tokens < 200);
    }
    cmi_engine_stop(f->engine);
}

static bool has_room(fixture *f, uint64_t n_prompt, cmi_admission_verdict *verdict_out)
{
    return cmi_engine_has_room(f->engine, &(cmi_admission_request){.n_prompt = n_prompt},
                               verdict_out);
}

static void waiting_tokens_are_bounded_too(void **state)
{
    fixture *f = *state;
    cmi_engine_options opt = {.max_queued_tokens = 3 * N_PROMPT - 1, .n_events = 4};
    cmi_error err = {0};
    assert_int_equal(cmi_engine_start(&f->engine, f->instance, &opt, &err), CMI_OK);
    cmi_admission_verdict verdict;
    assert_true(has_room(f, 1000000, &verdict)); /* alone */
    assert_int_equal(submit(f, 1, 200), CMI_OK);
    assert_int_equal(next_event(f).request_id, 1); /* it runs, so the queue is empty */
    assert_int_equal(submit(f, 2, 1), CMI_OK);
    assert_int_equal(submit(f, 3, 1), CMI_OK);
    assert_false(has_room(f, N_PROMPT, &verdict));
    assert_int_equal(verdict.reason, CMI_ADMISSION_QUEUED_TOKENS);
    assert_true(has_room(f, N_PROMPT - 1, &verdict));
    cmi_request head = cmi_request_defaults();
    cmi_request *request = cmi_request_create(&head, prompt, N_PROMPT, NULL, 0, NULL, 0);
    assert_int_equal(cmi_engine_offer(f->engine, request, &verdict, &err), CMI_ERR_NO_CAPACITY);
    assert_int_equal(verdict.reason, CMI_ADMISSION_QUEUED_TOKENS);
    assert_true(verdict.retry_after_ms > 0 && strstr(err.text, "20 prompt tokens") != NULL);
    cmi_free(request);
    cmi_engine_stats stats;
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_waiting_tokens, 2 * N_PROMPT);
    assert_int_equal(stats.n_refused[CMI_ADMISSION_QUEUED_TOKENS], 2);
    cmi_engine_cancel(f->engine, 1);
    for (uint32_t n = 0; n < 3; n++) {
        (void)next_of_type(f, CMI_EVENT_FINISHED);
    }
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_waiting_tokens, 0);
    cmi_engine_stop(f->engine);
}

static void stopping_ends_what_runs_and_waits(void **state)
{
    fixture *f = *state;
    start(f, 0, 0);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_int_equal(submit(f, id, 200), CMI_OK);
    }
    assert_int_equal(next_event(f).request_id, 1);
    cmi_engine_stop(
        f->engine); /* joins, and asserts that no page is leaked when the model closes */
}

static cmi_status offer(fixture *f, uint64_t id, uint32_t ttft_us, uint32_t tpot_us,
                        cmi_admission_verdict *verdict_out, cmi_error *err)
{
    cmi_request head = cmi_request_defaults();
    head.request_id = id;
    head.max_tokens = 2;
    head.flags = CMI_REQUEST_IGNORE_EOS;
    head.ttft_target_us = ttft_us;
    head.tpot_target_us = tpot_us;
    cmi_request *request = cmi_request_create(&head, prompt, N_PROMPT, NULL, 0, NULL, 0);
    cmi_status st = cmi_engine_offer(f->engine, request, verdict_out, err);
    cmi_free(request);
    return st;
}

/* For all made-up steps that there are, also where an emulator runs them: they end by themselves.
 */
enum { ENOUGH_PROBE_MS = 60000 };

/* Targets of 1 us no machine keeps, of an hour every one. */
static void targets_are_looked_at_when_durations_are_known(void **state)
{
    fixture *f = *state;
    const uint32_t hour = 3600000000u;
    cmi_engine_options opt = {.probe_ms = ENOUGH_PROBE_MS};
    cmi_admission_verdict v;
    cmi_error err = {0};
    start(f, 0, 0);
    assert_int_equal(offer(f, 1, 0, 1, &v, &err), CMI_OK);
    (void)next_of_type(f, CMI_EVENT_FINISHED);
    cmi_engine_stats stats;
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_tpot_targets, 1);
    assert_int_equal(stats.n_tpot_missed, 1);
    cmi_engine_stop(f->engine);

    assert_int_equal(cmi_engine_start(&f->engine, f->instance, &opt, &err), CMI_OK);
    assert_int_equal(offer(f, 1, 1, 0, &v, &err), CMI_ERR_NO_CAPACITY);
    assert_int_equal(v.reason, CMI_ADMISSION_TTFT);
    assert_non_null(strstr(err.text, "first token"));
    assert_int_equal(offer(f, 1, 0, 1, &v, &err), CMI_ERR_NO_CAPACITY);
    assert_int_equal(v.reason, CMI_ADMISSION_TPOT);
    assert_true(v.retry_after_ms > 0 && v.predicted_ns > 1000);
    assert_int_equal(offer(f, 1, hour, hour, &v, &err), CMI_OK);
    (void)next_of_type(f, CMI_EVENT_FINISHED);
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_refused[CMI_ADMISSION_TTFT], 1);
    assert_int_equal(stats.n_refused[CMI_ADMISSION_TPOT], 1);
    assert_int_equal(stats.n_ttft_targets + stats.n_tpot_targets, 2);
    assert_int_equal(stats.n_ttft_missed + stats.n_tpot_missed, 0);
    cmi_engine_stop(f->engine);
}

/* The ring of four events keeps the first request in its first steps until somebody polls. */
static void time_that_is_up_ends_a_request(void **state)
{
    fixture *f = *state;
    start(f, 0, 4);
    cmi_admission_verdict v;
    cmi_error err = {0};
    cmi_request head = cmi_request_defaults();
    head.request_id = 1;
    head.max_tokens = 200;
    head.flags = CMI_REQUEST_IGNORE_EOS;
    head.timeout_ms = 30;
    assert_int_equal(submit_head(f, &head), CMI_OK);
    head.request_id = 2; /* it never begins */
    head.timeout_ms = 1;
    assert_int_equal(submit_head(f, &head), CMI_OK);
    assert_int_equal(offer(f, 3, 1, 0, &v, &err), CMI_OK); /* twice 1 us is over soon */
    assert_int_equal(submit(f, 4, 2), CMI_OK);
    cmi_event ends[5] = {{0}};
    for (uint32_t n = 0; n < 4; n++) {
        cmi_event end = next_of_type(f, CMI_EVENT_FINISHED);
        assert_in_range(end.request_id, 1, 4);
        ends[end.request_id] = end;
    }
    for (uint32_t id = 1; id <= 2; id++) {
        assert_int_equal(ends[id].finish_reason, CMI_FINISH_ERROR);
        assert_int_equal(ends[id].status, CMI_ERR_TIMEOUT);
        assert_true(ends[id].n_output_tokens < 200);
    }
    assert_int_equal(ends[2].started_ns, 0);
    assert_int_equal(ends[3].finish_reason, CMI_FINISH_ERROR);
    assert_int_equal(ends[3].status, CMI_ERR_NO_CAPACITY);
    assert_int_equal(ends[3].started_ns, 0);
    assert_int_equal(ends[4].finish_reason, CMI_FINISH_LENGTH);
    cmi_engine_stats stats;
    cmi_engine_stats_get(f->engine, &stats);
    assert_int_equal(stats.n_timed_out, 2);
    assert_int_equal(stats.n_given_up, 1);
    assert_int_equal(stats.n_kv_pages_used, 0);
    cmi_engine_stop(f->engine);
}

/* The steps made up at the start change no answer, and leave no page behind. */
static void probing_changes_nothing_but_what_is_known(void **state)
{
    fixture *f = *state;
    uint32_t tokens[2][40];
    for (uint32_t with = 0; with < 2; with++) {
        cmi_engine_options opt = {.probe_ms = with * ENOUGH_PROBE_MS};
        cmi_error err = {0};
        assert_int_equal(cmi_engine_start(&f->engine, f->instance, &opt, &err), CMI_OK);
        cmi_engine_stats stats;
        cmi_engine_stats_get(f->engine, &stats);
        assert_int_equal(stats.n_steps, 0);
        assert_int_equal(stats.n_kv_pages_used, 0);
        assert_int_equal(submit(f, 1, 40), CMI_OK);
        for (uint32_t i = 0; i < 40; i++) {
            tokens[with][i] = next_of_type(f, CMI_EVENT_TOKEN).token_id;
        }
        (void)next_of_type(f, CMI_EVENT_FINISHED);
        cmi_engine_stats_get(f->engine, &stats);
        assert_true(stats.n_predicted_steps > 0 && stats.predicted_ns > 0 && stats.measured_ns > 0);
        assert_true(with == 0 || stats.n_predicted_steps == stats.n_steps);
        assert_true(with == 1 || stats.n_predicted_steps < stats.n_steps);
        cmi_engine_stop(f->engine);
    }
    assert_memory_equal(tokens[0], tokens[1], sizeof tokens[0]);
}

static void bad_requests_are_refused_at_the_door(void **state)
{
    fixture *f = *state;
    start(f, 0, 0);
    cmi_error err = {0};
    cmi_request head = cmi_request_defaults();
    uint32_t bad_id[] = {5, 2048};
    cmi_request *request = cmi_request_create(&head, bad_id, 2, NULL, 0, NULL, 0);
    assert_int_equal(cmi_engine_submit(f->engine, request, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "prompt token 1"));
    cmi_free(request);
    uint32_t many[256] = {0};
    request = cmi_request_create(&head, many, 256, NULL, 0, NULL, 0);
    assert_int_equal(cmi_engine_submit(f->engine, request, &err), CMI_ERR_INVALID);
    cmi_free(request);
    cmi_logit_bias bias = {4000, 1};
    request = cmi_request_create(&head, prompt, N_PROMPT, NULL, 0, &bias, 1);
    assert_int_equal(cmi_engine_submit(f->engine, request, &err), CMI_ERR_INVALID);
    cmi_free(request);
    cmi_engine_stop(f->engine);
}

static void logprobs_are_those_of_the_model(void **state)
{
    fixture *f = *state;
    start(f, 0, 0);
    cmi_request head = cmi_request_defaults();
    head.request_id = 9;
    head.max_tokens = 3;
    head.temperature = 0;
    head.n_top_logprobs = 5;
    head.flags = CMI_REQUEST_LOGPROBS | CMI_REQUEST_PROMPT_LOGPROBS | CMI_REQUEST_IGNORE_EOS;
    assert_int_equal(submit_head(f, &head), CMI_OK);
    for (uint32_t i = 0; i < N_PROMPT; i++) {
        cmi_event event = next_event(f);
        assert_int_equal(event.type, CMI_EVENT_PROMPT_TOKEN);
        assert_int_equal(event.index, i);
        assert_int_equal(event.token_id, prompt[i]);
        assert_int_equal(isnan(event.logprob) != 0, i == 0);
        assert_int_equal(event.n_top, i == 0 ? 0 : 5);
    }
    for (uint32_t i = 0; i < 3; i++) {
        cmi_event event = next_event(f);
        assert_int_equal(event.type, CMI_EVENT_TOKEN);
        assert_int_equal(event.top[0].token_id, event.token_id); /* greedy */
        assert_true(event.top[0].logprob == event.logprob && event.logprob <= 0);
        for (uint32_t k = 1; k < 5; k++) {
            assert_true(event.top[k].logprob <= event.top[k - 1].logprob);
        }
    }
    assert_int_equal(next_event(f).type, CMI_EVENT_FINISHED);
    cmi_engine_stop(f->engine);
}

static void end_tokens_wait_for_min_tokens_and_the_context_is_a_limit(void **state)
{
    fixture *f = *state;
    start(f, 0, 0);
    cmi_error err = {0};
    uint32_t stops[64];
    for (uint32_t i = 0; i < CMI_LEN(stops); i++) {
        stops[i] = i * 31;
    }
    cmi_request head = cmi_request_defaults();
    head.max_tokens = 10000;
    head.min_tokens = 5;
    head.temperature = 5;
    cmi_request *request = cmi_request_create(&head, prompt, N_PROMPT, stops, 64, NULL, 0);
    assert_int_equal(cmi_engine_submit(f->engine, request, &err), CMI_OK);
    cmi_free(request);
    cmi_event last = {0};
    cmi_event event = next_event(f);
    for (; event.type == CMI_EVENT_TOKEN; event = next_event(f)) {
        assert_true(event.finish_reason == CMI_FINISH_NONE || event.index >= 5);
        last = event;
    }
    if (event.finish_reason == CMI_FINISH_STOP) {
        assert_int_equal(event.stop_token_id, last.token_id);
        assert_int_equal(last.finish_reason, CMI_FINISH_STOP);
    } else {
        assert_int_equal(event.finish_reason, CMI_FINISH_LENGTH);
    }
    assert_int_equal(submit(f, 2, 10000), CMI_OK);
    event = next_of_type(f, CMI_EVENT_FINISHED);
    assert_int_equal(event.finish_reason, CMI_FINISH_LENGTH);
    assert_int_equal(event.n_prompt_tokens + event.n_output_tokens, 256);
    cmi_engine_stop(f->engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_run_in_order_and_end_once),
        cmocka_unit_test(the_full_queue_refuses_and_cancel_makes_room),
        cmocka_unit_test(waiting_tokens_are_bounded_too),
        cmocka_unit_test(stopping_ends_what_runs_and_waits),
        cmocka_unit_test(targets_are_looked_at_when_durations_are_known),
        cmocka_unit_test(time_that_is_up_ends_a_request),
        cmocka_unit_test(probing_changes_nothing_but_what_is_known),
        cmocka_unit_test(bad_requests_are_refused_at_the_door),
        cmocka_unit_test(logprobs_are_those_of_the_model),
        cmocka_unit_test(end_tokens_wait_for_min_tokens_and_the_context_is_a_limit),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
