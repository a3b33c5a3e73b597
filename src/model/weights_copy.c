/* model/weights_copy.c - converts tensors into the block; see weights_internal.h.
 *
 * Every tensor is cut into runs of rows of about a megabyte, which are the team's tasks. They are
 * handed out in the order of the files, so that disks read forward, and in waves, between which the
 * calling thread reports progress. A task's result depends on nothing but its rows. */
#include "model/weights_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor bytes are little-endian");

enum {
    TASK_BYTES = 1 << 20,
    WAVE_TASKS = 512, /* half a gigabyte of source between two reports */
};

typedef struct copy_task {
    const cmi_weights_copy *copy;
    uint64_t first_row, n_rows;
} copy_task;

/* ---- One row ---- */

static void row_to_f32(float *dest, const uint8_t *src, cmi_dtype dtype, size_t n)
{
    if (dtype == CMI_DTYPE_F32) {
        memcpy(dest, src, n * sizeof *dest);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, src + i * sizeof half, sizeof half);
        dest[i] = dtype == CMI_DTYPE_BF16 ? cmi_bf16_to_f32(half) : cmi_f16_to_f32(half);
    }
}

static void row_to_bf16(cmi_bf16 *dest, const uint8_t *src, cmi_dtype dtype, size_t n)
{
    if (dtype == CMI_DTYPE_BF16) {
        memcpy(dest, src, n * sizeof *dest);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float x;
        if (dtype == CMI_DTYPE_F32) {
            memcpy(&x, src + i * sizeof x, sizeof x);
        } else {
            uint16_t half;
            memcpy(&half, src + i * sizeof half, sizeof half);
            x = cmi_f16_to_f32(half);
        }
        dest[i] = cmi_bf16_from_f32(x);
    }
}

/* n codes of one scale block. */
static void fp8_to_f32(float *dest, const uint8_t *codes, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        dest[i] = cmi_f8e4m3_to_f32(codes[i]) * scale;
    }
}

static void fp8_to_bf16(cmi_bf16 *dest, const uint8_t *codes, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        dest[i] = cmi_bf16_from_f32(cmi_f8e4m3_to_f32(codes[i]) * scale);
    }
}

static void fp8_row(const cmi_weights_copy *c, void *dest, const uint8_t *codes, uint64_t row)
{
    const uint8_t *scales = c->scale + row / c->block_rows * c->scale_cols * sizeof(float);
    for (uint64_t col = 0; col < c->n_cols; col += c->block_cols) {
        size_t n = CMI_MIN(c->n_cols - col, (uint64_t)c->block_cols);
        float scale;
        memcpy(&scale, scales + col / c->block_cols * sizeof scale, sizeof scale);
        if (c->dest_dtype == CMI_DTYPE_F32) {
            fp8_to_f32((float *)dest + col, codes + col, scale, n);
        } else {
            fp8_to_bf16((cmi_bf16 *)dest + col, codes + col, scale, n);
        }
    }
}

static void copy_row(const cmi_weights_copy *c, const uint8_t *src, uint64_t row)
{
    cmi_dtype dtype = c->source->tensor->dtype;
    uint8_t *dest = (uint8_t *)c->dest + row * c->dest_stride * cmi_dtype_bytes(c->dest_dtype);
    if (dtype == CMI_DTYPE_F8_E4M3) {
        fp8_row(c, dest, src, row);
    } else if (c->dest_dtype == CMI_DTYPE_F32) {
        row_to_f32((float *)(void *)dest, src, dtype, c->n_cols);
    } else {
        row_to_bf16((cmi_bf16 *)(void *)dest, src, dtype, c->n_cols);
    }
}

/* ---- Tasks ---- */

static uint64_t row_bytes(const cmi_weights_copy *c)
{
    return c->n_cols * cmi_dtype_bytes(c->source->tensor->dtype);
}

static void run_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const copy_task *t = (const copy_task *)arg + task;
    const cmi_weights_copy *c = t->copy;
    const cmi_safetensors *file = c->source->file;
    uint64_t n_row = row_bytes(c);
    uint64_t offset = c->source->tensor->offset + t->first_row * n_row;
    for (uint64_t i = 0; i < t->n_rows; i++) {
        copy_row(c, file->data + offset + i * n_row, t->first_row + i);
    }
    cmi_file_map_release(&file->map, offset, t->n_rows * n_row);
}

static int compare_copies(const void *left, const void *right)
{
    const cmi_checkpoint_tensor *a = ((const cmi_weights_copy *)left)->source;
    const cmi_checkpoint_tensor *b = ((const cmi_weights_copy *)right)->source;
    if (a->file != b->file) {
        return strcmp(a->file->path, b->file->path);
    }
    if (a->tensor->offset != b->tensor->offset) {
        return a->tensor->offset < b->tensor->offset ? -1 : 1;
    }
    return 0;
}

static uint64_t task_rows(const cmi_weights_copy *c)
{
    return CMI_MAX(TASK_BYTES / row_bytes(c), (uint64_t)1);
}

static size_t count_tasks(const cmi_weights_copy *copies, size_t n_copies, uint64_t *n_bytes)
{
    size_t n_tasks = 0;
    for (size_t i = 0; i < n_copies; i++) {
        n_tasks += CMI_DIV_UP(copies[i].n_rows, task_rows(&copies[i]));
        *n_bytes += copies[i].source->tensor->n_bytes;
    }
    return n_tasks;
}

static void make_tasks(copy_task *tasks, const cmi_weights_copy *copies, size_t n_copies)
{
    for (size_t i = 0; i < n_copies; i++) {
        uint64_t step = task_rows(&copies[i]);
        for (uint64_t row = 0; row < copies[i].n_rows; row += step) {
            *tasks++ = (copy_task){&copies[i], row, CMI_MIN(step, copies[i].n_rows - row)};
        }
    }
}

void cmi_weights_copy_run(cmi_weights_copy *copies, size_t n_copies, const cmi_weights_options *opt)
{
    qsort(copies, n_copies, sizeof *copies, compare_copies);
    uint64_t total_bytes = 0;
    uint64_t done_bytes = 0;
    size_t n_tasks = count_tasks(copies, n_copies, &total_bytes);
    copy_task *tasks = cmi_alloc(n_tasks, sizeof *tasks);
    make_tasks(tasks, copies, n_copies);
    for (size_t first = 0; first < n_tasks; first += WAVE_TASKS) {
        uint32_t n = (uint32_t)CMI_MIN(n_tasks - first, (size_t)WAVE_TASKS);
        cmi_team_run(opt->team, run_task, tasks + first, n);
        for (uint32_t i = 0; i < n; i++) {
            done_bytes += tasks[first + i].n_rows * row_bytes(tasks[first + i].copy);
        }
        if (opt->progress != NULL) {
            opt->progress(opt->progress_arg, done_bytes, total_bytes);
        }
    }
    cmi_free(tasks);
}

/* ---- The K half of kv_b_proj, transposed ---- */

typedef struct transpose_run {
    const cmi_weights *weights;
    const cmi_model_config *config;
} transpose_run;

/* One head of one layer: w_uk_t[rank][nope] from kv_b_proj[nope][rank]. */
static void transpose_head(const cmi_layer_weights *layer, const cmi_model_config *c, uint32_t head)
{
    size_t first_in = (size_t)head * (c->qk_nope_head_dim + c->v_head_dim);
    size_t first_out = (size_t)head * c->kv_lora_rank;
    size_t in_stride = layer->kv_b_proj.stride;
    size_t out_stride = layer->w_uk_t.stride;
    if (layer->w_uk_t.dtype == CMI_DTYPE_F32) {
        const float *in = (const float *)layer->kv_b_proj.w + first_in * in_stride;
        float *out = (float *)(uintptr_t)layer->w_uk_t.w + first_out * out_stride;
        for (size_t r = 0; r < c->kv_lora_rank; r++) {
            for (size_t d = 0; d < c->qk_nope_head_dim; d++) {
                out[r * out_stride + d] = in[d * in_stride + r];
            }
        }
        return;
    }
    const cmi_bf16 *in = (const cmi_bf16 *)layer->kv_b_proj.w + first_in * in_stride;
    cmi_bf16 *out = (cmi_bf16 *)(uintptr_t)layer->w_uk_t.w + first_out * out_stride;
    for (size_t r = 0; r < c->kv_lora_rank; r++) {
        for (size_t d = 0; d < c->qk_nope_head_dim; d++) {
            out[r * out_stride + d] = in[d * in_stride + r];
        }
    }
}

static void transpose_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const transpose_run *run = arg;
    const cmi_model_config *c = run->config;
    uint32_t layer_idx = task / c->num_attention_heads;
    const cmi_layer_weights *layer = layer_idx < c->num_hidden_layers
                                         ? &run->weights->layers[layer_idx]
                                         : &run->weights->mtp->layer;
    transpose_head(layer, c, task % c->num_attention_heads);
}

void cmi_weights_transpose_run(cmi_weights *weights, const cmi_model_config *config, cmi_team *team)
{
    transpose_run run = {weights, config};
    uint32_t n_layers = config->num_hidden_layers + (weights->mtp != NULL ? 1 : 0);
    cmi_team_run(team, transpose_task, &run, n_layers * config->num_attention_heads);
}
