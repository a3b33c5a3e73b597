/* What the stages share: matrix products and row loops on the team (how work is cut, never what it
 * computes), operands, and a block's first and last step on the residual stream. */
#include "model/forward_internal.h"

/* Below this many multiply-adds waking the team costs more than it gains. */
enum { INLINE_MACS = 1 << 15, MIN_TILE_COLS = 16, MAX_TILE_COLS = 256, TILES_PER_THREAD = 4 };

void cmi_forward_gemm(const cmi_forward *f, cmi_dtype dtype, const cmi_gemm_args *args)
{
    if (dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->gemm_bf16(args);
    } else {
        f->opt.kernels->gemm_f32(args);
    }
}

void cmi_forward_to_operand(const cmi_forward *f, const float *from, uint32_t n, void *to)
{
    if (f->dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->round_bf16(from, n, to);
    } else {
        memcpy(to, from, n * sizeof *from);
    }
}

void cmi_forward_norm_x(cmi_forward *f, uint32_t row, const float *weight)
{
    uint32_t n = f->opt.config->hidden_size;
    float *normed = f->s.normed + (size_t)row * n;
    f->opt.kernels->rmsnorm(f->s.x + (size_t)row * n, weight, (float)f->opt.config->rms_norm_eps, n,
                            normed);
    cmi_forward_to_operand(f, normed, n, cmi_operand_at(f, f->s.operand, (size_t)row * n));
}

void cmi_forward_add_projected(cmi_forward *f, uint32_t row)
{
    uint32_t n = f->opt.config->hidden_size;
    f->opt.kernels->axpy(1.0f, f->s.projected + (size_t)row * n, n, f->s.x + (size_t)row * n);
}

typedef struct linear_job {
    cmi_forward *f;
    const cmi_linear *linear;
    cmi_gemm_args args;
    uint32_t tile_cols;
} linear_job;

static void linear_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const linear_job *job = arg;
    uint32_t begin = task * job->tile_cols;
    cmi_gemm_args args = job->args;
    args.w = (const uint8_t *)args.w + begin * args.w_stride * cmi_dtype_bytes(job->linear->dtype);
    args.y += begin;
    args.n_cols = CMI_MIN(job->tile_cols, job->args.n_cols - begin);
    cmi_forward_gemm(job->f, job->linear->dtype, &args);
}

void cmi_forward_linear(cmi_forward *f, const cmi_linear *linear, const void *x, size_t x_stride,
                        uint32_t n_rows, float *y, size_t y_stride)
{
    linear_job job = {.f = f, .linear = linear};
    job.args = (cmi_gemm_args){.x = x,
                               .w = linear->w,
                               .y = y,
                               .x_stride = x_stride,
                               .w_stride = linear->stride,
                               .y_stride = y_stride,
                               .n_rows = n_rows,
                               .n_cols = linear->n_out,
                               .n_k = linear->n_in};
    uint64_t macs = (uint64_t)n_rows * linear->n_out * linear->n_in;
    uint32_t n_threads = cmi_team_size(f->opt.team);
    if (macs < INLINE_MACS || n_threads == 1) {
        cmi_forward_gemm(f, linear->dtype, &job.args);
        return;
    }
    uint32_t tile = CMI_DIV_UP(linear->n_out, n_threads * TILES_PER_THREAD);
    tile = CMI_ROUND_UP(tile, (uint32_t)MIN_TILE_COLS);
    job.tile_cols = CMI_MIN(tile, (uint32_t)MAX_TILE_COLS);
    cmi_team_run(f->opt.team, linear_task, &job, CMI_DIV_UP(linear->n_out, job.tile_cols));
}

typedef struct row_job {
    cmi_forward *f;
    cmi_row_fn *fn;
    uint32_t n_rows;
    uint32_t rows_per_task;
} row_job;

static void row_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    const row_job *job = arg;
    uint32_t begin = task * job->rows_per_task;
    uint32_t end = CMI_MIN(begin + job->rows_per_task, job->n_rows);
    for (uint32_t row = begin; row < end; row++) {
        job->fn(job->f, row);
    }
}

void cmi_forward_each_row(cmi_forward *f, uint32_t n_rows, cmi_row_fn *fn)
{
    uint32_t n_tasks = CMI_MIN(n_rows, cmi_team_size(f->opt.team) * TILES_PER_THREAD);
    if (n_tasks == 0) {
        return;
    }
    row_job job = {
        .f = f, .fn = fn, .n_rows = n_rows, .rows_per_task = CMI_DIV_UP(n_rows, n_tasks)};
    cmi_team_run(f->opt.team, row_task, &job, CMI_DIV_UP(n_rows, job.rows_per_task));
}
