/* model/kv_layout.h - where a token's latent KV lies in memory.
 *
 * A page holds 64 consecutive positions of one sequence for all layers, under one page id. Of each
 * layer it holds two tiles (kernels/attention.h), as attention reads them, written once:
 *
 *     latent   value tile: latent KV after kv_a_layernorm [kv_lora_rank], padded to 16 columns
 *     rope     key tile: the rotated key part [qk_rope_head_dim]
 *
 * With INT8 the latent tile holds codes, behind it lies a float32 scale for each slot (amax / 127
 * of the token, kernels/int8.h), and rope is BF16. It is read as the BF16 tile round(code * scale).
 *
 * Padding is zero. Where a lane holds several tokens, those after the last one stored are zero in
 * it; what lies in lanes beyond is anything.
 *
 * The bytes are the same on every ISA, so a page can move between hosts as it is. Four pages are
 * one block of the attention's fixed reduction order, so the tokens of a page are part of what
 * defines the bits of an answer and a constant, not an option.
 *
 * Layers 0 .. num_hidden_layers-1 are the main model's. The MTP layer comes last; its row made from
 * the hidden state at position i and the token at i+1 lies in slot i+1, so that a page depends on
 * its own tokens and those before only. Slot 0 of the MTP layer is never used. */
#ifndef CMI_MODEL_KV_LAYOUT_H
#define CMI_MODEL_KV_LAYOUT_H

#include "kernels/attention.h"
#include "model/config.h"

enum {
    CMI_KV_PAGE_TOKENS = CMI_ATTN_TILE,
    /* A part of every content key (docs/CONTENT_KEY.md): count it up when the same weights and
     * tokens give other bytes in a page, because of its layout or of what is computed. */
    CMI_KV_LAYOUT_VERSION = 1,
};

typedef struct cmi_kv_layout {
    cmi_dtype dtype;         /* of the latent tile: F32, BF16 or I8 */
    cmi_dtype operand_dtype; /* of the rope tile, and what attention computes with: F32 or BF16 */
    uint32_t n_layers;
    uint32_t slot_lanes;  /* slots that share a lane of the latent tile */
    uint32_t lane_values; /* P of tiles of operands (kernels/attention.h) */
    uint32_t n_latent;    /* kv_lora_rank */
    uint32_t n_rope;      /* qk_rope_head_dim */
    uint32_t latent_cols; /* n_latent with padding */
    uint32_t rope_cols;   /* n_rope with padding */
    size_t scales_offset; /* bytes from the latent tile to the scales; I8 only */
    size_t rope_offset;   /* bytes from the latent tile to the rope tile */
    size_t layer_bytes;
    size_t page_bytes; /* n_layers * layer_bytes */
    /* A row as cmi_kv_store takes it: latent [latent_cols] codes or operands, rope [rope_cols]
     * operands, and with I8 the scale. */
    size_t row_rope_offset, row_scale_offset, row_bytes;
} cmi_kv_layout;

/* dtype I8: operands are BF16. */
cmi_kv_layout cmi_kv_layout_make(const cmi_model_config *config, cmi_dtype dtype, bool with_mtp);

/* The latent tile of a layer in page page_id of the pool at base. */
static inline void *cmi_kv_page_layer(const cmi_kv_layout *layout, void *base, uint32_t page_id,
                                      uint32_t layer_idx)
{
    return (uint8_t *)base + page_id * layout->page_bytes + layer_idx * layout->layer_bytes;
}

/* Stores n tokens in slots slot .. slot + n - 1 of a page's layer. rows: [n], row_bytes apart,
 * 4-byte aligned, padding zero. begin: the first slot of this page that ever holds KV; those before
 * it become zero. Slots that share a lane with these are the caller's, too: those before slot stay,
 * those behind become zero. */
void cmi_kv_store(const cmi_kv_layout *layout, void *layer, uint32_t slot, const void *rows,
                  uint32_t n, uint32_t begin);

/* The latent values of slots slot .. slot + n - 1 as operands: [n][stride]. */
void cmi_kv_load_latent(const cmi_kv_layout *layout, const void *layer, uint32_t slot, uint32_t n,
                        void *rows, size_t stride);

/* With I8: the latent codes of a slot as a quantized row (kernels/int8.h), and its scale. */
float cmi_kv_load_quantized(const cmi_kv_layout *layout, const void *layer, uint32_t slot,
                            uint8_t *row);

#endif
