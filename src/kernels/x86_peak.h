/* kernels/x86_peak.h - the peaks' loop: independent chains of one instruction, or of a short
 * sequence, in registers 0 to 9. In assembly because compilers spill or move the accumulators of
 * such loops. Two units with a latency of five cycles are busy with ten chains. */
#ifndef CMI_KERNELS_X86_PEAK_H
#define CMI_KERNELS_X86_PEAK_H

#include "base/compiler.h"

enum { CMI_PEAK_CHAINS = 10 };

#define CMI_PEAK_TEN(X) X("0") X("1") X("2") X("3") X("4") X("5") X("6") X("7") X("8") X("9")

/* Runs n_rounds (a variable, 1 or more; it is counted down) times STEP for each accumulator.
 * ZERO(n) clears accumulator n; STEP(n) adds to it from %1, %2 and %3, and may use register 10. */
#define CMI_PEAK_LOOP(n_rounds, ZERO, STEP, a, b, c)                                               \
    __asm__ volatile(CMI_PEAK_TEN(ZERO) "1:\n\t" CMI_PEAK_TEN(STEP) "dec %0\n\t"                   \
                                                                    "jnz 1b"                       \
                     : "+r"(n_rounds)                                                              \
                     : "x"(a), "x"(b), "x"(c)                                                      \
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",     \
                       "xmm9", "xmm10", "cc")

#endif
