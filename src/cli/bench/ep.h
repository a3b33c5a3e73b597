/* cli/bench/ep.h - dispatch and combine between ranks of this process, beside puts and plain copies
 * of as many bytes in the same run. */
#ifndef CMI_CLI_BENCH_EP_H
#define CMI_CLI_BENCH_EP_H

#include "base/error.h"

typedef struct cmi_bench_ep_options {
    const char *fabric; /* its kind: "local", "ucx" */
    uint32_t n_rows;    /* of a rank in an exchange */
    uint32_t hidden;    /* values of a row: INT8 out, BF16 back */
    uint32_t top_k, n_experts;
    uint32_t n_rounds;
    uint32_t delay_us; /* of each put and signal; with it nothing is written directly */
    bool by_put;       /* also where a peer's memory is mapped */
} cmi_bench_ep_options;

enum { CMI_BENCH_EP_MAX_RANKS = 64, CMI_BENCH_EP_MAX_ROUNDS = 201 };

/* Medians over the rounds of the slowest rank's time. */
typedef struct cmi_bench_ep_result {
    double dispatch_s; /* until all rows are there */
    double sort_s;     /* then: to their experts */
    double combine_s;
    double dispatch_bytes, combine_bytes;   /* that a rank sends in the mean, to itself included */
    uint32_t message_bytes, result_bytes;   /* of a row, of a result */
    double dispatch_put_s, combine_put_s;   /* all ranks put as many bytes, one put to each other */
    double dispatch_copy_s, combine_copy_s; /* all ranks copy as many */
} cmi_bench_ep_result;

/* CMI_ERR_INVALID: numbers that cannot be. CMI_ERR_NO_MEMORY, and what a rank met. */
CMI_NODISCARD cmi_status cmi_bench_ep_run(cmi_bench_ep_result *result_out, uint32_t n_ranks,
                                          const cmi_bench_ep_options *opt, cmi_error *err);

#endif
