#include "model/kv_layout.h"

cmi_kv_layout cmi_kv_layout_make(const cmi_model_config *config, cmi_dtype dtype, bool with_mtp)
{
    cmi_kv_layout layout = {.dtype = dtype};
    size_t value_bytes = cmi_dtype_bytes(dtype);
    layout.n_layers = config->num_hidden_layers + (with_mtp ? 1 : 0);
    layout.row_values = config->kv_lora_rank + config->qk_rope_head_dim;
    size_t row_bytes = CMI_ROUND_UP(layout.row_values * value_bytes, (size_t)CMI_CACHE_LINE);
    layout.row_stride = (uint32_t)(row_bytes / value_bytes);
    layout.layer_bytes = CMI_KV_PAGE_TOKENS * row_bytes;
    layout.page_bytes = layout.n_layers * layout.layer_bytes;
    return layout;
}
