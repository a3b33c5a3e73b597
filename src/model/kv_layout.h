/* model/kv_layout.h - where a token's latent KV lies in memory.
 *
 * A page holds page_tokens consecutive positions of one sequence for all layers, under one page id:
 *
 *     page[layer][slot][row]      row = latent KV after kv_a_layernorm [kv_lora_rank], then the
 *                                 rotated key part [qk_rope_head_dim], then padding to 64 bytes
 *
 * The bytes are the same on every ISA, so a page can move between hosts as it is. A page is also
 * one block of the attention's fixed reduction order (docs/ARCHITECTURE.md), so page_tokens is part
 * of what defines the bits of an answer and is a constant, not an option.
 *
 * Layers 0 .. num_hidden_layers-1 are the main model's. The MTP layer comes last; its row made from
 * the hidden state at position i and the token at i+1 lies in slot i+1, so that a page depends on
 * its own tokens and those before only. Slot 0 of the MTP layer is never used. */
#ifndef CMI_MODEL_KV_LAYOUT_H
#define CMI_MODEL_KV_LAYOUT_H

#include "base/dtype.h"
#include "model/config.h"

enum { CMI_KV_PAGE_TOKENS = 64 };

typedef struct cmi_kv_layout {
    cmi_dtype dtype; /* F32 or BF16 */
    uint32_t n_layers;
    uint32_t row_values; /* kv_lora_rank + qk_rope_head_dim */
    uint32_t row_stride; /* elements from row to row, a multiple of 64 bytes */
    size_t layer_bytes;  /* CMI_KV_PAGE_TOKENS rows */
    size_t page_bytes;   /* n_layers * layer_bytes */
} cmi_kv_layout;

cmi_kv_layout cmi_kv_layout_make(const cmi_model_config *config, cmi_dtype dtype, bool with_mtp);

/* The first row of a layer in page page_id of the pool at base. */
static inline void *cmi_kv_page_layer(const cmi_kv_layout *layout, void *base, uint32_t page_id,
                                      uint32_t layer_idx)
{
    return (uint8_t *)base + page_id * layout->page_bytes + layer_idx * layout->layer_bytes;
}

#endif
