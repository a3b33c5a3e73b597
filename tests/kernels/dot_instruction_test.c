/* The premise of the BF16 kernels: the AVX-512 BF16 dot product, and on Arm BFMLALT with BFMLALB,
 * is in each lane two float32 fused multiply-adds with rounding to nearest, the odd element first.
 */
#include "tests/test.h"

#include <math.h>

#include "base/float_env.h"
#include "kernels/kernels.h"
#include "tests/kernels/battery.h"

enum { N_LANES = 16, N_ROUNDS = 20000 };

typedef struct dot_step {
    float acc[N_LANES];
    cmi_bf16 x[2 * N_LANES], w[2 * N_LANES];
} dot_step;

#if CMI_ARCH_X86_64

#include <immintrin.h>

static const uint32_t cpu_flag = CMI_CPU_AVX512_BF16;

__attribute__((target("avx512f,avx512bw,avx512bf16"))) static void
run_instruction(const dot_step *s, float *out)
{
    __m512 acc = _mm512_loadu_ps(s->acc);
    __m512i x = _mm512_loadu_si512(s->x), w = _mm512_loadu_si512(s->w);
    _mm512_storeu_ps(out, _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w));
}

#elif CMI_ARCH_AARCH64

#include <arm_neon.h>

static const uint32_t cpu_flag = CMI_CPU_NEON_BF16;

/* As numbers, because not every assembler that compiles the rest knows the names. */
#define BFMLALT_V0_V1_V2 ".inst 0x6EC2FC20\n\t"
#define BFMLALB_V0_V1_V2 ".inst 0x2EC2FC20\n\t"

static void run_instruction(const dot_step *s, float *out)
{
    for (size_t l = 0; l < N_LANES; l += 4) {
        register float32x4_t acc __asm__("v0") = vld1q_f32(s->acc + l);
        register uint16x8_t x __asm__("v1") = vld1q_u16(s->x + 2 * l);
        register uint16x8_t w __asm__("v2") = vld1q_u16(s->w + 2 * l);
        __asm__(BFMLALT_V0_V1_V2 BFMLALB_V0_V1_V2 : "+w"(acc) : "w"(x), "w"(w));
        vst1q_f32(out + l, acc);
    }
}

#else

static const uint32_t cpu_flag = 0;

static void run_instruction(const dot_step *s, float *out)
{
    memcpy(out, s->acc, sizeof s->acc);
}

#endif

static float run_model(const dot_step *s, size_t lane)
{
    size_t even = 2 * lane, odd = even + 1;
    float acc = fmaf(cmi_bf16_to_f32(s->x[odd]), cmi_bf16_to_f32(s->w[odd]), s->acc[lane]);
    return fmaf(cmi_bf16_to_f32(s->x[even]), cmi_bf16_to_f32(s->w[even]), acc);
}

static void check_rounds(battery *draws, int max_exponent, bool any_bits)
{
    for (int round = 0; round < N_ROUNDS; round++) {
        dot_step s;
        for (size_t i = 0; i < 2 * N_LANES; i++) {
            s.x[i] = (cmi_bf16)(cmi_f32_bits(battery_draw(draws, max_exponent)) >> 16);
            s.w[i] = (cmi_bf16)(cmi_f32_bits(battery_draw(draws, max_exponent)) >> 16);
            if (any_bits) {
                uint32_t bits = battery_draw_bits(draws);
                s.x[i] = (cmi_bf16)bits;
                s.w[i] = (cmi_bf16)(bits >> 16);
            }
        }
        for (size_t l = 0; l < N_LANES; l++) {
            s.acc[l] = battery_draw(draws, 2 * max_exponent);
        }
        float got[N_LANES];
        run_instruction(&s, got);
        for (size_t l = 0; l < N_LANES; l++) {
            float want = run_model(&s, l);
            if (cmi_f32_bits(got[l]) != cmi_f32_bits(want) && !(isnan(got[l]) && isnan(want))) {
                fail_msg("seed %llu, round %d, lane %zu: %a, want %a",
                         (unsigned long long)draws->seed, round, l, (double)got[l], (double)want);
            }
        }
    }
}

static void the_instruction_is_two_multiply_adds_odd_first(void **state)
{
    (void)state;
    if ((cmi_cpu_flags() & cpu_flag) == 0) {
        skip();
    }
    battery draws = {.seed = 11};
    check_rounds(&draws, 0, false);
    check_rounds(&draws, 50, false);
    check_rounds(&draws, 0, true); /* all bit patterns: overflow, infinity, NaN */
}

int main(void)
{
    cmi_float_env_set();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_instruction_is_two_multiply_adds_odd_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
