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
    WAVE_TASKS_MIN = 128,
};

typedef struct copy_task {
    const cmi_weights_copy *copy;
    uint64_t first_row, n_rows;
} copy_task;

/* ---- F32, F16, BF16 ---- */

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

static void *dest_at(const cmi_weights_copy *c, uint64_t row, uint64_t col)
{
    uint64_t at = row * c->dest_stride + col;
    return (uint8_t *)c->dest + at * cmi_dtype_bytes(c->dest_dtype);
}

static void copy_rows(const cmi_weights_copy *c, const uint8_t *src, uint64_t first_row,
                      uint64_t n_rows)
{
    cmi_dtype dtype = c->source->tensor->dtype;
    uint64_t src_stride = c->n_cols * cmi_dtype_bytes(dtype);
    for (uint64_t i = 0; i < n_rows; i++) {
        void *dest = dest_at(c, first_row + i, 0);
        if (c->dest_dtype == CMI_DTYPE_F32) {
            row_to_f32(dest, src + i * src_stride, dtype, c->n_cols);
        } else {
            row_to_bf16(dest, src + i * src_stride, dtype, c->n_cols);
        }
    }
}

/* ---- FP8 ---- */

/* All 256 codes times one scale. A scale block has thousands of codes, so that looking products up
 * costs a fifth of multiplying and rounding each one (Zen 4, 128 x 128 blocks, to BF16). */
typedef struct fp8_products {
    float f32[256];
    cmi_bf16 bf16[256];
} fp8_products;

static void fp8_products_make(fp8_products *p, float scale)
{
    for (uint32_t code = 0; code < 256; code++) {
        p->f32[code] = cmi_f8e4m3_to_f32((uint8_t)code) * scale;
        p->bf16[code] = cmi_bf16_from_f32(p->f32[code]);
    }
}

/* A run of rows inside one row of scale blocks. src is the run's first code. */
static void copy_fp8_block_row(const cmi_weights_copy *c, const uint8_t *src, uint64_t first_row,
                               uint64_t n_rows)
{
    const uint8_t *scales = c->scale + first_row / c->block_rows * c->scale_cols * sizeof(float);
    fp8_products products;
    for (uint64_t col = 0; col < c->n_cols; col += c->block_cols) {
        uint64_t n = CMI_MIN(c->n_cols - col, (uint64_t)c->block_cols);
        float scale;
        memcpy(&scale, scales + col / c->block_cols * sizeof scale, sizeof scale);
        fp8_products_make(&products, scale);
        for (uint64_t row = 0; row < n_rows; row++) {
            const uint8_t *codes = src + row * c->n_cols + col;
            void *dest = dest_at(c, first_row + row, col);
            for (uint64_t i = 0; i < n && c->dest_dtype == CMI_DTYPE_F32; i++) {
                ((float *)dest)[i] = products.f32[codes[i]];
            }
            for (uint64_t i = 0; i < n && c->dest_dtype == CMI_DTYPE_BF16; i++) {
                ((cmi_bf16 *)dest)[i] = products.bf16[codes[i]];
            }
        }
    }
}

static void copy_fp8_rows(const cmi_weights_copy *c, const uint8_t *src, uint64_t first_row,
                          uint64_t n_rows)
{
    uint64_t end = first_row + n_rows;
    for (uint64_t row = first_row; row < end;) {
        uint64_t n = CMI_MIN(end - row, c->block_rows - row % c->block_rows);
        copy_fp8_block_row(c, src + (row - first_row) * c->n_cols, row, n);
        row += n;
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
    if (c->source->tensor->dtype == CMI_DTYPE_F8_E4M3) {
        copy_fp8_rows(c, file->data + offset, t->first_row, t->n_rows);
    } else {
        copy_rows(c, file->data + offset, t->first_row, t->n_rows);
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
    size_t wave = CMI_MAX(8 * cmi_team_size(opt->team), (uint32_t)WAVE_TASKS_MIN);
    for (size_t first = 0; first < n_tasks; first += wave) {
        uint32_t n = (uint32_t)CMI_MIN(n_tasks - first, wave);
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
