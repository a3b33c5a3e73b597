#include "kernels/internal.h"
#include "kernels/ref/rms.h"

void cmi_rmsnorm_ref(const float *x, const float *w, float eps, uint32_t n, float *y)
{
    float scale = cmi_rms_scale_ref(x, eps, n);
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i] * scale * w[i];
    }
}
