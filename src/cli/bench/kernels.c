/* `cminfer bench --kernels`. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "cli/bench/bench.h"
#include "cli/bench/onednn.h"
#include "os/host_memory.h"

static const double sample_seconds = 4e-3, settle_seconds = 0.01;
enum {
    ROUNDS_MIN = 5,
    PART_COLS_MIN = 64, /* as model/linear.c cuts */
    PART_COLS_MAX = 256,
    PARTS_PER_THREAD = 4,
    COPIES_MIN = 2,
    COPIES_BYTES = 256 << 20, /* of oneDNN's weights together: beyond the caches */
    ONEDNN_MIN_K = 64,
};

typedef struct kernels_run {
    cmi_bench_rig *rig;
    cmi_bench_out *out;
    const cmi_bench_kernels_options *opt;
    uint8_t *operands;
    size_t pool_at;
    cmi_onednn *onednn; /* NULL where there is none */
    cmi_progress progress;
    double spread_max;        /* of a limit's samples */
    uint64_t n_done, n_total; /* rows */
} kernels_run;

/* One row. */
typedef struct measured {
    kernels_run *run;
    const cmi_bench_kernel *kernel;
    const cmi_bench_variant *variant;
    const cmi_bench_case *c;
    uint32_t n_threads;
    uint64_t n_calls; /* of a sample */
    cmi_onednn_matmul *matmul;
    cmi_bench_limit arithmetic, read;
    cmi_bench_samples ours, onednn, arithmetic_rate, read_rate;
} measured;

/* ---- one sample ---- */

typedef struct cut_call {
    cmi_bench_call call;
    cmi_bench_call_fn *fn;
    uint32_t part_cols;
} cut_call;

static void call_part(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const cut_call *cut = arg;
    uint32_t begin = task * cut->part_cols;
    cut->fn(&cut->call, begin, CMI_MIN(cut->part_cols, cut->call.c->n_cols - begin));
}

static void call_once(measured *m)
{
    kernels_run *run = m->run;
    const cmi_bench_rig *rig = run->rig;
    cut_call cut = {.fn = m->kernel->call, .call = {.c = m->c, .fn = m->variant->fn}};
    run->pool_at = run->pool_at + m->c->w_bytes > rig->pool_bytes ? 0 : run->pool_at;
    cut.call.w = rig->pool + run->pool_at;
    run->pool_at += CMI_ROUND_UP(m->c->w_bytes, (size_t)CMI_CACHE_LINE);
    bool is_last = run->pool_at + m->c->w_bytes > rig->pool_bytes;
    cut.call.next_w = is_last ? NULL : rig->pool + run->pool_at;
    for (size_t i = 0; i < CMI_LEN(cut.call.operands); i++) {
        cut.call.operands[i] = run->operands + i * CMI_BENCH_OPERAND_BYTES;
    }
    if (m->n_threads == 1) {
        cut.fn(&cut.call, 0, m->c->n_cols);
        return;
    }
    uint32_t cols = CMI_DIV_UP(m->c->n_cols, m->n_threads * PARTS_PER_THREAD);
    cols = CMI_ROUND_UP(cols, (uint32_t)PART_COLS_MIN);
    cut.part_cols = CMI_MIN(cols, (uint32_t)PART_COLS_MAX);
    cmi_team_run(rig->team, call_part, &cut, CMI_DIV_UP(m->c->n_cols, cut.part_cols));
}

static double sample_ours(measured *m)
{
    double begin = cmi_bench_seconds();
    for (uint64_t i = 0; i < m->n_calls; i++) {
        call_once(m);
    }
    return (cmi_bench_seconds() - begin) / (double)m->n_calls;
}

/* How many calls fill a sample; the first ones also warm the caches. */
static void choose_n_calls(measured *m)
{
    m->n_calls = 1;
    while (sample_ours(m) * (double)m->n_calls < sample_seconds) {
        m->n_calls *= 2;
    }
}

/* Afterwards the library's other threads spin for a while, which would be on our account. */
static double sample_onednn(measured *m)
{
    double begin = cmi_bench_seconds(), passed = 0;
    uint64_t n = 0;
    do {
        cmi_onednn_matmul_run(m->matmul);
        n++;
        passed = cmi_bench_seconds() - begin;
    } while (passed < sample_seconds);
    while (m->n_threads > 1 && cmi_bench_seconds() - begin - passed < settle_seconds) {
    }
    return passed / (double)n;
}

static void sample_round(measured *m)
{
    cmi_bench_rig *rig = m->run->rig;
    if (m->matmul != NULL) {
        cmi_bench_sample(&m->onednn, sample_onednn(m));
    }
    /* Bandwidth of where the operands lie: memory, or the cache that holds as much. */
    size_t read_bytes = m->c->w_bytes > 0 ? 0 : (size_t)m->c->bytes;
    cmi_bench_sample(&m->read_rate, cmi_bench_limit_sample(rig, m->read, m->n_threads, read_bytes));
    cmi_bench_sample(&m->arithmetic_rate,
                     cmi_bench_limit_sample(rig, m->arithmetic, m->n_threads, 0));
    cmi_bench_sample(&m->ours, sample_ours(m));
}

/* ---- one row ---- */

static void print_row(const measured *m)
{
    const cmi_bench_case *c = m->c;
    double seconds = cmi_bench_median(&m->ours);
    double arithmetic_seconds = c->ops / cmi_bench_median(&m->arithmetic_rate);
    double read_seconds = c->bytes / cmi_bench_median(&m->read_rate);
    cmi_bench_limit_kind bound = CMI_BENCH_READ;
    double limit = cmi_bench_median(&m->read_rate);
    if (arithmetic_seconds > read_seconds) {
        bound = m->arithmetic.kind;
        limit = cmi_bench_median(&m->arithmetic_rate);
    }
    double share = CMI_MAX(arithmetic_seconds, read_seconds) / seconds;
    double onednn = cmi_bench_median(&m->onednn) / seconds;
    const cmi_bench_cell cells[] = {
        {"kernel", "kernel", CMI_BENCH_TEXT, m->kernel->name, .width = 19},
        {"isa", "isa", CMI_BENCH_TEXT, m->variant->isa, .width = 11},
        {"shape", "shape", CMI_BENCH_TEXT, c->shape, .width = 14},
        {"threads", "threads", CMI_BENCH_COUNT, .number = m->n_threads},
        {"seconds", "us", CMI_BENCH_REAL, NULL, seconds, .width = 10, .scale = 1e6, .decimals = 2},
        {"ops", NULL, CMI_BENCH_COUNT, NULL, c->ops},
        {"bytes", NULL, CMI_BENCH_COUNT, NULL, c->bytes},
        {NULL, "Gop/s", CMI_BENCH_REAL, NULL, c->ops / seconds * 1e-9, .width = 6, .decimals = 1},
        {NULL, "GB/s", CMI_BENCH_REAL, NULL, c->bytes / seconds * 1e-9, .width = 6, .decimals = 1},
        {"bound", "bound", CMI_BENCH_TEXT, cmi_bench_limit_name(bound), .width = 9},
        {"limit", NULL, CMI_BENCH_REAL, NULL, limit},
        {"share", "share", CMI_BENCH_REAL, NULL, share, .width = 6, .scale = 100, .decimals = 1,
         .unit = "%"},
        {"onednn", "oneDNN", m->matmul != NULL ? CMI_BENCH_REAL : CMI_BENCH_NONE, NULL, onednn,
         .width = 6, .decimals = 2},
    };
    cmi_bench_out_row(m->run->out, cells, CMI_LEN(cells));
}

/* The best variant is held against oneDNN. */
static void open_matmul(measured *m, bool is_best)
{
    cmi_error err = {0};
    const cmi_bench_case *c = m->c;
    if (m->run->onednn == NULL || !is_best || c->arithmetic != CMI_BENCH_I8) {
        return;
    }
    uint32_t n_copies = (uint32_t)(COPIES_BYTES / c->w_bytes) + COPIES_MIN;
    m->matmul = cmi_onednn_matmul_create(m->run->onednn, c->n_rows, c->n_cols, c->n, m->n_threads,
                                         n_copies, &err);
    if (m->matmul == NULL) {
        cmi_log(CMI_LOG_WARN, "%s %s: %s", m->kernel->name, c->shape, err.text);
    }
}

static void measure_row(measured *m, bool is_best)
{
    kernels_run *run = m->run;
    const uint32_t flags = m->variant->cpu_flags | (run->rig->cpu_flags & CMI_CPU_TRAITS);
    m->arithmetic = cmi_bench_limit_for(m->c->arithmetic, flags);
    m->read = cmi_bench_limit_for(CMI_BENCH_READ, flags);
    open_matmul(m, is_best);
    choose_n_calls(m);
    double begin = cmi_bench_seconds();
    do {
        sample_round(m);
    } while (m->ours.n < ROUNDS_MIN || (cmi_bench_seconds() - begin < run->opt->seconds &&
                                        m->ours.n < CMI_BENCH_MAX_SAMPLES));
    cmi_onednn_matmul_destroy(m->matmul);
    double spread = CMI_MAX(cmi_bench_spread(&m->read_rate), cmi_bench_spread(&m->arithmetic_rate));
    run->spread_max = CMI_MAX(run->spread_max, spread);
    print_row(m);
    cmi_progress_count(&run->progress, ++run->n_done, run->n_total);
}

/* ---- all rows ---- */

static bool runs(const kernels_run *run, const cmi_bench_kernel *kernel, size_t variant)
{
    return (kernel->variants[variant].cpu_flags & ~run->rig->cpu_flags) == 0;
}

/* The reference only where it is asked for or all there is. */
static size_t first_variant(const kernels_run *run, const cmi_bench_kernel *kernel)
{
    for (size_t v = 1; v < kernel->n_variants && !run->opt->with_ref; v++) {
        if (runs(run, kernel, v)) {
            return v;
        }
    }
    return 0;
}

/* The one that this processor gets. */
static size_t best_variant(const kernels_run *run, const cmi_bench_kernel *kernel)
{
    size_t best = 0;
    for (size_t v = 1; v < kernel->n_variants; v++) {
        bool is_slow = (kernel->variants[v].slow_on & run->rig->cpu_flags) != 0;
        best = runs(run, kernel, v) && !is_slow ? v : best;
    }
    return best;
}

/* Runs, or with dry only counts, the rows of a kernel. */
static void run_kernel(kernels_run *run, const cmi_bench_kernel *kernel, bool dry)
{
    cmi_bench_case cases[CMI_BENCH_MAX_CASES];
    size_t n_cases = cmi_bench_kernel_cases(kernel->name, &run->opt->shapes, cases);
    size_t best = best_variant(run, kernel);
    for (size_t v = first_variant(run, kernel); v < kernel->n_variants; v++) {
        for (size_t i = 0; runs(run, kernel, v) && i < n_cases; i++) {
            uint32_t n_threads[] = {1, run->rig->n_threads};
            size_t n = cases[i].is_cut && run->rig->n_threads > 1 ? 2 : 1;
            for (size_t t = 0; t < n; t++) {
                measured m = {.run = run,
                              .kernel = kernel,
                              .variant = &kernel->variants[v],
                              .c = &cases[i],
                              .n_threads = n_threads[t]};
                if (dry) {
                    run->n_total++;
                } else {
                    measure_row(&m, v == best);
                }
            }
        }
    }
}

/* ---- options ---- */

static bool is_listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

cmi_status cmi_bench_kernels_check(const cmi_bench_kernels_options *opt, cmi_error *err)
{
    cmi_bench_kernel kernels[CMI_BENCH_MAX_KERNELS];
    size_t n = cmi_bench_kernels_list(kernels);
    for (const char *at = opt->only; at != NULL; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        int length = (int)strcspn(at, ",");
        bool found = false;
        for (size_t i = 0; i < n; i++) {
            found = found || ((int)strlen(kernels[i].name) == length &&
                              memcmp(kernels[i].name, at, (size_t)length) == 0);
        }
        if (!found) {
            return cmi_error_set(err, CMI_ERR_INVALID, "--only: there is no kernel \"%.*s\"",
                                 length, at);
        }
    }
    return CMI_OK;
}

/* Positive and at most max. */
static bool parse_size(const char **at, uint32_t max, uint32_t *size_out)
{
    char *end;
    unsigned long size = strtoul(*at, &end, 10);
    if (end == *at || **at == '-' || size < 1 || size > max) {
        return false;
    }
    *at = end;
    *size_out = (uint32_t)size;
    return true;
}

cmi_status cmi_bench_shapes_parse(cmi_bench_shapes *shapes_out, const char *text, cmi_error *err)
{
    enum { MAX_ROWS = 2048, MAX_WIDTH = 8192 }; /* what the operands have room for */
    cmi_bench_shapes shapes = {0};
    const char *at = text;
    bool ok = true;
    while (ok) {
        uint32_t *shape = shapes.rows_cols_k[shapes.n++];
        ok = parse_size(&at, MAX_ROWS, &shape[0]) && *at++ == 'x' &&
             parse_size(&at, MAX_WIDTH, &shape[1]) && *at++ == 'x' &&
             parse_size(&at, MAX_WIDTH, &shape[2]);
        if (ok && *at == '\0') {
            *shapes_out = shapes;
            return CMI_OK;
        }
        ok = ok && *at++ == ',' && shapes.n < CMI_BENCH_MAX_SHAPES;
    }
    return cmi_error_set(err, CMI_ERR_INVALID,
                         "--shapes takes at most %d of ROWSxCOLUMNSxINNER with commas, rows up to "
                         "%d, the others up to %d, not \"%s\"",
                         CMI_BENCH_MAX_SHAPES, MAX_ROWS, MAX_WIDTH, text);
}

/* ---- all kernels ---- */

static void run_all(kernels_run *run, const cmi_bench_kernel *kernels, size_t n, bool dry)
{
    for (size_t i = 0; i < n; i++) {
        if (run->opt->only == NULL || is_listed(run->opt->only, kernels[i].name)) {
            run_kernel(run, &kernels[i], dry);
        }
    }
}

cmi_status cmi_bench_kernels(cmi_bench_rig *rig, cmi_bench_out *out,
                             const cmi_bench_kernels_options *opt, cmi_error *err)
{
    cmi_bench_kernel kernels[CMI_BENCH_MAX_KERNELS];
    kernels_run run = {.rig = rig, .out = out, .opt = opt};
    size_t n = cmi_bench_kernels_list(kernels);
    void *operands;
    cmi_status st =
        cmi_host_memory_map(&operands, 3 * (size_t)CMI_BENCH_OPERAND_BYTES, "operands", err);
    if (st != CMI_OK) {
        return st;
    }
    run.operands = operands;
    cmi_bench_fill(operands, 3 * (size_t)CMI_BENCH_OPERAND_BYTES, 3);
    bool avx2_only = (rig->cpu_flags & CMI_CPU_AVX512) == 0;
    run.onednn = cmi_onednn_open(avx2_only, err);
    if (run.onednn == NULL) {
        cmi_log(CMI_LOG_INFO, "INT8 products are not compared with oneDNN: %s", err->text);
    }
    run_all(&run, kernels, n, true);
    cmi_progress_start(&run.progress, "measuring");
    out->progress = &run.progress;
    run_all(&run, kernels, n, false);
    cmi_progress_end(&run.progress);
    out->progress = NULL;
    cmi_bench_warn_of_spread(run.spread_max);
    cmi_onednn_close(run.onednn);
    cmi_host_memory_unmap(operands, 3 * (size_t)CMI_BENCH_OPERAND_BYTES);
    return CMI_OK;
}
