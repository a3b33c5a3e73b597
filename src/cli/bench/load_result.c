/* cli/bench/load_result.c - the result as JSON. Fields up to "client" have the names and meanings
 * of vllm bench serve; those of single requests come with --save-detailed only, as there. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "cli/bench/load_report.h"

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static void set_count(json_t *to, const char *key, uint64_t count)
{
    json_object_set_new(to, key, json_integer((json_int_t)count));
}

static void set_real(json_t *to, const char *key, double value)
{
    json_object_set_new(to, key, json_real(value));
}

static void add_settings(json_t *to, const cmi_load_report *r)
{
    char date[32];
    cmi_load_date(date, sizeof date, r->unix_ns);
    json_object_set_new(to, "date", json_string(date));
    json_object_set_new(to, "endpoint_type", json_string(r->backend));
    json_object_set_new(to, "backend", json_string(r->backend));
    json_object_set_new(to, "label", text_or_null(r->label));
    json_object_set_new(to, "model_id", json_string(r->model));
    json_object_set_new(to, "tokenizer_id", text_or_null(r->tokenizer));
    set_count(to, "num_prompts", r->summary->n);
    json_object_set_new(to, "request_rate",
                        r->request_rate <= 0     ? json_string("trace")
                        : isinf(r->request_rate) ? json_string("inf")
                                                 : json_real(r->request_rate));
    json_object_set_new(to, "burstiness",
                        isinf(r->burstiness) ? json_string("inf") : json_real(r->burstiness));
    json_object_set_new(to, "max_concurrency",
                        r->max_concurrency > 0 ? json_integer(r->max_concurrency) : json_null());
}

static void add_totals(json_t *to, const cmi_load_report *r)
{
    const cmi_load_summary *s = r->summary;
    double seconds = s->duration_s > 0 ? s->duration_s : 1;
    set_real(to, "duration", s->duration_s);
    set_count(to, "completed", s->completed);
    set_count(to, "failed", s->failed);
    set_count(to, "total_input_tokens", s->input_tokens);
    set_count(to, "total_output_tokens", s->output_tokens);
    set_real(to, "request_throughput", (double)s->completed / seconds);
    json_object_set_new(to, "request_goodput",
                        r->has_slo ? json_real((double)s->n_good / seconds) : json_null());
    set_real(to, "output_throughput", (double)s->output_tokens / seconds);
    set_real(to, "total_token_throughput", (double)(s->input_tokens + s->output_tokens) / seconds);
    set_real(to, "max_output_tokens_per_s", s->max_output_tokens_per_s);
    set_count(to, "max_concurrent_requests", s->max_concurrent);
}

static void add_metric(json_t *to, const cmi_load_report *r, cmi_load_metric metric)
{
    const cmi_load_values *values = &r->summary->metrics[metric];
    const char *name = cmi_load_metric_name(metric);
    char key[80];
    snprintf(key, sizeof key, "mean_%s_ms", name);
    set_real(to, key, values->mean);
    snprintf(key, sizeof key, "median_%s_ms", name);
    set_real(to, key, cmi_load_percentile(values->sorted, values->n, 50));
    snprintf(key, sizeof key, "std_%s_ms", name);
    set_real(to, key, values->std);
    for (size_t i = 0; i < r->n_percentiles; i++) {
        char p[32];
        cmi_load_percentile_name(p, sizeof p, r->percentiles[i]);
        snprintf(key, sizeof key, "p%s_%s_ms", p, name);
        set_real(to, key, cmi_load_percentile(values->sorted, values->n, r->percentiles[i]));
    }
}

/* What only this program tells. */
static void add_client(json_t *to, const cmi_load_report *r)
{
    const cmi_load_summary *s = r->summary;
    json_t *reasons = json_object();
    for (size_t i = 0; i < s->n_reasons; i++) {
        set_count(reasons, s->reasons[i].name, s->reasons[i].n);
    }
    json_object_set_new(to, "client", json_string("cminfer " CMI_VERSION));
    json_object_set_new(to, "base_url", json_string(r->base_url));
    json_object_set_new(to, "endpoint", json_string(r->endpoint));
    json_object_set_new(to, "dataset_name", json_string(r->dataset));
    json_object_set_new(to, "dataset_path", text_or_null(r->dataset_path));
    set_real(to, "trace_scale", r->trace_scale);
    set_count(to, "seed", r->seed);
    json_object_set_new(to, "failed_by_reason", reasons);
    set_count(to, "rejected", s->rejected);
    set_count(to, "rejected_with_retry_after", s->n_retry_after);
    set_count(to, "max_retry_after_s", s->max_retry_after_s);
    set_count(to, "cancelled", s->cancelled);
    set_count(to, "not_started", s->not_started);
    json_object_set_new(to, "interrupted", json_boolean(r->is_interrupted));
    set_count(to, "good", s->n_good);
    set_count(to, "total_cached_tokens", s->cached_tokens);
    set_count(to, "total_output_chunks", s->n_chunks);
    set_count(to, "answers_without_usage", s->n_without_usage);
    set_real(to, "max_start_lag_ms", s->max_lag_ms);
    set_real(to, "client_cpu_share", r->cpu_share);
}

static json_t *seconds_between(uint64_t from_ns, uint64_t to_ns)
{
    return json_real(to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0);
}

static json_t *gaps(const cmi_load_record *record)
{
    json_t *list = json_array();
    for (uint32_t i = 1; i < record->n_chunks; i++) {
        json_array_append_new(list, seconds_between(record->chunk_ns[i - 1], record->chunk_ns[i]));
    }
    return list;
}

/* A list for each figure, with an item for every request in its order. */
static void add_details(json_t *to, const cmi_load_report *r)
{
    static const char *const keys[] = {"input_lens",  "output_lens",     "ttfts",
                                       "itls",        "latencies",       "start_times",
                                       "queue_times", "generated_texts", "errors"};
    json_t *lists[CMI_LEN(keys)];
    for (size_t k = 0; k < CMI_LEN(keys); k++) {
        lists[k] = json_array();
        json_object_set_new(to, keys[k], lists[k]);
    }
    for (size_t i = 0; i < r->summary->n; i++) {
        const cmi_load_record *record = &r->records[i];
        bool is_ok = record->outcome == CMI_LOAD_COMPLETED;
        uint64_t first_ns = record->n_chunks > 0 ? record->chunk_ns[0] : 0;
        json_t *text = json_stringn(cmi_buf_cstr(&record->text), record->text.len);
        json_array_append_new(lists[0], json_integer(record->prompt_tokens));
        json_array_append_new(lists[1], json_integer(is_ok ? record->output_tokens : 0));
        json_array_append_new(lists[2], seconds_between(record->start_ns, first_ns));
        json_array_append_new(lists[3], gaps(record));
        json_array_append_new(lists[4], seconds_between(record->start_ns, record->last_ns));
        json_array_append_new(lists[5], seconds_between(0, record->start_ns));
        json_array_append_new(lists[6], seconds_between(record->due_ns, record->start_ns));
        json_array_append_new(lists[7], text != NULL ? text : json_string(""));
        json_array_append_new(lists[8], json_string(record->error != NULL ? record->error : ""));
    }
}

cmi_status cmi_load_report_save(const cmi_load_report *r, const char *path, cmi_error *err)
{
    json_t *result = json_object();
    add_settings(result, r);
    add_totals(result, r);
    for (size_t m = 0; m < CMI_LOAD_N_METRICS; m++) {
        if (r->metrics[m]) {
            add_metric(result, r, (cmi_load_metric)m);
        }
    }
    add_client(result, r);
    if (r->is_detailed) {
        add_details(result, r);
    }
    FILE *file = fopen(path, "w");
    bool ok = file != NULL &&
              json_dumpf(result, file, JSON_COMPACT | JSON_REAL_PRECISION(15)) == 0 &&
              fputc('\n', file) != EOF;
    int error = errno;
    ok = (file == NULL || fclose(file) == 0) && ok;
    json_decref(result);
    return ok ? CMI_OK
              : cmi_error_set(err, CMI_ERR_IO, "cannot write %s: %s", path, strerror(error));
}
