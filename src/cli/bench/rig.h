/* cli/bench/rig.h - what all measurements share: threads that start together, memory that no cache
 * holds, medians. Thread: one, the owner of the team. */
#ifndef CMI_CLI_BENCH_RIG_H
#define CMI_CLI_BENCH_RIG_H

#include "os/team.h"

typedef struct cmi_bench_rig {
    cmi_team *team;      /* of all threads */
    uint32_t n_threads;  /* its size */
    uint32_t cpu_flags;  /* what the processor has and --isa lets through */
    uint8_t *pool;       /* larger than the caches, in huge pages where the system has them */
    size_t pool_bytes;   /* a multiple of CMI_BENCH_POOL_STEP for each thread */
    size_t *read_at;     /* [n_threads] where each goes on to read in its part of the pool */
    uint64_t *begin_ns;  /* [n_threads] of cmi_bench_together */
    uint64_t *finish_ns; /* [n_threads] */
} cmi_bench_rig;

enum { CMI_BENCH_POOL_STEP = 64 << 20 };

/* n_threads 0: one for every processor. The pool has at least pool_mib; 1024 is beyond every
 * last-level cache of today. Fills the pool with values that are sane numbers as BF16
 * and as float32 (+-0.5 .. 2) and any bytes as INT8. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_bench_rig_init(cmi_bench_rig *rig, uint32_t n_threads,
                                            uint32_t cpu_flags, uint32_t pool_mib, cmi_error *err);
void cmi_bench_rig_deinit(cmi_bench_rig *rig); /* zeroed is fine */

/* Such values, the same for the same seed. */
void cmi_bench_fill(void *memory, size_t n_bytes, uint64_t seed);

/* Runs fn on the first n_threads threads, which is 1 or all, at the same time: none begins before
 * all are there. Returns the seconds from the first one's begin to the last one's end. */
typedef void cmi_bench_fn(void *arg, uint32_t thread);
double cmi_bench_together(cmi_bench_rig *rig, uint32_t n_threads, cmi_bench_fn *fn, void *arg);

/* What was measured of one thing. */
enum { CMI_BENCH_MAX_SAMPLES = 201 };
typedef struct cmi_bench_samples {
    double values[CMI_BENCH_MAX_SAMPLES];
    size_t n;
} cmi_bench_samples;

void cmi_bench_sample(cmi_bench_samples *samples, double value); /* at most the maximum is kept */
double cmi_bench_median(const cmi_bench_samples *samples);       /* 0 without samples */
double cmi_bench_spread(const cmi_bench_samples *samples); /* between quartiles, of the median */

/* Warns when a limit's samples were spread so widely that shares of it say little. */
void cmi_bench_warn_of_spread(double spread_max);

double cmi_bench_seconds(void); /* of a monotonic clock */

#endif
