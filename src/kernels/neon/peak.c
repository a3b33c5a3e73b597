/* The peaks' loops: independent chains of one instruction, or of a short sequence, in 20 registers:
 * four units with a latency of five cycles are busy with so many. In assembly because compilers
 * spill or move the accumulators of such loops. The assembler is told of an extension where it is
 * used, so the file as a whole needs none. */
#include "kernels/internal.h"

#include <arm_neon.h>

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
#define PEAK_LOOP(n_rounds, EXTENSION, STEP, x, w)                                                 \
    __asm__ volatile(EXTENSION PEAK_TWENTY(ZERO) "1:\n\t" PEAK_TWENTY(STEP) "subs %0, %0, #1\n\t"  \
                                                                            "b.ne 1b"              \
                     : "+r"(n_rounds)                                                              \
                     : "w"(x), "w"(w)                                                              \
                     : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",   \
                       "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "cc")

/* Two products to an element of 16 bits, whose pairs go to sums. */
#define STEP_I8(n)                                                                                 \
    "smull v20.8h, %1.8b, %2.8b\n\t"                                                               \
    "smlal2 v20.8h, %1.16b, %2.16b\n\t"                                                            \
    "sadalp v" n ".4s, v20.8h\n\t"
#define STEP_SDOT(n) "sdot v" n ".4s, %1.16b, %2.16b\n\t"
#define STEP_USMMLA(n) "usmmla v" n ".4s, %1.16b, %2.16b\n\t"
#define STEP_BFMLAL(n) "bfmlalb v" n ".4s, %1.8h, %2.8h\n\t"
#define STEP_F32(n) "fmla v" n ".4s, %1.4s, %2.4s\n\t"

uint64_t cmi_peak_i8_neon(uint64_t n_rounds)
{
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, "", STEP_I8, x, w);
    }
    return n_rounds * PEAK_CHAINS * 16 * 2;
}

uint64_t cmi_peak_i8_neon_dotprod(uint64_t n_rounds)
{
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, ".arch armv8.2-a+dotprod\n\t", STEP_SDOT, x, w);
    }
    return n_rounds * PEAK_CHAINS * 16 * 2;
}

uint64_t cmi_peak_i8_neon_i8mm(uint64_t n_rounds)
{
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, ".arch_extension i8mm\n\t", STEP_USMMLA, x, w);
    }
    return n_rounds * PEAK_CHAINS * 32 * 2;
}

uint64_t cmi_peak_bf16_neon_bf16(uint64_t n_rounds)
{
    const uint16x8_t x = vdupq_n_u16(0x3E80), w = vdupq_n_u16(0x3F40); /* 0.25, 0.75 */
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, ".arch_extension bf16\n\t", STEP_BFMLAL, x, w);
    }
    return n_rounds * PEAK_CHAINS * 4 * 2;
}

uint64_t cmi_peak_f32_neon(uint64_t n_rounds)
{
    const float32x4_t x = vdupq_n_f32(0.25f), w = vdupq_n_f32(0.75f);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, "", STEP_F32, x, w);
    }
    return n_rounds * PEAK_CHAINS * 4 * 2;
}
