/* model/weights_tensor.c - see weights_tensor.h. A change of the bytes that come out must count
 * CMI_WEIGHTS_LAYOUT up. */
#include "model/weights_tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/strmap.h"

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

void *cmi_plan_take(cmi_weights_plan *p, uint64_t n_bytes)
{
    uint64_t at = p->block_bytes;
    *(p->is_left_out ? &p->left_out_bytes : &p->block_bytes) +=
        CMI_ROUND_UP(n_bytes, CMI_CACHE_LINE);
    note(p, &n_bytes, sizeof n_bytes);
    if (p->is_left_out) {
        return NULL;
    }
    return p->block == NULL ? NULL : p->block + at;
}

void *cmi_plan_take_struct(cmi_weights_plan *p, uint64_t n_bytes)
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
    char scale_name[CMI_PLAN_NAME_BYTES + 16];
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
    char scale_name[CMI_PLAN_NAME_BYTES + 16];
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

/* What a copy does to a whole block, but for the addresses. */
static void note_copy(cmi_weights_plan *p, const cmi_weights_copy *c)
{
    const uint64_t what[] = {c->scale_dtype, c->scale_cols,
                             c->block_rows,  c->block_cols,
                             c->source_row,  c->n_rows,
                             c->n_cols,      c->placing,
                             c->dest_stride, c->dest_dtype,
                             c->dest_row,    c->first_block,
                             c->block_step,  p->block_bytes + p->left_out_bytes};
    note(p, what, sizeof what);
    note(p, c->source->tensor->name, strlen(c->source->tensor->name));
}

void cmi_plan_add_copy(cmi_weights_plan *p, const cmi_plan_rows *from, cmi_weights_copy copy)
{
    if (p->checkpoint == NULL || p->status != CMI_OK) {
        return;
    }
    char name[CMI_PLAN_NAME_BYTES];
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
    if (p->status == CMI_OK && !p->is_left_out) {
        if (p->copies != NULL) {
            p->copies[p->n_copies] = copy;
        }
        p->n_copies++;
    }
}

/* ---- Vectors, matrices, networks ---- */

const float *cmi_plan_vector(cmi_weights_plan *p, const char *prefix, const char *suffix,
                             uint32_t n)
{
    float *dest = cmi_plan_take(p, (uint64_t)n * sizeof(float));
    cmi_plan_rows from = {.prefix = prefix, .suffix = suffix, .n_cols = n};
    cmi_weights_copy copy = {.dest = dest, .dest_stride = n, .dest_dtype = CMI_DTYPE_F32};
    cmi_plan_add_copy(p, &from, copy);
    return dest;
}

static void add_span(cmi_weights_plan *p, uint64_t begin, uint64_t n_bytes)
{
    if (p->is_left_out) {
        return;
    }
    if (p->spans != NULL) {
        p->spans[p->n_spans] = (cmi_weights_span){begin, n_bytes, p->left_out_bytes};
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
    m.w = cmi_plan_take(p, n_bytes);
    for (uint32_t i = 0; i < n_parts; i++) {
        add_span(p, begin + n_bytes / n_parts * i, n_bytes / n_parts);
    }
    return m;
}

cmi_linear cmi_plan_take_linear(cmi_weights_plan *p, cmi_dtype dtype, uint32_t n_out, uint32_t n_in)
{
    return take_parts(p, dtype, n_out, n_in, 1);
}

void cmi_plan_fill_rows(cmi_weights_plan *p, const cmi_linear *m, uint32_t first_row,
                        const cmi_plan_rows *from)
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
    cmi_plan_add_copy(p, from, copy);
}

cmi_linear cmi_plan_linear(cmi_weights_plan *p, cmi_dtype dtype, const char *prefix,
                           const char *suffix, uint32_t n_out, uint32_t n_in)
{
    cmi_linear m = cmi_plan_take_linear(p, dtype, n_out, n_in);
    cmi_plan_rows from = {.prefix = prefix, .suffix = suffix, .n_rows = n_out, .n_cols = n_in};
    cmi_plan_fill_rows(p, &m, 0, &from);
    return m;
}

/* gate_proj (part 0) or up_proj (part 1) as I8: every other block. */
static void fill_alternate_blocks(cmi_weights_plan *p, const cmi_linear *gate_up, uint32_t part,
                                  const cmi_plan_rows *from)
{
    cmi_weights_copy copy = {.placing = CMI_PLACE_I8_BLOCKS,
                             .dest = (void *)(uintptr_t)gate_up->w,
                             .dest_dtype = CMI_DTYPE_I8,
                             .first_block = part,
                             .block_step = 2};
    cmi_plan_add_copy(p, from, copy);
}

cmi_ffn cmi_plan_ffn(cmi_weights_plan *p, const char *prefix, uint32_t width)
{
    uint32_t hidden = p->config->hidden_size;
    cmi_ffn ffn = {.width = width};
    cmi_plan_rows gate = {
        .prefix = prefix, .suffix = "gate_proj.weight", .n_rows = width, .n_cols = hidden};
    cmi_plan_rows up = gate;
    up.suffix = "up_proj.weight";
    if (p->dtype == CMI_DTYPE_I8) {
        uint32_t padded = CMI_ROUND_UP(width, (uint32_t)CMI_I8_BLOCK_COLS);
        ffn.gate_up = cmi_plan_take_linear(p, p->dtype, 2 * padded, hidden);
        fill_alternate_blocks(p, &ffn.gate_up, 0, &gate);
        fill_alternate_blocks(p, &ffn.gate_up, 1, &up);
        ffn.gate_up.n_out = 2 * width;
    } else {
        ffn.gate_up = take_parts(p, p->dtype, 2 * width, hidden, 2);
        cmi_plan_fill_rows(p, &ffn.gate_up, 0, &gate);
        cmi_plan_fill_rows(p, &ffn.gate_up, width, &up);
    }
    ffn.down = cmi_plan_linear(p, p->dtype, prefix, "down_proj.weight", hidden, width);
    return ffn;
}
