/* model/weights_plan.c - which tensor goes where in the block; see weights_internal.h. A change of
 * the bytes that come out must count CMI_WEIGHTS_LAYOUT up.
 *
 * One walk serves three purposes: sizes, checks, and placing. That the estimate equals what loading
 * takes is then no matter of care. While nothing is placed, cmi_plan_take() returns NULL and the
 * structs that a caller would fill are scratch on its stack. */
#include "model/weights_tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Layers ---- */

/* What stays in the type of the attention when the linears are I8: BF16. */
static cmi_dtype attention_dtype(const cmi_weights_plan *p)
{
    return p->dtype == CMI_DTYPE_I8 ? CMI_DTYPE_BF16 : p->dtype;
}

/* kv_b_proj as it is, and its halves as decode's absorbed form wants them. */
static void place_kv_b(cmi_weights_plan *p, cmi_layer_weights *layer, const char *attn)
{
    const cmi_model_config *c = p->config;
    uint32_t nope = c->qk_nope_head_dim, v = c->v_head_dim, rank = c->kv_lora_rank;
    uint32_t heads = c->num_attention_heads;
    cmi_dtype dtype = attention_dtype(p);
    cmi_plan_rows from = {
        .prefix = attn, .suffix = "kv_b_proj.weight", .n_rows = heads * (nope + v), .n_cols = rank};
    layer->kv_b_proj = cmi_plan_take_linear(p, p->dtype, heads * (nope + v), rank);
    cmi_plan_fill_rows(p, &layer->kv_b_proj, 0, &from);
    layer->w_uk_t = cmi_plan_take_linear(p, dtype, heads * rank, nope);
    cmi_linear w_uv =
        p->dtype == dtype ? layer->kv_b_proj : cmi_plan_take_linear(p, dtype, heads * v, rank);
    for (uint32_t head = 0; head < heads; head++) {
        from.first = head * (nope + v);
        from.n = nope;
        cmi_weights_copy copy = {.placing = CMI_PLACE_TRANSPOSED,
                                 .dest_stride = layer->w_uk_t.stride,
                                 .dest_dtype = dtype};
        if (layer->w_uk_t.w != NULL) {
            copy.dest = (uint8_t *)(uintptr_t)layer->w_uk_t.w +
                        (size_t)head * rank * layer->w_uk_t.stride * cmi_dtype_bytes(dtype);
        }
        cmi_plan_add_copy(p, &from, copy);
        if (p->dtype != dtype) {
            from.first += nope;
            from.n = v;
            cmi_plan_fill_rows(p, &w_uv, head * v, &from);
        }
    }
    bool is_view = p->dtype == dtype;
    layer->w_uv_head_stride = (is_view ? nope + v : v) * w_uv.stride;
    layer->w_uv = w_uv;
    layer->w_uv.n_out = v;
    if (is_view && w_uv.w != NULL) {
        layer->w_uv.w = (const uint8_t *)w_uv.w + nope * w_uv.stride * cmi_dtype_bytes(dtype);
    }
}

static void place_attention(cmi_weights_plan *p, cmi_layer_weights *layer, const char *prefix)
{
    const cmi_model_config *c = p->config;
    uint32_t hidden = c->hidden_size;
    uint32_t heads = c->num_attention_heads;
    uint32_t n_q = heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    uint32_t n_kv_a = c->kv_lora_rank + c->qk_rope_head_dim;
    char attn[CMI_PLAN_NAME_BYTES];
    snprintf(attn, sizeof attn, "%sself_attn.", prefix);
    layer->qkv_a_proj = cmi_plan_take_linear(p, p->dtype, c->q_lora_rank + n_kv_a, hidden);
    cmi_plan_rows q_a = {attn, "q_a_proj.weight", c->q_lora_rank, hidden, 0, 0};
    cmi_plan_rows kv_a = {attn, "kv_a_proj_with_mqa.weight", n_kv_a, hidden, 0, 0};
    if (c->q_lora_rank > 0) {
        cmi_plan_fill_rows(p, &layer->qkv_a_proj, 0, &q_a);
        layer->q_a_layernorm = cmi_plan_vector(p, attn, "q_a_layernorm.weight", c->q_lora_rank);
        layer->q_b_proj =
            cmi_plan_linear(p, p->dtype, attn, "q_b_proj.weight", n_q, c->q_lora_rank);
    } else {
        layer->q_b_proj = cmi_plan_linear(p, p->dtype, attn, "q_proj.weight", n_q, hidden);
    }
    cmi_plan_fill_rows(p, &layer->qkv_a_proj, c->q_lora_rank, &kv_a);
    layer->kv_a_layernorm = cmi_plan_vector(p, attn, "kv_a_layernorm.weight", c->kv_lora_rank);
    place_kv_b(p, layer, attn);
    layer->o_proj =
        cmi_plan_linear(p, p->dtype, attn, "o_proj.weight", hidden, heads * c->v_head_dim);
}

static cmi_ffn place_expert(cmi_weights_plan *p, uint32_t layer_idx, uint32_t expert)
{
    char prefix[CMI_PLAN_NAME_BYTES];
    snprintf(prefix, sizeof prefix, "model.layers.%u.mlp.experts.%u.", layer_idx, expert);
    return cmi_plan_ffn(p, prefix, p->config->moe_intermediate_size);
}

static void place_experts(cmi_weights_plan *p, cmi_layer_weights *layer, uint32_t idx)
{
    uint32_t n = p->config->n_routed_experts;
    cmi_ffn *experts = cmi_plan_take_struct(p, (uint64_t)n * sizeof *experts);
    layer->experts = experts;
    if (p->expert_places != NULL) {
        p->expert_places[idx] = p->block_bytes + p->left_out_bytes;
    }
    p->is_left_out = p->without_experts;
    for (uint32_t i = 0; i < n && p->status == CMI_OK; i++) {
        cmi_ffn expert = place_expert(p, idx, i);
        if (experts != NULL) {
            experts[i] = expert;
        }
    }
    p->is_left_out = false;
}

static void place_moe(cmi_weights_plan *p, cmi_layer_weights *layer, uint32_t idx, const char *mlp)
{
    const cmi_model_config *c = p->config;
    char prefix[CMI_PLAN_NAME_BYTES];
    layer->gate = cmi_plan_take_linear(p, CMI_DTYPE_F32, c->n_routed_experts, c->hidden_size);
    cmi_plan_rows gate = {mlp, "gate.weight", c->n_routed_experts, c->hidden_size, 0, 0};
    cmi_plan_fill_rows(p, &layer->gate, 0, &gate);
    if (c->topk_method == CMI_TOPK_NOAUX_TC) {
        layer->gate_bias =
            cmi_plan_vector(p, mlp, "gate.e_score_correction_bias", c->n_routed_experts);
    }
    place_experts(p, layer, idx);
    if (c->n_shared_experts > 0) {
        snprintf(prefix, sizeof prefix, "%sshared_experts.", mlp);
        layer->shared = cmi_plan_ffn(p, prefix, c->n_shared_experts * c->moe_intermediate_size);
    }
}

static cmi_layer_weights place_layer(cmi_weights_plan *p, uint32_t idx)
{
    const cmi_model_config *c = p->config;
    cmi_layer_weights layer = {.is_moe = cmi_model_config_is_moe(c, idx)};
    char prefix[CMI_PLAN_NAME_BYTES];
    char mlp[CMI_PLAN_NAME_BYTES];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", idx);
    snprintf(mlp, sizeof mlp, "model.layers.%u.mlp.", idx);
    layer.input_layernorm = cmi_plan_vector(p, prefix, "input_layernorm.weight", c->hidden_size);
    place_attention(p, &layer, prefix);
    layer.post_attention_layernorm =
        cmi_plan_vector(p, prefix, "post_attention_layernorm.weight", c->hidden_size);
    if (layer.is_moe) {
        place_moe(p, &layer, idx, mlp);
    } else {
        layer.dense = cmi_plan_ffn(p, mlp, c->intermediate_size);
    }
    return layer;
}

static cmi_mtp_weights place_mtp(cmi_weights_plan *p)
{
    const cmi_model_config *c = p->config;
    uint32_t hidden = c->hidden_size;
    cmi_mtp_weights mtp = {0};
    char prefix[CMI_PLAN_NAME_BYTES];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", c->num_hidden_layers);
    mtp.enorm = cmi_plan_vector(p, prefix, "enorm.weight", hidden);
    mtp.hnorm = cmi_plan_vector(p, prefix, "hnorm.weight", hidden);
    mtp.eh_proj = cmi_plan_linear(p, p->dtype, prefix, "eh_proj.weight", hidden, 2 * hidden);
    mtp.layer = place_layer(p, c->num_hidden_layers);
    mtp.head_norm = cmi_plan_vector(p, prefix, "shared_head.norm.weight", hidden);
    return mtp;
}

cmi_weights *cmi_weights_plan_walk(cmi_weights_plan *p)
{
    const cmi_model_config *c = p->config;
    p->block_bytes = 0;
    p->left_out_bytes = 0;
    p->struct_bytes = 0;
    p->n_copies = 0;
    p->n_spans = 0;
    p->digest = 0;
    cmi_weights *head = cmi_plan_take_struct(p, sizeof *head);
    cmi_layer_weights *layers = cmi_plan_take_struct(p, c->num_hidden_layers * sizeof *layers);
    cmi_mtp_weights *mtp = p->with_mtp ? cmi_plan_take_struct(p, sizeof *mtp) : NULL;
    cmi_weights w = {.dtype = p->dtype,
                     .layers = layers,
                     .mtp = mtp,
                     .n_layers = c->num_hidden_layers,
                     .n_experts = c->n_routed_experts,
                     .without_experts = p->without_experts};
    w.embed = cmi_plan_linear(p, attention_dtype(p), "model.embed_tokens.weight", "", c->vocab_size,
                              c->hidden_size);
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        cmi_layer_weights layer = place_layer(p, i);
        if (layers != NULL) {
            layers[i] = layer;
        }
    }
    if (p->with_mtp) {
        cmi_mtp_weights placed = place_mtp(p);
        if (mtp != NULL) {
            *mtp = placed;
        }
    }
    w.norm = cmi_plan_vector(p, "model.norm.weight", "", c->hidden_size);
    w.lm_head = c->tie_word_embeddings
                    ? w.embed
                    : cmi_plan_linear(p, p->int8_head ? p->dtype : attention_dtype(p),
                                      "lm_head.weight", "", c->vocab_size, c->hidden_size);
    p->set_digest = cmi_plan_take(p, sizeof *p->set_digest);
    w.block = p->block;
    w.shared = p->shared;
    w.block_bytes = p->block_bytes;
    w.n_bytes = p->block_bytes + p->struct_bytes;
    if (head != NULL && p->status == CMI_OK) {
        *head = w;
        return head;
    }
    return NULL;
}

cmi_expert_plan cmi_weights_plan_expert(const cmi_weights_plan *plan, uint32_t layer_idx,
                                        uint32_t expert, void *slab, cmi_error *err)
{
    cmi_expert_plan out = {0};
    cmi_weights_plan one = {.config = plan->config,
                            .dtype = plan->dtype,
                            .checkpoint = plan->checkpoint,
                            .block = slab,
                            .copies = out.copies,
                            .err = err};
    out.ffn = place_expert(&one, layer_idx, expert);
    out.slab_bytes = one.block_bytes;
    out.n_copies = one.n_copies;
    out.status = one.status;
    return out;
}

/* ---- What the checkpoint has beyond the config ---- */

/* The number behind prefix in text; false when there is none. */
static bool number_after(const char *text, const char *prefix, unsigned long *number_out,
                         const char **rest_out)
{
    size_t n = strlen(prefix);
    if (strncmp(text, prefix, n) != 0 || text[n] < '0' || text[n] > '9') {
        return false;
    }
    char *rest;
    *number_out = strtoul(text + n, &rest, 10);
    *rest_out = rest;
    return *rest == '.';
}

cmi_status cmi_weights_check_names(const cmi_checkpoint *checkpoint, const cmi_model_config *config,
                                   cmi_error *err)
{
    uint32_t n_layers = config->num_hidden_layers + config->num_nextn_predict_layers;
    for (uint32_t i = 0; i < checkpoint->n_tensors; i++) {
        const cmi_checkpoint_tensor *t = &checkpoint->tensors[i];
        unsigned long number;
        const char *rest;
        if (!number_after(t->tensor->name, "model.layers.", &number, &rest)) {
            continue;
        }
        if (number >= n_layers) {
            return cmi_error_set(
                err, CMI_ERR_BAD_DATA,
                "%s: tensor %.160s belongs to a layer beyond the %u of config.json "
                "(num_hidden_layers + num_nextn_predict_layers)",
                t->file->path, t->tensor->name, n_layers);
        }
        if (number_after(rest, ".mlp.experts.", &number, &rest) &&
            number >= config->n_routed_experts) {
            return cmi_error_set(err, CMI_ERR_BAD_DATA,
                                 "%s: tensor %.160s belongs to an expert beyond config.json's "
                                 "n_routed_experts (%u)",
                                 t->file->path, t->tensor->name, config->n_routed_experts);
        }
    }
    return CMI_OK;
}

bool cmi_weights_has_layer(const cmi_checkpoint *checkpoint, uint32_t layer_idx)
{
    char prefix[CMI_PLAN_NAME_BYTES];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "model.layers.%u.", layer_idx);
    for (uint32_t i = 0; i < checkpoint->n_tensors; i++) {
        if (strncmp(checkpoint->tensors[i].tensor->name, prefix, n) == 0) {
            return true;
        }
    }
    return false;
}
