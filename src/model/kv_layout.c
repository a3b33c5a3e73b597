#include "model/kv_layout.h"

cmi_kv_layout cmi_kv_layout_make(const cmi_model_config *config, cmi_dtype dtype, bool with_mtp)
{
    cmi_kv_layout layout = {.dtype = dtype};
    layout.n_layers = config->num_hidden_layers + (with_mtp ? 1 : 0);
    layout.lane_values = (uint32_t)(CMI_ATTN_LANE_BYTES / cmi_dtype_bytes(dtype));
    layout.n_latent = config->kv_lora_rank;
    layout.n_rope = config->qk_rope_head_dim;
    layout.latent_cols = CMI_ROUND_UP(layout.n_latent, (uint32_t)CMI_ATTN_COLS);
    layout.rope_cols = CMI_ROUND_UP(layout.n_rope, layout.lane_values);
    layout.rope_offset = cmi_value_tile_bytes(layout.lane_values, layout.latent_cols);
    layout.layer_bytes =
        layout.rope_offset + cmi_key_tile_bytes(layout.lane_values, layout.rope_cols);
    layout.page_bytes = layout.n_layers * layout.layer_bytes;
    return layout;
}

/* A slot's row: the latent columns, then the rope's inputs; NULL stands for zeros. */
static void put_f32(const cmi_kv_layout *layout, void *layer, size_t slot, const float *row)
{
    float *latent = layer, *rope = (float *)(void *)((uint8_t *)layer + layout->rope_offset);
    for (size_t c = 0; c < layout->latent_cols; c++) {
        latent[cmi_value_tile_at(1, slot, c)] = row != NULL ? row[c] : 0.0f;
    }
    for (size_t k = 0; k < layout->rope_cols; k++) {
        rope[cmi_key_tile_at(1, slot, k)] = row != NULL ? row[layout->latent_cols + k] : 0.0f;
    }
}

static void put_bf16(const cmi_kv_layout *layout, void *layer, size_t slot, const cmi_bf16 *row)
{
    cmi_bf16 *latent = layer, *rope = (cmi_bf16 *)(void *)((uint8_t *)layer + layout->rope_offset);
    for (size_t c = 0; c < layout->latent_cols; c++) {
        latent[cmi_value_tile_at(2, slot, c)] = row != NULL ? row[c] : 0;
    }
    for (size_t k = 0; k < layout->rope_cols; k++) {
        rope[cmi_key_tile_at(2, slot, k)] = row != NULL ? row[layout->latent_cols + k] : 0;
    }
}

static void put(const cmi_kv_layout *layout, void *layer, size_t slot, const void *row)
{
    if (layout->dtype == CMI_DTYPE_BF16) {
        put_bf16(layout, layer, slot, row);
    } else {
        put_f32(layout, layer, slot, row);
    }
}

void cmi_kv_store(const cmi_kv_layout *layout, void *layer, uint32_t slot, const void *rows,
                  uint32_t n, uint32_t begin)
{
    const size_t row_bytes =
        (layout->latent_cols + layout->rope_cols) * cmi_dtype_bytes(layout->dtype);
    const uint32_t end = slot + n, lanes_end = CMI_ROUND_UP(end, layout->lane_values);
    for (uint32_t i = 0; slot == begin && i < begin; i++) {
        put(layout, layer, i, NULL);
    }
    for (uint32_t i = 0; i < n; i++) {
        put(layout, layer, slot + i, (const uint8_t *)rows + i * row_bytes);
    }
    for (uint32_t i = end; i < lanes_end; i++) {
        put(layout, layer, i, NULL);
    }
}

void cmi_kv_load_latent(const cmi_kv_layout *layout, const void *layer, uint32_t slot, uint32_t n,
                        void *rows, size_t stride)
{
    for (size_t t = slot; t < slot + n; t++) {
        size_t to = (t - slot) * stride;
        for (size_t c = 0; c < layout->n_latent; c++) {
            if (layout->dtype == CMI_DTYPE_BF16) {
                ((cmi_bf16 *)rows)[to + c] = ((const cmi_bf16 *)layer)[cmi_value_tile_at(2, t, c)];
            } else {
                ((float *)rows)[to + c] = ((const float *)layer)[cmi_value_tile_at(1, t, c)];
            }
        }
    }
}
