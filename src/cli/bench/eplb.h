/* cli/bench/eplb.h - an instance of several ranks, threads of this process, under a load that is
 * not even, before, while and after its experts move (engine/rank_balance.h). */
#ifndef CMI_CLI_BENCH_EPLB_H
#define CMI_CLI_BENCH_EPLB_H

#include "cli/bench/bench.h"

enum {
    CMI_BENCH_EPLB_MAX_RANKS = 16,
    CMI_BENCH_EPLB_MAX_WINDOW = 2000,
    CMI_BENCH_EPLB_MAX_PASSES = 40000, /* of a round, however slowly experts move */
};

typedef struct cmi_bench_eplb_options {
    cmi_instance_options instance; /* of a rank, but for rank and max_num_seqs */
    uint32_t n_ranks;
    uint32_t n_rows;      /* of each rank in a pass, sequences that decode */
    uint32_t n_redundant; /* experts of a layer beyond one of each */
    uint32_t window;      /* passes; as many are measured before and after */
    uint32_t pause_us;    /* between passes, not counted */
    cmi_bench_routing routing;
} cmi_bench_eplb_options;

typedef struct cmi_bench_eplb_phase {
    uint32_t n_passes;
    double median_s, longest_s; /* of a pass, until the last rank has done it */
    double slow_share;          /* of passes that took more than 1.2 times the median */
    double imbalance; /* what the experts of the busiest rank have computed, by the mean of ranks */
} cmi_bench_eplb_phase;

typedef struct cmi_bench_eplb_result {
    cmi_bench_eplb_phase before, moving, after;
    double planned;   /* imbalance of the places that were planned */
    uint64_t n_moves; /* experts that came to a rank */
} cmi_bench_eplb_result;

/* Opens the instance, runs it until its first moves are over and a window more, and closes it.
 * Errors are those of a rank; CMI_ERR_TIMEOUT: experts still move after so many passes. */
CMI_NODISCARD cmi_status cmi_bench_eplb_run(cmi_bench_eplb_result *result_out,
                                            const cmi_bench_eplb_options *opt, cmi_error *err);

#endif
