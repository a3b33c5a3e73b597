#include <math.h>

#include "kernels/internal.h"
#include "kernels/ref/lanes.h"

void cmi_rmsnorm_ref(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    float lanes[CMI_LANES] = {0};
    for (size_t i = 0; i < n; i += CMI_LANES) {
        for (size_t l = 0; l < CMI_LANES; l++) {
            float v = i + l < n ? x[i + l] : 0.0f;
            lanes[l] = fmaf(v, v, lanes[l]);
        }
    }
    float scale = 1.0f / sqrtf(cmi_lanes_sum(lanes) / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] * scale * w[i];
    }
}
