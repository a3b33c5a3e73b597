#include "cli/bench/kernel_cases.h"

#include <stdio.h>
#include <string.h>

#include "cli/bench/kernel_cases_attention.h"

/* ---- calls ---- */

static void call_gemm(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols,
                      size_t value_bytes)
{
    const cmi_bench_case *c = call->c;
    const cmi_gemm_args args = {.x = call->operands[0],
                                .w = call->w + (size_t)first_col * c->n * value_bytes,
                                .y = (float *)(void *)call->operands[1] + first_col,
                                .x_stride = c->n,
                                .w_stride = c->n,
                                .y_stride = c->n_cols,
                                .n_rows = c->n_rows,
                                .n_cols = n_cols,
                                .n_k = c->n};
    ((cmi_gemm_fn *)call->fn)(&args);
}

static void call_gemm_f32(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    call_gemm(call, first_col, n_cols, sizeof(float));
}

static void call_gemm_bf16(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    call_gemm(call, first_col, n_cols, sizeof(cmi_bf16));
}

static void call_gemm_i8(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    const cmi_bench_case *c = call->c;
    const size_t first_block = first_col / CMI_I8_BLOCK_COLS;
    const cmi_gemm_i8_args args = {.x = call->operands[0],
                                   .x_scale = (float *)(void *)call->operands[2],
                                   .w = call->w + first_block * cmi_i8_block_bytes(c->n),
                                   .y = (float *)(void *)call->operands[1] + first_col,
                                   .x_stride = cmi_i8_row_stride(c->n),
                                   .y_stride = c->n_cols,
                                   .n_rows = c->n_rows,
                                   .n_cols = n_cols,
                                   .n_k = c->n};
    ((cmi_gemm_i8_fn *)call->fn)(&args);
}

/* The other kernels are called whole. */
#define CALL(name)                                                                                 \
    static void call_##name(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
#define N (call->c->n)
#define FLOATS(i) ((float *)(void *)call->operands[i])
#define USE_WHOLE ((void)first_col, (void)n_cols)

CALL(rmsnorm)
{
    USE_WHOLE;
    ((cmi_rmsnorm_fn *)call->fn)(FLOATS(0), FLOATS(1), 1e-6f, N, FLOATS(2));
}

CALL(swiglu)
{
    USE_WHOLE;
    ((cmi_swiglu_fn *)call->fn)(FLOATS(0), FLOATS(1), N, FLOATS(2));
}

CALL(round_bf16)
{
    USE_WHOLE;
    ((cmi_round_bf16_fn *)call->fn)(FLOATS(0), N, (cmi_bf16 *)(void *)call->operands[2]);
}

CALL(widen_bf16)
{
    USE_WHOLE;
    ((cmi_widen_bf16_fn *)call->fn)((cmi_bf16 *)(void *)call->operands[0], N, FLOATS(2));
}

CALL(axpy)
{
    USE_WHOLE;
    ((cmi_axpy_fn *)call->fn)(1e-9f, FLOATS(0), N, FLOATS(1));
}

/* In place: the values grow without end, which changes nothing in the time. */
CALL(rope)
{
    USE_WHOLE;
    ((cmi_rope_fn *)call->fn)(FLOATS(0), FLOATS(1), FLOATS(2), N);
}

CALL(max_sum_exp)
{
    USE_WHOLE;
    float max, sum;
    ((cmi_max_sum_exp_fn *)call->fn)(FLOATS(0), N, &max, &sum);
}

CALL(quantize_i8)
{
    USE_WHOLE;
    float scale;
    ((cmi_quantize_i8_fn *)call->fn)(FLOATS(0), N, call->operands[1], &scale);
}

CALL(rmsnorm_quantize_i8)
{
    USE_WHOLE;
    float scale;
    ((cmi_rmsnorm_quantize_i8_fn *)call->fn)(FLOATS(0), FLOATS(1), 1e-6f, N, NULL,
                                             call->operands[2], &scale);
}

/* Eight messages, a part of the operand each. */
CALL(blake2b)
{
    USE_WHOLE;
    const cmi_blake2b_args args = {.head = call->operands[1],
                                   .data = call->operands[0],
                                   .stride = N / 8,
                                   .n_bytes = N / 8,
                                   .n_messages = 8,
                                   .digests = call->operands[2]};
    ((cmi_blake2b_fn *)call->fn)(&args);
}

static void call_combine(const cmi_bench_call *call, size_t value_bytes)
{
    const void *rows[8];
    for (uint32_t i = 0; i < call->c->n_rows; i++) {
        rows[i] = call->operands[0] + (size_t)i * N * value_bytes;
    }
    const cmi_combine_args args = {
        .rows = rows, .weights = FLOATS(1), .x = FLOATS(2), .n_rows = call->c->n_rows, .n = N};
    ((cmi_combine_fn *)call->fn)(&args);
}

CALL(combine_f32)
{
    USE_WHOLE;
    call_combine(call, sizeof(float));
}

CALL(combine_bf16)
{
    USE_WHOLE;
    call_combine(call, sizeof(cmi_bf16));
}

/* ---- the list of kernels ---- */

#define call_attn_scores_f32 cmi_bench_call_attn_scores
#define call_attn_scores_bf16 cmi_bench_call_attn_scores
#define call_attn_latent_scores_f32 cmi_bench_call_attn_latent_scores
#define call_attn_latent_scores_bf16 cmi_bench_call_attn_latent_scores
#define call_attn_dequantize_i8 cmi_bench_call_attn_dequantize
#define call_attn_softmax_f32 cmi_bench_call_attn_softmax
#define call_attn_softmax_bf16 cmi_bench_call_attn_softmax
#define call_attn_values_f32 cmi_bench_call_attn_values
#define call_attn_values_bf16 cmi_bench_call_attn_values
#define call_attn_merge cmi_bench_call_attn_merge
#define call_attn_pack_keys_f32 cmi_bench_call_attn_pack
#define call_attn_pack_keys_bf16 cmi_bench_call_attn_pack
#define call_attn_pack_values_f32 cmi_bench_call_attn_pack
#define call_attn_pack_values_bf16 cmi_bench_call_attn_pack

size_t cmi_bench_kernels_list(cmi_bench_kernel kernels_out[CMI_BENCH_MAX_KERNELS])
{
    size_t n = 0;
#define ADD(kernel, type)                                                                          \
    kernels_out[n] = (cmi_bench_kernel){.name = #kernel, .call = call_##kernel};                   \
    for (size_t v = 0; v < cmi_##kernel##_n_variants && v < CMI_BENCH_MAX_VARIANTS; v++) {         \
        const cmi_##kernel##_variant *row = &cmi_##kernel##_variants[v];                           \
        kernels_out[n].variants[kernels_out[n].n_variants++] =                                     \
            (cmi_bench_variant){row->isa, row->cpu_flags, row->slow_on, (void (*)(void))row->fn};  \
    }                                                                                              \
    n++;
    CMI_KERNEL_TABLE(ADD)
#undef ADD
    return n;
}

/* ---- shapes and costs ---- */

static cmi_bench_case gemm_case(const char *kernel, const uint32_t shape[3])
{
    const double rows = shape[0], cols = shape[1], k = shape[2];
    cmi_bench_case c = {.n_rows = shape[0],
                        .n_cols = shape[1],
                        .n = shape[2],
                        .is_cut = true,
                        .ops = 2 * rows * cols * k};
    size_t value_bytes = 1;
    if (strcmp(kernel, "gemm_i8") == 0) {
        c.arithmetic = CMI_BENCH_I8;
        c.w_bytes = cmi_i8_packed_bytes(shape[1], shape[2]);
    } else {
        bool is_f32 = strcmp(kernel, "gemm_f32") == 0;
        c.arithmetic = is_f32 ? CMI_BENCH_F32 : CMI_BENCH_BF16;
        value_bytes = is_f32 ? sizeof(float) : sizeof(cmi_bf16);
        c.w_bytes = (size_t)shape[1] * shape[2] * value_bytes;
    }
    c.bytes = (double)c.w_bytes + rows * k * (double)value_bytes;
    snprintf(c.shape, sizeof c.shape, "%ux%ux%u", shape[0], shape[1], shape[2]);
    return c;
}

/* The prompts' chunk and decode's batches, at DeepSeek-V2-Lite's and V3's widths. */
static const uint32_t usual_shapes[][3] = {
    {512, 2048, 2048}, {512, 7168, 2048}, {512, 2048, 7168}, {512, 7168, 7168}, {1, 2048, 2048},
    {1, 7168, 7168},   {2, 7168, 7168},   {4, 7168, 7168},   {8, 2048, 2048},   {8, 7168, 7168},
};

static size_t gemm_cases(const char *kernel, const cmi_bench_shapes *shapes,
                         cmi_bench_case cases_out[CMI_BENCH_MAX_CASES])
{
    const bool usual = shapes->n == 0;
    const size_t n = usual ? CMI_LEN(usual_shapes) : shapes->n;
    for (size_t i = 0; i < n; i++) {
        cases_out[i] = gemm_case(kernel, usual ? usual_shapes[i] : shapes->rows_cols_k[i]);
    }
    return n;
}

/* An element-wise kernel: operations and bytes for each of n elements. */
static cmi_bench_case vector_case(uint32_t n, double ops, double bytes)
{
    cmi_bench_case c = {.n_rows = 1,
                        .n_cols = 1,
                        .n = n,
                        .arithmetic = CMI_BENCH_F32,
                        .ops = n * ops,
                        .bytes = n * bytes};
    snprintf(c.shape, sizeof c.shape, "%u", n);
    return c;
}

/* A token's experts, 8 of 7168 values as in DeepSeek-V3. */
static cmi_bench_case combine_case(size_t value_bytes)
{
    const uint32_t n_rows = 8, n = 7168;
    cmi_bench_case c = vector_case(n, 2.0 * n_rows, (double)(n_rows * value_bytes + sizeof(float)));
    c.n_rows = n_rows;
    snprintf(c.shape, sizeof c.shape, "%ux%u", n_rows, n);
    return c;
}

typedef struct vector_cost {
    const char *kernel;
    uint32_t n;
    double ops, bytes; /* an element */
} vector_cost;

/* exp is 14 operations and a conversion; a division counts as one. */
static const vector_cost vector_costs[] = {
    {"rmsnorm", 7168, 4, 8},
    {"swiglu", 2048, 18, 8},
    {"round_bf16", 7168, 0, 4},
    {"widen_bf16", 7168, 0, 4},
    {"axpy", 7168, 2, 8},
    {"rope", 32, 6, 16},
    {"max_sum_exp", 129280, 17, 4},
    {"quantize_i8", 7168, 2, 4},
    {"rmsnorm_quantize_i8", 7168, 6, 8},
    {"blake2b", 1 << 20, 0, 1},
};

size_t cmi_bench_kernel_cases(const char *kernel, const cmi_bench_shapes *shapes,
                              cmi_bench_case cases_out[CMI_BENCH_MAX_CASES])
{
    if (strncmp(kernel, "gemm", 4) == 0) {
        return gemm_cases(kernel, shapes, cases_out);
    }
    for (size_t i = 0; i < CMI_LEN(vector_costs); i++) {
        const vector_cost *v = &vector_costs[i];
        if (strcmp(kernel, v->kernel) == 0) {
            cases_out[0] = vector_case(v->n, v->ops, v->bytes);
            return 1;
        }
    }
    size_t value_bytes = strstr(kernel, "bf16") != NULL ? sizeof(cmi_bf16) : sizeof(float);
    if (strncmp(kernel, "combine", 7) == 0) {
        cases_out[0] = combine_case(value_bytes);
        return 1;
    }
    if (strncmp(kernel, "attn", 4) == 0) {
        return cmi_bench_attn_cases(kernel, cases_out);
    }
    return 0;
}
