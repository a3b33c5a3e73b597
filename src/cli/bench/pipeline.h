/* cli/bench/pipeline.h - passes of a model over ranks of this process, as one microbatch and as
 * two, with a delay on every put. */
#ifndef CMI_CLI_BENCH_PIPELINE_H
#define CMI_CLI_BENCH_PIPELINE_H

#include "cli/bench/bench.h"

enum {
    CMI_BENCH_PIPELINE_MAX_RANKS = 64,
    CMI_BENCH_PIPELINE_MAX_DELAYS = 8,
    CMI_BENCH_PIPELINE_MAX_ROUNDS = 201,
};

typedef struct cmi_bench_pipeline_options {
    uint32_t n_ranks;  /* all with the instance's weights, and with equally many rows */
    uint32_t n_rounds; /* whose median counts */
    cmi_bench_routing routing;
    uint32_t n_delays;
    uint32_t delay_us[CMI_BENCH_PIPELINE_MAX_DELAYS]; /* the first one is 0 */
} cmi_bench_pipeline_options;

/* A rank's pass: a prompt of n rows, or n sequences that decode with n_drafts each, behind depth
 * tokens. */
typedef struct cmi_bench_pipeline_test {
    bool is_prefill;
    uint32_t n, n_drafts, depth;
} cmi_bench_pipeline_test;

/* Of the slowest rank; [..][0] of one microbatch, [..][1] of two. */
typedef struct cmi_bench_pipeline_result {
    double seconds[CMI_BENCH_PIPELINE_MAX_DELAYS][2];
    /* How much longer a rank waited than without delay in the same round, in the mean of ranks. */
    double waited[CMI_BENCH_PIPELINE_MAX_DELAYS][2];
    uint32_t n_transfers; /* of a microbatch in a pass: to the experts of a layer, and back */
    double n_puts[2], put_bytes[2]; /* of a rank in a pass, in the mean */
} cmi_bench_pipeline_result;

/* CMI_ERR_INVALID: the model has no experts. CMI_ERR_NO_MEMORY, and what a rank met. */
CMI_NODISCARD cmi_status cmi_bench_pipeline_run(cmi_bench_pipeline_result *result_out,
                                                const cmi_instance *instance,
                                                const cmi_bench_pipeline_test *test,
                                                const cmi_bench_pipeline_options *opt,
                                                cmi_error *err);

/* How much of what two microbatches can hide they hid: 1 is all. What there is to hide is the delay
 * of a microbatch's transfers, but no more than the other one computes, half of what two take
 * without it; what they did not hide is what they waited. delay_s: of a put. */
double cmi_bench_pipeline_hidden(const cmi_bench_pipeline_result *result, uint32_t delay_idx,
                                 double delay_s);

#endif
