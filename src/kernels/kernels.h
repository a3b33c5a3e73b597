/* kernels/kernels.h - the operators' inner loops, one prototype each, one variant table each.
 *
 * The file in ref/ is the specification: plain C that fixes every rounding and the order of every
 * float operation. Each ISA version returns the same bits, so tests compare with memcmp and a
 * cluster may mix processors. What makes that possible at no cost in speed:
 *
 *  - A dot product has 16 float32 lanes, whatever the ISA. For float32 operands lane l takes
 *    elements l, l+16, l+32, ... by fused multiply-add. For BF16 operands lane l takes from every
 *    block of 32 elements the pair (2l, 2l+1): the odd element first, then the even one, which is
 *    what the AVX-512 BF16 dot product does (products of BF16 values are exact in float32).
 *    Elements past the end count as zeros and are added like others. The lanes are then summed as
 *    a tree: l with l+8, then +4, +2, +1.
 *  - A sum over rows (experts) runs in row order, lanes over columns. Sums of attention: see
 *    kernels/attention.h.
 *  - exp is one polynomial (kernels/ref/math.h) with fused multiply-adds, the same on every ISA.
 *  - Subnormal numbers are zero everywhere; the caller's thread has that mode (base/float_env.h,
 *    also for what x86 and Arm do differently at its edge).
 *  - A maximum that is zero is +0, whichever zeros were compared. A NaN result is some NaN.
 *
 * So the result never depends on how many rows a call has or how its columns are cut into tasks.
 *
 * Buffers need no alignment and may not overlap unless said. All functions are pure; any thread. */
#ifndef CMI_KERNELS_KERNELS_H
#define CMI_KERNELS_KERNELS_H

#include "kernels/attention.h"
#include "kernels/blake2b.h"
#include "kernels/int8.h"

/* y[r][c] = sum over k of x[r][k] * w[c][k]   (Y = X W^T). Element types by the kernel's name:
 * gemm_f32: x, w float. gemm_bf16: x, w cmi_bf16. y is float32 and is overwritten.
 * Strides count elements of their own array. Any size >= 0; n_k == 0 writes zeros. */
typedef struct cmi_gemm_args {
    const void *x; /* [n_rows][x_stride] */
    const void *w; /* [n_cols][w_stride] */
    float *y;      /* [n_rows][y_stride] */
    size_t x_stride, w_stride, y_stride;
    uint32_t n_rows, n_cols, n_k;
} cmi_gemm_args;
typedef void cmi_gemm_fn(const cmi_gemm_args *args);

/* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i]. The mean's sum has the 16 lanes of a float32 dot
 * product of x with itself; the scale is 1.0f / sqrtf(sum / n + eps); y = (x * scale) * w.
 * y may be x. */
typedef void cmi_rmsnorm_fn(const float *x, const float *w, float eps, uint32_t n, float *y);

/* y[i] = silu(gate[i]) * up[i], silu(g) = g / (1 + exp(-g)) computed as written. y may be gate. */
typedef void cmi_swiglu_fn(const float *gate, const float *up, uint32_t n, float *y);

/* Conversions by base/dtype.h: round to BF16, widen to float32. */
typedef void cmi_round_bf16_fn(const float *x, uint32_t n, cmi_bf16 *y);
typedef void cmi_widen_bf16_fn(const cmi_bf16 *x, uint32_t n, float *y);

/* y[i] = fma(a, x[i], y[i]): one addend of a sum in fixed order. */
typedef void cmi_axpy_fn(float a, const float *x, uint32_t n, float *y);

/* Rotates interleaved pairs in place: (a, b) = (x[2i], x[2i+1]) becomes
 * (a cos[i] - b sin[i], a sin[i] + b cos[i]), computed as fma(a, cos, -(b * sin)) and
 * fma(a, sin, b * cos). */
typedef void cmi_rope_fn(float *x, const float *cos, const float *sin, uint32_t n_pairs);

/* max over i of z[i], and sum over i of exp(z[i] - max) in 16 lanes and a tree. n >= 1, z finite or
 * -INFINITY (at least one finite). */
typedef void cmi_max_sum_exp_fn(const float *z, uint32_t n, float *max_out, float *sum_out);

/* Every kernel: X(name, type). The tables below, the selection, the tests and the bench walk this
 * list, so that none can miss a row. */
#define CMI_KERNEL_TABLE(X)                                                                        \
    X(gemm_f32, cmi_gemm_fn)                                                                       \
    X(gemm_bf16, cmi_gemm_fn)                                                                      \
    X(rmsnorm, cmi_rmsnorm_fn)                                                                     \
    X(swiglu, cmi_swiglu_fn)                                                                       \
    X(round_bf16, cmi_round_bf16_fn)                                                               \
    X(widen_bf16, cmi_widen_bf16_fn)                                                               \
    X(axpy, cmi_axpy_fn)                                                                           \
    X(rope, cmi_rope_fn)                                                                           \
    X(attn_scores_f32, cmi_attn_scores_fn)                                                         \
    X(attn_scores_bf16, cmi_attn_scores_fn)                                                        \
    X(attn_latent_scores_f32, cmi_attn_latent_scores_fn)                                           \
    X(attn_latent_scores_bf16, cmi_attn_latent_scores_fn)                                          \
    X(attn_dequantize_i8, cmi_attn_dequantize_fn)                                                  \
    X(attn_softmax_f32, cmi_attn_softmax_fn)                                                       \
    X(attn_softmax_bf16, cmi_attn_softmax_fn)                                                      \
    X(attn_values_f32, cmi_attn_values_fn)                                                         \
    X(attn_values_bf16, cmi_attn_values_fn)                                                        \
    X(attn_merge, cmi_attn_merge_fn)                                                               \
    X(attn_pack_keys_f32, cmi_attn_pack_fn)                                                        \
    X(attn_pack_keys_bf16, cmi_attn_pack_fn)                                                       \
    X(attn_pack_values_f32, cmi_attn_pack_fn)                                                      \
    X(attn_pack_values_bf16, cmi_attn_pack_fn)                                                     \
    X(max_sum_exp, cmi_max_sum_exp_fn)                                                             \
    X(quantize_i8, cmi_quantize_i8_fn)                                                             \
    X(rmsnorm_quantize_i8, cmi_rmsnorm_quantize_i8_fn)                                             \
    X(gemm_i8, cmi_gemm_i8_fn)                                                                     \
    X(combine_f32, cmi_combine_fn)                                                                 \
    X(combine_bf16, cmi_combine_fn)                                                                \
    X(blake2b, cmi_blake2b_fn)

/* The chosen variant of every kernel. A value: copy it freely. */
typedef struct cmi_kernels {
#define CMI_KERNEL_MEMBER(name, type) type *name;
    CMI_KERNEL_TABLE(CMI_KERNEL_MEMBER)
#undef CMI_KERNEL_MEMBER
} cmi_kernels;

/* The natural logarithm, within 1 ulp and with the same bits everywhere. Zero (and subnormal) gives
 * -INFINITY, a negative number or NaN gives NaN. */
float cmi_logf(float x);

/* Instruction sets, in the order of preference on one architecture. */
typedef enum cmi_isa {
    CMI_ISA_REF,
    CMI_ISA_AVX2,         /* x86-64 with AVX2 and FMA */
    CMI_ISA_AVX512,       /* with AVX-512 F, BW, VL, DQ; some kernels also need VNNI, BF16 */
    CMI_ISA_NEON_BASE,    /* any AArch64 */
    CMI_ISA_NEON_DOTPROD, /* with the INT8 dot product */
    CMI_ISA_NEON,         /* with the INT8 matrix product; BF16 kernels also need FEAT_BF16 */
} cmi_isa;

/* Features of a processor that variants may need. */
enum {
    CMI_CPU_AVX2 = 1u << 0,   /* AVX2, FMA, BMI2 and the operating system saves YMM */
    CMI_CPU_AVX512 = 1u << 1, /* F, BW, VL, DQ and the operating system saves ZMM */
    CMI_CPU_AVX512_VNNI = 1u << 2,
    CMI_CPU_AVX512_BF16 = 1u << 3,
    /* Not a feature but a trait: two INT8 dot products a cycle, and BF16 ones at a quarter of that
     * rate, half of the float32 multiply-add's. Intel's cores; Zen 4 has one of either a cycle. */
    CMI_CPU_DUAL_DOT = 1u << 8,
    CMI_CPU_TRAITS = CMI_CPU_DUAL_DOT,
    CMI_CPU_NEON = 1u << 16, /* what every AArch64 has */
    CMI_CPU_NEON_DOTPROD = 1u << 17,
    CMI_CPU_NEON_I8MM = 1u << 18,
    CMI_CPU_NEON_BF16 = 1u << 19,
};

/* What this processor has. Each flag but traits implies those above it of its architecture. */
uint32_t cmi_cpu_flags(void);

/* The flags that an `--isa` mask lets through: "at most this". */
uint32_t cmi_isa_cpu_flags(cmi_isa isa);

/* "ref", "avx2", "avx512", "neon_base", "neon_dotprod", "neon" -> isa; false for another name. */
bool cmi_isa_parse(const char *name, cmi_isa *isa_out);

/* The best instruction set whose kernels the flags allow. */
cmi_isa cmi_isa_best(uint32_t cpu_flags);
const char *cmi_isa_name(cmi_isa isa);

/* For every kernel the last row of its table whose flags are all in cpu_flags, and none of those
 * that it is slow on. */
void cmi_kernels_select(cmi_kernels *kernels_out, uint32_t cpu_flags);

#endif
