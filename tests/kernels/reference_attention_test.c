/* The references of the attention kernels against float64 mathematics, with the bounds that
 * reference_test.c explains. A chain of n multiply-adds has n roundings. */
#include "tests/test.h"

#include <math.h>

#include "base/float_env.h"
#include "kernels/variants.h"
#include "tests/kernels/battery.h"

#define U 0x1p-24
#define FLUSH 0x1p-126
#define SLACK 1.01
#define EXP_ROUNDINGS 1.79 /* exp's 0.892 ulp, in u */
#define BF16_U 0x1p-8      /* half a unit in the last of 8 places */

enum { SEED = 11, N_K = 200, N_COLS = 37, N_ROWS = 5 };

static double seen(float x)
{
    return fabs((double)x) < FLUSH ? 0.0 : (double)x;
}

static void expect_near(const char *what, size_t row, size_t i, float got, double want,
                        double bound)
{
    double error = fabs((double)got - want);
    if (!(error <= bound * SLACK)) {
        fail_msg("%s, row %zu, element %zu, seed %d: got %a, want %a; error %g, bound %g", what,
                 row, i, SEED, (double)got, want, error, bound);
    }
}

/* What is stored for x: x itself, or its upper half. */
static float stored(uint32_t p, float x)
{
    return p == 1 ? x : cmi_f32_from_bits(cmi_f32_bits(x) & 0xFFFF0000u);
}

static void put(void *operands, uint32_t p, size_t at, float x)
{
    if (p == 1) {
        ((float *)operands)[at] = x;
    } else {
        ((cmi_bf16 *)operands)[at] = (cmi_bf16)(cmi_f32_bits(x) >> 16);
    }
}

typedef size_t tile_at_fn(uint32_t p, size_t t, size_t c);

/* n_t by n_c values, in plain[] and in the tile. */
static void draw_tile(battery *draws, uint32_t p, tile_at_fn *at, void *tile, double *plain,
                      size_t n_t, size_t n_c)
{
    for (size_t t = 0; t < n_t; t++) {
        for (size_t c = 0; c < n_c; c++) {
            float x = stored(p, battery_draw(draws, 20));
            put(tile, p, at(p, t, c), x);
            plain[t * n_c + c] = seen(x);
        }
    }
}

static void draw_rows(battery *draws, uint32_t p, void *rows, double *plain, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = stored(p, battery_draw(draws, 20));
        put(rows, p, i, x);
        plain[i] = seen(x);
    }
}

static void expect_scores(const char *what, const double *q, const double *keys, const float *s,
                          size_t n_t, size_t n_k)
{
    for (size_t r = 0; r < N_ROWS; r++) {
        for (size_t t = 0; t < n_t; t++) {
            double want = 0, magnitude = 0;
            for (size_t k = 0; k < n_k; k++) {
                want += q[r * n_k + k] * keys[t * n_k + k];
                magnitude += fabs(q[r * n_k + k] * keys[t * n_k + k]);
            }
            expect_near(what, r, t, s[r * CMI_ATTN_TILE + t], want,
                        (double)n_k * (U * magnitude + FLUSH));
        }
    }
}

static void scores_are_products_with_keys(void **state)
{
    (void)state;
    static CMI_ALIGNED(64) float tile[N_K * CMI_ATTN_TILE], rows[N_ROWS * N_K];
    static float s[N_ROWS * CMI_ATTN_TILE];
    static double keys[CMI_ATTN_TILE * N_K], q[N_ROWS * N_K];
    battery draws = {.seed = SEED};
    for (uint32_t p = 1; p <= 2; p++) {
        draw_tile(&draws, p, cmi_key_tile_at, tile, keys, CMI_ATTN_TILE, N_K);
        draw_rows(&draws, p, rows, q, N_ROWS * (size_t)N_K);
        cmi_attn_scores_args args = {.q = rows,
                                     .k = tile,
                                     .s = s,
                                     .q_stride = N_K,
                                     .s_stride = CMI_ATTN_TILE,
                                     .n_rows = N_ROWS,
                                     .n_keys = CMI_ATTN_TILE,
                                     .n_k = N_K};
        (p == 1 ? cmi_attn_scores_f32_variants[0].fn : cmi_attn_scores_bf16_variants[0].fn)(&args);
        expect_scores(p == 1 ? "scores, f32" : "scores, bf16", q, keys, s, CMI_ATTN_TILE, N_K);
    }
}

/* Columns of a value tile, then inputs of a key tile. */
static void latent_scores_are_products_with_stored_rows(void **state)
{
    (void)state;
    enum { N_LATENT = 48, N_ROPE = 10, N = N_LATENT + N_ROPE };
    static CMI_ALIGNED(64) float latent[N_LATENT * CMI_ATTN_TILE], rope[N_ROPE * CMI_ATTN_TILE];
    static float s[N_ROWS * CMI_ATTN_TILE], rows[N_ROWS * N];
    static double part[CMI_ATTN_TILE * N_LATENT], keys[CMI_ATTN_TILE * N], q[N_ROWS * N];
    battery draws = {.seed = SEED};
    for (uint32_t p = 1; p <= 2; p++) {
        draw_tile(&draws, p, cmi_value_tile_at, latent, part, CMI_ATTN_TILE, N_LATENT);
        for (size_t t = 0; t < CMI_ATTN_TILE; t++) {
            memcpy(keys + t * N, part + t * N_LATENT, N_LATENT * sizeof *keys);
        }
        draw_tile(&draws, p, cmi_key_tile_at, rope, part, CMI_ATTN_TILE, N_ROPE);
        for (size_t t = 0; t < CMI_ATTN_TILE; t++) {
            memcpy(keys + t * N + N_LATENT, part + t * N_ROPE, N_ROPE * sizeof *keys);
        }
        draw_rows(&draws, p, rows, q, N_ROWS * (size_t)N);
        cmi_attn_latent_scores_args args = {.q = rows,
                                            .latent = latent,
                                            .rope = rope,
                                            .s = s,
                                            .q_stride = N,
                                            .s_stride = CMI_ATTN_TILE,
                                            .n_rows = N_ROWS,
                                            .n_keys = CMI_ATTN_TILE,
                                            .n_latent = N_LATENT,
                                            .n_rope = N_ROPE};
        (p == 1 ? cmi_attn_latent_scores_f32_variants[0].fn
                : cmi_attn_latent_scores_bf16_variants[0].fn)(&args);
        expect_scores(p == 1 ? "latent scores, f32" : "latent scores, bf16", q, keys, s,
                      CMI_ATTN_TILE, N);
    }
}

/* A softmax of all keys in two blocks, the second merged into the first: weights, maximum and sum.
 * The scale makes exact products; rounding an argument x shifts it by u |x|. */
static void blocks_of_softmax_make_one(void **state)
{
    (void)state;
    enum { N = CMI_ATTN_BLOCK, N_HIDDEN = 3, N_SECOND = 100 };
    static float s[2][N], p[2][N];
    const double scale = 0.25;
    battery draws = {.seed = SEED};
    for (uint32_t row = 0; row < N_ROWS; row++) {
        double max = -INFINITY, sum = 0;
        uint32_t n_visible[2] = {N, N_SECOND};
        float m = -INFINITY, l = 0, alphas[2], betas[2];
        for (size_t i = 0; i < 2 * (size_t)N; i++) {
            s[i / N][i % N] = battery_draw(&draws, 5);
        }
        for (uint32_t b = 0; b < 2; b++) {
            cmi_attn_softmax_args args = {.s = s[b],
                                          .p = p[b],
                                          .n_visible = &n_visible[b],
                                          .m = &m,
                                          .l = &l,
                                          .alpha = &alphas[b],
                                          .beta = &betas[b],
                                          .n_rows = 1,
                                          .n_keys = N,
                                          .n_hidden = b == 0 ? N_HIDDEN : 0,
                                          .scale = (float)scale};
            cmi_attn_softmax_f32_variants[0].fn(&args);
        }
        for (uint32_t i = N_HIDDEN; i < N + N_SECOND; i++) {
            max = fmax(max, seen(s[i / N][i % N]) * scale);
        }
        for (uint32_t i = N_HIDDEN; i < N + N_SECOND; i++) {
            double x = seen(s[i / N][i % N]) * scale - max;
            sum += exp(x);
        }
        assert_true(alphas[0] == 0.0f && betas[0] == 1.0f);
        expect_near("maximum", row, 0, m, max, 0);
        /* weights of the first block were made with its own maximum, then scaled by alpha */
        double most = 2 * EXP_ROUNDINGS + 4 + CMI_DIV_UP(N, 16) + 4 + 2 * 32;
        expect_near("sum", row, 0, l, sum, most * U * sum + 1e-30);
        for (uint32_t i = 0; i < 2 * N; i++) {
            bool visible = i >= N_HIDDEN && i < N + N_SECOND;
            double x = seen(s[i / N][i % N]) * scale - max;
            double got = (double)p[i / N][i % N] * (double)(i < N ? alphas[1] : betas[1]);
            double want = visible ? exp(x) : 0;
            expect_near("weight", row, i, (float)got, want, (fabs(x) + 64) * 4 * U * want + 1e-30);
        }
    }
}

/* The BF16 softmax is the float32 one with rounded weights. */
static void bf16_weights_are_rounded(void **state)
{
    (void)state;
    enum { N = 64 };
    static float s[N], p32[N];
    static cmi_bf16 p16[N];
    battery draws = {.seed = SEED};
    for (size_t i = 0; i < N; i++) {
        s[i] = battery_draw(&draws, 4);
    }
    uint32_t n_visible = N - 5;
    float sums[2][4] = {{-INFINITY, 0}, {-INFINITY, 0}};
    for (int i = 0; i < 2; i++) {
        cmi_attn_softmax_args args = {.s = s,
                                      .p = i == 0 ? (void *)p32 : p16,
                                      .n_visible = &n_visible,
                                      .m = &sums[i][0],
                                      .l = &sums[i][1],
                                      .alpha = &sums[i][2],
                                      .beta = &sums[i][3],
                                      .n_rows = 1,
                                      .n_keys = N,
                                      .scale = 0.1f};
        (i == 0 ? cmi_attn_softmax_f32_variants[0].fn
                : cmi_attn_softmax_bf16_variants[0].fn)(&args);
    }
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(p16[i], cmi_bf16_from_f32(p32[i]));
    }
}

static void values_are_weighted_sums(void **state)
{
    (void)state;
    enum { N_T = 2 * CMI_ATTN_TILE + 10 };
    static CMI_ALIGNED(64) float tiles[3][48 * CMI_ATTN_TILE];
    static float p[N_ROWS * N_T], o[N_ROWS * N_COLS], alpha[N_ROWS], beta[N_ROWS];
    static double v[3 * CMI_ATTN_TILE * N_COLS], weights[N_ROWS * N_T];
    const void *pointers[] = {tiles[0], tiles[1], tiles[2]};
    battery draws = {.seed = SEED};
    for (uint32_t lane = 1; lane <= 2; lane++) {
        for (size_t i = 0; i < 3; i++) {
            draw_tile(&draws, lane, cmi_value_tile_at, tiles[i], v + i * CMI_ATTN_TILE * N_COLS,
                      CMI_ATTN_TILE, N_COLS);
        }
        draw_rows(&draws, lane, p, weights, N_ROWS * (size_t)N_T);
        double old[N_ROWS * N_COLS];
        for (size_t i = 0; i < CMI_LEN(old); i++) {
            o[i] = battery_draw(&draws, 20);
            old[i] = seen(o[i]);
        }
        for (size_t r = 0; r < N_ROWS; r++) {
            alpha[r] = battery_draw(&draws, 0);
            beta[r] = battery_draw(&draws, 0);
        }
        cmi_attn_values_args args = {.p = p,
                                     .v = pointers,
                                     .alpha = alpha,
                                     .beta = beta,
                                     .o = o,
                                     .p_stride = N_T,
                                     .o_stride = N_COLS,
                                     .n_rows = N_ROWS,
                                     .n_t = N_T,
                                     .n_cols = N_COLS};
        (lane == 1 ? cmi_attn_values_f32_variants[0].fn
                   : cmi_attn_values_bf16_variants[0].fn)(&args);
        for (size_t i = 0; i < CMI_LEN(old); i++) {
            size_t r = i / N_COLS, c = i % N_COLS;
            double sum = 0, magnitude = 0;
            for (size_t t = 0; t < N_T; t++) {
                sum += weights[r * N_T + t] * v[t * N_COLS + c];
                magnitude += fabs(weights[r * N_T + t] * v[t * N_COLS + c]);
            }
            double factor = fabs(seen(beta[r]));
            double want = sum * seen(beta[r]) + old[i] * seen(alpha[r]);
            double bound = (N_T + 1) * U * magnitude * factor +
                           2 * U * fabs(old[i] * seen(alpha[r])) + (N_T * factor + 2) * FLUSH;
            expect_near("values", r, c, o[i], want, bound);
        }
    }
}

/* One block after the other, or apart and merged: the same but for roundings. */
static void merging_weighs_by_maxima(void **state)
{
    (void)state;
    enum { N = 9 };
    battery draws = {.seed = SEED};
    for (int i = 0; i < 20; i++) {
        float m_b = battery_draw(&draws, 3), m = battery_draw(&draws, 3), l_b = 3, l = 5;
        const double old_m = (double)m, new_m = fmax(seen(m), seen(m_b));
        double a = exp(seen((float)old_m) - new_m), b = exp(seen(m_b) - new_m);
        float o_b[N], o[N];
        double want[N];
        for (size_t c = 0; c < N; c++) {
            o_b[c] = battery_draw(&draws, 3);
            o[c] = battery_draw(&draws, 3);
            want[c] = seen(o_b[c]) * b + seen(o[c]) * a;
        }
        double bound = 200 * U * 32;
        cmi_attn_merge_args args = {.m_b = &m_b,
                                    .l_b = &l_b,
                                    .o_b = o_b,
                                    .m = &m,
                                    .l = &l,
                                    .o = o,
                                    .o_stride = N,
                                    .n_rows = 1,
                                    .n_cols = N};
        cmi_attn_merge_variants[0].fn(&args);
        expect_near("merged maximum", 0, (size_t)i, m, new_m, 0);
        expect_near("merged sum", 0, (size_t)i, l, 5 * a + 3 * b, bound);
        for (size_t c = 0; c < N; c++) {
            expect_near("merged value", c, (size_t)i, o[c], want[c], bound);
        }
    }
}

static void packed_tiles_hold_the_rows(void **state)
{
    (void)state;
    enum { N_T = 21, PADDED_T = 32, PADDED_COLS = 48 };
    static CMI_ALIGNED(64) float tile[PADDED_COLS * CMI_ATTN_TILE];
    static float x[N_T * N_COLS];
    battery draws = {.seed = SEED};
    for (size_t i = 0; i < CMI_LEN(x); i++) {
        x[i] = battery_draw(&draws, 20);
    }
    for (int i = 0; i < 4; i++) {
        const uint32_t p = i % 2 == 0 ? 1 : 2;
        const bool is_keys = i < 2;
        cmi_attn_pack_fn *const fns[] = {
            cmi_attn_pack_keys_f32_variants[0].fn, cmi_attn_pack_keys_bf16_variants[0].fn,
            cmi_attn_pack_values_f32_variants[0].fn, cmi_attn_pack_values_bf16_variants[0].fn};
        memset(tile, 0xFF, sizeof tile);
        fns[i](&(cmi_attn_pack_args){
            .x = x, .tile = tile, .x_stride = N_COLS, .n_rows = N_T, .n_cols = N_COLS});
        const size_t n_c = is_keys ? CMI_ROUND_UP(N_COLS, p) : PADDED_COLS;
        for (size_t t = 0; t < PADDED_T; t++) {
            for (size_t c = 0; c < n_c; c++) {
                size_t at = is_keys ? cmi_key_tile_at(p, t, c) : cmi_value_tile_at(p, t, c);
                float want = t < N_T && c < N_COLS ? x[t * N_COLS + c] : 0.0f;
                float got = p == 1 ? tile[at] : cmi_bf16_to_f32(((cmi_bf16 *)tile)[at]);
                expect_near("packed", t, c, got, seen(want),
                            p == 1 ? 0 : fabs(seen(want)) * BF16_U);
            }
        }
    }
}

static void dequantized_tiles_are_codes_times_scales(void **state)
{
    (void)state;
    static CMI_ALIGNED(64) int8_t q[48 * CMI_ATTN_TILE];
    static CMI_ALIGNED(64) cmi_bf16 tile[48 * CMI_ATTN_TILE];
    float scales[CMI_ATTN_TILE];
    battery draws = {.seed = SEED};
    for (size_t i = 0; i < sizeof q; i++) {
        q[i] = (int8_t)battery_draw_bits(&draws);
    }
    for (size_t t = 0; t < CMI_ATTN_TILE; t++) {
        scales[t] = battery_draw(&draws, 5);
    }
    cmi_attn_dequantize_i8_variants[0].fn(&(cmi_attn_dequantize_args){
        .q = q, .scales = scales, .tile = tile, .n_t = CMI_ATTN_TILE, .n_cols = 48});
    for (size_t t = 0; t < CMI_ATTN_TILE; t++) {
        for (size_t c = 0; c < 48; c++) {
            double want = q[cmi_value_tile_at(4, t, c)] * seen(scales[t]);
            float got = cmi_bf16_to_f32(tile[cmi_value_tile_at(2, t, c)]);
            expect_near("dequantized", t, c, got, want, fabs(want) * (BF16_U + U) + FLUSH);
        }
    }
}

/* Every value of a tile has a place of its own. */
static void tile_places_are_a_permutation(void **state)
{
    (void)state;
    static unsigned char used[48 * CMI_ATTN_TILE];
    for (uint32_t p = 1; p <= 4; p *= 2) {
        memset(used, 0, sizeof used);
        for (size_t t = 0; t < CMI_ATTN_TILE; t++) {
            for (size_t c = 0; c < 48; c++) {
                used[cmi_key_tile_at(p, t, c)] |= 1;
                used[cmi_value_tile_at(p, t, c)] |= 2;
            }
        }
        for (size_t i = 0; i < sizeof used; i++) {
            assert_int_equal(used[i], 3);
        }
        assert_int_equal(cmi_key_tile_bytes(p, 48), sizeof used * 4 / p);
        assert_int_equal(cmi_value_tile_bytes(p, 48), sizeof used * 4 / p);
    }
}

int main(void)
{
    cmi_float_env_set();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_products_with_keys),
        cmocka_unit_test(latent_scores_are_products_with_stored_rows),
        cmocka_unit_test(blocks_of_softmax_make_one),
        cmocka_unit_test(bf16_weights_are_rounded),
        cmocka_unit_test(values_are_weighted_sums),
        cmocka_unit_test(merging_weighs_by_maxima),
        cmocka_unit_test(packed_tiles_hold_the_rows),
        cmocka_unit_test(dequantized_tiles_are_codes_times_scales),
        cmocka_unit_test(tile_places_are_a_permutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
