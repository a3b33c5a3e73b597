#include <math.h>

#include "kernels/internal.h"

void cmi_axpy_ref(float a, const float *x, uint32_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = fmaf(a, x[i], y[i]);
    }
}
