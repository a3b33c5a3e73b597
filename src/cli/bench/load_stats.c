#include "cli/bench/load_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static const char *const metric_names[CMI_LOAD_N_METRICS] = {
    [CMI_LOAD_TTFT] = "ttft",
    [CMI_LOAD_TPOT] = "tpot",
    [CMI_LOAD_ITL] = "itl",
    [CMI_LOAD_E2EL] = "e2el",
    [CMI_LOAD_QUEUE] = "client_queue_time",
};

const char *cmi_load_metric_name(cmi_load_metric metric)
{
    return metric_names[metric];
}

bool cmi_load_metric_parse(const char *name, size_t n, cmi_load_metric *metric_out)
{
    for (size_t i = 0; i < CMI_LEN(metric_names); i++) {
        if (strlen(metric_names[i]) == n && memcmp(metric_names[i], name, n) == 0) {
            *metric_out = (cmi_load_metric)i;
            return true;
        }
    }
    return false;
}

double cmi_load_percentile(const double *sorted, size_t n, double p)
{
    if (n == 0) {
        return 0;
    }
    double position = p / 100 * (double)(n - 1);
    size_t below = (size_t)position;
    if (below + 1 >= n) {
        return sorted[n - 1];
    }
    return sorted[below] + (sorted[below + 1] - sorted[below]) * (position - (double)below);
}

static cmi_status bad_slo(const char *text, cmi_error *err)
{
    return cmi_error_set(err, CMI_ERR_INVALID,
                         "--goodput takes limits in milliseconds like ttft:2000 tpot:50 "
                         "e2el:10000, not \"%s\"",
                         text);
}

cmi_status cmi_load_slo_parse(cmi_load_slo *slo, const char *text, cmi_error *err)
{
    if (!slo->is_set) {
        *slo = (cmi_load_slo){INFINITY, INFINITY, INFINITY, true};
    }
    const char *at = text;
    for (;;) {
        size_t n = strcspn(at, ":");
        cmi_load_metric metric;
        if (at[n] != ':' || !cmi_load_metric_parse(at, n, &metric)) {
            return bad_slo(text, err);
        }
        char *end;
        double ms = strtod(at + n + 1, &end);
        double *to = metric == CMI_LOAD_TTFT   ? &slo->ttft_ms
                     : metric == CMI_LOAD_TPOT ? &slo->tpot_ms
                     : metric == CMI_LOAD_E2EL ? &slo->e2el_ms
                                               : NULL;
        if (to == NULL || end == at + n + 1 || (*end != '\0' && *end != ',') || !(ms >= 0)) {
            return bad_slo(text, err);
        }
        *to = ms;
        if (*end == '\0') {
            return CMI_OK;
        }
        at = end + 1;
    }
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-6 : 0;
}

double cmi_load_tpot_ms(const cmi_load_record *record)
{
    if (record->output_tokens < 2 || record->n_chunks == 0) {
        return 0;
    }
    return ms_between(record->chunk_ns[0], record->last_ns) / (record->output_tokens - 1);
}

static bool is_good(const cmi_load_record *record, const cmi_load_slo *slo)
{
    return ms_between(record->start_ns, record->chunk_ns[0]) <= slo->ttft_ms &&
           cmi_load_tpot_ms(record) <= slo->tpot_ms &&
           ms_between(record->start_ns, record->last_ns) <= slo->e2el_ms;
}

static void add_value(cmi_load_summary *summary, cmi_load_metric metric, double ms)
{
    cmi_load_values *values = &summary->metrics[metric];
    values->sorted[values->n++] = ms;
}

static void add_completed(cmi_load_summary *summary, const cmi_load_record *record,
                          const cmi_load_slo *slo)
{
    summary->completed++;
    summary->n_good += slo->is_set && is_good(record, slo) ? 1 : 0;
    summary->n_without_usage += record->has_usage ? 0 : 1;
    summary->input_tokens += record->prompt_tokens;
    summary->output_tokens += record->output_tokens;
    summary->cached_tokens += record->cached_tokens;
    summary->n_chunks += record->n_chunks;
    add_value(summary, CMI_LOAD_TTFT, ms_between(record->start_ns, record->chunk_ns[0]));
    add_value(summary, CMI_LOAD_E2EL, ms_between(record->start_ns, record->last_ns));
    add_value(summary, CMI_LOAD_QUEUE, ms_between(record->due_ns, record->start_ns));
    if (record->output_tokens > 1) {
        add_value(summary, CMI_LOAD_TPOT, cmi_load_tpot_ms(record));
    }
    for (uint32_t i = 1; i < record->n_chunks; i++) {
        add_value(summary, CMI_LOAD_ITL, ms_between(record->chunk_ns[i - 1], record->chunk_ns[i]));
    }
}

static void add_failed(cmi_load_summary *summary, const cmi_load_record *record)
{
    char name[CMI_LOAD_REASON_BYTES];
    cmi_load_reason_name(name, sizeof name, record->outcome, record->http_status);
    summary->failed++;
    if (record->outcome == CMI_LOAD_HTTP_ERROR && record->http_status == 429) {
        summary->rejected++;
        summary->n_retry_after += record->has_retry_after ? 1 : 0;
        summary->max_retry_after_s = CMI_MAX(summary->max_retry_after_s, record->retry_after_s);
    }
    size_t i = 0;
    while (i < summary->n_reasons && strcmp(summary->reasons[i].name, name) != 0) {
        i++;
    }
    if (i == CMI_LOAD_MAX_REASONS) {
        i--; /* no server has that many statuses */
    }
    cmi_load_reason *reason = &summary->reasons[i];
    if (i == summary->n_reasons) {
        memcpy(reason->name, name, sizeof name);
        reason->example = record->error;
        summary->n_reasons++;
    }
    reason->n++;
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void finish_values(cmi_load_values *values)
{
    double sum = 0;
    double squares = 0;
    for (size_t i = 0; i < values->n; i++) {
        sum += values->sorted[i];
    }
    values->mean = values->n > 0 ? sum / (double)values->n : 0;
    for (size_t i = 0; i < values->n; i++) {
        squares += (values->sorted[i] - values->mean) * (values->sorted[i] - values->mean);
    }
    values->std = values->n > 0 ? sqrt(squares / (double)values->n) : 0;
    if (values->n > 0) {
        qsort(values->sorted, values->n, sizeof *values->sorted, compare_numbers);
    }
}

/* Chunks in the busiest second of those that begin with the first request's start. */
static double busiest_second(const cmi_load_record *records, size_t n)
{
    const uint64_t second_ns = 1000000000;
    uint64_t first = UINT64_MAX;
    uint64_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (records[i].outcome == CMI_LOAD_COMPLETED) {
            first = CMI_MIN(first, records[i].start_ns);
            last = CMI_MAX(last, records[i].last_ns);
        }
    }
    if (first > last) {
        return 0;
    }
    size_t n_seconds = (size_t)((last - first) / second_ns) + 1;
    uint64_t *chunks = cmi_alloc(n_seconds, sizeof *chunks);
    uint64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        bool counts = records[i].outcome == CMI_LOAD_COMPLETED;
        for (uint32_t k = 0; counts && k < records[i].n_chunks; k++) {
            uint64_t *second = &chunks[(records[i].chunk_ns[k] - first) / second_ns];
            *second += 1;
            most = CMI_MAX(most, *second);
        }
    }
    cmi_free(chunks);
    return (double)most;
}

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The most completed requests that were open at once; an end at the time of a start is before it.
 */
static size_t most_at_once(const cmi_load_record *records, size_t n, size_t n_completed)
{
    uint64_t *starts = cmi_alloc(n_completed, sizeof *starts);
    uint64_t *ends = cmi_alloc(n_completed, sizeof *ends);
    size_t n_found = 0;
    for (size_t i = 0; i < n; i++) {
        if (records[i].outcome == CMI_LOAD_COMPLETED) {
            starts[n_found] = records[i].start_ns;
            ends[n_found++] = records[i].last_ns;
        }
    }
    qsort(starts, n_found, sizeof *starts, compare_times);
    qsort(ends, n_found, sizeof *ends, compare_times);
    size_t most = 0;
    size_t n_ended = 0;
    for (size_t i = 0; i < n_found; i++) {
        while (n_ended < i && ends[n_ended] <= starts[i]) {
            n_ended++;
        }
        most = CMI_MAX(most, i + 1 - n_ended);
    }
    cmi_free(starts);
    cmi_free(ends);
    return most;
}

void cmi_load_summarize(cmi_load_summary *summary_out, const cmi_load_record *records, size_t n,
                        const cmi_load_slo *slo, uint64_t duration_ns)
{
    cmi_load_summary *summary = summary_out;
    *summary = (cmi_load_summary){.n = n, .duration_s = (double)duration_ns * 1e-9};
    size_t n_chunks = 0;
    for (size_t i = 0; i < n; i++) {
        n_chunks += records[i].outcome == CMI_LOAD_COMPLETED ? records[i].n_chunks : 0;
    }
    for (size_t m = 0; m < CMI_LOAD_N_METRICS; m++) {
        summary->metrics[m].sorted = cmi_alloc(m == CMI_LOAD_ITL ? n_chunks : n, sizeof(double));
    }
    for (size_t i = 0; i < n; i++) {
        const cmi_load_record *record = &records[i];
        if (record->outcome == CMI_LOAD_COMPLETED) {
            add_completed(summary, record, slo);
        } else if (record->outcome == CMI_LOAD_CANCELLED) {
            summary->cancelled++;
        } else if (record->outcome == CMI_LOAD_OPEN) {
            summary->not_started++;
        } else {
            add_failed(summary, record);
        }
        if (record->outcome != CMI_LOAD_OPEN && !record->waited) {
            summary->max_lag_ms =
                CMI_MAX(summary->max_lag_ms, ms_between(record->due_ns, record->start_ns));
        }
    }
    for (size_t m = 0; m < CMI_LOAD_N_METRICS; m++) {
        finish_values(&summary->metrics[m]);
    }
    summary->max_output_tokens_per_s = busiest_second(records, n);
    summary->max_concurrent = most_at_once(records, n, summary->completed);
}

void cmi_load_summary_deinit(cmi_load_summary *summary)
{
    for (size_t m = 0; m < CMI_LOAD_N_METRICS; m++) {
        cmi_free(summary->metrics[m].sorted);
    }
    *summary = (cmi_load_summary){0};
}
