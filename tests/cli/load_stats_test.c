#include "tests/test.h"

#include <math.h>

#include "base/alloc.h"
#include "cli/bench/load_random.h"
#include "cli/bench/load_stats.h"

enum { MS = 1000000 };

static void percentiles_interpolate_as_numpy_does(void **state)
{
    (void)state;
    const double one[] = {7};
    const double four[] = {1, 2, 4, 8};
    assert_true(cmi_load_percentile(NULL, 0, 50) == 0);
    assert_true(cmi_load_percentile(one, 1, 99) == 7);
    assert_true(cmi_load_percentile(four, 4, 0) == 1);
    assert_true(cmi_load_percentile(four, 4, 50) == 3);
    assert_true(cmi_load_percentile(four, 4, 100) == 8);
    assert_true(fabs(cmi_load_percentile(four, 4, 90) - 6.8) < 1e-12);
    assert_true(fabs(cmi_load_percentile(four, 4, 99) - 7.88) < 1e-12);
    assert_true(fabs(cmi_load_percentile(four, 4, 12.5) - 1.375) < 1e-12);
}

/* A completed request: sent at start, chunks at these milliseconds, so many tokens. */
static void complete(cmi_load_record *record, uint64_t start_ms, const uint64_t *chunk_ms,
                     uint32_t n_chunks, uint32_t tokens)
{
    *record = (cmi_load_record){.outcome = CMI_LOAD_COMPLETED,
                                .due_ns = start_ms * MS,
                                .start_ns = start_ms * MS,
                                .last_ns = chunk_ms[n_chunks - 1] * MS,
                                .n_chunks = n_chunks,
                                .has_usage = true,
                                .prompt_tokens = 10,
                                .output_tokens = tokens};
    record->chunk_ns = cmi_alloc(n_chunks, sizeof *record->chunk_ns);
    for (uint32_t i = 0; i < n_chunks; i++) {
        record->chunk_ns[i] = chunk_ms[i] * MS;
    }
}

typedef struct fixture {
    cmi_load_record records[6];
    cmi_load_summary summary;
} fixture;

/* Two completed requests, which overlap, and one of every other kind. */
static void summarize(fixture *f, const cmi_load_slo *slo)
{
    static const uint64_t first[] = {100, 110, 130, 160};
    static const uint64_t second[] = {1250, 1350};
    *f = (fixture){0};
    complete(&f->records[0], 0, first, 4, 7); /* several tokens a chunk */
    complete(&f->records[1], 50, second, 2, 2);
    f->records[2].outcome = CMI_LOAD_HTTP_ERROR;
    f->records[2].http_status = 429;
    f->records[2].has_retry_after = true;
    f->records[2].retry_after_s = 3;
    f->records[3].outcome = CMI_LOAD_TIMEOUT;
    f->records[4].outcome = CMI_LOAD_CANCELLED;
    cmi_load_summarize(&f->summary, f->records, CMI_LEN(f->records), slo, 2000 * (uint64_t)MS);
}

static void forget(fixture *f)
{
    for (size_t i = 0; i < CMI_LEN(f->records); i++) {
        cmi_load_record_deinit(&f->records[i]);
    }
    cmi_load_summary_deinit(&f->summary);
}

static void assert_near(double got, double want)
{
    if (!(fabs(got - want) < 1e-9)) {
        fail_msg("%g, not %g", got, want);
    }
}

static void the_metrics_are_those_of_vllm(void **state)
{
    (void)state;
    fixture f;
    summarize(&f, &(cmi_load_slo){0});
    const cmi_load_values *m = f.summary.metrics;
    assert_int_equal(m[CMI_LOAD_TTFT].n, 2);
    assert_near(m[CMI_LOAD_TTFT].sorted[0], 100);
    assert_near(m[CMI_LOAD_TTFT].sorted[1], 1200);
    assert_near(m[CMI_LOAD_TTFT].mean, 650);
    assert_near(m[CMI_LOAD_TTFT].std, 550);
    assert_near(m[CMI_LOAD_TPOT].sorted[0], 10); /* (160 - 100) / 6 */
    assert_near(m[CMI_LOAD_TPOT].sorted[1], 100);
    assert_int_equal(m[CMI_LOAD_ITL].n, 4);
    assert_near(m[CMI_LOAD_ITL].sorted[0], 10);
    assert_near(m[CMI_LOAD_ITL].sorted[3], 100);
    assert_near(m[CMI_LOAD_E2EL].sorted[0], 160);
    assert_near(m[CMI_LOAD_E2EL].sorted[1], 1300);
    assert_int_equal(f.summary.input_tokens, 20);
    assert_int_equal(f.summary.output_tokens, 9);
    assert_int_equal(f.summary.n_chunks, 6);
    assert_near(f.summary.max_output_tokens_per_s, 4);
    assert_int_equal(f.summary.max_concurrent, 2);
    forget(&f);
}

static void what_failed_is_counted_by_reason(void **state)
{
    (void)state;
    fixture f;
    summarize(&f, &(cmi_load_slo){0});
    const cmi_load_summary *s = &f.summary;
    assert_int_equal(s->completed, 2);
    assert_int_equal(s->failed, 2);
    assert_int_equal(s->cancelled, 1);
    assert_int_equal(s->not_started, 1);
    assert_int_equal(s->rejected, 1);
    assert_int_equal(s->n_retry_after, 1);
    assert_int_equal(s->max_retry_after_s, 3);
    assert_int_equal(s->n_reasons, 2);
    assert_string_equal(s->reasons[0].name, "http_429");
    assert_string_equal(s->reasons[1].name, "timeout");
    forget(&f);
}

static size_t good_with(const char *limits)
{
    fixture f;
    cmi_load_slo slo = {0};
    assert_int_equal(cmi_load_slo_parse(&slo, limits, NULL), CMI_OK);
    summarize(&f, &slo);
    size_t n_good = f.summary.n_good;
    forget(&f);
    return n_good;
}

static void goodput_counts_requests_within_all_limits(void **state)
{
    (void)state;
    assert_int_equal(good_with("ttft:1200"), 2);
    assert_int_equal(good_with("ttft:1199"), 1);
    assert_int_equal(good_with("tpot:99,ttft:5000"), 1);
    assert_int_equal(good_with("e2el:160"), 1);
    assert_int_equal(good_with("e2el:159.5"), 0);
    cmi_load_slo slo = {0};
    static const char *const wrong[] = {"",      "ttft",    "ttft:",   "ttft:x",
                                        "itl:1", "ttft:-1", "ttft:1,", "ttft:nan"};
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        assert_int_equal(cmi_load_slo_parse(&slo, wrong[i], NULL), CMI_ERR_INVALID);
    }
}

static void a_run_without_answers_has_a_summary(void **state)
{
    (void)state;
    cmi_load_record records[2] = {{.outcome = CMI_LOAD_CONNECTION}, {0}};
    cmi_load_summary summary;
    cmi_load_summarize(&summary, records, 2, &(cmi_load_slo){0}, 0);
    assert_int_equal(summary.completed, 0);
    assert_int_equal(summary.max_concurrent, 0);
    assert_near(summary.metrics[CMI_LOAD_TTFT].mean, 0);
    cmi_load_summary_deinit(&summary);
    cmi_load_summarize(&summary, NULL, 0, &(cmi_load_slo){0}, 0);
    cmi_load_summary_deinit(&summary);
}

static void a_timeline_adds_up(void **state)
{
    (void)state;
    fixture f;
    cmi_load_timeline timeline;
    summarize(&f, &(cmi_load_slo){0});
    cmi_load_timeline_init(&timeline, f.records, CMI_LEN(f.records), 0.1, 1.4);
    double tokens = 0;
    double running_s = 0;
    for (size_t i = 0; i < timeline.n_bins; i++) {
        tokens += timeline.tokens[i];
        running_s += timeline.running[i] * timeline.bin_s;
    }
    assert_near(tokens, 9);
    assert_near(running_s, 0.160 + 1.300);
    assert_near(timeline.running[0], 1.5);
    cmi_load_timeline_deinit(&timeline);
    forget(&f);
}

/* Mean and spread of the gaps between n arrivals. */
static void measure_gaps(double burstiness, double *mean_out, double *variation_out)
{
    enum { N = 20000 };
    static uint64_t at[N];
    const uint64_t seed = 5;
    cmi_load_arrivals(at, N, 100, burstiness, seed);
    double sum = 0;
    double squares = 0;
    for (size_t i = 1; i < N; i++) {
        assert_true(at[i] >= at[i - 1]);
        double gap = (double)(at[i] - at[i - 1]) * 1e-9;
        sum += gap;
        squares += gap * gap;
    }
    double mean = sum / (N - 1);
    *mean_out = mean;
    *variation_out = sqrt(squares / (N - 1) - mean * mean) / mean;
}

static void arrivals_have_the_rate_and_the_burstiness(void **state)
{
    (void)state;
    static const double shapes[] = {0.25, 1, 4, 100};
    for (size_t i = 0; i < CMI_LEN(shapes); i++) {
        double mean, variation;
        measure_gaps(shapes[i], &mean, &variation);
        assert_true(fabs(mean / 0.01 - 1) < 0.01);
        assert_true(fabs(variation * sqrt(shapes[i]) - 1) < 0.04); /* 1 / sqrt(shape) */
    }
    uint64_t at[4];
    cmi_load_arrivals(at, 4, 10, INFINITY, 0);
    assert_int_equal(at[0], 100 * MS);
    assert_int_equal(at[3], 400 * MS);
    cmi_load_arrivals(at, 4, INFINITY, 1, 0);
    assert_int_equal(at[3], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_interpolate_as_numpy_does),
        cmocka_unit_test(the_metrics_are_those_of_vllm),
        cmocka_unit_test(what_failed_is_counted_by_reason),
        cmocka_unit_test(goodput_counts_requests_within_all_limits),
        cmocka_unit_test(a_run_without_answers_has_a_summary),
        cmocka_unit_test(a_timeline_adds_up),
        cmocka_unit_test(arrivals_have_the_rate_and_the_burstiness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
