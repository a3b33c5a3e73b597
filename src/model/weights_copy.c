/* model/weights_copy.c - converts tensors into the block; see weights_internal.h.
 *
 * Every tensor is cut into runs of rows of about a megabyte, which are the team's tasks. They are
 * handed out in the order of the files, so that disks read forward, and in waves, between which the
 * calling thread reports progress. A row is read as float32 and written in the type wanted; where
 * both ends have the same type its bytes are copied. A task's result depends on nothing but its
 * rows. */
#include "model/weights_internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/kernels.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor bytes are little-endian");

enum {
    TASK_BYTES = 1 << 20,
    WAVE_TASKS_MIN = 128,
};

typedef struct copy_task {
    const cmi_weights_copy *copy;
    uint64_t first_row, n_rows;
} copy_task;

/* What all tasks share. */
typedef struct copy_run {
    copy_task *tasks;       /* of this wave */
    cmi_weights_hash *hash; /* NULL: none */
    cmi_kernels kernels;
    float f8_values[256]; /* of every FP8 code */
    float *row_values;    /* [workers][max_cols] a row as float32 */
    uint8_t *row_codes;   /* [workers][max_cols] quantized */
    size_t max_cols;
    _Atomic cmi_status *status; /* of the first task that failed */
    cmi_error *err;             /* whose owner is that task */
} copy_run;

/* ---- Reading ---- */

static float scale_of_row(const cmi_weights_copy *c, uint64_t row)
{
    if (c->scale_dtype == CMI_DTYPE_BF16) {
        cmi_bf16 half;
        memcpy(&half, c->scale + row * sizeof half, sizeof half);
        return cmi_bf16_to_f32(half);
    }
    float scale;
    memcpy(&scale, c->scale + row * sizeof scale, sizeof scale);
    return scale;
}

static void read_fp8_row(const copy_run *run, const cmi_weights_copy *c, const uint8_t *codes,
                         uint64_t row, float *to)
{
    const uint8_t *scales = c->scale + row / c->block_rows * c->scale_cols * sizeof(float);
    for (uint64_t col = 0; col < c->n_cols; col += c->block_cols) {
        uint64_t end = CMI_MIN(c->n_cols, col + c->block_cols);
        float scale;
        memcpy(&scale, scales + col / c->block_cols * sizeof scale, sizeof scale);
        for (uint64_t i = col; i < end; i++) {
            to[i] = run->f8_values[codes[i]] * scale;
        }
    }
}

static void read_half_row(const cmi_weights_copy *c, const uint8_t *src, float *to)
{
    bool is_bf16 = c->source->tensor->dtype == CMI_DTYPE_BF16;
    for (size_t i = 0; i < c->n_cols; i++) {
        uint16_t half;
        memcpy(&half, src + i * sizeof half, sizeof half);
        to[i] = is_bf16 ? cmi_bf16_to_f32(half) : cmi_f16_to_f32(half);
    }
}

/* Row `row` of the tensor as float32. */
static void read_row(const copy_run *run, const cmi_weights_copy *c, const uint8_t *src,
                     uint64_t row, float *to)
{
    switch (c->source->tensor->dtype) {
    case CMI_DTYPE_F32:
        memcpy(to, src, c->n_cols * sizeof *to);
        break;
    case CMI_DTYPE_F8_E4M3:
        read_fp8_row(run, c, src, row, to);
        break;
    case CMI_DTYPE_I8: {
        float scale = scale_of_row(c, row);
        for (size_t i = 0; i < c->n_cols; i++) {
            to[i] = (float)(int8_t)src[i] * scale;
        }
        break;
    }
    default:
        read_half_row(c, src, to);
    }
}

/* ---- Writing ---- */

static void *dest_at(const cmi_weights_copy *c, uint64_t row, uint64_t col)
{
    uint64_t at = row * c->dest_stride + col;
    return (uint8_t *)c->dest + at * cmi_dtype_bytes(c->dest_dtype);
}

static void write_row(const copy_run *run, const cmi_weights_copy *c, uint64_t i, const float *from)
{
    if (c->dest_dtype == CMI_DTYPE_BF16) {
        run->kernels.round_bf16(from, (uint32_t)c->n_cols, dest_at(c, i, 0));
    } else {
        memcpy(dest_at(c, i, 0), from, c->n_cols * sizeof *from);
    }
}

static void write_column(const cmi_weights_copy *c, uint64_t i, const float *from)
{
    for (uint64_t row = 0; row < c->n_cols; row++) {
        if (c->dest_dtype == CMI_DTYPE_BF16) {
            cmi_bf16 half = cmi_bf16_from_f32(from[row]);
            memcpy(dest_at(c, row, i), &half, sizeof half);
        } else {
            memcpy(dest_at(c, row, i), &from[row], sizeof *from);
        }
    }
}

/* codes: signed bytes; they become one output of its block. */
static void write_i8_row(const cmi_weights_copy *c, uint64_t i, const uint8_t *codes, float scale)
{
    uint64_t output = c->dest_row + i;
    uint64_t block_idx = c->first_block + output / CMI_I8_BLOCK_COLS * c->block_step;
    uint64_t lane = output % CMI_I8_BLOCK_COLS;
    uint8_t *block = (uint8_t *)c->dest + block_idx * cmi_i8_block_bytes((uint32_t)c->n_cols);
    uint8_t *w = block + CMI_I8_HEADER_BYTES + lane * CMI_I8_GROUP;
    int32_t sum = 0;
    for (uint64_t k = 0; k < c->n_cols; k++) {
        sum += (int8_t)codes[k];
        w[k / CMI_I8_GROUP * CMI_I8_BLOCK_COLS * CMI_I8_GROUP + k % CMI_I8_GROUP] = codes[k];
    }
    int32_t offset = -CMI_I8_ZERO * sum;
    memcpy(block + lane * sizeof scale, &scale, sizeof scale);
    memcpy(block + CMI_I8_HEADER_BYTES / 2 + lane * sizeof offset, &offset, sizeof offset);
}

static void quantize_row(const copy_run *run, const cmi_weights_copy *c, uint64_t i,
                         const float *from, uint8_t *codes)
{
    float scale;
    run->kernels.quantize_i8(from, (uint32_t)c->n_cols, codes, &scale);
    for (uint64_t k = 0; k < c->n_cols; k++) {
        codes[k] = (uint8_t)(codes[k] - CMI_I8_ZERO);
    }
    write_i8_row(c, i, codes, scale);
}

/* ---- Tasks ---- */

void cmi_weights_run_tasks(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks)
{
    if (team != NULL) {
        cmi_team_run(team, fn, arg, n_tasks);
        return;
    }
    for (uint32_t i = 0; i < n_tasks; i++) {
        fn(arg, i, 0);
    }
}

static uint32_t n_workers(const cmi_team *team)
{
    return team == NULL ? 1 : cmi_team_size(team);
}

static uint64_t row_bytes(const cmi_weights_copy *c)
{
    return c->n_cols * cmi_dtype_bytes(c->source->tensor->dtype);
}

static void copy_row(const copy_run *run, const cmi_weights_copy *c, uint64_t i, const uint8_t *src,
                     uint32_t worker)
{
    cmi_dtype from = c->source->tensor->dtype;
    float *values = run->row_values + worker * run->max_cols;
    if (c->placing == CMI_PLACE_I8_BLOCKS && from == CMI_DTYPE_I8) {
        write_i8_row(c, i, src, scale_of_row(c, c->source_row + i));
        return;
    }
    if (c->placing == CMI_PLACE_ROWS && from == c->dest_dtype) {
        memcpy(dest_at(c, i, 0), src, row_bytes(c));
        return;
    }
    read_row(run, c, src, c->source_row + i, values);
    if (c->placing == CMI_PLACE_I8_BLOCKS) {
        quantize_row(run, c, i, values, run->row_codes + worker * run->max_cols);
    } else if (c->placing == CMI_PLACE_TRANSPOSED) {
        write_column(c, i, values);
    } else {
        write_row(run, c, i, values);
    }
}

static uint64_t source_offset(const cmi_weights_copy *c, uint64_t row)
{
    return c->source->tensor->offset + (c->source_row + row) * row_bytes(c);
}

/* Brings what a task reads into memory. False: it cannot be read. */
static bool fetch(const copy_run *run, const copy_task *t)
{
    const cmi_weights_copy *c = t->copy;
    const cmi_safetensors *file = c->source->file;
    cmi_error err;
    cmi_status none = CMI_OK;
    cmi_status st = cmi_file_map_fetch(&file->map, source_offset(c, t->first_row),
                                       t->n_rows * row_bytes(c), &err);
    if (st == CMI_OK && c->scale_source != NULL) {
        const cmi_tensor *scale = c->scale_source->tensor;
        file = c->scale_source->file;
        st = cmi_file_map_fetch(&file->map, scale->offset, scale->n_bytes, &err);
    }
    if (st != CMI_OK && atomic_compare_exchange_strong(run->status, &none, st) &&
        run->err != NULL) {
        *run->err = err;
        (void)cmi_error_prefix(run->err, "%s", file->path);
    }
    return st == CMI_OK;
}

static void run_task(void *arg, uint32_t task, uint32_t worker)
{
    const copy_run *run = arg;
    const copy_task *t = &run->tasks[task];
    const cmi_weights_copy *c = t->copy;
    const cmi_safetensors *file = c->source->file;
    if (!fetch(run, t)) {
        return;
    }
    if (run->hash != NULL) {
        cmi_weights_hash_rows(run->hash, c->source, c->source_row + t->first_row, t->n_rows);
    }
    for (uint64_t i = t->first_row; i < t->first_row + t->n_rows; i++) {
        copy_row(run, c, i, file->data + source_offset(c, i), worker);
    }
    cmi_file_map_release(&file->map, source_offset(c, t->first_row), t->n_rows * row_bytes(c));
}

static int compare_copies(const void *left, const void *right)
{
    const cmi_weights_copy *a = left, *b = right;
    if (a->source->file != b->source->file) {
        return strcmp(a->source->file->path, b->source->file->path);
    }
    uint64_t at_a = source_offset(a, 0), at_b = source_offset(b, 0);
    return at_a < at_b ? -1 : at_a > at_b;
}

/* A whole number of leaves, so that they are hashed while they are in the caches. */
static uint64_t task_rows(const cmi_weights_copy *c)
{
    uint64_t leaf_rows = cmi_weights_leaf_rows(c->source->tensor);
    return CMI_MAX(TASK_BYTES / (row_bytes(c) * leaf_rows), (uint64_t)1) * leaf_rows;
}

static size_t count_tasks(const cmi_weights_copy *copies, size_t n_copies, uint64_t *n_bytes,
                          size_t *max_cols)
{
    size_t n_tasks = 0;
    for (size_t i = 0; i < n_copies; i++) {
        n_tasks += CMI_DIV_UP(copies[i].n_rows, task_rows(&copies[i]));
        *n_bytes += copies[i].n_rows * row_bytes(&copies[i]);
        *max_cols = CMI_MAX(*max_cols, (size_t)copies[i].n_cols);
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

static void run_waves(copy_run *run, size_t n_tasks, uint64_t total_bytes,
                      const cmi_weights_options *opt)
{
    copy_task *tasks = run->tasks;
    uint64_t done_bytes = 0;
    size_t wave = CMI_MAX(8 * n_workers(opt->team), (uint32_t)WAVE_TASKS_MIN);
    for (size_t first = 0; first < n_tasks && *run->status == CMI_OK; first += wave) {
        uint32_t n = (uint32_t)CMI_MIN(n_tasks - first, wave);
        run->tasks = tasks + first;
        cmi_weights_run_tasks(opt->team, run_task, run, n);
        for (uint32_t i = 0; i < n; i++) {
            done_bytes += run->tasks[i].n_rows * row_bytes(run->tasks[i].copy);
        }
        if (opt->progress != NULL) {
            opt->progress(opt->progress_arg, done_bytes, total_bytes);
        }
    }
    run->tasks = tasks;
}

cmi_status cmi_weights_copy_run(cmi_weights_copy *copies, size_t n_copies, cmi_weights_hash *hash,
                                const cmi_weights_options *opt, cmi_error *err)
{
    _Atomic cmi_status status = CMI_OK;
    copy_run run = {.hash = hash, .status = &status, .err = err};
    uint64_t total_bytes = 0;
    qsort(copies, n_copies, sizeof *copies, compare_copies);
    size_t n_tasks = count_tasks(copies, n_copies, &total_bytes, &run.max_cols);
    run.tasks = cmi_alloc(n_tasks, sizeof *run.tasks);
    run.row_values = cmi_alloc(n_workers(opt->team) * run.max_cols, sizeof *run.row_values);
    run.row_codes = cmi_alloc(n_workers(opt->team) * run.max_cols, 1);
    cmi_kernels_select(&run.kernels, cmi_cpu_flags());
    for (uint32_t code = 0; code < 256; code++) {
        run.f8_values[code] = cmi_f8e4m3_to_f32((uint8_t)code);
    }
    make_tasks(run.tasks, copies, n_copies);
    run_waves(&run, n_tasks, total_bytes, opt);
    cmi_free(run.row_codes);
    cmi_free(run.row_values);
    cmi_free(run.tasks);
    return status;
}
