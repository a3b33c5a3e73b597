/* kernels/neon/peak.h - the peaks' loop: independent chains of one instruction, or of a short
 * sequence, in 20 registers: four units with a latency of five cycles are busy with so many. In
 * assembly because compilers spill or move the accumulators of such loops. */
#ifndef CMI_KERNELS_NEON_PEAK_H
#define CMI_KERNELS_NEON_PEAK_H

#include <arm_neon.h>

#include "kernels/internal.h"

enum { PEAK_CHAINS = 20 };

#define PEAK_TEN(X, tens)                                                                          \
    X(tens "0")                                                                                    \
    X(tens "1")                                                                                    \
    X(tens "2")                                                                                    \
    X(tens "3") X(tens "4") X(tens "5") X(tens "6") X(tens "7") X(tens "8") X(tens "9")
#define PEAK_TWENTY(X) PEAK_TEN(X, "") PEAK_TEN(X, "1")
#define ZERO(n) "movi v" n ".4s, #0\n\t"

/* Runs n_rounds (a variable, 1 or more; it is counted down) times STEP for each accumulator.
 * STEP(n) adds to accumulator n from %1 and %2, and may use register 20. */
#define PEAK_LOOP(n_rounds, STEP, x, w)                                                            \
    __asm__ volatile(PEAK_TWENTY(ZERO) "1:\n\t" PEAK_TWENTY(STEP) "subs %0, %0, #1\n\t"            \
                                                                  "b.ne 1b"                        \
                     : "+r"(n_rounds)                                                              \
                     : "w"(x), "w"(w)                                                              \
                     : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",   \
                       "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "cc")

#endif
