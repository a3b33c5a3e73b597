/* cli/bench/load.h - one run of `cminfer bench serve`: a load on a server, and what it measured. */
#ifndef CMI_CLI_BENCH_LOAD_H
#define CMI_CLI_BENCH_LOAD_H

#include "cli/bench/load_data.h"
#include "cli/bench/load_report.h"
#include "cli/bench/load_target.h"

typedef enum cmi_load_dataset {
    CMI_LOAD_RANDOM,
    CMI_LOAD_CUSTOM,
    CMI_LOAD_MOONCAKE,
    CMI_LOAD_AZURE,
} cmi_load_dataset;

typedef struct cmi_load_options {
    cmi_load_target target;
    const char *base_url, *endpoint, *backend;
    bool is_chat;
    const char *model;       /* NULL: the server's first */
    const char *served_name; /* what to call it in requests; NULL: the same */
    const char *tokenizer;   /* a directory, or NULL */
    const char *headers;     /* lines */
    cmi_load_dataset dataset;
    const char *dataset_name, *dataset_path;
    uint32_t num_prompts; /* 0: all of a file, 1000 random ones */
    cmi_load_random_sizes random;
    uint32_t max_model_len; /* 0: no limit */
    bool has_rate;          /* request_rate, and not the times of a trace, says when */
    double request_rate, burstiness, trace_scale;
    uint32_t max_concurrency; /* 0: none */
    uint32_t num_warmups;
    bool ignore_eos, token_ids;
    uint32_t vocab_size;
    double temperature;
    const char *extra_body;
    double cancel_rate, cancel_delay_s, timeout_s;
    uint32_t seed;
    cmi_load_slo slo;
    bool metrics[CMI_LOAD_N_METRICS];
    double percentiles[CMI_LOAD_MAX_PERCENTILES];
    size_t n_percentiles;
    bool saves_result, is_detailed;
    const char *result_dir, *result_filename, *plot, *label;
} cmi_load_options;

/* Runs the load, prints its table and writes its files. CMI_ERR_CANCELLED: SIGINT, after the table
 * of what was done. CMI_ERR_IO also when no request was completed. */
CMI_NODISCARD cmi_status cmi_load_run(const cmi_load_options *opt, cmi_error *err);

#endif
