#include "kernels/internal.h"
#include "kernels/ref/lanes.h"
#include "kernels/ref/math.h"

/* p[t] = exp(x[t] - max), and their sum. p may be x, or NULL if only the sum is wanted. */
static float exp_sum(const float *x, uint32_t n, float max, float *p)
{
    float lanes[CMI_LANES] = {0};
    for (size_t t = 0; t < n; t++) {
        float e = cmi_expf_ref(x[t] - max);
        lanes[t % CMI_LANES] += e;
        if (p != NULL) {
            p[t] = e;
        }
    }
    return cmi_lanes_sum(lanes);
}

/* The greatest of max and x. Which of -0 and +0 that is would depend on the order, so + 0.0f makes
 * it +0. */
static float max_of(const float *x, uint32_t n, float max)
{
    for (size_t t = 0; t < n; t++) {
        max = x[t] > max ? x[t] : max;
    }
    return max + 0.0f;
}

float cmi_softmax_block_ref(float *s, uint32_t n, float scale, float *m, float *l)
{
    for (size_t t = 0; t < n; t++) {
        s[t] *= scale;
    }
    float max = max_of(s, n, *m);
    float alpha = cmi_expf_ref(*m - max);
    *l = fmaf(*l, alpha, exp_sum(s, n, max, s));
    *m = max;
    return alpha;
}

void cmi_max_sum_exp_ref(const float *z, uint32_t n, float *max_out, float *sum_out)
{
    float max = max_of(z, n, -INFINITY);
    *sum_out = exp_sum(z, n, max, NULL);
    *max_out = max;
}
