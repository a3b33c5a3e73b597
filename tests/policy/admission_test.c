/* Who is refused, and for how long. */
#include "tests/test.h"

#include "base/rng.h"
#include "policy/admission.h"

static void a_full_queue_refuses(void **state)
{
    (void)state;
    cmi_admission_queue q = {.max_requests = 2};
    assert_int_equal(cmi_admission_check_queue(&q, 1).reason, CMI_ADMISSION_OK);
    q.n_requests = 1;
    q.n_tokens = UINT64_MAX;
    assert_int_equal(cmi_admission_check_queue(&q, UINT64_MAX).reason, CMI_ADMISSION_OK);
    q.n_requests = 2;
    cmi_admission_verdict v = cmi_admission_check_queue(&q, 1);
    assert_int_equal(v.reason, CMI_ADMISSION_QUEUED_REQUESTS);
    assert_true(v.retry_after_ms > 0);
}

static void tokens_are_a_bound_of_their_own(void **state)
{
    (void)state;
    cmi_admission_queue q = {.max_requests = 9, .max_tokens = 100};
    assert_int_equal(cmi_admission_check_queue(&q, 1000).reason, CMI_ADMISSION_OK); /* alone */
    q.n_requests = 1;
    q.n_tokens = 60;
    assert_int_equal(cmi_admission_check_queue(&q, 40).reason, CMI_ADMISSION_OK);
    assert_int_equal(cmi_admission_check_queue(&q, 41).reason, CMI_ADMISSION_QUEUED_TOKENS);
    assert_int_equal(cmi_admission_check_queue(&q, UINT64_MAX).reason, CMI_ADMISSION_QUEUED_TOKENS);
    q.n_tokens = 1000; /* the one that came alone */
    assert_int_equal(cmi_admission_check_queue(&q, 0).reason, CMI_ADMISSION_QUEUED_TOKENS);
    q.n_requests = 9;
    assert_int_equal(cmi_admission_check_queue(&q, 0).reason, CMI_ADMISSION_QUEUED_REQUESTS);
}

#define MS UINT64_C(1000000)

/* Steps take 10 ms, 1 ms a decode row, 0.25 ms a prefill row. */
static cmi_admission_load idle(void)
{
    return (cmi_admission_load){.is_known = true,
                                .rates = {.term_ns = {10e6, 0, 64e6, 64e6}, .idle_share = 1},
                                .factor = 1,
                                .limit_ns = CMI_ADMISSION_NO_LIMIT,
                                .tokens_per_step = 1,
                                .max_running = 64,
                                .max_prefill_rows = 256,
                                .max_rows = 2048,
                                .computed_share = 1,
                                .mean_output = 100};
}

static cmi_admission_load running(uint32_t n, double limit_ms)
{
    cmi_admission_load load = idle();
    load.n_running = n;
    load.limit_ns = limit_ms > 0 ? limit_ms * 1e6 : CMI_ADMISSION_NO_LIMIT;
    load.steady =
        (cmi_step_shape){.n_decode_rows = n, .n_head_rows = n, .decode_context = n * 100u};
    return load;
}

static cmi_admission_verdict decide(const cmi_admission_load *load, uint32_t n_waiting,
                                    uint64_t n_tokens, uint64_t n_prompt, uint64_t ttft_ms,
                                    uint64_t tpot_ms)
{
    cmi_admission_queue q = {.n_requests = n_waiting, .max_requests = 1000, .n_tokens = n_tokens};
    cmi_admission_request r = {
        .n_prompt = n_prompt, .max_tokens = 500, .ttft_ns = ttft_ms * MS, .tpot_ns = tpot_ms * MS};
    return cmi_admission_decide(load, &q, &r);
}

static void without_targets_or_knowledge_nobody_is_refused(void **state)
{
    (void)state;
    cmi_admission_load load = running(64, 0);
    assert_int_equal(decide(&load, 900, 1000000, 100000, 0, 0).reason, CMI_ADMISSION_OK);
    load = running(64, 1); /* others have targets */
    assert_int_equal(decide(&load, 900, 1000000, 100000, 0, 0).reason, CMI_ADMISSION_OK);
    load.is_known = false;
    assert_int_equal(decide(&load, 900, 1000000, 100000, 1, 1).reason, CMI_ADMISSION_OK);
}

static void the_first_token_is_predicted(void **state)
{
    (void)state;
    /* alone: steps of 2048 rows in 522 ms */
    cmi_admission_load load = idle();
    assert_int_equal(decide(&load, 0, 0, 2048, 523, 0).reason, CMI_ADMISSION_OK);
    cmi_admission_verdict v = decide(&load, 0, 0, 2048, 521, 0);
    assert_int_equal(v.reason, CMI_ADMISSION_TTFT);
    assert_int_equal(v.predicted_ns / MS, 522);
    assert_int_equal(v.retry_after_ms, 2);
    /* behind 20480 tokens: ten times as long before it begins */
    assert_int_equal(decide(&load, 10, 20480, 2048, 11 * 522 + 1, 0).reason, CMI_ADMISSION_OK);
    v = decide(&load, 10, 20480, 2048, 522, 0);
    assert_int_equal(v.reason, CMI_ADMISSION_TTFT);
    assert_in_range(v.retry_after_ms, 5219, 5222);
    load.n_prefill_tokens = 2048;
    v = decide(&load, 0, 0, 2048, 600, 0);
    assert_in_range(v.predicted_ns / MS, 1043, 1045);
    load.computed_share = 0.5; /* half of what waits, and of its own, is in the cache */
    assert_in_range(decide(&load, 0, 0, 2048, 1, 0).predicted_ns / MS, 1043, 1045);
    load.n_prefill_tokens = 0;
    assert_in_range(decide(&load, 1, 4096, 4096, 1, 0).predicted_ns / MS, 1043, 1045);
    load.factor = 2;
    assert_in_range(decide(&load, 1, 4096, 4096, 1, 0).predicted_ns / MS, 2086, 2090);
}

static void time_that_is_used_up_counts(void **state)
{
    (void)state;
    cmi_admission_load load = idle();
    cmi_admission_queue q = {.max_requests = 2};
    cmi_admission_request r = {.n_prompt = 2048, .ttft_ns = 600 * MS, .age_ns = 70 * MS};
    assert_int_equal(cmi_admission_decide(&load, &q, &r).reason, CMI_ADMISSION_OK);
    r.age_ns = 90 * MS;
    assert_int_equal(cmi_admission_decide(&load, &q, &r).reason, CMI_ADMISSION_TTFT);
}

/* Ten decode with 25 ms between tokens: 20 rows of a prompt fit a step. */
static void prompts_go_slower_beside_targets(void **state)
{
    (void)state;
    cmi_admission_load load = running(10, 0);
    uint64_t free_ns = decide(&load, 0, 0, 2000, 1, 0).predicted_ns;
    assert_in_range(free_ns / MS, 655, 657); /* 256 rows in 84 ms */
    load = running(10, 25);
    assert_in_range(decide(&load, 0, 0, 2000, 1, 0).predicted_ns / MS, 2499, 2501);
    load = running(10, 5); /* nothing fits: one row a step */
    assert_true(decide(&load, 0, 0, 2000, 1, 0).predicted_ns / MS > 20000);
}

static void a_seat_by_the_tightest_target_or_none(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 30; n++) {
        cmi_admission_load load = running(n, 0);
        cmi_admission_verdict v = decide(&load, 0, 0, 100, 0, 20);
        assert_int_equal(v.reason, n < 10 ? CMI_ADMISSION_OK : CMI_ADMISSION_TPOT);
        v = decide(&load, 3, 300, 100, 0, 20);
        assert_int_equal(v.reason, n < 7 ? CMI_ADMISSION_OK : CMI_ADMISSION_TPOT);
        load = running(n, 20); /* those that run want it */
        v = decide(&load, 0, 0, 100, 0, 1000);
        assert_int_equal(v.reason, n < 10 ? CMI_ADMISSION_OK : CMI_ADMISSION_TPOT);
        load.tokens_per_step = 2; /* the limit is of a step already; its own is of a token */
        v = decide(&load, 0, 0, 100, 0, 7);
        assert_int_equal(v.reason, n < 4 ? CMI_ADMISSION_OK : CMI_ADMISSION_TPOT);
    }
    cmi_admission_load load = running(10, 20);
    cmi_admission_verdict v = decide(&load, 0, 0, 100, 0, 20);
    /* one of ten ends every tenth of a hundred steps of 20 ms */
    assert_in_range(v.retry_after_ms, 199, 202);
    assert_int_equal(v.predicted_ns / MS, 21);
    assert_in_range(decide(&load, 4, 40, 100, 0, 20).retry_after_ms, 999, 1002);
    load = running(64, 0);
    assert_int_equal(decide(&load, 5, 50, 100, 0, 5000).reason, CMI_ADMISSION_OK);
}

/* With both targets it may wait for a seat, as long as the first token is in time. */
static void waiting_for_a_seat_counts_for_the_first_token(void **state)
{
    (void)state;
    cmi_admission_load load = running(10, 20);
    load.limit_ns = 20.01e6;
    assert_int_equal(decide(&load, 0, 0, 1, 400, 20).reason, CMI_ADMISSION_OK);
    cmi_admission_verdict v = decide(&load, 3, 3, 1, 400, 20);
    assert_int_equal(v.reason, CMI_ADMISSION_TTFT);
    assert_in_range(v.predicted_ns / MS, 800, 900);
}

static void a_target_that_nobody_could_keep_is_told_so(void **state)
{
    (void)state;
    cmi_admission_load load = idle();
    cmi_admission_verdict v = decide(&load, 0, 0, 100, 0, 10);
    assert_int_equal(v.reason, CMI_ADMISSION_TPOT);
    assert_int_equal(v.predicted_ns / MS, 11);
    assert_int_equal(v.retry_after_ms, CMI_ADMISSION_RETRY_MAX_MS);
    assert_int_equal(decide(&load, 0, 0, 100, 0, 12).reason, CMI_ADMISSION_OK);
}

static void requests_expire(void **state)
{
    (void)state;
    static const struct {
        uint64_t arrived, timeout, ttft;
        bool has_begun;
        uint64_t at;
        bool is_timeout;
    } cases[] = {
        {1000, 0, 0, false, UINT64_MAX, true},
        {1000, 500, 0, false, 1500, true},
        {1000, 500, 0, true, 1500, true},
        {1000, 500, 100, false, 1200, false},
        {1000, 500, 100, true, 1500, true},
        {1000, 100, 100, false, 1100, true},
        {1000, 0, 100, false, 1200, false},
        {1000, 0, 100, true, UINT64_MAX, true},
        {1000, UINT64_MAX, 0, false, UINT64_MAX, true},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_expiry e = cmi_admission_expiry(cases[i].arrived, cases[i].timeout, cases[i].ttft,
                                            cases[i].has_begun);
        assert_int_equal(e.at_ns, cases[i].at);
        assert_int_equal(e.is_timeout, cases[i].is_timeout);
    }
}

static uint64_t draw(uint64_t seed, uint64_t *n, uint64_t max)
{
    uint32_t w[4];
    cmi_philox4x32(seed, (*n)++, 0, w);
    return (((uint64_t)w[0] << 32 | w[1]) >> w[2] % 60) & (max - 1);
}

/* More ahead, or a tighter target, never turns a no into a yes; times to come back are bounded. */
static void more_load_never_admits_more(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        uint64_t n = 0;
        cmi_admission_load load = running((uint32_t)draw(seed, &n, 64), 0);
        load.limit_ns =
            draw(seed, &n, 2) == 0 ? load.limit_ns : 1.0 + (double)draw(seed, &n, 1 << 30);
        load.mean_output = (double)draw(seed, &n, 1024);
        cmi_admission_queue q = {.n_requests = (uint32_t)draw(seed, &n, 128),
                                 .max_requests = 1 + (uint32_t)draw(seed, &n, 128),
                                 .n_tokens = draw(seed, &n, 1 << 30),
                                 .max_tokens = draw(seed, &n, 1 << 30)};
        cmi_admission_request r = {.n_prompt = 1 + draw(seed, &n, 1 << 20),
                                   .max_tokens = 1 + (uint32_t)draw(seed, &n, 1 << 16),
                                   .ttft_ns = draw(seed, &n, UINT64_C(1) << 40),
                                   .tpot_ns = draw(seed, &n, UINT64_C(1) << 32)};
        cmi_admission_verdict v = cmi_admission_decide(&load, &q, &r);
        bool is_ok = v.reason == CMI_ADMISSION_OK;
        assert_int_equal(v.retry_after_ms == 0, is_ok);
        assert_true(v.retry_after_ms <= CMI_ADMISSION_RETRY_MAX_MS);
        q.n_requests += (uint32_t)draw(seed, &n, 8);
        q.n_tokens += draw(seed, &n, 1 << 20);
        r.ttft_ns -= r.ttft_ns > 1 ? draw(seed, &n, 2) * (r.ttft_ns / 2) : 0;
        r.n_prompt += draw(seed, &n, 1 << 10);
        assert_true(is_ok || cmi_admission_decide(&load, &q, &r).reason != CMI_ADMISSION_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(tokens_are_a_bound_of_their_own),
        cmocka_unit_test(without_targets_or_knowledge_nobody_is_refused),
        cmocka_unit_test(the_first_token_is_predicted),
        cmocka_unit_test(time_that_is_used_up_counts),
        cmocka_unit_test(prompts_go_slower_beside_targets),
        cmocka_unit_test(a_seat_by_the_tightest_target_or_none),
        cmocka_unit_test(waiting_for_a_seat_counts_for_the_first_token),
        cmocka_unit_test(a_target_that_nobody_could_keep_is_told_so),
        cmocka_unit_test(requests_expire),
        cmocka_unit_test(more_load_never_admits_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
