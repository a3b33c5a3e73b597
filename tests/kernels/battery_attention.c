/* The attention kernels' part of the battery (battery.h). Operands are float32 or BF16 (P = 1 or 2
 * values a lane); whatever a kernel must not look at is NaN. */
#include "tests/test.h"

#include <math.h>

#include "tests/kernels/battery.h"

static void give(battery *b, const char *label, const void *bytes, size_t n_bytes)
{
    b->sink(b->context, label, bytes, n_bytes);
}

static void put(void *operands, uint32_t p, size_t at, float value)
{
    if (p == 1) {
        ((float *)operands)[at] = value;
    } else { /* truncated: subnormal values stay */
        ((cmi_bf16 *)operands)[at] = (cmi_bf16)(cmi_f32_bits(value) >> 16);
    }
}

static void *new_operands(battery *b, uint32_t p, size_t n)
{
    return guarded_alloc(&b->arrays, n * (CMI_ATTN_LANE_BYTES / p));
}

static float *new_floats(battery *b, size_t n)
{
    return guarded_alloc(&b->arrays, n * sizeof(float));
}

/* Rows of drawn operands, NaN between them. */
static void *draw_rows(battery *b, uint32_t p, size_t n_rows, size_t width, size_t stride,
                       int max_exponent)
{
    size_t n = (n_rows - 1) * stride + width;
    void *x = new_operands(b, p, n);
    for (size_t i = 0; i < n; i++) {
        put(x, p, i, i % stride < width ? battery_draw(b, max_exponent) : NAN);
    }
    return x;
}

static float *draw_floats(battery *b, size_t n, int max_exponent)
{
    return draw_rows(b, 1, 1, n, n + 1, max_exponent);
}

typedef size_t tile_at_fn(uint32_t p, size_t t, size_t c);

/* A tile of n_bytes whose first n_t tokens have n_c drawn columns, and NaN elsewhere. */
static void *draw_tile(battery *b, uint32_t p, tile_at_fn *at, size_t n_bytes, uint32_t n_t,
                       uint32_t n_c, int max_exponent)
{
    size_t n = n_bytes / (CMI_ATTN_LANE_BYTES / p);
    void *tile = new_operands(b, p, n);
    for (size_t i = 0; i < n; i++) {
        put(tile, p, i, NAN);
    }
    for (uint32_t t = 0; t < n_t; t++) {
        for (uint32_t c = 0; c < n_c; c++) {
            put(tile, p, at(p, t, c), battery_draw(b, max_exponent));
        }
    }
    return tile;
}

static void scores_calls(battery *b, cmi_attn_scores_fn *fn, uint32_t p)
{
    static const uint32_t n_ks[] = {0, 2, 4, 6, 8, 10, 34, 192, 576};
    for (uint32_t i = 0; i < 4 * CMI_LEN(n_ks); i++) {
        cmi_attn_scores_args args = {
            .n_rows = 1 + i * 5 % 19,
            .n_keys = 16 * (1 + i % 4),
            .n_k = n_ks[i / 4] + (p == 1 ? i % 2 : 0),
            .s_stride = CMI_ATTN_TILE + i % 3,
        };
        char label[96];
        (void)snprintf(label, sizeof label, "%u rows, %u keys, k %u", args.n_rows, args.n_keys,
                       args.n_k);
        args.q_stride = args.n_k + 2 + i % 3;
        args.q = draw_rows(b, p, args.n_rows, args.n_k, args.q_stride, 30);
        args.k = draw_tile(b, p, cmi_key_tile_at, cmi_key_tile_bytes(p, args.n_k), args.n_keys,
                           args.n_k, 30);
        size_t n_s = (args.n_rows - 1) * args.s_stride + args.n_keys;
        args.s = new_floats(b, n_s);
        fn(&args);
        give(b, label, args.s, n_s * sizeof *args.s);
        guarded_release(&b->arrays);
    }
}

void battery_attn_scores_f32(battery *b, cmi_attn_scores_fn *fn)
{
    scores_calls(b, fn, 1);
}

void battery_attn_scores_bf16(battery *b, cmi_attn_scores_fn *fn)
{
    scores_calls(b, fn, 2);
}

static void latent_scores_calls(battery *b, cmi_attn_latent_scores_fn *fn, uint32_t p)
{
    static const uint32_t n_latents[] = {0, 16, 48, 80, 160, 512};
    for (uint32_t i = 0; i < 8 * CMI_LEN(n_latents); i++) {
        cmi_attn_latent_scores_args args = {
            .n_rows = 1 + i * 11 % 37,
            .n_keys = 16 * (1 + i % 4),
            .n_latent = n_latents[i / 8],
            .n_rope = i % 7 * 2 + (p == 1 ? i % 2 : 0),
            .s_stride = CMI_ATTN_TILE + i % 3,
        };
        char label[96];
        (void)snprintf(label, sizeof label, "%u rows, %u keys, %u latent, %u rope", args.n_rows,
                       args.n_keys, args.n_latent, args.n_rope);
        const uint32_t width = args.n_latent + args.n_rope;
        args.q_stride = width + 2 + i % 3;
        args.q = draw_rows(b, p, args.n_rows, width, args.q_stride, 30);
        args.latent = draw_tile(b, p, cmi_value_tile_at, cmi_value_tile_bytes(p, args.n_latent),
                                args.n_keys, args.n_latent, 30);
        args.rope = draw_tile(b, p, cmi_key_tile_at, cmi_key_tile_bytes(p, args.n_rope),
                              args.n_keys, args.n_rope, 30);
        size_t n_s = (args.n_rows - 1) * args.s_stride + args.n_keys;
        args.s = new_floats(b, n_s);
        args.ahead = args.s;
        args.ahead_bytes = i % 5 * 100;
        fn(&args);
        give(b, label, args.s, n_s * sizeof *args.s);
        guarded_release(&b->arrays);
    }
}

void battery_attn_latent_scores_f32(battery *b, cmi_attn_latent_scores_fn *fn)
{
    latent_scores_calls(b, fn, 1);
}

void battery_attn_latent_scores_bf16(battery *b, cmi_attn_latent_scores_fn *fn)
{
    latent_scores_calls(b, fn, 2);
}

/* n running maxima or sums, or those of a block apart: some still empty. */
static void draw_state(battery *b, size_t n, float **m_out, float **l_out)
{
    float *m = draw_floats(b, n, 5), *l = draw_floats(b, n, 5);
    for (size_t r = 0; r < n; r++) {
        bool empty = battery_draw_bits(b) % 3 == 0;
        m[r] = empty ? -INFINITY : m[r] + 0.0f; /* a maximum is never -0 */
        l[r] = empty ? 0.0f : fabsf(l[r]);
    }
    *m_out = m;
    *l_out = l;
}

/* Scores of a row: mostly drawn, or all zeros of both signs; NaN where the row does not see. */
static void draw_scores(battery *b, const cmi_attn_softmax_args *args, float *s)
{
    for (uint32_t r = 0; r < args->n_rows; r++) {
        bool zeros = battery_draw_bits(b) % 4 == 0;
        int max_exponent = r % 3 == 0 ? 10 : 3;
        for (uint32_t t = args->n_hidden; t < args->n_visible[r]; t++) {
            float zero = battery_draw_bits(b) % 2 == 0 ? 0.0f : -0.0f;
            s[r * args->s_stride + t] = zeros ? zero : battery_draw(b, max_exponent);
        }
    }
}

static void softmax_calls(battery *b, cmi_attn_softmax_fn *fn, uint32_t p)
{
    for (uint32_t i = 0; i < 40; i++) {
        cmi_attn_softmax_args args = {
            .n_rows = 1 + i * 3 % 35,
            .n_keys = 16 * (1 + i * 7 % 16),
            .n_hidden = i % 3 == 2 ? i % 7 : 0,
            .scale = 0.11f,
        };
        char label[96];
        (void)snprintf(label, sizeof label, "%u rows, %u keys, %u hidden", args.n_rows, args.n_keys,
                       args.n_hidden);
        args.s_stride = args.n_keys + i % 5;
        args.p_stride = args.n_keys + i % 4;
        size_t n_s = (args.n_rows - 1) * args.s_stride + args.n_keys;
        size_t n_p = (args.n_rows - 1) * args.p_stride + args.n_keys;
        float *s = new_floats(b, n_s);
        for (size_t j = 0; j < n_s; j++) {
            s[j] = NAN;
        }
        uint32_t *n_visible = guarded_alloc(&b->arrays, args.n_rows * sizeof *n_visible);
        for (uint32_t r = 0; r < args.n_rows; r++) { /* none, some or all */
            uint32_t drawn = battery_draw_bits(b) % (args.n_keys + 1);
            n_visible[r] = i % 2 == 0 || r % 5 == 0 ? drawn : args.n_keys;
        }
        args.s = s;
        args.n_visible = n_visible;
        draw_scores(b, &args, s);
        args.p = new_operands(b, p, n_p);
        draw_state(b, args.n_rows, &args.m, &args.l);
        args.alpha = new_floats(b, args.n_rows);
        args.beta = new_floats(b, args.n_rows);
        fn(&args);
        give(b, label, args.p, n_p * (CMI_ATTN_LANE_BYTES / p));
        give(b, label, args.m, args.n_rows * sizeof *args.m);
        give(b, label, args.l, args.n_rows * sizeof *args.l);
        give(b, label, args.alpha, args.n_rows * sizeof *args.alpha);
        give(b, label, args.beta, args.n_rows * sizeof *args.beta);
        guarded_release(&b->arrays);
    }
}

void battery_attn_softmax_f32(battery *b, cmi_attn_softmax_fn *fn)
{
    softmax_calls(b, fn, 1);
}

void battery_attn_softmax_bf16(battery *b, cmi_attn_softmax_fn *fn)
{
    softmax_calls(b, fn, 2);
}

static void values_calls(battery *b, cmi_attn_values_fn *fn, uint32_t p)
{
    static const uint32_t n_ts[] = {0, 2, 14, 64, 66, 128, 200, 256};
    static const uint32_t n_cols[] = {1, 5, 16, 17, 63, 64, 65, 96, 128, 150};
    for (uint32_t i = 0; i < 30; i++) {
        cmi_attn_values_args args = {
            .n_rows = 1 + i * 5 % 14,
            .n_t = n_ts[i % CMI_LEN(n_ts)] + (p == 1 && i % 8 < 7 ? i % 2 : 0),
            .n_cols = n_cols[i % CMI_LEN(n_cols)],
        };
        char label[96];
        (void)snprintf(label, sizeof label, "%u rows, %u tokens, %u columns", args.n_rows, args.n_t,
                       args.n_cols);
        args.p_stride = args.n_t + 2 * (i % 3) + 2;
        args.o_stride = args.n_cols + i % 2;
        args.p = draw_rows(b, p, args.n_rows, args.n_t, args.p_stride, 0);
        const void *tiles[CMI_ATTN_BLOCK / CMI_ATTN_TILE];
        for (uint32_t t = 0; t < args.n_t; t += CMI_ATTN_TILE) {
            tiles[t / CMI_ATTN_TILE] =
                draw_tile(b, p, cmi_value_tile_at, cmi_value_tile_bytes(p, args.n_cols),
                          CMI_MIN(args.n_t - t, (uint32_t)CMI_ATTN_TILE), args.n_cols, 30);
        }
        args.v = tiles;
        args.alpha = draw_floats(b, args.n_rows, 0);
        args.beta = draw_floats(b, args.n_rows, 0);
        args.o = draw_rows(b, 1, args.n_rows, args.n_cols, args.o_stride, 30);
        fn(&args);
        size_t n_o = (args.n_rows - 1) * args.o_stride + args.n_cols;
        give(b, label, args.o, n_o * sizeof *args.o);
        guarded_release(&b->arrays);
    }
}

void battery_attn_values_f32(battery *b, cmi_attn_values_fn *fn)
{
    values_calls(b, fn, 1);
}

void battery_attn_values_bf16(battery *b, cmi_attn_values_fn *fn)
{
    values_calls(b, fn, 2);
}

void battery_attn_merge(battery *b, cmi_attn_merge_fn *fn)
{
    static const uint32_t n_cols[] = {1, 7, 16, 33, 64, 100};
    for (uint32_t i = 0; i < 20; i++) {
        cmi_attn_merge_args args = {.n_rows = 1 + i * 7 % 37, .n_cols = n_cols[i % 6]};
        char label[64];
        (void)snprintf(label, sizeof label, "%u rows, %u columns", args.n_rows, args.n_cols);
        args.o_stride = args.n_cols + i % 4;
        float *m_b, *l_b;
        draw_state(b, args.n_rows, &m_b, &l_b);
        draw_state(b, args.n_rows, &args.m, &args.l);
        args.m_b = m_b;
        args.l_b = l_b;
        args.o_b = draw_rows(b, 1, args.n_rows, args.n_cols, args.o_stride, 30);
        args.o = draw_rows(b, 1, args.n_rows, args.n_cols, args.o_stride, 30);
        fn(&args);
        size_t n_o = (args.n_rows - 1) * args.o_stride + args.n_cols;
        give(b, label, args.m, args.n_rows * sizeof *args.m);
        give(b, label, args.l, args.n_rows * sizeof *args.l);
        give(b, label, args.o, n_o * sizeof *args.o);
        guarded_release(&b->arrays);
    }
}

typedef size_t tile_bytes_fn(uint32_t p, size_t n_cols);

static void pack_calls(battery *b, cmi_attn_pack_fn *fn, uint32_t p, tile_bytes_fn *tile_bytes)
{
    static const uint32_t n_cols[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 128};
    for (uint32_t i = 0; i < 30; i++) {
        cmi_attn_pack_args args = {.n_rows = 1 + i * 11 % 64, .n_cols = n_cols[i % 10]};
        char label[64];
        (void)snprintf(label, sizeof label, "%u rows, %u columns", args.n_rows, args.n_cols);
        args.x_stride = args.n_cols + i % 3;
        args.x = draw_rows(b, 1, args.n_rows, args.n_cols, args.x_stride, 100);
        size_t n_bytes = tile_bytes(p, args.n_cols);
        args.tile = guarded_alloc(&b->arrays, n_bytes);
        fn(&args);
        give(b, label, args.tile, n_bytes);
        guarded_release(&b->arrays);
    }
}

void battery_attn_pack_keys_f32(battery *b, cmi_attn_pack_fn *fn)
{
    pack_calls(b, fn, 1, cmi_key_tile_bytes);
}

void battery_attn_pack_keys_bf16(battery *b, cmi_attn_pack_fn *fn)
{
    pack_calls(b, fn, 2, cmi_key_tile_bytes);
}

void battery_attn_pack_values_f32(battery *b, cmi_attn_pack_fn *fn)
{
    pack_calls(b, fn, 1, cmi_value_tile_bytes);
}

void battery_attn_pack_values_bf16(battery *b, cmi_attn_pack_fn *fn)
{
    pack_calls(b, fn, 2, cmi_value_tile_bytes);
}

void battery_attn_dequantize_i8(battery *b, cmi_attn_dequantize_fn *fn)
{
    for (uint32_t i = 0; i < 16; i++) {
        cmi_attn_dequantize_args args = {.n_t = 16 * (1 + i % 4), .n_cols = 16 * (1 + i / 4)};
        char label[64];
        (void)snprintf(label, sizeof label, "%u tokens, %u columns", args.n_t, args.n_cols);
        const size_t n_q = cmi_value_tile_bytes(4, args.n_cols);
        const size_t n_bytes = cmi_value_tile_bytes(2, args.n_cols);
        int8_t *q = guarded_alloc(&b->arrays, n_q);
        for (size_t j = 0; j < n_q; j++) {
            q[j] = (int8_t)battery_draw_bits(b);
        }
        args.q = q;
        args.scales = draw_floats(b, CMI_ATTN_TILE, 10);
        args.tile = guarded_alloc(&b->arrays, n_bytes);
        fn(&args);
        give(b, label, args.tile, n_bytes);
        guarded_release(&b->arrays);
    }
}
