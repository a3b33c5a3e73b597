/* cli/bench/load_report.h - what a load run tells: a table, JSON with the field names of
 * vllm bench serve, a plot. */
#ifndef CMI_CLI_BENCH_LOAD_REPORT_H
#define CMI_CLI_BENCH_LOAD_REPORT_H

#include <stdio.h>

#include "cli/bench/load_stats.h"

enum { CMI_LOAD_MAX_PERCENTILES = 16 };

typedef struct cmi_load_report {
    const cmi_load_summary *summary;
    const cmi_load_record *records;
    const char *backend, *endpoint, *base_url, *model, *tokenizer, *dataset, *dataset_path, *label;
    uint32_t max_concurrency; /* 0: none was asked for */
    double request_rate;      /* infinite; 0: the times of the trace */
    double burstiness, trace_scale;
    uint32_t seed;
    double cpu_share; /* of one processor, that the load itself took */
    bool is_interrupted;
    bool has_slo;
    bool metrics[CMI_LOAD_N_METRICS]; /* which are told */
    double percentiles[CMI_LOAD_MAX_PERCENTILES];
    size_t n_percentiles;
    bool is_detailed; /* every request's figures too */
    uint64_t unix_ns; /* of the run's end */
} cmi_load_report;

/* Prints to standard output. */
void cmi_load_report_print(const cmi_load_report *report);

/* One object and a newline. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_load_report_save(const cmi_load_report *report, const char *path,
                                              cmi_error *err);

/* An SVG of latency distributions and of throughput over time. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_load_report_plot(const cmi_load_report *report, const char *path,
                                              cmi_error *err);

/* "99", "99.9": as names of fields have it. */
void cmi_load_percentile_name(char *name_out, size_t size, double p);

/* "20250131-235959", local time */
void cmi_load_date(char *date_out, size_t size, uint64_t unix_ns);

#endif
