#include "kernels/neon/lanes.h"
#include "kernels/neon/rms.h"

void cmi_rmsnorm_neon(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    const float32x4_t scale = vdupq_n_f32(rms_scale(x, eps, n));
    for (size_t i = 0; i < n; i += LANES_QUARTER) {
        float32x4_t v = vmulq_f32(lanes_load(x, i, n), scale);
        lanes_store(y, i, n, vmulq_f32(v, lanes_load(w, i, n)));
    }
}
