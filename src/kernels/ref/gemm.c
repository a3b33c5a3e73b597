#include <math.h>

#include "kernels/internal.h"
#include "kernels/ref/lanes.h"

static float f32_at(const float *v, size_t k, uint32_t n_k)
{
    return k < n_k ? v[k] : 0.0f;
}

static float bf16_at(const cmi_bf16 *v, size_t k, uint32_t n_k)
{
    return k < n_k ? cmi_bf16_to_f32(v[k]) : 0.0f;
}

static float dot_f32(const float *x, const float *w, uint32_t n_k)
{
    float lanes[CMI_LANES] = {0};
    for (size_t k = 0; k < n_k; k += CMI_LANES) {
        for (size_t l = 0; l < CMI_LANES; l++) {
            lanes[l] = fmaf(f32_at(x, k + l, n_k), f32_at(w, k + l, n_k), lanes[l]);
        }
    }
    return cmi_lanes_sum(lanes);
}

static float dot_bf16(const cmi_bf16 *x, const cmi_bf16 *w, uint32_t n_k)
{
    float lanes[CMI_LANES] = {0};
    for (size_t k = 0; k < n_k; k += 2 * CMI_LANES) {
        for (size_t l = 0; l < CMI_LANES; l++) {
            size_t even = k + 2 * l, odd = even + 1;
            lanes[l] = fmaf(bf16_at(x, odd, n_k), bf16_at(w, odd, n_k), lanes[l]);
            lanes[l] = fmaf(bf16_at(x, even, n_k), bf16_at(w, even, n_k), lanes[l]);
        }
    }
    return cmi_lanes_sum(lanes);
}

void cmi_gemm_f32_ref(const cmi_gemm_args *args)
{
    const float *x = args->x, *w = args->w;
    for (size_t r = 0; r < args->n_rows; r++) {
        for (size_t c = 0; c < args->n_cols; c++) {
            args->y[r * args->y_stride + c] =
                dot_f32(x + r * args->x_stride, w + c * args->w_stride, args->n_k);
        }
    }
}

void cmi_gemm_bf16_ref(const cmi_gemm_args *args)
{
    const cmi_bf16 *x = args->x, *w = args->w;
    for (size_t r = 0; r < args->n_rows; r++) {
        for (size_t c = 0; c < args->n_cols; c++) {
            args->y[r * args->y_stride + c] =
                dot_bf16(x + r * args->x_stride, w + c * args->w_stride, args->n_k);
        }
    }
}
