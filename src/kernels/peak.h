/* kernels/peak.h - what a core does at best, to hold the kernels against: loops of nothing but the
 * instruction that a kind of kernel lives on, and a reader of memory.
 *
 * Rows of variant tables (kernels/variants.h) like kernels, because they need the same instruction
 * sets; but they compute nothing, so cmi_kernels has no member for them. */
#ifndef CMI_KERNELS_PEAK_H
#define CMI_KERNELS_PEAK_H

#include "base/compiler.h"

/* Runs n_rounds rounds of independent multiply-adds whose operands are in registers, and returns
 * the operations done: a multiplication and an addition are two.
 *   peak_i8: bytes into int32, the shortest exact sequence that the ISA has
 *   peak_bf16: the BF16 dot product, where there is one; on Arm BFMLAL, as in gemm_bf16
 *   peak_f32: the float32 fused multiply-add */
typedef uint64_t cmi_peak_fn(uint64_t n_rounds);

/* Reads n_bytes, a multiple of CMI_PEAK_READ_BYTES, from 64-byte aligned memory and returns the sum
 * of its 64-bit words. Parts are read side by side: on a Zen 4 core two linear readers get 5 to 10
 * % more than one, and four no more, with or without software prefetching; on Emerald Rapids one
 * gets 17 GB/s, two 19, four 22, eight 20. So AVX-512 reads four, AVX2 two. (Up to 1 MiB is taken
 * for a cache's.) */
typedef uint64_t cmi_peak_read_fn(const void *memory, size_t n_bytes);
enum { CMI_PEAK_READ_BYTES = 1024 };

#define CMI_PEAK_TABLE(X)                                                                          \
    X(peak_i8, cmi_peak_fn)                                                                        \
    X(peak_bf16, cmi_peak_fn)                                                                      \
    X(peak_f32, cmi_peak_fn)                                                                       \
    X(peak_read, cmi_peak_read_fn)

#endif
