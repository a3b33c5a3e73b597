#include <math.h>

#include "kernels/internal.h"

void cmi_attn_values_f32_ref(const cmi_attn_values_args *args)
{
    const float *v = args->v;
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *p = args->p + r * args->p_stride;
        for (size_t c = 0; c < args->n_cols; c++) {
            float *o = &args->o[r * args->o_stride + c];
            float sum = *o * args->alpha[r];
            for (size_t t = 0; t < args->n_t; t++) {
                sum = fmaf(p[t], v[t * args->v_stride + c], sum);
            }
            *o = sum;
        }
    }
}

void cmi_attn_values_bf16_ref(const cmi_attn_values_args *args)
{
    const cmi_bf16 *v = args->v;
    for (size_t r = 0; r < args->n_rows; r++) {
        const float *p = args->p + r * args->p_stride;
        for (size_t c = 0; c < args->n_cols; c++) {
            float *o = &args->o[r * args->o_stride + c];
            float sum = *o * args->alpha[r];
            for (size_t t = 0; t < args->n_t; t++) {
                sum = fmaf(p[t], cmi_bf16_to_f32(v[t * args->v_stride + c]), sum);
            }
            *o = sum;
        }
    }
}
