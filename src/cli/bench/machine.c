/* `cminfer bench --machine`. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "kernels/kernels.h"
#include "os/host_memory.h"
#include "os/host_processor.h"

enum { ROUNDS_MIN = 5, ROUNDS_MAX = 25, MAX_LIMITS = 64 };
static const double measure_seconds = 2.5;

typedef struct measured_limit {
    cmi_bench_limit limit;
    uint32_t n_threads;
    cmi_bench_samples samples;
} measured_limit;

typedef struct measured_machine {
    measured_limit limits[MAX_LIMITS];
    size_t n_limits;
    cmi_bench_samples signal;
} measured_machine;

static void add_limits(measured_machine *m, const cmi_bench_rig *rig, uint32_t n_threads)
{
    for (int kind = 0; kind < CMI_BENCH_N_LIMIT_KINDS; kind++) {
        for (size_t v = 0; v < cmi_bench_limit_n_variants(kind) && m->n_limits < MAX_LIMITS; v++) {
            cmi_bench_limit limit = {kind, v};
            if ((cmi_bench_limit_cpu_flags(limit) & ~rig->cpu_flags) == 0) {
                m->limits[m->n_limits++] = (measured_limit){.limit = limit, .n_threads = n_threads};
            }
        }
    }
}

/* All limits in turn, so that a disturbance hits one sample of each. */
static void measure(measured_machine *m, cmi_bench_rig *rig, cmi_progress *progress)
{
    double begin = cmi_bench_seconds(), passed = 0;
    for (uint64_t round = 0; round < ROUNDS_MIN || (round < ROUNDS_MAX && passed < measure_seconds);
         round++) {
        cmi_progress_count(progress, round, ROUNDS_MAX);
        for (size_t i = 0; i < m->n_limits; i++) {
            measured_limit *l = &m->limits[i];
            cmi_bench_sample(&l->samples, cmi_bench_limit_sample(rig, l->limit, l->n_threads, 0));
        }
        if (rig->n_threads > 1) {
            cmi_bench_sample(&m->signal, cmi_bench_signal_sample(rig));
        }
        passed = cmi_bench_seconds() - begin;
    }
}

static void print_limit(cmi_bench_out *out, const char *name, const char *isa, uint32_t n_threads,
                        double value, bool is_signal)
{
    bool is_read = !is_signal && strcmp(name, "bandwidth") == 0;
    const cmi_bench_cell cells[] = {
        {.key = "limit", .title = "limit", .kind = CMI_BENCH_TEXT, .text = name, .width = 9},
        {.key = "isa", .title = "isa", .kind = CMI_BENCH_TEXT, .text = isa, .width = 11},
        {.key = "threads", .title = "threads", .kind = CMI_BENCH_COUNT, .number = n_threads},
        {.key = "value", .kind = CMI_BENCH_REAL, .number = value},
        {.key = "unit",
         .kind = CMI_BENCH_TEXT,
         .text = is_signal ? "s"
                 : is_read ? "B/s"
                           : "op/s"},
        {.title = "value",
         .kind = CMI_BENCH_REAL,
         .number = value,
         .width = 14,
         .scale = is_signal ? 1e9 : 1e-9,
         .decimals = 1,
         .unit = is_signal ? " ns"
                 : is_read ? " GB/s"
                           : " Gop/s"},
    };
    cmi_bench_out_row(out, cells, CMI_LEN(cells));
}

static void print_machine(const measured_machine *m, const cmi_bench_rig *rig, cmi_bench_out *out)
{
    for (size_t i = 0; i < m->n_limits; i++) {
        const measured_limit *l = &m->limits[i];
        print_limit(out, cmi_bench_limit_name(l->limit.kind), cmi_bench_limit_isa(l->limit),
                    l->n_threads, cmi_bench_median(&l->samples), false);
    }
    if (rig->n_threads > 1) {
        print_limit(out, "signal", "", 2, cmi_bench_median(&m->signal), true);
    }
}

/* ---- the hardware profile ---- */

/* The best of a kind, for BF16 without a dot product float32's. */
static double best_limit(const measured_machine *m, const cmi_bench_rig *rig,
                         cmi_bench_limit_kind kind, uint32_t n_threads)
{
    cmi_bench_limit limit = cmi_bench_limit_for(kind, rig->cpu_flags);
    for (size_t i = 0; i < m->n_limits; i++) {
        const measured_limit *l = &m->limits[i];
        if (l->n_threads == n_threads && l->limit.kind == limit.kind &&
            l->limit.variant == limit.variant) {
            return cmi_bench_median(&l->samples);
        }
    }
    return 0;
}

static json_t *limits_object(const measured_machine *m, const cmi_bench_rig *rig,
                             uint32_t n_threads)
{
    return json_pack("{s:i, s:f, s:f, s:f, s:f}", "threads", (int)n_threads, "read_bytes_per_s",
                     best_limit(m, rig, CMI_BENCH_READ, n_threads), "int8_ops_per_s",
                     best_limit(m, rig, CMI_BENCH_I8, n_threads), "bf16_ops_per_s",
                     best_limit(m, rig, CMI_BENCH_BF16, n_threads), "f32_ops_per_s",
                     best_limit(m, rig, CMI_BENCH_F32, n_threads));
}

static cmi_status write_profile(const measured_machine *m, const cmi_bench_rig *rig,
                                const char *path, cmi_error *err)
{
    char processor[128];
    cmi_host_processor_name(processor, sizeof processor);
    json_t *profile =
        json_pack("{s:i, s:s, s:s, s:I, s:o, s:o, s:o}", "version", 1, "processor", processor,
                  "isa", cmi_isa_name(cmi_isa_best(rig->cpu_flags)), "memory_available_bytes",
                  (json_int_t)cmi_host_memory_available(), "one_thread", limits_object(m, rig, 1),
                  "all_threads", limits_object(m, rig, rig->n_threads), "signal_seconds",
                  rig->n_threads > 1 ? json_real(cmi_bench_median(&m->signal)) : json_null());
    int rc = json_dump_file(profile, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(profile);
    return rc == 0 ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_IO, "cannot write the profile %s: %s", path,
                                   strerror(errno));
}

cmi_status cmi_bench_machine(cmi_bench_rig *rig, cmi_bench_out *out, const char *profile_path,
                             cmi_error *err)
{
    measured_machine m = {0};
    add_limits(&m, rig, 1);
    if (rig->n_threads > 1) {
        add_limits(&m, rig, rig->n_threads);
    }
    cmi_progress progress;
    cmi_progress_start(&progress, "measuring");
    measure(&m, rig, &progress);
    cmi_progress_end(&progress);
    print_machine(&m, rig, out);
    double spread_max = 0;
    for (size_t i = 0; i < m.n_limits; i++) {
        spread_max = CMI_MAX(spread_max, cmi_bench_spread(&m.limits[i].samples));
    }
    cmi_bench_warn_of_spread(spread_max);
    return profile_path != NULL ? write_profile(&m, rig, profile_path, err) : CMI_OK;
}
