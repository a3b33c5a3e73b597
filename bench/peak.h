/* bench/peak.h - what one thread of this processor does at best, to compare kernels with. */
#ifndef CMI_BENCH_PEAK_H
#define CMI_BENCH_PEAK_H

#include "base/compiler.h"

typedef struct peaks {
    double read_gbytes; /* GB/s, reading memory in order */
    double fma_gflops;  /* float32 fused multiply-adds, two operations each; 0 if unknown */
    double dot_gflops;  /* BF16 dot products, four operations a lane; 0 if there are none */
} peaks;

/* memory: larger than the caches. Takes about a second. */
peaks peaks_measure(const char *memory, size_t n_bytes);

#endif
