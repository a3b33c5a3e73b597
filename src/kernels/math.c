#include "kernels/kernels.h"

#include <math.h>

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| <=
 * 0.1716. The series of atanh is cut after s^15, which leaves 2 s^17 / 17 < 2e-14: float64
 * throughout, so the only error that counts is the last rounding to float32 (0.5 ulp, measured on
 * every x). No fused operation: the same bits from any compiler. */
float cmi_logf(float x)
{
    uint32_t bits = cmi_f32_bits(x);
    if ((bits & 0x7F800000u) == 0) {
        return -INFINITY; /* zero, and subnormal numbers are zero */
    }
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return x;
    }
    if (bits >> 31 != 0) {
        return NAN;
    }
    if (bits == 0x7F800000u) {
        return x;
    }
    const uint32_t sqrt_half = 0x3F3504F3u;
    int32_t e = (int32_t)(bits - sqrt_half) >> 23;
    double m = (double)cmi_f32_from_bits(bits - ((uint32_t)e << 23));
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double series = 0.0;
    for (int k = 15; k >= 3; k -= 2) {
        series = (series + 1.0 / k) * z;
    }
    const double ln2 = 0x1.62e42fefa39efp-1;
    return (float)((double)e * ln2 + (2.0 * s + 2.0 * s * series));
}
