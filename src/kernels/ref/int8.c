#include <math.h>

#include "kernels/internal.h"
#include "kernels/ref/math.h"
#include "kernels/ref/rms.h"

/* Below this a row counts as zeros: 127 / amax would overflow. */
static const float smallest_amax = 1e-30f;

void cmi_quantize_i8_ref(const float *x, uint32_t n, uint8_t *q, float *scale_out)
{
    float amax = 0.0f;
    for (size_t i = 0; i < n; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
    }
    bool is_zero = amax < smallest_amax;
    float inverse = is_zero ? 0.0f : 127.0f / amax;
    for (size_t i = 0; i < n; i++) {
        q[i] = (uint8_t)((int)rintf(x[i] * inverse) + CMI_I8_ZERO);
    }
    *scale_out = is_zero ? 0.0f : amax / 127.0f;
}

void cmi_rmsnorm_quantize_i8_ref(const float *x, const float *w, float eps, uint32_t n, float *y,
                                 uint8_t *q, float *scale_out)
{
    float scale = cmi_rms_scale_ref(x, eps, n);
    float amax = 0.0f;
    for (size_t i = 0; i < n; i++) {
        amax = fmaxf(amax, fabsf(x[i] * scale * w[i]));
    }
    bool is_zero = amax < smallest_amax;
    float inverse = is_zero ? 0.0f : 127.0f / amax;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * scale * w[i];
        if (y != NULL) {
            y[i] = v;
        }
        q[i] = (uint8_t)((int)rintf(v * inverse) + CMI_I8_ZERO);
    }
    *scale_out = is_zero ? 0.0f : amax / 127.0f;
}

typedef struct block_view {
    const float *scale;
    const int32_t *offset;
    const int8_t *w;
} block_view;

static block_view block_at(const cmi_gemm_i8_args *args, size_t block)
{
    const uint8_t *at = (const uint8_t *)args->w + block * cmi_i8_block_bytes(args->n_k);
    return (block_view){.scale = (const float *)(const void *)at,
                        .offset = (const int32_t *)(const void *)(at + 64),
                        .w = (const int8_t *)(at + CMI_I8_HEADER_BYTES)};
}

/* v of row r and the output in a lane of a block. */
static float product(const cmi_gemm_i8_args *args, size_t r, size_t block, size_t lane)
{
    block_view b = block_at(args, block);
    const uint8_t *x = args->x + r * args->x_stride;
    int32_t sum = b.offset[lane];
    for (size_t k = 0; k < args->n_k; k++) {
        size_t at = (k / CMI_I8_GROUP * CMI_I8_BLOCK_COLS + lane) * CMI_I8_GROUP + k % CMI_I8_GROUP;
        sum += x[k] * b.w[at];
    }
    return (float)sum * args->x_scale[r] * b.scale[lane];
}

void cmi_gemm_i8_ref(const cmi_gemm_i8_args *args)
{
    for (size_t r = 0; r < args->n_rows; r++) {
        for (size_t c = 0; c < args->n_cols; c++) {
            size_t block = c / CMI_I8_BLOCK_COLS, lane = c % CMI_I8_BLOCK_COLS;
            size_t at = r * args->y_stride + c;
            float *y = args->y;
            switch (args->out) {
            case CMI_I8_OUT_F32:
                y[at] = product(args, r, block, lane);
                break;
            case CMI_I8_OUT_ADD:
                y[at] += product(args, r, block, lane);
                break;
            case CMI_I8_OUT_BF16:
                ((cmi_bf16 *)args->y)[at] = cmi_bf16_from_f32(product(args, r, block, lane));
                break;
            case CMI_I8_OUT_SWIGLU: {
                float gate = product(args, r, 2 * block, lane);
                y[at] = gate / (1.0f + cmi_expf_ref(-gate)) * product(args, r, 2 * block + 1, lane);
                break;
            }
            }
        }
    }
}

void cmi_combine_f32_ref(const cmi_combine_args *args)
{
    for (size_t c = 0; c < args->n; c++) {
        float sum = 0.0f;
        for (size_t i = 0; i < args->n_rows; i++) {
            sum = fmaf(args->weights[i], ((const float *)args->rows[i])[c], sum);
        }
        args->x[c] += sum;
    }
}

void cmi_combine_bf16_ref(const cmi_combine_args *args)
{
    for (size_t c = 0; c < args->n; c++) {
        float sum = 0.0f;
        for (size_t i = 0; i < args->n_rows; i++) {
            sum =
                fmaf(args->weights[i], cmi_bf16_to_f32(((const cmi_bf16 *)args->rows[i])[c]), sum);
        }
        args->x[c] += sum;
    }
}
