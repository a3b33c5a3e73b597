#include "kernels/neon/peak.h"

#define STEP(n) "sdot v" n ".4s, %1.16b, %2.16b\n\t"

uint64_t cmi_peak_i8_neon_dotprod(uint64_t n_rounds)
{
    const int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(-5);
    uint64_t left = n_rounds;
    if (left > 0) {
        PEAK_LOOP(left, STEP, x, w);
    }
    return n_rounds * PEAK_CHAINS * 16 * 2;
}
