/* cli/bench/load_random.h - the random numbers of a load: functions of (seed, stream, position), so
 * that a run can be repeated and one part of it does not move another. */
#ifndef CMI_CLI_BENCH_LOAD_RANDOM_H
#define CMI_CLI_BENCH_LOAD_RANDOM_H

#include "base/compiler.h"

typedef enum cmi_load_stream {
    CMI_LOAD_STREAM_ARRIVALS,
    CMI_LOAD_STREAM_LENGTHS,
    CMI_LOAD_STREAM_CANCELS,
    CMI_LOAD_STREAM_REQUEST, /* the text of a request; id: its index */
    CMI_LOAD_STREAM_BLOCK,   /* the text of a block of a trace; id: the trace's */
    CMI_LOAD_STREAM_PREFIX,  /* the text that all requests begin with */
} cmi_load_stream;

typedef struct cmi_load_random {
    uint64_t seed;
    uint64_t stream;
    uint64_t position; /* of the next four words */
    uint32_t words[4];
    uint32_t n_left;
} cmi_load_random;

/* id (its low 56 bits) tells apart what a stream has many of. */
void cmi_load_random_init(cmi_load_random *random, uint64_t seed, cmi_load_stream stream,
                          uint64_t id);

uint32_t cmi_load_random_below(cmi_load_random *random, uint32_t n); /* 0 .. n-1, n > 0 */
double cmi_load_random_uniform(cmi_load_random *random);             /* in (0, 1) */

/* Of the gamma distribution with this shape (> 0) and mean 1. */
double cmi_load_random_gamma(cmi_load_random *random, double shape);

/* When n requests arrive, in ascending order: gaps of the gamma distribution with shape
 * `burstiness` (1: a Poisson process; infinite: even), scaled so that the last one arrives at
 * n / rate seconds, as vllm bench serve does. All at 0 when the rate is infinite. */
void cmi_load_arrivals(uint64_t *arrival_ns_out, size_t n, double rate, double burstiness,
                       uint64_t seed);

#endif
