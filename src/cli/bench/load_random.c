#include "cli/bench/load_random.h"

#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"

void cmi_load_random_init(cmi_load_random *random, uint64_t seed, cmi_load_stream stream,
                          uint64_t id)
{
    uint64_t own = id & ((UINT64_C(1) << 56) - 1);
    *random = (cmi_load_random){.seed = seed, .stream = (uint64_t)stream << 56 | own};
}

static uint32_t next_word(cmi_load_random *random)
{
    if (random->n_left == 0) {
        cmi_philox4x32(random->seed, random->position++, random->stream, random->words);
        random->n_left = 4;
    }
    return random->words[--random->n_left];
}

uint32_t cmi_load_random_below(cmi_load_random *random, uint32_t n)
{
    return (uint32_t)((uint64_t)next_word(random) * n >> 32);
}

double cmi_load_random_uniform(cmi_load_random *random)
{
    uint64_t high = next_word(random) >> 6; /* 26 bits */
    uint64_t low = next_word(random) >> 6;
    return ((double)(high << 26 | low) + 0.5) * 0x1p-52;
}

static double next_normal(cmi_load_random *random)
{
    static const double two_pi = 6.283185307179586;
    double radius = sqrt(-2 * log(cmi_load_random_uniform(random)));
    return radius * cos(two_pi * cmi_load_random_uniform(random));
}

/* Marsaglia and Tsang (2000), "A simple method for generating gamma variables", for shape >= 1:
 * d v is accepted for a normal x with v = (1 + x / sqrt(9 d))^3, d = shape - 1/3. */
static double gamma_from_one(cmi_load_random *random, double shape)
{
    double d = shape - 1.0 / 3;
    for (;;) {
        double x = next_normal(random);
        double root = 1 + x / sqrt(9 * d);
        double v = root * root * root;
        double u = cmi_load_random_uniform(random);
        if (root > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v)) {
            return d * v;
        }
    }
}

double cmi_load_random_gamma(cmi_load_random *random, double shape)
{
    if (shape == 1) {
        return -log(cmi_load_random_uniform(random));
    }
    if (shape > 1) {
        return gamma_from_one(random, shape) / shape;
    }
    /* a variable of shape + 1, times u^(1 / shape) */
    double above = gamma_from_one(random, shape + 1);
    return above * pow(cmi_load_random_uniform(random), 1 / shape) / shape;
}

void cmi_load_arrivals(uint64_t *arrival_ns_out, size_t n, double rate, double burstiness,
                       uint64_t seed)
{
    double *at = cmi_alloc(n, sizeof *at);
    cmi_load_random random;
    cmi_load_random_init(&random, seed, CMI_LOAD_STREAM_ARRIVALS, 0);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += isinf(burstiness) ? 1 : cmi_load_random_gamma(&random, burstiness);
        at[i] = sum;
    }
    double scale_ns = isinf(rate) || sum <= 0 ? 0 : (double)n / rate * 1e9 / sum;
    for (size_t i = 0; i < n; i++) {
        arrival_ns_out[i] = (uint64_t)(at[i] * scale_ns);
    }
    cmi_free(at);
}
