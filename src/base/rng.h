/* base/rng.h - Philox4x32-10 (Salmon et al., SC'11): counter-based random numbers.
 *
 * The number for (seed, counter) is a pure function of both, so that sampling at a position gives
 * the same token whichever process, batch or retry asks for it. */
#ifndef CMI_BASE_RNG_H
#define CMI_BASE_RNG_H

#include "base/compiler.h"

/* Four 32-bit words for a 64-bit key and a 128-bit counter. */
void cmi_philox4x32(uint64_t key, uint64_t counter_lo, uint64_t counter_hi, uint32_t out[4]);

/* Uniform in [0, 1): 24 bits of the first word for (seed, position, stream). */
float cmi_philox_uniform(uint64_t seed, uint64_t position, uint64_t stream);

#endif
