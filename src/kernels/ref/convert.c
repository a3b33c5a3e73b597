#include "kernels/internal.h"

void cmi_round_bf16_ref(const float *x, uint32_t n, cmi_bf16 *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = cmi_bf16_from_f32(x[i]);
    }
}

void cmi_widen_bf16_ref(const cmi_bf16 *x, uint32_t n, float *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = cmi_bf16_to_f32(x[i]);
    }
}
