/* Each battery_<kernel> walks its sizes, draws the arrays of a call from the seed, makes the call
 * and hands the arrays that it may have changed to the sink, gaps and all. */
#include "tests/test.h"

#include <math.h>

#include "base/rng.h"
#include "kernels/ref/math.h"
#include "tests/kernels/battery.h"

static const uint32_t sizes[] = {1,  2,  7,  8,  9,  15, 16, 17,  23,  24,  25,
                                 31, 32, 33, 47, 63, 64, 65, 100, 129, 1000};

uint32_t battery_draw_bits(battery *b)
{
    uint32_t words[4];
    cmi_philox4x32(b->seed, b->n_drawn++, 0, words);
    return words[0];
}

float battery_draw(battery *b, int max_exponent)
{
    uint32_t words[4];
    cmi_philox4x32(b->seed, b->n_drawn++, 0, words);
    uint32_t sign = words[0] & 0x80000000u, fraction = words[0] & 0x007FFFFFu;
    uint32_t exponent;
    switch (words[1] % 32) {
    case 0:
        return cmi_f32_from_bits(sign);
    case 1:
        return cmi_f32_from_bits(sign | fraction); /* subnormal */
    case 2:
        exponent = 1 + words[2] % 40;
        break;
    case 3:
        exponent = (uint32_t)(127 + max_exponent) - words[2] % 4;
        break;
    default:
        exponent = 127 - words[2] % 12;
        break;
    }
    return cmi_f32_from_bits(sign | exponent << 23 | fraction);
}

static float *new_floats(battery *b, size_t n)
{
    return guarded_alloc(&b->arrays, n * sizeof(float));
}

/* n drawn floats in rows of width, NaN in the rest of each stride. */
static float *draw_rows(battery *b, size_t n_rows, size_t width, size_t stride, int max_exponent)
{
    size_t n = n_rows == 0 ? 0 : (n_rows - 1) * stride + width;
    float *x = new_floats(b, n);
    for (size_t i = 0; i < n; i++) {
        x[i] = i % stride < width ? battery_draw(b, max_exponent) : NAN;
    }
    return x;
}

static cmi_bf16 *draw_bf16_rows(battery *b, size_t n_rows, size_t width, size_t stride,
                                int max_exponent)
{
    size_t n = n_rows == 0 ? 0 : (n_rows - 1) * stride + width;
    cmi_bf16 *x = guarded_alloc(&b->arrays, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        float value = i % stride < width ? battery_draw(b, max_exponent) : NAN;
        x[i] = (cmi_bf16)(cmi_f32_bits(value) >> 16); /* subnormal ones stay */
    }
    return x;
}

static float *draw_floats(battery *b, size_t n, int max_exponent)
{
    return draw_rows(b, 1, n, n + 1, max_exponent);
}

static void give(battery *b, const char *label, const void *bytes, size_t n_bytes)
{
    b->sink(b->context, label, bytes, n_bytes);
}

static void gemm_call(battery *b, cmi_gemm_fn *fn, bool bf16, uint32_t n_rows, uint32_t n_cols,
                      uint32_t n_k)
{
    char label[96];
    (void)snprintf(label, sizeof label, "%u rows, %u columns, k %u", n_rows, n_cols, n_k);
    cmi_gemm_args args = {
        .x_stride = n_k + n_rows % 3,
        .w_stride = n_k + n_cols % 4,
        .y_stride = n_cols + n_k % 3,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_k = n_k,
    };
    const int max_exponent = 40; /* products of such values and their sums are finite */
    if (bf16) {
        args.x = draw_bf16_rows(b, n_rows, n_k, args.x_stride + (n_k == 0), max_exponent);
        args.w = draw_bf16_rows(b, n_cols, n_k, args.w_stride + (n_k == 0), max_exponent);
    } else {
        args.x = draw_rows(b, n_rows, n_k, args.x_stride + (n_k == 0), max_exponent);
        args.w = draw_rows(b, n_cols, n_k, args.w_stride + (n_k == 0), max_exponent);
    }
    size_t n_y = n_rows == 0 ? 0 : (n_rows - 1) * args.y_stride + n_cols;
    args.y = new_floats(b, n_y);
    fn(&args);
    give(b, label, args.y, n_y * sizeof *args.y);
    guarded_release(&b->arrays);
}

static void gemm_calls(battery *b, cmi_gemm_fn *fn, bool bf16)
{
    static const struct {
        uint32_t n_rows, n_cols, n_k;
    } large[] = {
        {0, 3, 5},    {3, 0, 5},     {4, 5, 0},     {1, 100, 1000}, {13, 70, 200},
        {64, 64, 64}, {7, 34, 3500}, {2, 34, 3500}, {6, 130, 129},  {14, 130, 65},
    };
    for (size_t i = 0; i < CMI_LEN(large); i++) {
        gemm_call(b, fn, bf16, large[i].n_rows, large[i].n_cols, large[i].n_k);
    }
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        gemm_call(b, fn, bf16, 3, 5, sizes[i]);
        gemm_call(b, fn, bf16, 2, CMI_MIN(sizes[i], 130u), 40);
        gemm_call(b, fn, bf16, 1 + (uint32_t)i, 9, 70);
    }
}

void battery_gemm_f32(battery *b, cmi_gemm_fn *fn)
{
    gemm_calls(b, fn, false);
}

void battery_gemm_bf16(battery *b, cmi_gemm_fn *fn)
{
    gemm_calls(b, fn, true);
}

void battery_rmsnorm(battery *b, cmi_rmsnorm_fn *fn)
{
    for (size_t i = 0; i < 2 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 2];
        const bool in_place = i % 2 == 1;
        char label[64];
        (void)snprintf(label, sizeof label, "n %u%s", n, in_place ? ", in place" : "");
        float *x = draw_floats(b, n, 50), *w = draw_floats(b, n, 4);
        float *y = in_place ? x : new_floats(b, n);
        fn(x, w, 1e-6f, n, y);
        give(b, label, y, n * sizeof *y);
        guarded_release(&b->arrays);
    }
}

/* Arguments at which exp changes its ways, when there is room for them. */
static void plant_exp_limits(float *x, size_t n)
{
    static const float limits[] = {CMI_EXP_MIN, CMI_EXP_MAX, 0.5f / CMI_EXP_LOG2E, 100.0f};
    for (size_t i = 0; n >= 64 && i < 24; i++) {
        uint32_t bits = cmi_f32_bits(limits[i / 6]) + (uint32_t)(i % 3) - 1;
        x[2 * i] = cmi_f32_from_bits(bits ^ (i % 6 < 3 ? 0x80000000u : 0));
    }
}

void battery_swiglu(battery *b, cmi_swiglu_fn *fn)
{
    for (size_t i = 0; i < 2 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 2];
        const bool in_place = i % 2 == 1;
        char label[64];
        (void)snprintf(label, sizeof label, "n %u%s", n, in_place ? ", in place" : "");
        float *gate = draw_floats(b, n, 7), *up = draw_floats(b, n, 20);
        plant_exp_limits(gate, n);
        float *y = in_place ? gate : new_floats(b, n);
        fn(gate, up, n, y);
        give(b, label, y, n * sizeof *y);
        guarded_release(&b->arrays);
    }
}

void battery_round_bf16(battery *b, cmi_round_bf16_fn *fn)
{
    for (size_t i = 0; i < 2 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 2];
        char label[64];
        (void)snprintf(label, sizeof label, "n %u, call %zu", n, i % 2);
        float *x = draw_floats(b, n, 100);
        for (size_t j = 0; i % 2 == 1 && j < n; j++) {
            uint32_t bits = battery_draw_bits(b); /* NaN and infinity too */
            memcpy(&x[j], &bits, sizeof bits);
        }
        cmi_bf16 *y = guarded_alloc(&b->arrays, n * sizeof *y);
        fn(x, n, y);
        give(b, label, y, n * sizeof *y);
        guarded_release(&b->arrays);
    }
}

void battery_widen_bf16(battery *b, cmi_widen_bf16_fn *fn)
{
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i];
        char label[64];
        (void)snprintf(label, sizeof label, "n %u", n);
        cmi_bf16 *x = guarded_alloc(&b->arrays, n * sizeof *x);
        for (size_t j = 0; j < n; j++) {
            x[j] = (cmi_bf16)battery_draw_bits(b);
        }
        float *y = new_floats(b, n);
        fn(x, n, y);
        give(b, label, y, n * sizeof *y);
        guarded_release(&b->arrays);
    }
}

/* Ends of blocks, other numbers of messages than lanes, messages apart from each other. */
void battery_blake2b(battery *b, cmi_blake2b_fn *fn)
{
    static const uint32_t lengths[] = {0, 1, 127, 128, 129, 255, 256, 257, 1000};
    for (size_t i = 0; i < 11 * CMI_LEN(lengths); i++) {
        uint32_t n_bytes = lengths[i / 11], n_messages = (uint32_t)(i % 11);
        char label[64];
        (void)snprintf(label, sizeof label, "%u messages of %u", n_messages, n_bytes);
        size_t stride = n_bytes + i % 3;
        size_t data_bytes = n_messages == 0 ? 0 : (n_messages - 1) * stride + n_bytes;
        uint8_t *head = guarded_alloc(&b->arrays, CMI_BLAKE2B_BLOCK_BYTES);
        uint8_t *data = guarded_alloc(&b->arrays, data_bytes);
        for (size_t j = 0; j < CMI_BLAKE2B_BLOCK_BYTES; j++) {
            head[j] = (uint8_t)battery_draw_bits(b);
        }
        for (size_t j = 0; j < data_bytes; j++) {
            data[j] = (uint8_t)battery_draw_bits(b);
        }
        size_t digests_bytes = (size_t)n_messages * CMI_BLAKE2B_DIGEST_BYTES;
        cmi_blake2b_args args = {.head = head,
                                 .data = data,
                                 .stride = stride,
                                 .n_bytes = n_bytes,
                                 .n_messages = n_messages,
                                 .digests = guarded_alloc(&b->arrays, digests_bytes)};
        fn(&args);
        give(b, label, args.digests, digests_bytes);
        guarded_release(&b->arrays);
    }
}

void battery_axpy(battery *b, cmi_axpy_fn *fn)
{
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i];
        char label[64];
        (void)snprintf(label, sizeof label, "n %u", n);
        float *x = draw_floats(b, n, 50), *y = draw_floats(b, n, 100);
        fn(battery_draw(b, 10), x, n, y);
        give(b, label, y, n * sizeof *y);
        guarded_release(&b->arrays);
    }
}

void battery_rope(battery *b, cmi_rope_fn *fn)
{
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i];
        char label[64];
        (void)snprintf(label, sizeof label, "%u pairs", n);
        float *x = draw_floats(b, 2 * (size_t)n, 50);
        float *cos = draw_floats(b, n, 0), *sin = draw_floats(b, n, 0);
        fn(x, cos, sin, n);
        give(b, label, x, 2 * n * sizeof *x);
        guarded_release(&b->arrays);
    }
}

void battery_max_sum_exp(battery *b, cmi_max_sum_exp_fn *fn)
{
    for (size_t i = 0; i < 3 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 3];
        const size_t kind = i % 3;
        char label[64];
        (void)snprintf(label, sizeof label, "n %u, kind %zu", n, kind);
        float *z = draw_floats(b, n, 7);
        for (size_t j = 0; j < n; j++) {
            uint32_t bits = battery_draw_bits(b);
            if (kind == 1 && bits % 2 == 0 && j != n / 2) {
                z[j] = -INFINITY;
            }
            if (kind == 2) {
                z[j] = bits % 2 == 0 ? 0.0f : -0.0f;
            }
        }
        float results[2];
        fn(z, n, &results[0], &results[1]);
        give(b, label, results, sizeof results);
        guarded_release(&b->arrays);
    }
}

void battery_quantize_i8(battery *b, cmi_quantize_i8_fn *fn)
{
    for (size_t i = 0; i < 3 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 3];
        /* Small, large, and so small that the row counts as zeros. */
        const int max_exponent = i % 3 == 0 ? 4 : i % 3 == 1 ? 100 : -101;
        char label[64];
        (void)snprintf(label, sizeof label, "n %u, kind %zu", n, i % 3);
        float *x = draw_floats(b, n, 4);
        for (size_t j = 0; j < n; j++) {
            x[j] = ldexpf(x[j], max_exponent - 4);
        }
        uint8_t *q = guarded_alloc(&b->arrays, n);
        float scale;
        fn(x, n, q, &scale);
        give(b, label, q, n);
        give(b, label, &scale, sizeof scale);
        guarded_release(&b->arrays);
    }
}

void battery_rmsnorm_quantize_i8(battery *b, cmi_rmsnorm_quantize_i8_fn *fn)
{
    for (size_t i = 0; i < 2 * CMI_LEN(sizes); i++) {
        const uint32_t n = sizes[i / 2];
        const bool with_y = i % 2 == 1;
        char label[64];
        (void)snprintf(label, sizeof label, "n %u%s", n, with_y ? ", with y" : "");
        float *x = draw_floats(b, n, 50), *w = draw_floats(b, n, 4);
        float *y = with_y ? new_floats(b, n) : NULL;
        uint8_t *q = guarded_alloc(&b->arrays, n);
        float scale;
        fn(x, w, 1e-6f, n, y, q, &scale);
        if (with_y) {
            give(b, label, y, n * sizeof *y);
        }
        give(b, label, q, n);
        give(b, label, &scale, sizeof scale);
        guarded_release(&b->arrays);
    }
}

/* Packed blocks of any bytes, so that even weights of -128 occur; zero outside the matrix. */
static void *draw_i8_blocks(battery *b, uint32_t n_out, uint32_t n_k)
{
    /* A whole number of cache lines before a page border: aligned. */
    uint8_t *blocks = guarded_alloc(&b->arrays, cmi_i8_packed_bytes(n_out, n_k));
    memset(blocks, 0, cmi_i8_packed_bytes(n_out, n_k));
    for (uint32_t c = 0; c < n_out; c++) {
        uint8_t *block = blocks + c / CMI_I8_BLOCK_COLS * cmi_i8_block_bytes(n_k);
        uint32_t lane = c % CMI_I8_BLOCK_COLS;
        int32_t sum = 0;
        for (uint32_t k = 0; k < n_k; k++) {
            int8_t w = (int8_t)battery_draw_bits(b);
            sum += w;
            block[CMI_I8_HEADER_BYTES + (k / 4 * CMI_I8_BLOCK_COLS + lane) * 4 + k % 4] =
                (uint8_t)w;
        }
        ((float *)(void *)block)[lane] = battery_draw(b, 2);
        ((int32_t *)(void *)(block + 64))[lane] = -128 * sum;
    }
    return blocks;
}

static void gemm_i8_call(battery *b, cmi_gemm_i8_fn *fn, cmi_i8_out out, uint32_t n_rows,
                         uint32_t n_cols, uint32_t n_k)
{
    char label[96];
    (void)snprintf(label, sizeof label, "out %d, %u rows, %u columns, k %u", (int)out, n_rows,
                   n_cols, n_k);
    uint32_t n_blocks = CMI_DIV_UP(n_cols, (uint32_t)CMI_I8_BLOCK_COLS);
    uint32_t n_out = out == CMI_I8_OUT_SWIGLU ? 2 * n_blocks * CMI_I8_BLOCK_COLS : n_cols;
    cmi_gemm_i8_args args = {.x_scale = draw_floats(b, n_rows, 1),
                             .w = draw_i8_blocks(b, n_out, n_k),
                             .x_stride = CMI_ROUND_UP((size_t)n_k, (size_t)4) + 4 * (n_rows % 3),
                             .y_stride = n_cols + n_k % 3,
                             .n_rows = n_rows,
                             .n_cols = n_cols,
                             .n_k = n_k,
                             .out = out};
    uint8_t *x = guarded_alloc(&b->arrays, n_rows * args.x_stride);
    for (size_t i = 0; i < n_rows * args.x_stride; i++) {
        x[i] = (uint8_t)(1 + battery_draw_bits(b) % 255);
    }
    args.x = x;
    size_t n_y = n_rows == 0 ? 0 : (n_rows - 1) * args.y_stride + n_cols;
    if (out == CMI_I8_OUT_BF16) {
        args.y = guarded_alloc(&b->arrays, n_y * sizeof(cmi_bf16));
    } else {
        args.y = draw_floats(b, n_y, 20); /* also what is added to */
    }
    fn(&args);
    give(b, label, args.y, n_y * (out == CMI_I8_OUT_BF16 ? sizeof(cmi_bf16) : sizeof(float)));
    guarded_release(&b->arrays);
}

void battery_gemm_i8(battery *b, cmi_gemm_i8_fn *fn)
{
    static const struct {
        uint32_t n_rows, n_cols, n_k;
    } shapes[] = {
        {0, 3, 5},     {3, 0, 5},    {4, 5, 0},     {1, 100, 1000}, {13, 70, 200}, {64, 64, 64},
        {7, 34, 3500}, {2, 16, 777}, {6, 130, 129}, {33, 130, 65},  {3, 33, 4},    {25, 17, 3},
    };
    for (size_t i = 0; i < CMI_LEN(shapes); i++) {
        for (int out = CMI_I8_OUT_F32; out <= CMI_I8_OUT_SWIGLU; out++) {
            gemm_i8_call(b, fn, (cmi_i8_out)out, shapes[i].n_rows, shapes[i].n_cols, shapes[i].n_k);
        }
    }
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        cmi_i8_out out = (cmi_i8_out)(i % 4);
        gemm_i8_call(b, fn, out, 3, 5, sizes[i]);
        gemm_i8_call(b, fn, out, 2, CMI_MIN(sizes[i], 130u), 40);
        gemm_i8_call(b, fn, out, 1 + (uint32_t)i, 9, 70);
    }
    /* Row tiles of every size, and weights that do not fit a panel for the second-level cache. */
    for (uint32_t n_rows = 22; n_rows <= 51; n_rows++) {
        gemm_i8_call(b, fn, CMI_I8_OUT_F32, n_rows, 20, 61);
    }
    gemm_i8_call(b, fn, CMI_I8_OUT_ADD, 25, 80, 5000);
    gemm_i8_call(b, fn, CMI_I8_OUT_SWIGLU, 25, 40, 5000);
}

static void combine_calls(battery *b, cmi_combine_fn *fn, bool bf16)
{
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        const void *rows[9];
        cmi_combine_args args = {.rows = rows, .n_rows = (uint32_t)i % 10, .n = sizes[i]};
        char label[64];
        (void)snprintf(label, sizeof label, "n %u, %u rows", args.n, args.n_rows);
        for (uint32_t r = 0; r < args.n_rows; r++) {
            rows[r] = bf16 ? (const void *)draw_bf16_rows(b, 1, args.n, args.n, 30)
                           : draw_floats(b, args.n, 30);
        }
        args.weights = draw_floats(b, args.n_rows, 2);
        args.x = draw_floats(b, args.n, 30);
        fn(&args);
        give(b, label, args.x, args.n * sizeof *args.x);
        guarded_release(&b->arrays);
    }
}

void battery_combine_f32(battery *b, cmi_combine_fn *fn)
{
    combine_calls(b, fn, false);
}

void battery_combine_bf16(battery *b, cmi_combine_fn *fn)
{
    combine_calls(b, fn, true);
}
