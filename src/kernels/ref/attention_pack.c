#include "kernels/internal.h"

static float value_at(const cmi_attn_pack_args *args, size_t t, size_t c)
{
    return t < args->n_rows && c < args->n_cols ? args->x[t * args->x_stride + c] : 0.0f;
}

void cmi_attn_pack_keys_f32_ref(const cmi_attn_pack_args *args)
{
    float *tile = args->tile;
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t++) {
        for (size_t k = 0; k < args->n_cols; k++) {
            tile[cmi_key_tile_at(1, t, k)] = value_at(args, t, k);
        }
    }
}

void cmi_attn_pack_keys_bf16_ref(const cmi_attn_pack_args *args)
{
    cmi_bf16 *tile = args->tile;
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t++) {
        for (size_t k = 0; k < CMI_ROUND_UP(args->n_cols, 2u); k++) {
            tile[cmi_key_tile_at(2, t, k)] = cmi_bf16_from_f32(value_at(args, t, k));
        }
    }
}

void cmi_attn_pack_values_f32_ref(const cmi_attn_pack_args *args)
{
    float *tile = args->tile;
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t++) {
        for (size_t c = 0; c < CMI_ROUND_UP(args->n_cols, (uint32_t)CMI_ATTN_COLS); c++) {
            tile[cmi_value_tile_at(1, t, c)] = value_at(args, t, c);
        }
    }
}

void cmi_attn_pack_values_bf16_ref(const cmi_attn_pack_args *args)
{
    cmi_bf16 *tile = args->tile;
    const size_t n_t = CMI_ROUND_UP(args->n_rows, (uint32_t)CMI_ATTN_COLS);
    for (size_t t = 0; t < n_t; t++) {
        for (size_t c = 0; c < CMI_ROUND_UP(args->n_cols, (uint32_t)CMI_ATTN_COLS); c++) {
            tile[cmi_value_tile_at(2, t, c)] = cmi_bf16_from_f32(value_at(args, t, c));
        }
    }
}

void cmi_attn_dequantize_i8_ref(const cmi_attn_dequantize_args *args)
{
    const int8_t *q = args->q;
    cmi_bf16 *tile = args->tile;
    for (size_t t = 0; t < args->n_t; t++) {
        for (size_t c = 0; c < args->n_cols; c++) {
            const float value = (float)q[cmi_value_tile_at(4, t, c)] * args->scales[t];
            tile[cmi_value_tile_at(2, t, c)] = cmi_bf16_from_f32(value);
        }
    }
}
