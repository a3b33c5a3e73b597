#include "model/kv_layout.h"

#include "kernels/int8.h"

cmi_kv_layout cmi_kv_layout_make(const cmi_model_config *config, cmi_dtype dtype, bool with_mtp)
{
    cmi_kv_layout layout = {.dtype = dtype};
    bool is_i8 = dtype == CMI_DTYPE_I8;
    layout.operand_dtype = is_i8 ? CMI_DTYPE_BF16 : dtype;
    size_t operand = cmi_dtype_bytes(layout.operand_dtype);
    layout.n_layers = config->num_hidden_layers + (with_mtp ? 1 : 0);
    layout.slot_lanes = (uint32_t)(CMI_ATTN_LANE_BYTES / cmi_dtype_bytes(dtype));
    layout.lane_values = (uint32_t)(CMI_ATTN_LANE_BYTES / operand);
    layout.n_latent = config->kv_lora_rank;
    layout.n_rope = config->qk_rope_head_dim;
    layout.latent_cols = CMI_ROUND_UP(layout.n_latent, (uint32_t)CMI_ATTN_COLS);
    layout.rope_cols = CMI_ROUND_UP(layout.n_rope, layout.lane_values);
    layout.scales_offset = cmi_value_tile_bytes(layout.slot_lanes, layout.latent_cols);
    layout.rope_offset = layout.scales_offset + (is_i8 ? CMI_KV_PAGE_TOKENS * sizeof(float) : 0);
    layout.layer_bytes =
        layout.rope_offset + cmi_key_tile_bytes(layout.lane_values, layout.rope_cols);
    layout.page_bytes = layout.n_layers * layout.layer_bytes;
    layout.row_rope_offset = layout.latent_cols * cmi_dtype_bytes(dtype);
    layout.row_scale_offset = layout.row_rope_offset + layout.rope_cols * operand;
    layout.row_bytes = layout.row_scale_offset + (is_i8 ? sizeof(float) : 0);
    return layout;
}

static void *rope_of(const cmi_kv_layout *layout, void *layer)
{
    return (uint8_t *)layer + layout->rope_offset;
}

/* A row goes to its slot; NULL stands for zeros. */
static void put_f32(const cmi_kv_layout *layout, void *layer, size_t slot, const uint8_t *row)
{
    const float *from = (const void *)row;
    float *latent = layer, *rope = rope_of(layout, layer);
    for (size_t c = 0; c < layout->latent_cols; c++) {
        latent[cmi_value_tile_at(1, slot, c)] = row != NULL ? from[c] : 0.0f;
    }
    for (size_t k = 0; k < layout->rope_cols; k++) {
        rope[cmi_key_tile_at(1, slot, k)] = row != NULL ? from[layout->latent_cols + k] : 0.0f;
    }
}

static void put_rope_bf16(const cmi_kv_layout *layout, void *layer, size_t slot, const uint8_t *row)
{
    const cmi_bf16 *from = row != NULL ? (const void *)(row + layout->row_rope_offset) : NULL;
    cmi_bf16 *rope = rope_of(layout, layer);
    for (size_t k = 0; k < layout->rope_cols; k++) {
        rope[cmi_key_tile_at(2, slot, k)] = from != NULL ? from[k] : 0;
    }
}

static void put_bf16(const cmi_kv_layout *layout, void *layer, size_t slot, const uint8_t *row)
{
    const cmi_bf16 *from = (const void *)row;
    cmi_bf16 *latent = layer;
    for (size_t c = 0; c < layout->latent_cols; c++) {
        latent[cmi_value_tile_at(2, slot, c)] = row != NULL ? from[c] : 0;
    }
    put_rope_bf16(layout, layer, slot, row);
}

static void put_i8(const cmi_kv_layout *layout, void *layer, size_t slot, const uint8_t *row)
{
    uint8_t *latent = layer;
    float scale = 0.0f;
    for (size_t c = 0; c < layout->latent_cols; c++) {
        latent[cmi_value_tile_at(4, slot, c)] = row != NULL ? row[c] : 0;
    }
    if (row != NULL) {
        memcpy(&scale, row + layout->row_scale_offset, sizeof scale);
    }
    memcpy(latent + layout->scales_offset + slot * sizeof scale, &scale, sizeof scale);
    put_rope_bf16(layout, layer, slot, row);
}

static void put(const cmi_kv_layout *layout, void *layer, size_t slot, const uint8_t *row)
{
    switch (layout->dtype) {
    case CMI_DTYPE_I8:
        put_i8(layout, layer, slot, row);
        break;
    case CMI_DTYPE_BF16:
        put_bf16(layout, layer, slot, row);
        break;
    default:
        put_f32(layout, layer, slot, row);
    }
}

void cmi_kv_store(const cmi_kv_layout *layout, void *layer, uint32_t slot, const void *rows,
                  uint32_t n, uint32_t begin)
{
    const uint32_t end = slot + n, lanes_end = CMI_ROUND_UP(end, layout->slot_lanes);
    for (uint32_t i = 0; slot == begin && i < begin; i++) {
        put(layout, layer, i, NULL);
    }
    for (uint32_t i = 0; i < n; i++) {
        put(layout, layer, slot + i, (const uint8_t *)rows + i * layout->row_bytes);
    }
    for (uint32_t i = end; i < lanes_end; i++) {
        put(layout, layer, i, NULL);
    }
}

static float scale_of(const cmi_kv_layout *layout, const void *layer, size_t slot)
{
    float scale;
    memcpy(&scale, (const uint8_t *)layer + layout->scales_offset + slot * sizeof scale,
           sizeof scale);
    return scale;
}

void cmi_kv_load_latent(const cmi_kv_layout *layout, const void *layer, uint32_t slot, uint32_t n,
                        void *rows, size_t stride)
{
    const int8_t *codes = layer;
    const cmi_bf16 *narrow = layer;
    const float *wide = layer;
    for (size_t t = slot; t < slot + n; t++) {
        size_t to = (t - slot) * stride;
        float scale = layout->dtype == CMI_DTYPE_I8 ? scale_of(layout, layer, t) : 0.0f;
        for (size_t c = 0; c < layout->n_latent; c++) {
            if (layout->dtype == CMI_DTYPE_I8) {
                ((cmi_bf16 *)rows)[to + c] =
                    cmi_bf16_from_f32((float)codes[cmi_value_tile_at(4, t, c)] * scale);
            } else if (layout->dtype == CMI_DTYPE_BF16) {
                ((cmi_bf16 *)rows)[to + c] = narrow[cmi_value_tile_at(2, t, c)];
            } else {
                ((float *)rows)[to + c] = wide[cmi_value_tile_at(1, t, c)];
            }
        }
    }
}

float cmi_kv_load_quantized(const cmi_kv_layout *layout, const void *layer, uint32_t slot,
                            uint8_t *row)
{
    const int8_t *codes = layer;
    for (size_t c = 0; c < layout->n_latent; c++) {
        row[c] = (uint8_t)(codes[cmi_value_tile_at(4, slot, c)] + CMI_I8_ZERO);
    }
    return scale_of(layout, layer, slot);
}
