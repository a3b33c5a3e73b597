/* kernels/x86_peak.h - the peaks' loop: independent chains of one instruction, or of a short
 * sequence, in registers. In assembly because compilers spill or move the accumulators of such
 * loops.
 *
 * Two units with a latency of five cycles need ten chains, but an instruction that waits for the
 * unit that the scheduler chose for it leaves the other one idle. So AVX-512 has twenty: on Emerald
 * Rapids ten gave 556 Gop/s in INT8, twenty 665. AVX2's sixteen registers hold ten. */
#ifndef CMI_KERNELS_X86_PEAK_H
#define CMI_KERNELS_X86_PEAK_H

#include "base/compiler.h"

enum { CMI_PEAK_CHAINS_AVX2 = 10, CMI_PEAK_CHAINS_AVX512 = 20 };

#define CMI_PEAK_TEN(X) X("0") X("1") X("2") X("3") X("4") X("5") X("6") X("7") X("8") X("9")
#define CMI_PEAK_TEN_MORE(X)                                                                       \
    X("10") X("11") X("12") X("13") X("14") X("15") X("16") X("17") X("18") X("19")
#define CMI_PEAK_TWENTY(X) CMI_PEAK_TEN(X) CMI_PEAK_TEN_MORE(X)

#define CMI_PEAK_TEN_REGISTERS                                                                     \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10"
#define CMI_PEAK_TWENTY_REGISTERS                                                                  \
    CMI_PEAK_TEN_REGISTERS, "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",         \
        "xmm18", "xmm19"

/* Runs n_rounds (a variable, 1 or more; it is counted down) times STEP for each accumulator.
 * ZERO(n) clears accumulator n; STEP(n) adds to it from %1, %2 and %3, with AVX2 by way of register
 * 10. */
#define CMI_PEAK_LOOP_AVX2(n_rounds, ZERO, STEP, a, b, c)                                          \
    __asm__ volatile(CMI_PEAK_TEN(ZERO) "1:\n\t" CMI_PEAK_TEN(STEP) "dec %0\n\t"                   \
                                                                    "jnz 1b"                       \
                     : "+r"(n_rounds)                                                              \
                     : "x"(a), "x"(b), "x"(c)                                                      \
                     : CMI_PEAK_TEN_REGISTERS, "cc")
#define CMI_PEAK_LOOP_AVX512(n_rounds, ZERO, STEP, a, b)                                           \
    __asm__ volatile(CMI_PEAK_TWENTY(ZERO) "1:\n\t" CMI_PEAK_TWENTY(STEP) "dec %0\n\t"             \
                                                                          "jnz 1b"                 \
                     : "+r"(n_rounds)                                                              \
                     : "v"(a), "v"(b)                                                              \
                     : CMI_PEAK_TWENTY_REGISTERS, "cc")

#endif
