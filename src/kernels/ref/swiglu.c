#include "kernels/internal.h"
#include "kernels/ref/math.h"

void cmi_swiglu_ref(const float *gate, const float *up, uint32_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        float g = gate[i];
        y[i] = g / (1.0f + cmi_expf_ref(-g)) * up[i];
    }
}
