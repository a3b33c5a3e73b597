#include "kernels/neon/peak.h"

#define STEP(n) "bfmlalb v" n ".4s, %1.8h, %2.8h\n\t"

uint64_t cmi_peak_bf16_neon_bf16(uint64_t n_rounds)
{
    const uint16x8_t x = vdupq_n_u16(0x3E80), w = vdupq_n_u16(0x3F40); /* 0.25, 0.75 */
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, STEP, x, w);
    }
    return n_rounds * PEAK_CHAINS * 4 * 2;
}
