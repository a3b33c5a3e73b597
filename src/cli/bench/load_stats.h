/* cli/bench/load_stats.h - what the records of a run come to, as vllm bench serve defines it.
 *
 * Over the completed requests: TTFT from sending to the first chunk; E2EL from sending to the last
 * one; TPOT = (E2EL - TTFT) / (output tokens - 1), of answers of two tokens or more; ITL, the gaps
 * between chunks, of all answers together. Percentiles are numpy's (linear interpolation), the
 * standard deviation divides by n. No I/O and no clock. */
#ifndef CMI_CLI_BENCH_LOAD_STATS_H
#define CMI_CLI_BENCH_LOAD_STATS_H

#include "cli/bench/load_answer.h"

typedef enum cmi_load_metric {
    CMI_LOAD_TTFT,
    CMI_LOAD_TPOT,
    CMI_LOAD_ITL,
    CMI_LOAD_E2EL,
    CMI_LOAD_QUEUE, /* from being due to being sent */
    CMI_LOAD_N_METRICS,
} cmi_load_metric;

/* "ttft": as options and results name it. False: there is none of this name. */
const char *cmi_load_metric_name(cmi_load_metric metric);
bool cmi_load_metric_parse(const char *name, size_t n, cmi_load_metric *metric_out);

typedef struct cmi_load_values {
    double *sorted; /* ms, ascending */
    size_t n;
    double mean, std; /* 0 when there are none */
} cmi_load_values;

/* p in 0 .. 100; 0 when there are no values. */
double cmi_load_percentile(const double *sorted, size_t n, double p);

typedef struct cmi_load_slo {
    double ttft_ms, tpot_ms, e2el_ms; /* infinite: no limit */
    bool is_set;
} cmi_load_slo;

/* "ttft:2000" or several with commas, into slo (zeroed before the first). CMI_ERR_INVALID. */
CMI_NODISCARD cmi_status cmi_load_slo_parse(cmi_load_slo *slo, const char *text, cmi_error *err);

enum { CMI_LOAD_MAX_REASONS = 32 };
typedef struct cmi_load_reason {
    char name[CMI_LOAD_REASON_BYTES];
    size_t n;
    const char *example; /* a record's line */
} cmi_load_reason;

typedef struct cmi_load_summary {
    double duration_s;
    size_t n, completed, failed, cancelled, not_started;
    size_t n_good;        /* completed within all limits of the SLO */
    size_t rejected;      /* HTTP 429; these are among the failed */
    size_t n_retry_after; /* of them with Retry-After */
    uint32_t max_retry_after_s;
    size_t n_without_usage; /* completed ones whose tokens the server did not count */
    uint64_t input_tokens, output_tokens, cached_tokens, n_chunks;
    double max_output_tokens_per_s; /* chunks in the busiest second, counted from the first start */
    size_t max_concurrent;
    double max_lag_ms; /* how late a request was sent that did not have to wait for a slot */
    cmi_load_values metrics[CMI_LOAD_N_METRICS];
    cmi_load_reason reasons[CMI_LOAD_MAX_REASONS]; /* of failures */
    size_t n_reasons;
} cmi_load_summary;

/* The records outlive the summary. Tokens that were not counted must have been filled in. */
void cmi_load_summarize(cmi_load_summary *summary_out, const cmi_load_record *records, size_t n,
                        const cmi_load_slo *slo, uint64_t duration_ns);
void cmi_load_summary_deinit(cmi_load_summary *summary); /* zeroed is fine */

/* (E2EL - TTFT) / (tokens - 1) in ms; 0 for fewer than two tokens. */
double cmi_load_tpot_ms(const cmi_load_record *record);

/* Sums over time of the completed requests, for plots: tokens[i] are those of second i * bin_s ..
 * (i + 1) * bin_s, running[i] the average number of open requests then. */
typedef struct cmi_load_timeline {
    double bin_s;
    size_t n_bins;
    double *tokens, *running;
} cmi_load_timeline;
void cmi_load_timeline_init(cmi_load_timeline *timeline, const cmi_load_record *records, size_t n,
                            double bin_s, double duration_s);
void cmi_load_timeline_deinit(cmi_load_timeline *timeline);

#endif
