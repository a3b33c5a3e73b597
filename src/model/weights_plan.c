/* model/weights_plan.c - which tensor goes where in the block; see weights_internal.h. A change of
 * the bytes that come out must count CMI_WEIGHTS_LAYOUT up.
 *
 * One walk serves three purposes: sizes, checks, and placing. That the estimate equals what loading
 * takes is then no matter of care. While nothing is placed, take() returns NULL and the structs
 * that a caller would fill are scratch on its stack. */
#include "model/weights_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strmap.h"

enum { NAME_BYTES = 128 };

static void fail(cmi_weights_plan *p, cmi_status st, const cmi_checkpoint_tensor *t,
                 const char *fmt, ...) CMI_PRINTF(4, 5);

static void fail(cmi_weights_plan *p, cmi_status st, const cmi_checkpoint_tensor *t,
                 const char *fmt, ...)
{
    if (p->status != CMI_OK) {
        return;
    }
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    p->status =
        cmi_error_set(p->err, st, "%s: tensor %s: %s", t->file->path, t->tensor->name, line);
}

static void note(cmi_weights_plan *p, const void *bytes, size_t n_bytes)
{
    uint64_t both[2] = {p->digest, cmi_hash_bytes(bytes, n_bytes)};
    p->digest = cmi_hash_bytes(both, sizeof both);
}

/* The next n_bytes of the block, aligned; NULL while nothing is placed. */
static void *take(cmi_weights_plan *p, uint64_t n_bytes)
{
    uint64_t at = p->block_bytes;
    p->block_bytes += CMI_ROUND_UP(n_bytes, CMI_CACHE_LINE);
    note(p, &n_bytes, sizeof n_bytes);
    return p->block == NULL ? NULL : p->block + at;
}

/* The same of the structs, which hold pointers and stay with their process. */
static void *take_struct(cmi_weights_plan *p, uint64_t n_bytes)
{
    uint64_t at = p->struct_bytes;
    p->struct_bytes += CMI_ROUND_UP(n_bytes, CMI_CACHE_LINE);
    return p->structs == NULL ? NULL : p->structs + at;
}

static size_t row_stride(cmi_dtype dtype, uint32_t n_cols)
{
    size_t line = CMI_CACHE_LINE / cmi_dtype_bytes(dtype);
    return CMI_ROUND_UP(n_cols, line);
}

/* ---- Finding and checking one tensor ---- */

static const cmi_checkpoint_tensor *find(cmi_weights_plan *p, const char *name)
{
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(p->checkpoint, name);
    if (t == NULL && p->status == CMI_OK) {
        p->status = cmi_error_set(p->err, CMI_ERR_BAD_DATA,
                                  "%s: tensor %s is missing; config.json asks for it",
                                  p->checkpoint->dir, name);
    }
    return t;
}

static void shape_text(char *out, size_t size, const cmi_tensor *t)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (uint32_t i = 0; i < t->n_dims && at < size; i++) {
        at += (size_t)snprintf(out + at, size - at, "%s%llu", i == 0 ? "" : ", ",
                               (unsigned long long)t->dims[i]);
    }
    if (at < size) {
        snprintf(out + at, size - at, "]");
    }
}

/* n_rows 0 stands for a vector. */
static void check_shape(cmi_weights_plan *p, const cmi_checkpoint_tensor *t, uint64_t n_rows,
                        uint64_t n_cols)
{
    const cmi_tensor *tensor = t->tensor;
    bool ok = n_rows == 0
                  ? tensor->n_dims == 1 && tensor->dims[0] == n_cols
                  : tensor->n_dims == 2 && tensor->dims[0] == n_rows && tensor->dims[1] == n_cols;
    if (ok) {
        return;
    }
    char shape[128];
    shape_text(shape, sizeof shape, tensor);
    if (n_rows == 0) {
        fail(p, CMI_ERR_BAD_DATA, t, "shape is %s, but config.json asks for [%llu]", shape,
             (unsigned long long)n_cols);
    } else {
        fail(p, CMI_ERR_BAD_DATA, t, "shape is %s, but config.json asks for [%llu, %llu]", shape,
             (unsigned long long)n_rows, (unsigned long long)n_cols);
    }
}

static void find_fp8_scale(cmi_weights_plan *p, cmi_weights_copy *copy, uint64_t n_rows,
                           const char *name)
{
    const cmi_fp8_config *fp8 = &p->config->fp8;
    if (fp8->block_rows == 0) {
        fail(p, CMI_ERR_BAD_DATA, copy->source,
             "dtype is F8_E4M3, but config.json has no quantization_config");
        return;
    }
    char scale_name[NAME_BYTES + 16];
    snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
    const cmi_checkpoint_tensor *scale = find(p, scale_name);
    if (scale == NULL) {
        return;
    }
    copy->scale_cols = CMI_DIV_UP(copy->n_cols, fp8->block_cols);
    check_shape(p, scale, CMI_DIV_UP(n_rows, fp8->block_rows), copy->scale_cols);
    if (scale->tensor->dtype != CMI_DTYPE_F32) {
        fail(p, CMI_ERR_UNSUPPORTED, scale, "dtype %s is not supported for scales; F32 is",
             scale->tensor->dtype_label);
    }
    copy->block_rows = fp8->block_rows;
    copy->block_cols = fp8->block_cols;
    copy->scale_source = scale;
    copy->scale = cmi_safetensors_data(scale->file, scale->tensor);
}

/* One scale for each output: [n_rows] or [n_rows, 1]. */
static void find_int8_scale(cmi_weights_plan *p, cmi_weights_copy *copy, uint64_t n_rows,
                            const char *name)
{
    if (!p->config->is_int8) {
        fail(p, CMI_ERR_BAD_DATA, copy->source,
             "dtype is I8, but config.json has no quantization_config for INT8");
        return;
    }
    char scale_name[NAME_BYTES + 16];
    snprintf(scale_name, sizeof scale_name, "%s_scale", name);
    const cmi_checkpoint_tensor *scale = find(p, scale_name);
    if (scale == NULL) {
        return;
    }
    if (scale->tensor->n_dims == 2) {
        check_shape(p, scale, n_rows, 1);
    } else {
        check_shape(p, scale, 0, n_rows);
    }
    if (scale->tensor->dtype != CMI_DTYPE_F32 && scale->tensor->dtype != CMI_DTYPE_BF16) {
        fail(p, CMI_ERR_UNSUPPORTED, scale,
             "dtype %s is not supported for scales; F32 and BF16 are", scale->tensor->dtype_label);
    }
    copy->scale_dtype = scale->tensor->dtype;
    copy->scale_source = scale;
    copy->scale = cmi_safetensors_data(scale->file, scale->tensor);
}

static bool is_readable(cmi_dtype dtype)
{
    return dtype == CMI_DTYPE_F32 || dtype == CMI_DTYPE_F16 || dtype == CMI_DTYPE_BF16;
}

/* Rows of a tensor: which tensor, its whole shape (n_rows 0: a vector), and which of its rows. */
typedef struct tensor_rows {
    const char *prefix, *suffix; /* together the name */
    uint32_t n_rows, n_cols;
    uint32_t first, n; /* n 0: all rows */
} tensor_rows;

/* What a copy does to the block, but for the addresses. */
static void note_copy(cmi_weights_plan *p, const cmi_weights_copy *c)
{
    const uint64_t what[] = {c->scale_dtype, c->scale_cols, c->block_rows, c->block_cols,
                             c->source_row,  c->n_rows,     c->n_cols,     c->placing,
                             c->dest_stride, c->dest_dtype, c->dest_row,   c->first_block,
                             c->block_step,  p->block_bytes};
    note(p, what, sizeof what);
    note(p, c->source->tensor->name, strlen(c->source->tensor->name));
}

/* Looks the tensor up, checks it and notes the copy. */
static void add_copy(cmi_weights_plan *p, const tensor_rows *from, cmi_weights_copy copy)
{
    if (p->checkpoint == NULL || p->status != CMI_OK) {
        return;
    }
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", from->prefix, from->suffix);
    copy.source = find(p, name);
    if (copy.source == NULL) {
        return;
    }
    copy.source_row = from->first;
    copy.n_rows = from->n > 0 ? from->n : CMI_MAX(from->n_rows, 1u);
    copy.n_cols = from->n_cols;
    check_shape(p, copy.source, from->n_rows, from->n_cols);
    const cmi_tensor *tensor = copy.source->tensor;
    if (tensor->dtype == CMI_DTYPE_F8_E4M3 && from->n_rows > 0) {
        find_fp8_scale(p, &copy, from->n_rows, name);
    } else if (tensor->dtype == CMI_DTYPE_I8 && from->n_rows > 0) {
        find_int8_scale(p, &copy, from->n_rows, name);
    } else if (!is_readable(tensor->dtype)) {
        fail(p, CMI_ERR_UNSUPPORTED, copy.source, "dtype %s is not supported here",
             tensor->dtype_label);
    }
    note_copy(p, &copy);
    if (p->status == CMI_OK) {
        if (p->copies != NULL) {
            p->copies[p->n_copies] = copy;
        }
        p->n_copies++;
    }
}

/* ---- Vectors, matrices, networks ---- */

static const float *place_vector(cmi_weights_plan *p, const char *prefix, const char *suffix,
                                 uint32_t n)
{
    float *dest = take(p, (uint64_t)n * sizeof(float));
    tensor_rows from = {.prefix = prefix, .suffix = suffix, .n_cols = n};
    cmi_weights_copy copy = {.dest = dest, .dest_stride = n, .dest_dtype = CMI_DTYPE_F32};
    add_copy(p, &from, copy);
    return dest;
}

static void add_span(cmi_weights_plan *p, uint64_t begin, uint64_t n_bytes)
{
    if (p->spans != NULL) {
        p->spans[p->n_spans] = (cmi_weights_span){begin, n_bytes};
    }
    p->n_spans++;
}

/* n_out outputs; an I8 matrix gets whole blocks. A column of the product takes outputs from n_parts
 * equal parts of the matrix. */
static cmi_linear take_parts(cmi_weights_plan *p, cmi_dtype dtype, uint32_t n_out, uint32_t n_in,
                             uint32_t n_parts)
{
    cmi_linear m = {.n_out = n_out, .n_in = n_in, .dtype = dtype};
    uint64_t begin = p->block_bytes;
    uint64_t n_bytes;
    if (dtype == CMI_DTYPE_I8) {
        if (n_in > CMI_I8_MAX_K && p->status == CMI_OK) {
            p->status = cmi_error_set(p->err, CMI_ERR_UNSUPPORTED,
                                      "INT8 needs matrices of at most %d inputs, one has %u",
                                      CMI_I8_MAX_K, n_in);
        }
        m.stride = cmi_i8_block_bytes(n_in);
        n_bytes = cmi_i8_packed_bytes(n_out, n_in);
    } else {
        m.stride = row_stride(dtype, n_in);
        n_bytes = (uint64_t)n_out * m.stride * cmi_dtype_bytes(dtype);
    }
    m.w = take(p, n_bytes);
    for (uint32_t i = 0; i < n_parts; i++) {
        add_span(p, begin + n_bytes / n_parts * i, n_bytes / n_parts);
    }
    return m;
}

static cmi_linear take_linear(cmi_weights_plan *p, cmi_dtype dtype, uint32_t n_out, uint32_t n_in)
{
    return take_parts(p, dtype, n_out, n_in, 1);
}

/* Fills m from its row (output) first_row on with a tensor's rows. */
static void fill_rows(cmi_weights_plan *p, const cmi_linear *m, uint32_t first_row,
                      const tensor_rows *from)
{
    cmi_weights_copy copy = {
        .dest = (void *)(uintptr_t)m->w, .dest_stride = m->stride, .dest_dtype = m->dtype};
    note(p, &first_row, sizeof first_row);
    if (m->dtype == CMI_DTYPE_I8) {
        copy.placing = CMI_PLACE_I8_BLOCKS;
        copy.dest_row = first_row;
        copy.block_step = 1;
    } else if (m->w != NULL) {
        copy.dest = (uint8_t *)copy.dest + first_row * m->stride * cmi_dtype_bytes(m->dtype);
    }
    add_copy(p, from, copy);
}

static cmi_linear place_linear(cmi_weights_plan *p, cmi_dtype dtype, const char *prefix,
                               const char *suffix, uint32_t n_out, uint32_t n_in)
{
    cmi_linear m = take_linear(p, dtype, n_out, n_in);
    tensor_rows from = {.prefix = prefix, .suffix = suffix, .n_rows = n_out, .n_cols = n_in};
    fill_rows(p, &m, 0, &from);
    return m;
}

/* gate_proj (part 0) or up_proj (part 1) as I8: every other block. */
static void fill_alternate_blocks(cmi_weights_plan *p, const cmi_linear *gate_up, uint32_t part,
                                  const tensor_rows *from)
{
    cmi_weights_copy copy = {.placing = CMI_PLACE_I8_BLOCKS,
                             .dest = (void *)(uintptr_t)gate_up->w,
                             .dest_dtype = CMI_DTYPE_I8,
                             .first_block = part,
                             .block_step = 2};
    add_copy(p, from, copy);
}

static cmi_ffn place_ffn(cmi_weights_plan *p, const char *prefix, uint32_t width)
{
    uint32_t hidden = p->config->hidden_size;
    cmi_ffn ffn = {.width = width};
    tensor_rows gate = {
        .prefix = prefix, .suffix = "gate_proj.weight", .n_rows = width, .n_cols = hidden};
    tensor_rows up = gate;
    up.suffix = "up_proj.weight";
    if (p->dtype == CMI_DTYPE_I8) {
        uint32_t padded = CMI_ROUND_UP(width, (uint32_t)CMI_I8_BLOCK_COLS);
        ffn.gate_up = take_linear(p, p->dtype, 2 * padded, hidden);
        fill_alternate_blocks(p, &ffn.gate_up, 0, &gate);
        fill_alternate_blocks(p, &ffn.gate_up, 1, &up);
        ffn.gate_up.n_out = 2 * width;
    } else {
        ffn.gate_up = take_parts(p, p->dtype, 2 * width, hidden, 2);
        fill_rows(p, &ffn.gate_up, 0, &gate);
        fill_rows(p, &ffn.gate_up, width, &up);
    }
    ffn.down = place_linear(p, p->dtype, prefix, "down_proj.weight", hidden, width);
    return ffn;
}

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
    tensor_rows from = {
        .prefix = attn, .suffix = "kv_b_proj.weight", .n_rows = heads * (nope + v), .n_cols = rank};
    layer->kv_b_proj = take_linear(p, p->dtype, heads * (nope + v), rank);
    fill_rows(p, &layer->kv_b_proj, 0, &from);
    layer->w_uk_t = take_linear(p, dtype, heads * rank, nope);
    cmi_linear w_uv = p->dtype == dtype ? layer->kv_b_proj : take_linear(p, dtype, heads * v, rank);
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
        add_copy(p, &from, copy);
        if (p->dtype != dtype) {
            from.first += nope;
            from.n = v;
            fill_rows(p, &w_uv, head * v, &from);
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
    char attn[NAME_BYTES];
    snprintf(attn, sizeof attn, "%sself_attn.", prefix);
    layer->qkv_a_proj = take_linear(p, p->dtype, c->q_lora_rank + n_kv_a, hidden);
    tensor_rows q_a = {attn, "q_a_proj.weight", c->q_lora_rank, hidden, 0, 0};
    tensor_rows kv_a = {attn, "kv_a_proj_with_mqa.weight", n_kv_a, hidden, 0, 0};
    if (c->q_lora_rank > 0) {
        fill_rows(p, &layer->qkv_a_proj, 0, &q_a);
        layer->q_a_layernorm = place_vector(p, attn, "q_a_layernorm.weight", c->q_lora_rank);
        layer->q_b_proj = place_linear(p, p->dtype, attn, "q_b_proj.weight", n_q, c->q_lora_rank);
    } else {
        layer->q_b_proj = place_linear(p, p->dtype, attn, "q_proj.weight", n_q, hidden);
    }
    fill_rows(p, &layer->qkv_a_proj, c->q_lora_rank, &kv_a);
    layer->kv_a_layernorm = place_vector(p, attn, "kv_a_layernorm.weight", c->kv_lora_rank);
    place_kv_b(p, layer, attn);
    layer->o_proj = place_linear(p, p->dtype, attn, "o_proj.weight", hidden, heads * c->v_head_dim);
}

static void place_moe(cmi_weights_plan *p, cmi_layer_weights *layer, const char *mlp)
{
    const cmi_model_config *c = p->config;
    char prefix[NAME_BYTES];
    layer->gate = take_linear(p, CMI_DTYPE_F32, c->n_routed_experts, c->hidden_size);
    tensor_rows gate = {mlp, "gate.weight", c->n_routed_experts, c->hidden_size, 0, 0};
    fill_rows(p, &layer->gate, 0, &gate);
    if (c->topk_method == CMI_TOPK_NOAUX_TC) {
        layer->gate_bias =
            place_vector(p, mlp, "gate.e_score_correction_bias", c->n_routed_experts);
    }
    cmi_ffn *experts = take_struct(p, (uint64_t)c->n_routed_experts * sizeof *experts);
    layer->experts = experts;
    for (uint32_t i = 0; i < c->n_routed_experts && p->status == CMI_OK; i++) {
        snprintf(prefix, sizeof prefix, "%sexperts.%u.", mlp, i);
        cmi_ffn expert = place_ffn(p, prefix, c->moe_intermediate_size);
        if (experts != NULL) {
            experts[i] = expert;
        }
    }
    if (c->n_shared_experts > 0) {
        snprintf(prefix, sizeof prefix, "%sshared_experts.", mlp);
        layer->shared = place_ffn(p, prefix, c->n_shared_experts * c->moe_intermediate_size);
    }
}

static cmi_layer_weights place_layer(cmi_weights_plan *p, uint32_t idx)
{
    const cmi_model_config *c = p->config;
    cmi_layer_weights layer = {.is_moe = cmi_model_config_is_moe(c, idx)};
    char prefix[NAME_BYTES];
    char mlp[NAME_BYTES];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", idx);
    snprintf(mlp, sizeof mlp, "model.layers.%u.mlp.", idx);
    layer.input_layernorm = place_vector(p, prefix, "input_layernorm.weight", c->hidden_size);
    place_attention(p, &layer, prefix);
    layer.post_attention_layernorm =
        place_vector(p, prefix, "post_attention_layernorm.weight", c->hidden_size);
    if (layer.is_moe) {
        place_moe(p, &layer, mlp);
    } else {
        layer.dense = place_ffn(p, mlp, c->intermediate_size);
    }
    return layer;
}

static cmi_mtp_weights place_mtp(cmi_weights_plan *p)
{
    const cmi_model_config *c = p->config;
    uint32_t hidden = c->hidden_size;
    cmi_mtp_weights mtp = {0};
    char prefix[NAME_BYTES];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", c->num_hidden_layers);
    mtp.enorm = place_vector(p, prefix, "enorm.weight", hidden);
    mtp.hnorm = place_vector(p, prefix, "hnorm.weight", hidden);
    mtp.eh_proj = place_linear(p, p->dtype, prefix, "eh_proj.weight", hidden, 2 * hidden);
    mtp.layer = place_layer(p, c->num_hidden_layers);
    mtp.head_norm = place_vector(p, prefix, "shared_head.norm.weight", hidden);
    return mtp;
}

cmi_weights *cmi_weights_plan_walk(cmi_weights_plan *p)
{
    const cmi_model_config *c = p->config;
    p->block_bytes = 0;
    p->struct_bytes = 0;
    p->n_copies = 0;
    p->n_spans = 0;
    p->digest = 0;
    cmi_weights *head = take_struct(p, sizeof *head);
    cmi_layer_weights *layers = take_struct(p, c->num_hidden_layers * sizeof *layers);
    cmi_mtp_weights *mtp = p->with_mtp ? take_struct(p, sizeof *mtp) : NULL;
    cmi_weights w = {.dtype = p->dtype, .layers = layers, .mtp = mtp};
    w.embed = place_linear(p, attention_dtype(p), "model.embed_tokens.weight", "", c->vocab_size,
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
    w.norm = place_vector(p, "model.norm.weight", "", c->hidden_size);
    w.lm_head = c->tie_word_embeddings
                    ? w.embed
                    : place_linear(p, p->int8_head ? p->dtype : attention_dtype(p),
                                   "lm_head.weight", "", c->vocab_size, c->hidden_size);
    p->set_digest = take(p, sizeof *p->set_digest);
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
    char prefix[NAME_BYTES];
    size_t n = (size_t)snprintf(prefix, sizeof prefix, "model.layers.%u.", layer_idx);
    for (uint32_t i = 0; i < checkpoint->n_tensors; i++) {
        if (strncmp(checkpoint->tensors[i].tensor->name, prefix, n) == 0) {
            return true;
        }
    }
    return false;
}
