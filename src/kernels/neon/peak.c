#include "kernels/neon/peak.h"

/* Two products to an element of 16 bits, whose pairs go to sums. */
#define STEP_I8(n)                                                                                 \
    "smull v20.8h, %1.8b, %2.8b\n\t"                                                               \
    "smlal2 v20.8h, %1.16b, %2.16b\n\t"                                                            \
    "sadalp v" n ".4s, v20.8h\n\t"
#define STEP_F32(n) "fmla v" n ".4s, %1.4s, %2.4s\n\t"

uint64_t cmi_peak_i8_neon(uint64_t n_rounds)
{
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, STEP_I8, x, w);
    }
    return n_rounds * PEAK_CHAINS * 16 * 2;
}

uint64_t cmi_peak_f32_neon(uint64_t n_rounds)
{
    const float32x4_t x = vdupq_n_f32(0.25f), w = vdupq_n_f32(0.75f);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, STEP_F32, x, w);
    }
    return n_rounds * PEAK_CHAINS * 4 * 2;
}
