#include "cli/bench/kernel_cases_attention.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ROWS = 64, ROPE = 64 };

static float *floats(const cmi_bench_call *call, size_t i)
{
    return (float *)(void *)call->operands[i];
}

#define USE_WHOLE ((void)first_col, (void)n_cols)

/* n: inputs; n_cols: keys. The tile stays in a cache, as expanded keys do. */
void cmi_bench_call_attn_scores(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    const cmi_attn_scores_args args = {.q = call->operands[0],
                                       .k = call->operands[1],
                                       .s = floats(call, 2),
                                       .q_stride = c->n,
                                       .s_stride = CMI_ATTN_BLOCK,
                                       .n_rows = c->n_rows,
                                       .n_keys = c->n_cols,
                                       .n_k = c->n};
    ((cmi_attn_scores_fn *)call->fn)(&args);
}

/* The page comes from memory, and a step knows which one is next. */
void cmi_bench_call_attn_latent_scores(const cmi_bench_call *call, uint32_t first_col,
                                       uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    const cmi_attn_latent_scores_args args = {.q = call->operands[0],
                                              .latent = call->w,
                                              .rope = call->w + c->w_bytes / c->n * (c->n - ROPE),
                                              .s = floats(call, 2),
                                              .q_stride = c->n,
                                              .s_stride = CMI_ATTN_BLOCK,
                                              .n_rows = c->n_rows,
                                              .n_keys = c->n_cols,
                                              .n_latent = c->n - ROPE,
                                              .n_rope = ROPE,
                                              .ahead = call->next_w,
                                              .ahead_bytes = call->next_w ? c->w_bytes : 0};
    ((cmi_attn_latent_scores_fn *)call->fn)(&args);
}

void cmi_bench_call_attn_softmax(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    float sums[4][MAX_ROWS] = {{0}};
    uint32_t n_visible[MAX_ROWS];
    for (uint32_t i = 0; i < c->n_rows; i++) {
        n_visible[i] = c->n;
    }
    const cmi_attn_softmax_args args = {.s = floats(call, 0),
                                        .p = call->operands[1],
                                        .n_visible = n_visible,
                                        .m = sums[0],
                                        .l = sums[1],
                                        .alpha = sums[2],
                                        .beta = sums[3],
                                        .s_stride = CMI_ATTN_BLOCK,
                                        .p_stride = CMI_ATTN_BLOCK,
                                        .n_rows = c->n_rows,
                                        .n_keys = c->n,
                                        .scale = 0.5f};
    ((cmi_attn_softmax_fn *)call->fn)(&args);
}

/* n: tokens. Tiles lie one after another, in a cache. */
void cmi_bench_call_attn_values(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    const void *tiles[CMI_ATTN_BLOCK / CMI_ATTN_TILE];
    for (size_t i = 0; i < CMI_LEN(tiles); i++) {
        tiles[i] = call->operands[1] + i * cmi_value_tile_bytes(1, c->n_cols);
    }
    const cmi_attn_values_args args = {.p = call->operands[0],
                                       .v = tiles,
                                       .alpha = floats(call, 0),
                                       .beta = floats(call, 0),
                                       .o = floats(call, 2),
                                       .p_stride = CMI_ATTN_BLOCK,
                                       .o_stride = c->n_cols,
                                       .n_rows = c->n_rows,
                                       .n_t = c->n,
                                       .n_cols = c->n_cols};
    ((cmi_attn_values_fn *)call->fn)(&args);
}

void cmi_bench_call_attn_merge(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    float m[MAX_ROWS] = {0}, l[MAX_ROWS] = {0};
    const cmi_attn_merge_args args = {.m_b = m,
                                      .l_b = l,
                                      .o_b = floats(call, 0),
                                      .m = m,
                                      .l = l,
                                      .o = floats(call, 1),
                                      .o_stride = c->n,
                                      .n_rows = c->n_rows,
                                      .n_cols = c->n};
    ((cmi_attn_merge_fn *)call->fn)(&args);
}

void cmi_bench_call_attn_pack(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_bench_case *c = call->c;
    const cmi_attn_pack_args args = {.x = floats(call, 0),
                                     .tile = call->operands[1],
                                     .x_stride = c->n,
                                     .n_rows = c->n_rows,
                                     .n_cols = c->n};
    ((cmi_attn_pack_fn *)call->fn)(&args);
}

void cmi_bench_call_attn_dequantize(const cmi_bench_call *call, uint32_t first_col, uint32_t n_cols)
{
    USE_WHOLE;
    const cmi_attn_dequantize_args args = {.q = call->operands[0],
                                           .scales = floats(call, 2),
                                           .tile = call->operands[1],
                                           .n_t = call->c->n_rows,
                                           .n_cols = call->c->n};
    ((cmi_attn_dequantize_fn *)call->fn)(&args);
}

/* rows x columns results of n multiply-adds; the operand of n x columns is what is read. */
static cmi_bench_case product_case(const char *kernel, uint32_t n_rows, uint32_t n_cols, uint32_t n)
{
    const bool bf16 = strstr(kernel, "bf16") != NULL;
    const size_t value_bytes = bf16 ? sizeof(cmi_bf16) : sizeof(float);
    const double rows = n_rows, cols = n_cols, inner = n;
    cmi_bench_case c = {.n_rows = n_rows,
                        .n_cols = n_cols,
                        .n = n,
                        .arithmetic = bf16 ? CMI_BENCH_BF16 : CMI_BENCH_F32,
                        .ops = 2 * rows * cols * inner,
                        .bytes = cols * inner * (double)value_bytes};
    if (strncmp(kernel, "attn_latent", 11) == 0) {
        c.w_bytes = (size_t)c.bytes;
    }
    (void)snprintf(c.shape, sizeof c.shape, "%ux%ux%u", n_rows, n_cols, n);
    return c;
}

/* Element-wise: operations and bytes for each of rows x n elements. */
static cmi_bench_case rows_case(uint32_t n_rows, uint32_t n, double ops, double bytes)
{
    const double values = (double)n_rows * n;
    cmi_bench_case c = {.n_rows = n_rows,
                        .n_cols = 1,
                        .n = n,
                        .arithmetic = CMI_BENCH_F32,
                        .ops = values * ops,
                        .bytes = values * bytes};
    (void)snprintf(c.shape, sizeof c.shape, "%ux%u", n_rows, n);
    return c;
}

size_t cmi_bench_attn_cases(const char *kernel, cmi_bench_case cases_out[CMI_BENCH_MAX_CASES])
{
    size_t n = 0;
    if (strncmp(kernel, "attn_scores", 11) == 0) {
        cases_out[n++] = product_case(kernel, 12, 64, 192);
        cases_out[n++] = product_case(kernel, 48, 64, 192);
    } else if (strncmp(kernel, "attn_latent_scores", 18) == 0) {
        cases_out[n++] = product_case(kernel, 16, 64, 576);
        cases_out[n++] = product_case(kernel, 32, 64, 576);
        cases_out[n++] = product_case(kernel, 64, 64, 576);
    } else if (strncmp(kernel, "attn_values", 11) == 0) {
        cases_out[n++] = product_case(kernel, 12, 128, 256);
        cases_out[n++] = product_case(kernel, 16, 512, 256);
        cases_out[n++] = product_case(kernel, 64, 512, 256);
    } else if (strncmp(kernel, "attn_softmax", 12) == 0) {
        cases_out[n++] = rows_case(16, 256, 18, 4);
    } else if (strcmp(kernel, "attn_merge") == 0) {
        cases_out[n++] = rows_case(16, 512, 3, 8);
    } else if (strcmp(kernel, "attn_dequantize_i8") == 0) {
        cases_out[n++] = rows_case(64, 512, 1, 2);
    } else if (strncmp(kernel, "attn_pack", 9) == 0) {
        cases_out[n++] = rows_case(64, 128, 0, 4);
    }
    return n;
}
