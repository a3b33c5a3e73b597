/* Peaks without instructions beyond the architecture's baseline: what a compiler makes of plain C.
 * They are the limits only where no other row runs. */
#include <string.h>

#include "kernels/internal.h"

enum { PEAK_LANES = 32 };

/* Hides from the compiler that the values stay as they are. */
#define PEAK_KEEP(array) __asm__ volatile("" : : "r"(array) : "memory")

uint64_t cmi_peak_i8_ref(uint64_t n_rounds)
{
    int32_t sums[PEAK_LANES] = {0};
    int16_t x[PEAK_LANES], w[PEAK_LANES];
    memset(x, 1, sizeof x);
    memset(w, 1, sizeof w);
    for (uint64_t i = 0; i < n_rounds; i++) {
        PEAK_KEEP(x);
        PEAK_KEEP(w);
        for (uint32_t l = 0; l < PEAK_LANES; l++) {
            sums[l] += x[l] * w[l] & 0xFF;
        }
    }
    PEAK_KEEP(sums);
    return n_rounds * PEAK_LANES * 2;
}

uint64_t cmi_peak_f32_ref(uint64_t n_rounds)
{
    float sums[PEAK_LANES] = {0};
    float x[PEAK_LANES], w[PEAK_LANES];
    for (uint32_t l = 0; l < PEAK_LANES; l++) {
        x[l] = w[l] = 0.5f;
    }
    for (uint64_t i = 0; i < n_rounds; i++) {
        PEAK_KEEP(x);
        PEAK_KEEP(w);
        for (uint32_t l = 0; l < PEAK_LANES; l++) {
            sums[l] += x[l] * w[l];
        }
    }
    PEAK_KEEP(sums);
    return n_rounds * PEAK_LANES * 2;
}

uint64_t cmi_peak_bf16_ref(uint64_t n_rounds)
{
    return cmi_peak_f32_ref(n_rounds);
}

uint64_t cmi_peak_read_ref(const void *memory, size_t n_bytes)
{
    enum { WORDS = 8 };
    const uint64_t *a = memory, *b = a + n_bytes / 2 / sizeof *a;
    uint64_t sums[2 * WORDS] = {0};
    for (size_t i = 0; i < n_bytes / 2 / sizeof *a; i += WORDS) {
        for (uint32_t l = 0; l < WORDS; l++) {
            sums[l] += a[i + l];
            sums[WORDS + l] += b[i + l];
        }
    }
    uint64_t sum = 0;
    for (uint32_t l = 0; l < 2 * WORDS; l++) {
        sum += sums[l];
    }
    return sum;
}
