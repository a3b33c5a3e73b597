/* cli/bench/kernel_cases.h - what `cminfer bench --kernels` calls: for each kernel some shapes,
 * what a call costs, and how it is made. */
#ifndef CMI_CLI_BENCH_KERNEL_CASES_H
#define CMI_CLI_BENCH_KERNEL_CASES_H

#include "cli/bench/limits.h"
#include "kernels/variants.h"

/* Sizes of matrix products that the user asks for: rows x columns x inner dimension. */
enum { CMI_BENCH_MAX_SHAPES = 32 };
typedef struct cmi_bench_shapes {
    uint32_t rows_cols_k[CMI_BENCH_MAX_SHAPES][3];
    size_t n;
} cmi_bench_shapes;

typedef struct cmi_bench_case {
    char shape[48];
    uint32_t n_rows, n_cols, n; /* n: the inner or only dimension */
    cmi_bench_limit_kind arithmetic;
    double ops;
    double bytes; /* read, or written where that is more: both go on at the same time. Each operand
                     once */
    size_t w_bytes; /* of weights, other ones at each call, so that they come from memory; 0: all
                       operands stay where the last call left them, in a cache */
    bool is_cut;    /* by columns, into tasks for the team: also runs with all threads */
} cmi_bench_case;

/* One call: columns first_col .. first_col + n_cols of it where it is cut. */
typedef struct cmi_bench_call {
    const cmi_bench_case *c;
    void (*fn)(void);      /* the kernel's variant */
    const uint8_t *w;      /* c->w_bytes */
    const uint8_t *next_w; /* the next call's, unless NULL */
    uint8_t *operands[3];
} cmi_bench_call;
typedef void cmi_bench_call_fn(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols);

enum { CMI_BENCH_OPERAND_BYTES = 64 << 20, CMI_BENCH_MAX_CASES = 40 };

/* A kernel of CMI_KERNEL_TABLE, with its table's type left out. */
typedef struct cmi_bench_variant {
    const char *isa;
    uint32_t cpu_flags, slow_on; /* as in kernels/variants.h */
    void (*fn)(void);
} cmi_bench_variant;

enum { CMI_BENCH_MAX_VARIANTS = 16 };
typedef struct cmi_bench_kernel {
    const char *name;
    cmi_bench_variant variants[CMI_BENCH_MAX_VARIANTS];
    size_t n_variants;
    cmi_bench_call_fn *call;
} cmi_bench_kernel;

/* All of them, in the order of CMI_KERNEL_TABLE. Returns how many. */
enum { CMI_BENCH_MAX_KERNELS = 64 };
size_t cmi_bench_kernels_list(cmi_bench_kernel kernels_out[CMI_BENCH_MAX_KERNELS]);

/* The cases of a kernel; shapes, unless empty, instead of the usual ones of a matrix product.
 * Returns how many. */
size_t cmi_bench_kernel_cases(const char *kernel, const cmi_bench_shapes *shapes,
                              cmi_bench_case cases_out[CMI_BENCH_MAX_CASES]);

#endif
