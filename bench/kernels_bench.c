/* kernels_bench [KERNEL] - time of every variant of every kernel that this processor can run.
 *
 * One thread. Each line: what was called, the best time of a call, arithmetic and memory rates,
 * their share of what the processor does at best (measured first, see peak.h), and how many times
 * faster than the reference. A GEMM gets other weights at each call, from a pool larger than the
 * caches, so that its W comes from memory, as a layer's does; all other operands are in the caches.
 *
 * Of interest: a GEMM with many rows against the arithmetic peak of its instructions, with one row
 * against the read bandwidth. Compare runs only on a machine that does nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/float_env.h"
#include "bench/peak.h"
#include "kernels/variants.h"
#include "os/clock.h"

enum { SAMPLE_NS = 200 * 1000, RUN_NS = 300 * 1000 * 1000 };
static const size_t pool_bytes = (size_t)256 << 20;
static const size_t work_bytes = (size_t)32 << 20;

typedef struct bench {
    const char *filter; /* NULL: all kernels */
    char *pool;         /* weights: pool_bytes */
    size_t pool_at;
    char *work[3]; /* other operands: work_bytes each */
    peaks peaks;
} bench;

/* What to measure. */
typedef struct bench_case {
    char shape[64];
    uint32_t n_rows, n_cols, n; /* n: the inner or only dimension */
    double flops, bytes;        /* of a call */
} bench_case;

/* Runs the case once with fn. */
typedef void call_fn(bench *b, const bench_case *c, void (*fn)(void));

static double best_ns(bench *b, const bench_case *c, call_fn *call, void (*fn)(void))
{
    double best = 1e300;
    uint64_t begin = cmi_clock_monotonic_ns(), n_calls = 1, now = begin;
    do {
        uint64_t start = now;
        for (uint64_t i = 0; i < n_calls; i++) {
            call(b, c, fn);
        }
        now = cmi_clock_monotonic_ns();
        double ns = (double)(now - start) / (double)n_calls;
        best = CMI_MIN(best, ns);
        n_calls = ns * (double)n_calls < SAMPLE_NS ? 2 * n_calls : n_calls;
    } while (now - begin < RUN_NS);
    return best;
}

static double arithmetic_peak(const peaks *p, const char *isa)
{
    return strcmp(isa, "avx512_bf16") == 0 ? p->dot_gflops
           : strcmp(isa, "ref") == 0       ? 0
                                           : p->fma_gflops;
}

/* Measures one variant and prints its line. Returns its time; ref_ns is 0 for the reference. */
static double run_variant(bench *b, const char *kernel, const char *isa, const bench_case *c,
                          call_fn *call, void (*fn)(void), double ref_ns)
{
    double ns = best_ns(b, c, call, fn);
    double gflops = c->flops / ns, gbytes = c->bytes / ns;
    double peak = arithmetic_peak(&b->peaks, isa);
    printf("%-16s %-11s %-26s %10.2f us", kernel, isa, c->shape, ns * 1e-3);
    printf(" %7.1f GFLOP/s %5.1f %%", gflops, peak > 0 ? 100 * gflops / peak : 0);
    printf(" %7.1f GB/s %5.1f %%", gbytes, 100 * gbytes / b->peaks.read_gbytes);
    printf(" %7.1fx\n", ref_ns > 0 ? ref_ns / ns : 1);
    (void)fflush(stdout);
    return ns;
}

static void *work(bench *b, size_t i, size_t n_bytes)
{
    if (n_bytes > work_bytes) {
        (void)fprintf(stderr, "kernels_bench: a case needs more than %zu bytes\n", work_bytes);
        exit(EXIT_FAILURE);
    }
    return b->work[i];
}

static void call_gemm(bench *b, const bench_case *c, cmi_gemm_fn *fn, size_t element_bytes)
{
    size_t w_bytes = (size_t)c->n_cols * c->n * element_bytes;
    b->pool_at = b->pool_at + w_bytes > pool_bytes ? 0 : b->pool_at;
    cmi_gemm_args args = {
        .x = work(b, 0, c->n_rows * c->n * element_bytes),
        .w = b->pool + b->pool_at,
        .y = work(b, 1, c->n_rows * c->n_cols * sizeof(float)),
        .x_stride = c->n,
        .w_stride = c->n,
        .y_stride = c->n_cols,
        .n_rows = c->n_rows,
        .n_cols = c->n_cols,
        .n_k = c->n,
    };
    fn(&args);
    b->pool_at += w_bytes;
}

static void call_gemm_f32(bench *b, const bench_case *c, void (*fn)(void))
{
    call_gemm(b, c, (cmi_gemm_fn *)fn, sizeof(float));
}

static void call_gemm_bf16(bench *b, const bench_case *c, void (*fn)(void))
{
    call_gemm(b, c, (cmi_gemm_fn *)fn, sizeof(cmi_bf16));
}

static void call_rmsnorm(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_rmsnorm_fn *)fn)((float *)b->work[0], (float *)b->work[1], 1e-6f, c->n,
                           (float *)b->work[2]);
}

static void call_swiglu(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_swiglu_fn *)fn)((float *)b->work[0], (float *)b->work[1], c->n, (float *)b->work[2]);
}

static void call_round_bf16(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_round_bf16_fn *)fn)((float *)b->work[0], c->n, (cmi_bf16 *)b->work[2]);
}

static void call_widen_bf16(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_widen_bf16_fn *)fn)((cmi_bf16 *)b->work[0], c->n, (float *)b->work[2]);
}

static void call_axpy(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_axpy_fn *)fn)(1e-9f, (float *)b->work[0], c->n, (float *)b->work[1]);
}

/* In place: the values grow without end, which changes nothing in the time. */
static void call_rope(bench *b, const bench_case *c, void (*fn)(void))
{
    ((cmi_rope_fn *)fn)((float *)b->work[0], (float *)b->work[1], (float *)b->work[2], c->n);
}

/* Every call starts from the same scores. */
static void call_softmax_block(bench *b, const bench_case *c, void (*fn)(void))
{
    float m = 1.0f, l = 1.0f;
    memcpy(b->work[0], b->work[1], c->n * sizeof(float));
    (void)((cmi_softmax_block_fn *)fn)((float *)b->work[0], c->n, 0.5f, &m, &l);
}

static void call_max_sum_exp(bench *b, const bench_case *c, void (*fn)(void))
{
    float max, sum;
    ((cmi_max_sum_exp_fn *)fn)((float *)b->work[0], c->n, &max, &sum);
}

/* V's float32 or BF16 values are whatever lies in the work area. */
static void call_attn_values_f32(bench *b, const bench_case *c, void (*fn)(void))
{
    cmi_attn_values_args args = {
        .p = (float *)b->work[0],
        .v = b->work[1],
        .alpha = (float *)b->work[0],
        .o = (float *)b->work[2],
        .p_stride = c->n,
        .v_stride = c->n_cols,
        .o_stride = c->n_cols,
        .n_rows = c->n_rows,
        .n_t = c->n,
        .n_cols = c->n_cols,
    };
    ((cmi_attn_values_fn *)fn)(&args);
}

static void call_attn_values_bf16(bench *b, const bench_case *c, void (*fn)(void))
{
    call_attn_values_f32(b, c, fn);
}

static void call_quantize_i8(bench *b, const bench_case *c, void (*fn)(void))
{
    float scale;
    ((cmi_quantize_i8_fn *)fn)((float *)b->work[0], c->n, (uint8_t *)b->work[1], &scale);
}

static void call_rmsnorm_quantize_i8(bench *b, const bench_case *c, void (*fn)(void))
{
    float scale;
    ((cmi_rmsnorm_quantize_i8_fn *)fn)((float *)b->work[0], (float *)b->work[1], 1e-6f, c->n, NULL,
                                       (uint8_t *)b->work[2], &scale);
}

static void call_gemm_i8(bench *b, const bench_case *c, void (*fn)(void))
{
    size_t w_bytes = cmi_i8_packed_bytes(c->n_cols, c->n);
    b->pool_at = b->pool_at + w_bytes > pool_bytes ? 0 : b->pool_at;
    cmi_gemm_i8_args args = {.x = (uint8_t *)work(b, 0, c->n_rows * (size_t)c->n),
                             .x_scale = (float *)b->work[2],
                             .w = b->pool + b->pool_at,
                             .y = work(b, 1, c->n_rows * c->n_cols * sizeof(float)),
                             .x_stride = c->n,
                             .y_stride = c->n_cols,
                             .n_rows = c->n_rows,
                             .n_cols = c->n_cols,
                             .n_k = c->n};
    ((cmi_gemm_i8_fn *)fn)(&args);
    b->pool_at += w_bytes;
}

static void call_combine_f32(bench *b, const bench_case *c, void (*fn)(void))
{
    const void *rows[] = {b->work[0], b->work[1]};
    cmi_combine_args args = {.rows = rows,
                             .weights = (float *)b->work[0],
                             .x = (float *)b->work[2],
                             .n_rows = 2,
                             .n = c->n};
    ((cmi_combine_fn *)fn)(&args);
}

static void call_combine_bf16(bench *b, const bench_case *c, void (*fn)(void))
{
    call_combine_f32(b, c, fn);
}

static bench_case gemm_case(uint32_t n_rows, uint32_t n_cols, uint32_t n_k, size_t element_bytes)
{
    const double rows = n_rows, cols = n_cols, k = n_k;
    bench_case c = {
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n = n_k,
        .flops = 2 * rows * cols * k,
        .bytes = (rows + cols) * k * (double)element_bytes + rows * cols * sizeof(float),
    };
    (void)snprintf(c.shape, sizeof c.shape, "%u x %u, k %u", n_rows, n_cols, n_k);
    return c;
}

/* An element-wise kernel: operations and bytes moved for each of n elements. */
static bench_case vector_case(uint32_t n, double flops, double bytes)
{
    bench_case c = {.n_rows = 1, .n_cols = 1, .n = n, .flops = n * flops, .bytes = n * bytes};
    (void)snprintf(c.shape, sizeof c.shape, "n %u", n);
    return c;
}

static bench_case attn_case(uint32_t n_rows, uint32_t n_t, uint32_t n_cols, size_t element_bytes)
{
    const double rows = n_rows, t = n_t, cols = n_cols;
    bench_case c = {
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n = n_t,
        .flops = 2 * rows * t * cols,
        .bytes = t * cols * (double)element_bytes + rows * (t + 2 * cols) * sizeof(float),
    };
    (void)snprintf(c.shape, sizeof c.shape, "%u x %u, %u positions", n_rows, n_cols, n_t);
    return c;
}

enum { CASES_MAX = 12 };

/* Fills in the cases of a kernel, by its name. Returns their number. */
static size_t cases_of(const char *kernel, bench_case cases[CASES_MAX])
{
    static const uint32_t gemm_rows[] = {1, 2, 4, 8, 16, 64, 256};
    size_t n = 0;
    if (strncmp(kernel, "gemm", 4) == 0) {
        size_t element_bytes = strcmp(kernel, "gemm_f32") == 0  ? sizeof(float)
                               : strcmp(kernel, "gemm_i8") == 0 ? 1
                                                                : sizeof(cmi_bf16);
        for (size_t i = 0; i < CMI_LEN(gemm_rows); i++) {
            cases[n++] = gemm_case(gemm_rows[i], 256, 2048, element_bytes);
        }
        cases[n++] = gemm_case(1, 256, 7168, element_bytes);
        cases[n++] = gemm_case(64, 256, 7168, element_bytes);
    } else if (strncmp(kernel, "attn", 4) == 0) {
        size_t element_bytes = strcmp(kernel, "attn_values_f32") == 0 ? 4 : 2;
        cases[n++] = attn_case(1, 64, 128, element_bytes);
        cases[n++] = attn_case(16, 64, 128, element_bytes);
        cases[n++] = attn_case(128, 64, 512, element_bytes);
    } else if (strcmp(kernel, "softmax_block") == 0) {
        cases[n++] = vector_case(64, 20, 8);
    } else if (strcmp(kernel, "max_sum_exp") == 0) {
        cases[n++] = vector_case(129280, 20, 4);
    } else if (strcmp(kernel, "swiglu") == 0) {
        cases[n++] = vector_case(2048, 22, 12);
    } else if (strcmp(kernel, "rope") == 0) {
        cases[n++] = vector_case(32, 6, 24);
    } else {
        bool from_bf16 = strcmp(kernel, "widen_bf16") == 0;
        bool to_bf16 = strcmp(kernel, "round_bf16") == 0;
        cases[n++] = vector_case(7168, from_bf16 || to_bf16 ? 0 : 2, from_bf16 || to_bf16 ? 6 : 12);
    }
    return n;
}

#define RUN(name, type)                                                                            \
    static void run_##name(bench *b)                                                               \
    {                                                                                              \
        bench_case cases[CASES_MAX];                                                               \
        const size_t n_cases = cases_of(#name, cases);                                             \
        for (size_t i = 0; i < n_cases; i++) {                                                     \
            double ref_ns = 0;                                                                     \
            for (size_t v = 0; v < cmi_##name##_n_variants; v++) {                                 \
                const cmi_##name##_variant *row = &cmi_##name##_variants[v];                       \
                if ((row->cpu_flags & ~cmi_cpu_flags()) == 0) {                                    \
                    double ns = run_variant(b, #name, row->isa, &cases[i], call_##name,            \
                                            (void (*)(void))row->fn, ref_ns);                      \
                    ref_ns = v == 0 ? ns : ref_ns;                                                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }
CMI_KERNEL_TABLE(RUN)
#undef RUN

/* BF16 1.0 and, read as float32, 1.0039: no operand is subnormal, infinite or NaN. */
static void fill(char *bytes, size_t n_bytes)
{
    const cmi_bf16 one = 0x3F80;
    for (size_t i = 0; i + sizeof one <= n_bytes; i += sizeof one) {
        memcpy(bytes + i, &one, sizeof one);
    }
}

int main(int argc, char **argv)
{
    cmi_float_env_set();
    bench b = {.filter = argc > 1 ? argv[1] : NULL};
    b.pool = cmi_alloc_aligned(pool_bytes, CMI_CACHE_LINE);
    fill(b.pool, pool_bytes);
    for (size_t i = 0; i < CMI_LEN(b.work); i++) {
        b.work[i] = cmi_alloc_aligned(work_bytes, CMI_CACHE_LINE);
        fill(b.work[i], work_bytes);
    }
    b.peaks = peaks_measure(b.pool, pool_bytes);
    printf("this thread: %.1f GB/s read", b.peaks.read_gbytes);
    printf(", %.1f GFLOP/s multiply-add, %.1f GFLOP/s BF16 dot product\n", b.peaks.fma_gflops,
           b.peaks.dot_gflops);
#define RUN(name, type)                                                                            \
    if (b.filter == NULL || strcmp(b.filter, #name) == 0) {                                        \
        run_##name(&b);                                                                            \
    }
    CMI_KERNEL_TABLE(RUN)
#undef RUN
    for (size_t i = 0; i < CMI_LEN(b.work); i++) {
        cmi_free(b.work[i]);
    }
    cmi_free(b.pool);
    return EXIT_SUCCESS;
}
