#include "tests/test.h"

#include "tests/server/server_fixture.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "os/clock.h"
#include "server/metrics.h"

/* A checked scrape: format 0.0.4, read by the letter. */
typedef struct sample {
    char name[96], labels[256]; /* labels without the one that is taken out, le */
    double le, value;           /* le: NAN when there is none */
} sample;

typedef struct family {
    char name[96], type[16];
    sample samples[64];
    size_t n_samples;
} family;

typedef struct scrape {
    family families[64];
    size_t n_families;
} scrape;

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool letter = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || s[i] == '_' ||
                      s[i] == ':';
        if (!letter && (i == 0 || s[i] < '0' || s[i] > '9')) {
            return false;
        }
    }
    return n > 0;
}

static double number(const char *s)
{
    char *end;
    double x = strcmp(s, "+Inf") == 0 ? INFINITY : strtod(s, &end);
    assert_true(isinf(x) || (end != s && *end == '\0'));
    return x;
}

/* One `key="value"` and what is behind it; le goes to s->le, the others to s->labels. */
static const char *parse_label(const char *at, sample *s)
{
    const char *eq = strchr(at, '=');
    assert_non_null(eq);
    assert_true(is_name(at, (size_t)(eq - at)));
    assert_int_equal(eq[1], '"');
    char value[200];
    size_t n = 0;
    const char *p = eq + 2;
    for (; *p != '"'; p++) {
        assert_true(*p != '\0' && *p != '\n');
        if (*p == '\\') {
            p++;
            assert_true(*p == '\\' || *p == '"' || *p == 'n');
        }
        value[n++] = *p;
        assert_true(n < sizeof value);
    }
    value[n] = '\0';
    if (eq - at == 2 && memcmp(at, "le", 2) == 0) {
        s->le = number(value);
    } else {
        size_t used = strlen(s->labels);
        snprintf(s->labels + used, sizeof s->labels - used, "%.*s=%s;", (int)(eq - at), at, value);
    }
    return p + 1;
}

static sample parse_sample(const char *line)
{
    sample s = {.le = NAN};
    size_t n = strcspn(line, "{ ");
    assert_true(is_name(line, n));
    memcpy(s.name, line, n);
    const char *at = line + n;
    if (*at == '{') {
        do {
            at = parse_label(at + 1, &s);
        } while (*at == ',');
        assert_int_equal(*at++, '}');
    }
    assert_int_equal(*at++, ' ');
    s.value = number(at);
    return s;
}

static void parse_line(scrape *s, const char *line)
{
    family *last = s->n_families == 0 ? NULL : &s->families[s->n_families - 1];
    if (strncmp(line, "# HELP ", 7) == 0) {
        family *f = &s->families[s->n_families++];
        assert_true(s->n_families <= CMI_LEN(s->families));
        size_t n = strcspn(line + 7, " ");
        memcpy(f->name, line + 7, n);
        for (size_t i = 0; i + 1 < s->n_families; i++) {
            assert_string_not_equal(s->families[i].name, f->name);
        }
    } else if (strncmp(line, "# TYPE ", 7) == 0) {
        char name[96];
        assert_int_equal(sscanf(line + 7, "%95s %15s", name, last->type), 2);
        assert_string_equal(name, last->name);
    } else {
        sample got = parse_sample(line);
        assert_memory_equal(got.name, last->name, strlen(last->name));
        const char *suffix = got.name + strlen(last->name);
        bool is_histogram = strcmp(last->type, "histogram") == 0;
        assert_true(is_histogram ? strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 ||
                                       strcmp(suffix, "_count") == 0
                                 : *suffix == '\0');
        assert_true(isnan(got.le) == (strcmp(suffix, "_bucket") != 0));
        for (size_t i = 0; i < last->n_samples; i++) { /* no series twice */
            const sample *other = &last->samples[i];
            assert_true(strcmp(other->name, got.name) != 0 ||
                        strcmp(other->labels, got.labels) != 0 || other->le != got.le);
        }
        assert_true(last->n_samples < CMI_LEN(last->samples));
        last->samples[last->n_samples++] = got;
    }
}

static scrape *parse(const char *text)
{
    scrape *s = cmi_alloc(1, sizeof *s);
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        assert_int_equal(text[n], '\n'); /* the last line ends too */
        char *line = cmi_strndup(text, n);
        parse_line(s, line);
        cmi_free(line);
        text += n + 1;
    }
    return s;
}

/* Buckets ascend in le and never fall in value; +Inf is the count; no negative sum. */
static void check_histogram(const family *f)
{
    double last_le = -INFINITY;
    double last = 0;
    size_t i = 0;
    for (; i < f->n_samples && !isnan(f->samples[i].le); i++) {
        assert_true(f->samples[i].le > last_le);
        assert_true(f->samples[i].value >= last);
        last_le = f->samples[i].le;
        last = f->samples[i].value;
    }
    assert_true(isinf(last_le));
    assert_int_equal(i + 2, f->n_samples);
    assert_string_equal(f->samples[i].name + strlen(f->name), "_sum");
    assert_true(f->samples[i].value >= 0);
    assert_string_equal(f->samples[i + 1].name + strlen(f->name), "_count");
    assert_true(f->samples[i + 1].value == last);
}

static const family *find(const scrape *s, const char *name)
{
    for (size_t i = 0; i < s->n_families; i++) {
        if (strcmp(s->families[i].name, name) == 0) {
            return &s->families[i];
        }
    }
    fail_msg("no metric %s", name);
    return NULL;
}

static void observations_fall_into_their_buckets(void **state)
{
    (void)state;
    cmi_metrics m;
    cmi_metrics_init(&m, "x");
    cmi_metrics_observe(&m, CMI_HISTOGRAM_TTFT, 1000000);          /* on the first bound */
    cmi_metrics_observe(&m, CMI_HISTOGRAM_TTFT, 1000001);          /* just over it */
    cmi_metrics_observe(&m, CMI_HISTOGRAM_TTFT, 3000000000000000); /* over all */
    cmi_buf out;
    cmi_buf_init(&out, 1 << 20);
    cmi_metrics_write(&m, NULL, NULL, &out);
    scrape *s = parse(out.data);
    const family *f = find(s, "vllm:time_to_first_token_seconds");
    check_histogram(f);
    assert_true(f->samples[0].le == 0.001 && f->samples[0].value == 1);
    assert_true(f->samples[1].le == 0.005 && f->samples[1].value == 2);
    assert_true(f->samples[21].le == 2560 && f->samples[21].value == 2);
    assert_true(isinf(f->samples[22].le) && f->samples[22].value == 3);
    assert_non_null(strstr(out.data, "_sum{model_name=\"x\",engine=\"0\"} 3000000.002000001\n"));
    cmi_free(s);
    cmi_buf_deinit(&out);
}

static void label_values_are_escaped(void **state)
{
    (void)state;
    cmi_metrics m;
    cmi_metrics_init(&m, "a\"b\\c\nd");
    cmi_buf out;
    cmi_buf_init(&out, 1 << 20);
    cmi_metrics_write(&m, NULL, NULL, &out);
    assert_non_null(strstr(out.data, "model_name=\"a\\\"b\\\\c\\nd\",engine"));
    cmi_free(parse(out.data));
    cmi_buf_deinit(&out);
}

static void finish(server_fixture *f, uint32_t k, cmi_finish_reason reason)
{
    uint64_t id = scripted_engine_request(f->engine, k);
    scripted_engine_token(f->engine, id, SERVER_FIXTURE_TOKEN);
    scripted_engine_token(f->engine, id, SERVER_FIXTURE_TOKEN);
    scripted_engine_finish(f->engine, id, reason);
}

/* The sum of the samples whose labels hold this. */
static double total(const family *f, const char *label)
{
    double sum = 0;
    for (size_t i = 0; i < f->n_samples; i++) {
        sum += strstr(f->samples[i].labels, label) != NULL ? f->samples[i].value : 0;
    }
    return sum;
}

static void expect(const scrape *s, const char *name, const char *label, double value)
{
    assert_true(total(find(s, name), label) == value);
}

static void ranks_are_told_apart(void **state)
{
    (void)state;
    const cmi_engine_rank ranks[] = {{.is_up = 1,
                                      .n_passes = 30,
                                      .passes_ns = 3000000000,
                                      .waited_ns = 500000000,
                                      .n_expert_rows = 70,
                                      .n_windows = 2,
                                      .n_plans = 1,
                                      .n_moves = 4,
                                      .imbalance = 1.75,
                                      .planned = 1.5},
                                     {.n_passes = 50,
                                      .passes_ns = 4000000000,
                                      .waited_ns = 2500000000,
                                      .n_expert_rows = 90,
                                      .n_adopted = 3,
                                      .n_windows = 5,
                                      .n_plans = 3,
                                      .n_moves = 2,
                                      .imbalance = 1.25,
                                      .planned = 1.125}};
    cmi_metrics m;
    cmi_buf out;
    cmi_metrics_init(&m, "x");
    cmi_buf_init(&out, 1 << 20);
    cmi_metrics_write_ranks(&m, ranks, CMI_LEN(ranks), &out);
    scrape *s = parse(out.data);
    expect(s, "cminfer:rank_up", "rank=0;", 1);
    expect(s, "cminfer:rank_up", "rank=1;", 0);
    expect(s, "cminfer:rank_passes_total", "rank=1;", 50);
    expect(s, "cminfer:rank_pass_seconds_total", "rank=0;", 3);
    expect(s, "cminfer:rank_wait_seconds_total", "rank=1;", 2.5);
    expect(s, "cminfer:rank_expert_rows_total", "rank=", 160);
    expect(s, "cminfer:rank_experts_moved_total", "rank=0;", 4);
    expect(s, "cminfer:rank_experts_adopted", "rank=1;", 3);
    expect(s, "cminfer:eplb_plans_total", "", 3);
    expect(s, "cminfer:expert_imbalance", "state=measured;", 1.25);
    expect(s, "cminfer:expert_imbalance", "state=planned;", 1.125);
    cmi_free(s);
    cmi_buf_deinit(&out);
}

static void without_ranks_or_plans_nothing_is_said(void **state)
{
    (void)state;
    const cmi_engine_rank rank = {.is_up = 1};
    cmi_metrics m;
    cmi_buf out;
    cmi_metrics_init(&m, "x");
    cmi_buf_init(&out, 1 << 20);
    cmi_metrics_write_ranks(&m, NULL, 0, &out);
    assert_int_equal(out.len, 0);
    cmi_metrics_write_ranks(&m, &rank, 1, &out);
    assert_null(strstr(cmi_buf_cstr(&out), "eplb"));
    assert_null(strstr(cmi_buf_cstr(&out), "imbalance"));
    cmi_buf_deinit(&out);
}

/* Scrapes until n completions have ended for the client and for the engine, which are two things
 * when a client left. */
static scrape *scrape_when(const server_fixture *f, double n)
{
    uint64_t deadline_ns = cmi_clock_monotonic_ns() + UINT64_C(10000000000);
    for (;;) {
        http_response r = http_ask(f->port, "GET", "/metrics", "", NULL);
        assert_string_equal(http_response_header(&r, "Content-Type"),
                            "text/plain; version=0.0.4; charset=utf-8");
        scrape *s = parse(r.body.data);
        http_response_free(&r);
        if (total(find(s, "http_requests_total"), "handler=/v1/completions;") == n &&
            total(find(s, "vllm:request_success_total"), "") == n) {
            return s;
        }
        cmi_free(s);
        assert_true(cmi_clock_monotonic_ns() < deadline_ns);
    }
}

/* Against what the engine of traffic_moves_every_metric tells. */
static void check_sglang(const scrape *s)
{
    expect(s, "sglang:num_running_reqs", "", 1);
    expect(s, "sglang:num_queue_reqs", "", 1);
    expect(s, "sglang:token_usage", "", 2.0 / 512);
    expect(s, "sglang:num_used_tokens", "", 2 * 64);
    expect(s, "sglang:kv_available_tokens", "", 510 * 64);
    expect(s, "sglang:cache_hit_rate", "", 128.0 / 300);
    expect(s, "sglang:cached_tokens_total", "cache_source=device;", 128);
    expect(s, "sglang:num_requests_total", "", 4);
    expect(s, "sglang:num_aborted_requests_total", "", 1);
    expect(s, "sglang:spec_accept_length", "", 9.0 / 4);
    expect(s, "sglang:spec_accept_rate", "", 5.0 / 8);
}

static void check_prefix(const scrape *s)
{
    expect(s, "cminfer:prefix_cache_tokens_total", "stage=prompt;", 300);
    expect(s, "cminfer:prefix_cache_tokens_total", "stage=used;", 128);
    expect(s, "cminfer:prefix_cache_lost_tokens_total", "reason=not_cached;", 170);
    expect(s, "cminfer:prefix_cache_lost_tokens_total", "reason=", 172);
}

static const scripted_engine_options busy_engine = {
    .info = {.vocab_size = 2048,
             .max_model_len = 512,
             .max_queued_requests = 8,
             .n_kv_pages = 512,
             .kv_page_tokens = 64,
             .max_drafts = 2,
             .prefix_losses = {"not_cached", "evicted"}},
    .counters = {.n_preemptions = 1,
                 .n_prefix_queried = 300,
                 .n_prefix_hits = 128,
                 .n_prefix_looked_up = 256,
                 .n_prefix_available = 128,
                 .n_prefix_lost = {170, 2},
                 .n_drafts = 4,
                 .n_draft_tokens = 8,
                 .n_accepted_tokens = 5,
                 .n_accepted_at = {3, 2},
                 .n_waiting_tokens = 9,
                 .n_predicted_steps = 7,
                 .predicted_ns = 10,
                 .measured_ns = 11,
                 .misjudged_ns = 3,
                 .n_ttft_targets = 3,
                 .n_ttft_missed = 1,
                 .n_tpot_targets = 3,
                 .n_tpot_missed = 1,
                 .n_timed_out = 1,
                 .n_given_up = 1,
                 .n_refused = {0, 1, 1, 1, 1}}};

/* Every metric that is there is moved by traffic: one that never moves would be a lie. */
static void traffic_moves_every_metric(void **state)
{
    (void)state;
    static const cmi_finish_reason reasons[] = {CMI_FINISH_STOP, CMI_FINISH_LENGTH,
                                                CMI_FINISH_ERROR};
    server_fixture f;
    server_fixture_start(
        &f, &(cmi_server_options){.slow_timeout_s = 1, .metrics_names = CMI_METRICS_BOTH},
        &busy_engine);
    http_client c;
    uint32_t n = 0;
    http_client_connect(&c, f.port);
    http_client_send_str(&c, "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    http_client_wait_closed(&c); /* too slow */
    http_client_close(&c);
    for (; n < CMI_LEN(reasons); n++) {
        http_client_connect(&c, f.port);
        http_client_request(&c, "POST", "/v1/completions", "", ASK_COMPLETION);
        finish(&f, n, reasons[n]);
        http_response r = http_client_response(&c);
        http_response_free(&r);
        http_client_close(&c);
    }
    http_client_connect(&c, f.port);
    http_client_request(&c, "POST", "/v1/completions", "", ASK_STREAM);
    uint64_t left = scripted_engine_request(f.engine, n++);
    http_client_close(&c);
    scripted_engine_wait_cancelled(f.engine, left);
    http_client running, waiting;
    http_client_connect(&running, f.port);
    http_client_request(&running, "POST", "/v1/completions", "", ASK_STREAM);
    http_client_connect(&waiting, f.port);
    http_client_request(&waiting, "POST", "/v1/completions", "", ASK_STREAM);
    scripted_engine_request(f.engine, n + 1);

    scrape *s = scrape_when(&f, 4);
    for (size_t i = 0; i < s->n_families; i++) {
        const family *fam = &s->families[i];
        assert_true(fam->n_samples > 0);
        if (strcmp(fam->type, "histogram") == 0) {
            check_histogram(fam);
        }
        const sample *last = &fam->samples[fam->n_samples - 1]; /* of a histogram the count */
        if (last->value <= 0) {
            fail_msg("%s{%s} was not moved", last->name, last->labels);
        }
    }
    const family *ended = find(s, "vllm:request_success_total");
    assert_int_equal(ended->n_samples, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(ended->samples[i].value == 1);
    }
    assert_true(find(s, "vllm:num_requests_running")->samples[0].value == 1);
    assert_true(find(s, "vllm:num_requests_waiting")->samples[0].value == 1);
    assert_true(find(s, "vllm:kv_cache_usage_perc")->samples[0].value == 2.0 / 512);
    check_sglang(s);
    check_prefix(s);
    assert_true(find(s, "vllm:generation_tokens_total")->samples[0].value == 6);
    cmi_free(s);
    http_client_close(&running);
    http_client_close(&waiting);
    server_fixture_stop(&f);
}

/* n is the parameter, not the number of engine requests: two prompts with n = 3 are six of those.
 */
static void the_parameter_n_counts_choices_of_a_prompt(void **state)
{
    (void)state;
    server_fixture f;
    server_fixture_start(
        &f, NULL,
        &(scripted_engine_options){.n_auto_tokens = 1, .auto_token_id = SERVER_FIXTURE_TOKEN});
    http_response r = http_ask(f.port, "POST", "/v1/completions", "",
                               "{\"model\":\"matrix-tiny\",\"prompt\":[\"a\",\"b\"],\"n\":3}");
    assert_int_equal(r.status, 200);
    http_response_free(&r);
    assert_int_equal(scripted_engine_n_submitted(f.engine), 6);
    assert_true(server_fixture_metric(&f, "vllm:request_params_n_sum{") == 3);
    assert_true(server_fixture_metric(&f, "vllm:request_params_n_count{") == 1);
    assert_true(server_fixture_metric(&f, "vllm:request_prompt_tokens_count{") == 6);
    server_fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(observations_fall_into_their_buckets),
        cmocka_unit_test(label_values_are_escaped),
        cmocka_unit_test(ranks_are_told_apart),
        cmocka_unit_test(without_ranks_or_plans_nothing_is_said),
        cmocka_unit_test(traffic_moves_every_metric),
        cmocka_unit_test(the_parameter_n_counts_choices_of_a_prompt),
    };
    return cmocka_run_group_tests(tests, api_world_setup, api_world_teardown);
}
