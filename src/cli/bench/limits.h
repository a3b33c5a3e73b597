/* cli/bench/limits.h - the limits that results are held against, measured beside them.
 *
 * A limit is a kind and a row of its variant table (kernels/peak.h). A sample of it takes a few
 * milliseconds; callers take one beside each sample of what they measure, because the machine's
 * clock and its other work drift, and compare medians. */
#ifndef CMI_CLI_BENCH_LIMITS_H
#define CMI_CLI_BENCH_LIMITS_H

#include "cli/bench/rig.h"

typedef enum cmi_bench_limit_kind {
    CMI_BENCH_I8,
    CMI_BENCH_BF16,
    CMI_BENCH_F32,
    CMI_BENCH_READ, /* bytes for each second; the others: operations */
    CMI_BENCH_N_LIMIT_KINDS,
} cmi_bench_limit_kind;

typedef struct cmi_bench_limit {
    cmi_bench_limit_kind kind;
    size_t variant; /* row of the kind's table */
} cmi_bench_limit;

/* "int8", "bf16", "f32", "bandwidth" */
const char *cmi_bench_limit_name(cmi_bench_limit_kind kind);
const char *cmi_bench_limit_isa(cmi_bench_limit limit);

size_t cmi_bench_limit_n_variants(cmi_bench_limit_kind kind);
uint32_t cmi_bench_limit_cpu_flags(cmi_bench_limit limit);

/* The limit for code that uses the instructions of cpu_flags and those that they imply, on a
 * processor with the traits among them. BF16 without a dot product, or with a slow one, is widened,
 * so it becomes F32. */
cmi_bench_limit cmi_bench_limit_for(cmi_bench_limit_kind kind, uint32_t cpu_flags);

/* One sample with 1 or all threads. read_bytes, of CMI_BENCH_READ: the memory that each thread
 * reads, again and again, so that a small amount measures a cache; 0 reads the pool. */
double cmi_bench_limit_sample(cmi_bench_rig *rig, cmi_bench_limit limit, uint32_t n_threads,
                              size_t read_bytes);

/* Seconds that a message of one cache line takes from a thread to another, half of a round trip.
 * Needs two threads. */
double cmi_bench_signal_sample(cmi_bench_rig *rig);

#endif
