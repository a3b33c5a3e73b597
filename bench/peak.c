#include "bench/peak.h"

#include <string.h>

#include "kernels/kernels.h"
#include "os/clock.h"

enum { N_REPEATS = 10 };

/* Operands 14 and 15 into accumulator n. */
#define ONE(instruction, register, n)                                                              \
    instruction " %%" register "14, %%" register "15, %%" register #n "\n\t"
/* 12 independent accumulators, enough for two units with a latency of six cycles. */
#define TWELVE(i, r)                                                                               \
    ONE(i, r, 0)                                                                                   \
    ONE(i, r, 1)                                                                                   \
    ONE(i, r, 2)                                                                                   \
    ONE(i, r, 3)                                                                                   \
    ONE(i, r, 4)                                                                                   \
    ONE(i, r, 5)                                                                                   \
    ONE(i, r, 6)                                                                                   \
    ONE(i, r, 7)                                                                                   \
    ONE(i, r, 8)                                                                                   \
    ONE(i, r, 9)                                                                                   \
    ONE(i, r, 10)                                                                                  \
    ONE(i, r, 11)
#define CLOBBERS                                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

enum { LOOPS = 400 * 1000, FLOPS_FMA_YMM = 16, FLOPS_FMA_ZMM = 32, FLOPS_DOT_ZMM = 64 };

/* GFLOP/s of a loop body of 12 instructions with the given number of operations each. */
#define MEASURE(body, flops, gflops_out)                                                           \
    for (int repeat = 0; repeat < N_REPEATS; repeat++) {                                           \
        uint64_t begin_ns = cmi_clock_monotonic_ns();                                              \
        for (int i = 0; i < LOOPS; i++) {                                                          \
            __asm__ volatile(body : : : CLOBBERS);                                                 \
        }                                                                                          \
        double ns = (double)(cmi_clock_monotonic_ns() - begin_ns);                                 \
        *(gflops_out) = CMI_MAX(*(gflops_out), 12.0 * LOOPS * (flops) / ns);                       \
    }

static void measure_arithmetic(peaks *p)
{
#if CMI_ARCH_X86_64
    const uint32_t flags = cmi_cpu_flags();
    if ((flags & CMI_CPU_AVX2) != 0) {
        MEASURE(TWELVE("vfmadd231ps", "ymm"), FLOPS_FMA_YMM, &p->fma_gflops)
    }
    if ((flags & CMI_CPU_AVX512) != 0) {
        MEASURE(TWELVE("vfmadd231ps", "zmm"), FLOPS_FMA_ZMM, &p->fma_gflops)
    }
    if ((flags & CMI_CPU_AVX512_BF16) != 0) {
        MEASURE(TWELVE("vdpbf16ps", "zmm"), FLOPS_DOT_ZMM, &p->dot_gflops)
    }
#else
    (void)p;
#endif
}

static double measure_read(const char *memory, size_t n_bytes)
{
    double best = 0;
    for (int repeat = 0; repeat < N_REPEATS; repeat++) {
        uint64_t sums[8] = {0}, begin_ns = cmi_clock_monotonic_ns();
        for (size_t at = 0; at + sizeof sums <= n_bytes; at += sizeof sums) {
            uint64_t words[8];
            memcpy(words, memory + at, sizeof words);
            for (size_t i = 0; i < CMI_LEN(sums); i++) {
                sums[i] += words[i];
            }
        }
        double ns = (double)(cmi_clock_monotonic_ns() - begin_ns);
        volatile uint64_t used = sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] +
                                 sums[6] + sums[7]; /* or the loop could be dropped */
        (void)used;
        best = CMI_MAX(best, (double)n_bytes / ns);
    }
    return best;
}

peaks peaks_measure(const char *memory, size_t n_bytes)
{
    peaks p = {0};
    p.read_gbytes = measure_read(memory, n_bytes);
    measure_arithmetic(&p);
    return p;
}
