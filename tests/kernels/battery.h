/* tests/kernels/battery.h - for each kernel a fixed set of calls, drawn from a seed.
 *
 * The calls cover tails, strides wider than the rows, in-place use, and values over many
 * magnitudes: zeros of both signs, subnormal, tiny and large numbers. All arrays are guarded
 * (guarded.h); what lies between rows is NaN in inputs and a pattern in outputs, which goes to the
 * sink with the results. The same seed gives the same calls for every variant and on every machine.
 */
#ifndef CMI_TESTS_KERNELS_BATTERY_H
#define CMI_TESTS_KERNELS_BATTERY_H

#include "kernels/kernels.h"
#include "tests/kernels/guarded.h"

/* Gets each call's outputs, and what was called, for messages. */
typedef void battery_sink(void *context, const char *label, const void *bytes, size_t n_bytes);

typedef struct battery {
    uint64_t seed;
    uint64_t n_drawn;
    battery_sink *sink;
    void *context;
    guarded arrays;
} battery;

/* The calling thread must have the mode of base/float_env.h. */
#define BATTERY_DECLARE(name, type) void battery_##name(battery *b, type *fn);
CMI_KERNEL_TABLE(BATTERY_DECLARE)
#undef BATTERY_DECLARE

/* The inputs, for other tests: one value as described above, |value| below 2^(max_exponent + 1). */
float battery_draw(battery *b, int max_exponent);
uint32_t battery_draw_bits(battery *b);

#endif
