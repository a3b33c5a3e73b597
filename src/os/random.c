#include "os/random.h"

#include <sys/random.h>

#include "os/clock.h"

uint64_t cmi_random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        seed = cmi_clock_unix_ns();
    }
    return seed;
}

bool cmi_random_bytes(void *bytes_out, size_t n_bytes)
{
    return getrandom(bytes_out, n_bytes, 0) == (ssize_t)n_bytes;
}
