#include "cli/bench/rig.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/rng.h"
#include "os/clock.h"
#include "os/host_memory.h"

/* On a quiet machine quartiles are 1 to 5 % apart. */
static const double spread_allowed = 0.2;

double cmi_bench_seconds(void)
{
    return (double)cmi_clock_monotonic_ns() * 1e-9;
}

/* ---- samples ---- */

void cmi_bench_sample(cmi_bench_samples *s, double value)
{
    if (s->n < CMI_BENCH_MAX_SAMPLES) {
        s->values[s->n++] = value;
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static cmi_bench_samples sorted(const cmi_bench_samples *s)
{
    cmi_bench_samples sorted = *s;
    qsort(sorted.values, s->n, sizeof sorted.values[0], compare);
    return sorted;
}

double cmi_bench_median(const cmi_bench_samples *s)
{
    if (s->n == 0) {
        return 0;
    }
    cmi_bench_samples in_order = sorted(s);
    return (in_order.values[(s->n - 1) / 2] + in_order.values[s->n / 2]) / 2;
}

double cmi_bench_spread(const cmi_bench_samples *s)
{
    if (s->n == 0) {
        return 0;
    }
    cmi_bench_samples in_order = sorted(s);
    return (in_order.values[s->n - 1 - s->n / 4] - in_order.values[s->n / 4]) / cmi_bench_median(s);
}

void cmi_bench_warn_of_spread(double spread_max)
{
    if (spread_max > spread_allowed) {
        cmi_log(CMI_LOG_WARN,
                "half of a limit's samples lay up to %.0f %% apart: something else uses this "
                "machine, and the shares say little",
                spread_max * 100);
    }
}

/* ---- threads together ---- */

typedef struct together {
    cmi_bench_rig *rig;
    cmi_bench_fn *fn;
    void *arg;
    uint32_t n_threads;
    _Atomic uint32_t n_there;
} together;

/* A thread that waits here takes no second task, so every thread gets one. */
static void together_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    together *t = arg;
    atomic_fetch_add(&t->n_there, 1);
    while (atomic_load(&t->n_there) < t->n_threads) {
    }
    t->rig->begin_ns[task] = cmi_clock_monotonic_ns();
    t->fn(t->arg, task);
    t->rig->finish_ns[task] = cmi_clock_monotonic_ns();
}

double cmi_bench_together(cmi_bench_rig *rig, uint32_t n_threads, cmi_bench_fn *fn, void *arg)
{
    together t = {.rig = rig, .fn = fn, .arg = arg, .n_threads = n_threads};
    cmi_team_run(rig->team, together_task, &t, n_threads);
    uint64_t begin = UINT64_MAX, finish = 0;
    for (uint32_t i = 0; i < n_threads; i++) {
        begin = CMI_MIN(begin, rig->begin_ns[i]);
        finish = CMI_MAX(finish, rig->finish_ns[i]);
    }
    return (double)(finish - begin) * 1e-9;
}

/* ---- the rig ---- */

void cmi_bench_fill(void *memory, size_t n_bytes, uint64_t seed)
{
    uint8_t *bytes = memory;
    for (size_t at = 0; at < n_bytes; at += 16) {
        uint32_t words[4];
        cmi_philox4x32(seed, at, 0, words);
        for (uint32_t i = 0; i < 4; i++) {
            /* two BF16 values: any sign, exponents -1 and 0, any fraction */
            words[i] = (words[i] & 0x80FF80FFu) | 0x3F003F00u;
        }
        memcpy(bytes + at, words, CMI_MIN(sizeof words, n_bytes - at));
    }
}

/* Copies the first part, which is made slowly: that the parts are alike is no matter for reading.
 */
static void fill_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cmi_bench_rig *rig = arg;
    uint8_t *part = rig->pool + (size_t)(task + 1) * CMI_BENCH_POOL_STEP;
    memcpy(part, rig->pool, CMI_BENCH_POOL_STEP);
    cmi_host_memory_collapse(part, CMI_BENCH_POOL_STEP);
}

cmi_status cmi_bench_rig_init(cmi_bench_rig *rig, uint32_t n_threads, uint32_t cpu_flags,
                              uint32_t pool_mib, cmi_error *err)
{
    *rig = (cmi_bench_rig){.cpu_flags = cpu_flags};
    rig->n_threads = n_threads > 0 ? n_threads : cmi_host_processors();
    cmi_status st = cmi_team_create(&rig->team, rig->n_threads, err);
    if (st != CMI_OK) {
        return st;
    }
    rig->read_at = cmi_alloc(rig->n_threads, sizeof *rig->read_at);
    rig->begin_ns = cmi_alloc(rig->n_threads, sizeof *rig->begin_ns);
    rig->finish_ns = cmi_alloc(rig->n_threads, sizeof *rig->finish_ns);
    size_t step = (size_t)rig->n_threads * CMI_BENCH_POOL_STEP;
    size_t n_bytes = CMI_ROUND_UP((size_t)pool_mib << 20, step);
    if (n_bytes > cmi_host_memory_available()) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY,
                             "measuring needs %zu MiB of memory, more than is available",
                             n_bytes >> 20);
    }
    void *pool;
    st = cmi_host_memory_map(&pool, n_bytes, "measuring", err);
    if (st != CMI_OK) {
        return st;
    }
    rig->pool = pool;
    rig->pool_bytes = n_bytes;
    cmi_bench_fill(rig->pool, CMI_BENCH_POOL_STEP, 0);
    cmi_host_memory_collapse(rig->pool, CMI_BENCH_POOL_STEP);
    cmi_team_run(rig->team, fill_task, rig, (uint32_t)(n_bytes / CMI_BENCH_POOL_STEP) - 1);
    return CMI_OK;
}

void cmi_bench_rig_deinit(cmi_bench_rig *rig)
{
    cmi_host_memory_unmap(rig->pool, rig->pool_bytes);
    cmi_free(rig->finish_ns);
    cmi_free(rig->begin_ns);
    cmi_free(rig->read_at);
    cmi_team_destroy(rig->team);
}
