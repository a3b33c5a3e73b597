/* cli/bench/ranks.h - a thread for each rank of a measurement, which begin together. */
#ifndef CMI_CLI_BENCH_RANKS_H
#define CMI_CLI_BENCH_RANKS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"

typedef struct cmi_bench_ranks {
    pthread_barrier_t barrier; /* of all */
    _Atomic bool has_failed;   /* set by a rank before a barrier: all look at it behind it */
} cmi_bench_ranks;

/* What a rank does, on its thread; *err is set if it failed. */
typedef void cmi_bench_rank_fn(void *arg, uint32_t rank, cmi_error *err);

/* Runs n ranks to their end; the error is that of the first rank with one. CMI_ERR_IO: there is no
 * thread. ranks is the run's. */
CMI_NODISCARD cmi_status cmi_bench_ranks_run(cmi_bench_ranks *ranks, uint32_t n,
                                             cmi_bench_rank_fn *fn, void *arg, cmi_error *err);

#endif
