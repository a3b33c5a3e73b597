/* os/random.h - randomness from the kernel, for seeds and ids. Everything else that is random is a
 * function of a seed (base/rng.h). */
#ifndef CMI_OS_RANDOM_H
#define CMI_OS_RANDOM_H

#include "base/compiler.h"

/* Unguessable where the kernel has randomness; without it the clock, so that ids stay unique. */
uint64_t cmi_random_seed(void);

/* n_bytes (at most 256) that nobody can guess. False: the kernel has none. */
CMI_NODISCARD bool cmi_random_bytes(void *bytes_out, size_t n_bytes);

#endif
