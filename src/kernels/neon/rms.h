/* kernels/neon/rms.h - the factor of an RMSNorm: the steps of kernels/ref/rms.h. */
#ifndef CMI_KERNELS_NEON_RMS_H
#define CMI_KERNELS_NEON_RMS_H

#include <math.h>

#include "kernels/neon/lanes.h"

static inline float rms_scale(const float *x, float eps, uint32_t n)
{
    float32x4_t lanes[LANES_REGISTERS];
    for (size_t q = 0; q < LANES_REGISTERS; q++) {
        lanes[q] = vdupq_n_f32(0.0f);
    }
    for (size_t i = 0; i < n; i += CMI_LANES) {
        for (size_t q = 0; q < LANES_REGISTERS; q++) {
            float32x4_t v = lanes_load(x, i + q * LANES_QUARTER, n);
            lanes[q] = vfmaq_f32(lanes[q], v, v);
        }
    }
    return 1.0f / sqrtf(lanes_sum(lanes) / (float)n + eps);
}

#endif
