/* cli/bench/bench.h - the parts of `cminfer bench`, which cli/cmd_bench.c calls by its options. */
#ifndef CMI_CLI_BENCH_BENCH_H
#define CMI_CLI_BENCH_BENCH_H

#include "cli/bench/limits.h"
#include "cli/bench/out.h"

/* Numbers of an option like "1,8,32". */
enum { CMI_BENCH_MAX_LIST = 32 };
typedef struct cmi_bench_list {
    uint32_t values[CMI_BENCH_MAX_LIST];
    size_t n;
} cmi_bench_list;

/* Measures the limits with one thread and with all, prints a row for each, and writes the hardware
 * profile (docs/PERF.md) to profile_path unless it is NULL. CMI_ERR_IO: it could not be written. */
CMI_NODISCARD cmi_status cmi_bench_machine(cmi_bench_rig *rig, cmi_bench_out *out,
                                           const char *profile_path, cmi_error *err);

#endif
