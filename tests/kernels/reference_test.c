/* The references against float64 mathematics. They are the specification of every variant, so this
 * is where a wrong formula would show.
 *
 * Bounds. u = 2^-24 is float32's unit roundoff: a correctly rounded operation errs by at most u
 * times its result. To first order a value that went through k roundings errs by k u times the
 * magnitudes that went into it; SLACK covers the higher orders. Where a result below 2^-126 is
 * flushed to zero the error is absolute, FLUSH for each operation. Subnormal inputs count as zero,
 * as they do in the kernels. */
#include "tests/test.h"

#include <math.h>

#include "base/float_env.h"
#include "kernels/variants.h"
#include "tests/kernels/battery.h"

#define U 0x1p-24
#define FLUSH 0x1p-126
#define SLACK 1.01
#define EXP_ROUNDINGS 1.79 /* exp's 0.892 ulp, in u */

enum { SEED = 7, N_MAX = 1000 };

static const uint32_t sizes[] = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, N_MAX};
static float a[N_MAX], b[N_MAX], c[N_MAX], y[N_MAX];

/* A value as the kernels see it. */
static double seen(float x)
{
    return fabs((double)x) < FLUSH ? 0.0 : (double)x;
}

/* Roundings that an addend of a 16-lane sum of n goes through: those of its lane, and the tree's.
 */
static double sum_roundings(uint32_t n)
{
    return CMI_DIV_UP(n, 16u) + 4;
}

static void expect_near(const char *what, uint32_t n, size_t i, float got, double want,
                        double bound)
{
    double error = fabs((double)got - want);
    if (!(error <= bound * SLACK)) {
        fail_msg("%s, n %u, element %zu, seed %d: got %a, want %a; error %g, bound %g", what, n, i,
                 SEED, (double)got, want, error, bound);
    }
}

static void fill(battery *draws, float *x, size_t n, int max_exponent)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = battery_draw(draws, max_exponent);
    }
}

/* x and w have one row; a lane of n BF16 elements has as many roundings as one of n float32. */
static void gemm_is_the_matrix_product(void **state)
{
    (void)state;
    static cmi_bf16 a16[N_MAX], b16[N_MAX];
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < 2 * CMI_LEN(sizes); s++) {
        const bool bf16 = s % 2 == 1;
        const uint32_t n = sizes[s / 2];
        fill(&draws, a, n, 40);
        fill(&draws, b, n, 40);
        double want = 0, magnitude = 0;
        for (size_t k = 0; k < n; k++) {
            if (bf16) {
                a16[k] = cmi_bf16_from_f32(a[k]);
                b16[k] = cmi_bf16_from_f32(b[k]);
                a[k] = cmi_bf16_to_f32(a16[k]);
                b[k] = cmi_bf16_to_f32(b16[k]);
            }
            want += seen(a[k]) * seen(b[k]);
            magnitude += fabs(seen(a[k]) * seen(b[k]));
        }
        cmi_gemm_args args = {
            .x = bf16 ? (const void *)a16 : a,
            .w = bf16 ? (const void *)b16 : b,
            .y = y,
            .n_rows = 1,
            .n_cols = 1,
            .n_k = n,
        };
        (bf16 ? cmi_gemm_bf16_variants[0].fn : cmi_gemm_f32_variants[0].fn)(&args);
        double roundings = sum_roundings(bf16 ? CMI_ROUND_UP(n, 32u) : n);
        expect_near(bf16 ? "gemm_bf16" : "gemm_f32", n, 0, y[0], want,
                    roundings * U * magnitude + (n + 16) * FLUSH);
    }
}

/* The sum of squares, its division and eps: sum_roundings + 2, halved by the root; then the root,
 * the reciprocal and two products. */
static void rmsnorm_divides_by_the_root_mean_square(void **state)
{
    (void)state;
    battery draws = {.seed = SEED};
    const float eps = 1e-6f;
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        fill(&draws, a, n, 30);
        fill(&draws, b, n, 4);
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += seen(a[i]) * seen(a[i]);
        }
        double scale = 1 / sqrt(sum / n + (double)eps);
        cmi_rmsnorm_variants[0].fn(a, b, eps, n, y);
        for (size_t i = 0; i < n; i++) {
            double want = seen(a[i]) * scale * seen(b[i]);
            double roundings = (sum_roundings(n) + 2) / 2 + 4;
            expect_near("rmsnorm", n, i, y[i], want,
                        roundings * U * fabs(want) + (1 + fabs(seen(b[i]))) * FLUSH);
        }
    }
}

/* exp, the sum with 1, the quotient, the product. Where exp(-g) overflows, silu is below 2^-121. */
static void swiglu_is_silu_times_up(void **state)
{
    (void)state;
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        fill(&draws, a, n, 7);
        fill(&draws, b, n, 10);
        cmi_swiglu_variants[0].fn(a, b, n, y);
        for (size_t i = 0; i < n; i++) {
            double want = seen(a[i]) / (1 + exp(-seen(a[i]))) * seen(b[i]);
            expect_near("swiglu", n, i, y[i], want,
                        (EXP_ROUNDINGS + 3) * U * fabs(want) +
                            (1 + fabs(seen(b[i]))) * 0x1p5 * FLUSH);
        }
    }
}

/* 8 significant bits: half a unit in the last place is at most 2^-8 of the value. */
static void bf16_is_the_nearest_value_and_widens_exactly(void **state)
{
    (void)state;
    static cmi_bf16 narrow[N_MAX];
    battery draws = {.seed = SEED};
    fill(&draws, a, N_MAX, 100);
    cmi_round_bf16_variants[0].fn(a, N_MAX, narrow);
    cmi_widen_bf16_variants[0].fn(narrow, N_MAX, y);
    for (size_t i = 0; i < N_MAX; i++) {
        expect_near("round_bf16", N_MAX, i, y[i], seen(a[i]), fabs(seen(a[i])) * 0x1p-8);
        double half = fabs(seen(a[i])) == 0 ? 0 : ldexp(1, ilogb((double)a[i]) - 8);
        expect_near("round_bf16 to nearest", N_MAX, i, y[i], seen(a[i]), half);
        assert_int_equal(cmi_f32_bits(y[i]), (uint32_t)narrow[i] << 16);
    }
}

static void axpy_adds_a_multiple(void **state)
{
    (void)state;
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        const float factor = battery_draw(&draws, 10);
        fill(&draws, a, n, 50);
        fill(&draws, b, n, 50);
        memcpy(y, b, n * sizeof *y);
        cmi_axpy_variants[0].fn(factor, a, n, y);
        for (size_t i = 0; i < n; i++) {
            double want = seen(factor) * seen(a[i]) + seen(b[i]);
            expect_near("axpy", n, i, y[i], want, U * fabs(want) + FLUSH);
        }
    }
}

/* One rounding of the product with b, one of the sum. */
static void rope_rotates_each_pair(void **state)
{
    (void)state;
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = CMI_MIN(sizes[s], (uint32_t)N_MAX / 2);
        for (size_t i = 0; i < n; i++) {
            const double angle = 1e-4 * (double)battery_draw_bits(&draws);
            b[i] = (float)cos(angle);
            c[i] = (float)sin(angle);
        }
        fill(&draws, a, 2 * (size_t)n, 50);
        memcpy(y, a, 2 * n * sizeof *y);
        cmi_rope_variants[0].fn(y, b, c, n);
        for (size_t i = 0; i < n; i++) {
            const double re = seen(a[2 * i]), im = seen(a[2 * i + 1]);
            const double co = seen(b[i]), si = seen(c[i]);
            expect_near("rope, first", n, i, y[2 * i], re * co - im * si,
                        2 * U * (fabs(re * co) + fabs(im * si)) + 2 * FLUSH);
            expect_near("rope, second", n, i, y[2 * i + 1], re * si + im * co,
                        2 * U * (fabs(re * si) + fabs(im * co)) + 2 * FLUSH);
        }
    }
}

/* p = exp(x - m): rounding x - m shifts the argument by u |x - m|, which is p's relative error. */
static double exp_roundings(double x)
{
    return fabs(x) + EXP_ROUNDINGS;
}

static void max_sum_exp_is_the_softmax_normalizer(void **state)
{
    (void)state;
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        fill(&draws, a, n, 6);
        for (size_t i = 1; i < n; i += 3) {
            a[i] = -INFINITY;
        }
        double want_max = -INFINITY, sum = 0, bound = 0;
        for (size_t i = 0; i < n; i++) {
            want_max = fmax(want_max, seen(a[i]));
        }
        for (size_t i = 0; i < n; i++) {
            double x = seen(a[i]) - want_max;
            if (x > -INFINITY) {
                sum += exp(x);
                bound += (exp_roundings(x) + sum_roundings(n)) * U * exp(x) + FLUSH;
            }
        }
        float max, got;
        cmi_max_sum_exp_variants[0].fn(a, n, &max, &got);
        expect_near("max_sum_exp, maximum", n, 0, max, want_max, 0);
        expect_near("max_sum_exp, sum", n, 0, got, sum, bound);
    }
}

/* q is the integer nearest to x * 127 / amax; that product errs by two roundings of at most 127. */
static void quantize_i8_rounds_to_the_nearest_step(void **state)
{
    (void)state;
    static uint8_t q[N_MAX];
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        fill(&draws, a, n, 4);
        double amax = 0;
        for (size_t i = 0; i < n; i++) {
            amax = fmax(amax, fabs(seen(a[i])));
        }
        float scale;
        cmi_quantize_i8_variants[0].fn(a, n, q, &scale);
        const bool is_zero = amax < 1e-30;
        expect_near("quantize_i8, scale", n, 0, scale, is_zero ? 0 : amax / 127, U * amax / 127);
        for (size_t i = 0; i < n; i++) {
            assert_in_range(q[i], 1, 255);
            double want = is_zero ? 0 : seen(a[i]) * 127 / amax;
            expect_near("quantize_i8", n, i, (float)((int)q[i] - CMI_I8_ZERO), want,
                        0.5 + 127 * 2 * U);
        }
    }
}

enum { I8_TEST_BYTES = CMI_I8_HEADER_BYTES + (N_MAX + CMI_I8_GROUP) * CMI_I8_BLOCK_COLS };

/* The sum is an integer that float64 holds exactly; it is rounded once and multiplied twice. */
static void gemm_i8_is_the_exact_integer_product(void **state)
{
    (void)state;
    static uint8_t x[N_MAX + CMI_I8_GROUP];
    static CMI_ALIGNED(64) int8_t block[I8_TEST_BYTES];
    const float x_scale = 0.37f;
    battery draws = {.seed = SEED};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        const uint32_t n = sizes[s];
        int64_t sums[CMI_I8_BLOCK_COLS] = {0};
        float *scales = (float *)(void *)block;
        int32_t *offsets = (int32_t *)(void *)(block + 64);
        memset(block, 0, sizeof block);
        for (uint32_t k = 0; k < n; k++) {
            x[k] = (uint8_t)(1 + battery_draw_bits(&draws) % 255);
            for (uint32_t lane = 0; lane < CMI_I8_BLOCK_COLS; lane++) {
                const int8_t w = (int8_t)battery_draw_bits(&draws);
                const size_t at = (k / CMI_I8_GROUP * CMI_I8_BLOCK_COLS + lane) * CMI_I8_GROUP;
                block[CMI_I8_HEADER_BYTES + at + k % CMI_I8_GROUP] = w;
                sums[lane] += ((int64_t)x[k] - CMI_I8_ZERO) * w;
                offsets[lane] -= CMI_I8_ZERO * w;
                scales[lane] = 0.01f * (float)(lane + 1);
            }
        }
        cmi_gemm_i8_args args = {.x = x,
                                 .x_scale = &x_scale,
                                 .w = block,
                                 .y = y,
                                 .x_stride = CMI_ROUND_UP((size_t)n, (size_t)CMI_I8_GROUP),
                                 .y_stride = CMI_I8_BLOCK_COLS,
                                 .n_rows = 1,
                                 .n_cols = CMI_I8_BLOCK_COLS,
                                 .n_k = n,
                                 .out = CMI_I8_OUT_F32};
        cmi_gemm_i8_variants[0].fn(&args);
        for (uint32_t lane = 0; lane < CMI_I8_BLOCK_COLS; lane++) {
            const double want = (double)sums[lane] * (double)x_scale * (double)scales[lane];
            expect_near("gemm_i8", n, lane, y[lane], want, 3 * U * fabs(want));
        }
    }
}

int main(void)
{
    cmi_float_env_set();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_is_the_matrix_product),
        cmocka_unit_test(rmsnorm_divides_by_the_root_mean_square),
        cmocka_unit_test(swiglu_is_silu_times_up),
        cmocka_unit_test(bf16_is_the_nearest_value_and_widens_exactly),
        cmocka_unit_test(axpy_adds_a_multiple),
        cmocka_unit_test(rope_rotates_each_pair),
        cmocka_unit_test(max_sum_exp_is_the_softmax_normalizer),
        cmocka_unit_test(quantize_i8_rounds_to_the_nearest_step),
        cmocka_unit_test(gemm_i8_is_the_exact_integer_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
