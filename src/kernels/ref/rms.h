/* kernels/ref/rms.h - the factor of an RMSNorm, as kernels.h defines it. */
#ifndef CMI_KERNELS_REF_RMS_H
#define CMI_KERNELS_REF_RMS_H

#include <math.h>

#include "kernels/ref/lanes.h"

static inline float cmi_rms_scale_ref(const float *x, float eps, uint32_t n)
{
    float lanes[CMI_LANES] = {0};
    for (size_t i = 0; i < n; i += CMI_LANES) {
        for (size_t l = 0; l < CMI_LANES; l++) {
            float v = i + l < n ? x[i + l] : 0.0f;
            lanes[l] = fmaf(v, v, lanes[l]);
        }
    }
    return 1.0f / sqrtf(cmi_lanes_sum(lanes) / (float)n + eps);
}

#endif
