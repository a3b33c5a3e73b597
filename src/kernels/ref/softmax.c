#include "kernels/internal.h"
#include "kernels/ref/lanes.h"
#include "kernels/ref/math.h"

void cmi_max_sum_exp_ref(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        max = z[i] > max ? z[i] : max;
    }
    /* Which of -0 and +0 the greatest is would depend on the order: + 0.0f makes it +0. */
    max += 0.0f;
    float lanes[CMI_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        lanes[i % CMI_LANES] += cmi_expf_ref(z[i] - max);
    }
    *sum_out = cmi_lanes_sum(lanes);
    *max_out = max;
}
