/* kernels/ref/math.h - exp in float32, the one definition that every ISA follows bit for bit.
 *
 * x = n ln2 + r with n the integer nearest to x log2(e), so |r| <= 0.3467; exp(x) = 2^n p(r) with p
 * of degree 6. n comes from adding 1.5 * 2^23, which leaves it in the low bits of the sum; 2^n is
 * applied by adding n to the exponent field of p. Every step is one fused multiply-add or an
 * integer operation, so vector code repeats it exactly.
 *
 * Error: at most 0.892 ulp against float64 exp, over all float32 x (measured on every one). */
#ifndef CMI_KERNELS_REF_MATH_H
#define CMI_KERNELS_REF_MATH_H

#include <math.h>

#include "base/dtype.h"

/* exp(x) is a normal float32 for x in [CMI_EXP_MIN, CMI_EXP_MAX] and for no other x. */
#define CMI_EXP_MIN -0x1.5d589ep+6f
#define CMI_EXP_MAX 0x1.62e42ep+6f

#define CMI_EXP_LOG2E 0x1.715476p+0f
#define CMI_EXP_ROUND 0x1.8p+23f
/* ln2 in two parts; the first has 16 bits, so its product with n is exact. */
#define CMI_EXP_LN2_HI 0x1.62e4p-1f
#define CMI_EXP_LN2_LO 0x1.7f7d1cp-20f

/* p(r) = 1 + r + C2 r^2 + ... + C6 r^6. 1 and r are fixed, so that exp(0) is 1 exactly; the others
 * minimize the greatest relative error on |r| <= 0.34665 (Lawson's reweighted least squares on 400
 * Chebyshev points, in rationals). They were rounded to float32 from C2 up, the rest being fitted
 * again after each. p before rounding is within 3.2e-9, a twentieth of an ulp. */
#define CMI_EXP_C2 0x1.fffffcp-2f
#define CMI_EXP_C3 0x1.555492p-3f
#define CMI_EXP_C4 0x1.5558acp-5f
#define CMI_EXP_C5 0x1.123978p-7f
#define CMI_EXP_C6 0x1.6a50b2p-10f

/* exp(x): +0 where the result would be subnormal, +infinity where it is too large, NaN for NaN.
 */
static inline float cmi_expf_ref(float x)
{
    if (x < CMI_EXP_MIN) {
        return 0.0f;
    }
    if (x > CMI_EXP_MAX) {
        return INFINITY;
    }
    if (x != x) {
        return x;
    }
    float t = fmaf(x, CMI_EXP_LOG2E, CMI_EXP_ROUND);
    float n = t - CMI_EXP_ROUND;
    float r = fmaf(n, -CMI_EXP_LN2_HI, x);
    r = fmaf(n, -CMI_EXP_LN2_LO, r);
    float p = fmaf(CMI_EXP_C6, r, CMI_EXP_C5);
    p = fmaf(p, r, CMI_EXP_C4);
    p = fmaf(p, r, CMI_EXP_C3);
    p = fmaf(p, r, CMI_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return cmi_f32_from_bits(cmi_f32_bits(p) + (cmi_f32_bits(t) << 23));
}

#endif
