/* cli/bench/staged.h - prompts of uneven lengths over ranks of this process: each by its own rank
 * (data-parallel), and by all of them in stages (model/forward_staged.h). */
#ifndef CMI_CLI_BENCH_STAGED_H
#define CMI_CLI_BENCH_STAGED_H

#include "cli/bench/bench.h"

enum {
    CMI_BENCH_STAGED_MAX_RANKS = 64,
    CMI_BENCH_STAGED_MAX_ROUNDS = CMI_BENCH_MAX_SAMPLES,
};

typedef enum cmi_bench_prefill_way {
    CMI_BENCH_PREFILL_DATA_PARALLEL,
    CMI_BENCH_PREFILL_STAGED,
    CMI_BENCH_N_PREFILL_WAYS,
} cmi_bench_prefill_way;

typedef struct cmi_bench_staged_options {
    uint32_t n_ranks;       /* all with the instance's weights, and experts in turn */
    uint32_t n_rounds;      /* whose median counts; one before them does not */
    uint32_t chunk;         /* rows of a rank's own prompts in a pass, at most */
    cmi_bench_list prompts; /* lengths, dealt out to the ranks in turn; a rank takes its own in
                             * order, as many as a chunk has room for */
    uint32_t delay_us;      /* of each put and signal; 0: ranks write each other's memory */
} cmi_bench_staged_options;

typedef struct cmi_bench_staged_result {
    uint32_t n_passes;                        /* for all prompts, the same in both ways */
    double seconds[CMI_BENCH_N_PREFILL_WAYS]; /* of the slowest rank */
    /* Of all ranks' time the share in which they waited for others. */
    double idle[CMI_BENCH_N_PREFILL_WAYS];
    double gain;         /* by which tokens/s grow, in the median of rounds: 0.5 is by a half */
    double staged_bytes; /* that ranks sent each other in stages, beside rows for experts */
} cmi_bench_staged_result;

/* CMI_ERR_BAD_DATA: the two ways differ in a bit. CMI_ERR_INVALID: the model has no experts.
 * CMI_ERR_NO_MEMORY, and what a rank met. */
CMI_NODISCARD cmi_status cmi_bench_staged_run(cmi_bench_staged_result *result_out,
                                              const cmi_instance *instance,
                                              const cmi_bench_staged_options *opt, cmi_error *err);

#endif
