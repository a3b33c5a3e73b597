/* cli/bench/load_report.c - the table. Its labels are those that scripts look for in what
 * vllm bench serve prints. */
#include "cli/bench/load_report.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { WIDTH = 60, LABEL_WIDTH = 44 };

void cmi_load_percentile_name(char *name_out, size_t size, double p)
{
    snprintf(name_out, size, "%.10g", p);
}

void cmi_load_date(char *date_out, size_t size, uint64_t unix_ns)
{
    time_t seconds = (time_t)(unix_ns / 1000000000u);
    struct tm local;
    localtime_r(&seconds, &local);
    if (strftime(date_out, size, "%Y%m%d-%H%M%S", &local) == 0) {
        date_out[0] = '\0';
    }
}

static void print_rule(const char *title, char with)
{
    int n_title = (int)strlen(title) + (title[0] != '\0' ? 2 : 0);
    int left = (WIDTH - n_title) / 2;
    for (int i = 0; i < WIDTH - n_title; i++) {
        if (i == left && n_title > 0) {
            printf(" %s ", title);
        }
        putchar(with);
    }
    putchar('\n');
}

static void print_count(const char *label, size_t count)
{
    printf("%-*s%zu\n", LABEL_WIDTH, label, count);
}

static void print_real(const char *label, double value)
{
    printf("%-*s%.2f\n", LABEL_WIDTH, label, value);
}

static void print_failures(const cmi_load_summary *s)
{
    for (size_t i = 0; i < s->n_reasons; i++) {
        char label[64];
        snprintf(label, sizeof label, "  %s:", s->reasons[i].name);
        printf("%-*s%zu  (%s)\n", LABEL_WIDTH, label, s->reasons[i].n,
               s->reasons[i].example != NULL ? s->reasons[i].example : "");
    }
    if (s->rejected > 0) {
        char label[64];
        snprintf(label, sizeof label,
                 "Rejected with 429 (with Retry-After %zu):", s->n_retry_after);
        print_count(label, s->rejected);
    }
    if (s->cancelled > 0) {
        print_count("Cancelled requests:", s->cancelled);
    }
    if (s->not_started > 0) {
        print_count("Requests not started:", s->not_started);
    }
}

static void print_load(const cmi_load_report *r)
{
    const cmi_load_summary *s = r->summary;
    print_count("Successful requests:", s->completed);
    print_count("Failed requests:", s->failed);
    print_failures(s);
    if (r->max_concurrency > 0) {
        print_count("Maximum request concurrency:", r->max_concurrency);
    }
    if (isfinite(r->request_rate) && r->request_rate > 0) {
        print_real("Request rate configured (RPS):", r->request_rate);
    }
    print_real("Benchmark duration (s):", s->duration_s);
    print_count("Total input tokens:", s->input_tokens);
    if (s->cached_tokens > 0) {
        print_count("Input tokens from the prefix cache:", s->cached_tokens);
    }
    print_count("Total generated tokens:", s->output_tokens);
    if (s->n_chunks != s->output_tokens) {
        print_count("Chunks they came in:", s->n_chunks);
    }
    if (s->n_without_usage > 0) {
        print_count("Answers without usage (tokens estimated):", s->n_without_usage);
    }
}

static double rate(const cmi_load_summary *s, double amount)
{
    return s->duration_s > 0 ? amount / s->duration_s : 0;
}

static void print_throughput(const cmi_load_report *r)
{
    const cmi_load_summary *s = r->summary;
    print_real("Request throughput (req/s):", rate(s, (double)s->completed));
    if (r->has_slo) {
        print_real("Request goodput (req/s):", rate(s, (double)s->n_good));
    }
    print_real("Output token throughput (tok/s):", rate(s, (double)s->output_tokens));
    print_real("Peak output token throughput (tok/s):", s->max_output_tokens_per_s);
    print_real("Peak concurrent requests:", (double)s->max_concurrent);
    print_real("Total token throughput (tok/s):",
               rate(s, (double)(s->input_tokens + s->output_tokens)));
}

static void print_metric(const cmi_load_report *r, cmi_load_metric metric)
{
    static const struct {
        const char *name, *title;
    } texts[CMI_LOAD_N_METRICS] = {
        [CMI_LOAD_TTFT] = {"TTFT", "Time to First Token"},
        [CMI_LOAD_TPOT] = {"TPOT", "Time per Output Token (excl. 1st token)"},
        [CMI_LOAD_ITL] = {"ITL", "Inter-token Latency"},
        [CMI_LOAD_E2EL] = {"E2EL", "End-to-end Latency"},
        [CMI_LOAD_QUEUE] = {"Client Queue Time", "Client-side Queueing"},
    };
    const cmi_load_values *values = &r->summary->metrics[metric];
    const char *name = texts[metric].name;
    char label[64];
    print_rule(texts[metric].title, '-');
    snprintf(label, sizeof label, "Mean %s (ms):", name);
    print_real(label, values->mean);
    snprintf(label, sizeof label, "Median %s (ms):", name);
    print_real(label, cmi_load_percentile(values->sorted, values->n, 50));
    for (size_t i = 0; i < r->n_percentiles; i++) {
        char p[32];
        cmi_load_percentile_name(p, sizeof p, r->percentiles[i]);
        snprintf(label, sizeof label, "P%s %s (ms):", p, name);
        print_real(label, cmi_load_percentile(values->sorted, values->n, r->percentiles[i]));
    }
}

void cmi_load_report_print(const cmi_load_report *r)
{
    const double late_ms = 20;
    print_rule("Serving Benchmark Result", '=');
    print_load(r);
    print_throughput(r);
    for (size_t m = 0; m < CMI_LOAD_N_METRICS; m++) {
        if (r->metrics[m] && r->summary->metrics[m].n > 0) {
            print_metric(r, (cmi_load_metric)m);
        }
    }
    if (r->summary->max_lag_ms > late_ms || r->cpu_share > 0.9) {
        print_rule("This Load Itself", '-');
        print_real("Latest start after it was due (ms):", r->summary->max_lag_ms);
        print_real("Share of a processor that it took (%):", r->cpu_share * 100);
    }
    print_rule("", '=');
}
