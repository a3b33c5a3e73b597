/* What the stages share: matrix products and row loops on the team (how work is cut, never what it
 * computes), operands, and a block's first step on the residual stream. */
#include "model/forward_internal.h"

enum {
    INLINE_MACS = 1 << 15, /* below this waking the team costs more than it gains */
    MIN_TILE_COLS = 64,    /* of a task: what one streams in order */
    TILES_PER_THREAD = 4,
    GROUP_TILE_COLS = 128, /* of one expert's product */
};

/* ---- operands ----------------------------------------------------------------------------------
 */

void cmi_operand_begin(cmi_operand *op, cmi_dtype dtype, uint32_t n)
{
    op->dtype = dtype;
    op->n = n;
    op->row_bytes = cmi_operand_row_bytes(dtype, n);
}

void cmi_forward_write_operand(const cmi_forward *f, const float *from, cmi_operand *op,
                               uint32_t row)
{
    void *to = cmi_operand_row(op, row);
    switch (op->dtype) {
    case CMI_DTYPE_I8:
        f->opt.kernels->quantize_i8(from, op->n, to, &op->scales[row]);
        break;
    case CMI_DTYPE_BF16:
        f->opt.kernels->round_bf16(from, op->n, to);
        break;
    default:
        memcpy(to, from, op->n * sizeof *from);
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

void cmi_forward_norm_operand(const cmi_forward *f, const float *x, const cmi_norm *norm,
                              cmi_operand *op, uint32_t row)
{
    const cmi_kernels *k = f->opt.kernels;
    if (op->dtype == CMI_DTYPE_I8) {
        k->rmsnorm_quantize_i8(x, norm->weight, norm->eps, op->n,
                               norm->keep_normed ? norm->buffer : NULL, cmi_operand_row(op, row),
                               &op->scales[row]);
        return;
    }
    k->rmsnorm(x, norm->weight, norm->eps, op->n, norm->buffer);
    cmi_forward_write_operand(f, norm->buffer, op, row);
}

void cmi_forward_norm_x(cmi_forward *f, uint32_t row, const float *weight, bool keep_normed)
{
    size_t at = (size_t)row * f->opt.config->hidden_size;
    cmi_norm norm = {.weight = weight,
                     .eps = (float)f->opt.config->rms_norm_eps,
                     .buffer = f->s.normed + at,
                     .keep_normed = keep_normed};
    cmi_forward_norm_operand(f, f->s.x + at, &norm, &f->s.operand, row);
}

/* ---- products ----------------------------------------------------------------------------------
 */

void cmi_forward_gemm(const cmi_forward *f, cmi_dtype dtype, const cmi_gemm_args *args)
{
    if (dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->gemm_bf16(args);
    } else {
        f->opt.kernels->gemm_f32(args);
    }
}

static size_t out_bytes(const cmi_forward *f, cmi_i8_out out)
{
    return out == CMI_I8_OUT_BF16 ? cmi_dtype_bytes(f->dtype) : sizeof(float);
}

/* Columns begin .. begin + n_cols of an INT8 product. */
static void product_i8(const cmi_product *p, uint32_t begin, uint32_t n_cols)
{
    const cmi_linear *linear = p->linear;
    size_t blocks = (size_t)begin / CMI_I8_BLOCK_COLS * (p->out == CMI_I8_OUT_SWIGLU ? 2 : 1);
    cmi_gemm_i8_args args = {.x = cmi_operand_row(p->x, p->x_row),
                             .x_scale = p->x->scales + p->x_row,
                             .w = (const uint8_t *)linear->w + blocks * linear->stride,
                             .y = (uint8_t *)p->y + begin * out_bytes(p->f, p->out),
                             .x_stride = p->x->row_bytes,
                             .y_stride = p->y_stride,
                             .n_rows = p->n_rows,
                             .n_cols = n_cols,
                             .n_k = linear->n_in,
                             .out = p->out};
    p->f->opt.kernels->gemm_i8(&args);
}

/* What a tile of float sums becomes, row by row: p->out, as the INT8 kernels do it in registers. */
static void write_tile(const cmi_product *p, const float *tile, uint32_t row, uint32_t n_rows,
                       uint32_t begin, uint32_t n_cols)
{
    const cmi_kernels *k = p->f->opt.kernels;
    const float *up = tile + CMI_FLOAT_TILE_ROWS * CMI_TILE_COLS_MAX;
    for (uint32_t i = 0; i < n_rows; i++) {
        const float *from = tile + i * CMI_TILE_COLS_MAX;
        size_t at = (row + i) * p->y_stride + begin;
        if (p->out == CMI_I8_OUT_ADD) {
            k->axpy(1.0f, from, n_cols, (float *)p->y + at);
        } else if (p->out == CMI_I8_OUT_BF16) {
            cmi_forward_to_operand(p->f, from, n_cols, cmi_operand_at(p->f, p->y, at));
        } else {
            k->swiglu(from, up + i * CMI_TILE_COLS_MAX, n_cols, (float *)p->y + at);
        }
    }
}

/* The same of a float product: straight to y, or by way of the worker's tile. SwiGLU reads the
 * gate's and the up's columns from two places of W. */
static void product_float(const cmi_product *p, uint32_t begin, uint32_t n_cols, uint32_t worker)
{
    const cmi_linear *linear = p->linear;
    size_t w_row_bytes = linear->stride * cmi_dtype_bytes(linear->dtype);
    float *tile = p->f->s.tile + worker * p->f->s.tile_values;
    cmi_gemm_args args = {.x = cmi_operand_row(p->x, p->x_row),
                          .w = (const uint8_t *)linear->w + begin * w_row_bytes,
                          .y = (float *)p->y + begin,
                          .x_stride = p->x->row_bytes / cmi_dtype_bytes(p->x->dtype),
                          .w_stride = linear->stride,
                          .y_stride = p->y_stride,
                          .n_rows = p->n_rows,
                          .n_cols = n_cols,
                          .n_k = linear->n_in};
    if (p->out == CMI_I8_OUT_F32) {
        cmi_forward_gemm(p->f, linear->dtype, &args);
        return;
    }
    args.y_stride = CMI_TILE_COLS_MAX;
    for (uint32_t row = 0; row < p->n_rows; row += CMI_FLOAT_TILE_ROWS) {
        cmi_gemm_args part = args;
        part.x = cmi_operand_row(p->x, p->x_row + row);
        part.y = tile;
        part.n_rows = CMI_MIN(p->n_rows - row, (uint32_t)CMI_FLOAT_TILE_ROWS);
        cmi_forward_gemm(p->f, linear->dtype, &part);
        if (p->out == CMI_I8_OUT_SWIGLU) {
            part.w = (const uint8_t *)part.w + linear->n_out / 2 * w_row_bytes;
            part.y = tile + CMI_FLOAT_TILE_ROWS * CMI_TILE_COLS_MAX;
            cmi_forward_gemm(p->f, linear->dtype, &part);
        }
        write_tile(p, tile, row, part.n_rows, begin, n_cols);
    }
}

cmi_linear cmi_linear_outputs(const cmi_linear *linear, uint32_t first, uint32_t n_out)
{
    size_t n_bytes = linear->dtype == CMI_DTYPE_I8
                         ? first / CMI_I8_BLOCK_COLS * linear->stride
                         : first * linear->stride * cmi_dtype_bytes(linear->dtype);
    cmi_linear part = *linear;
    part.w = (const uint8_t *)linear->w + n_bytes;
    part.n_out = n_out;
    return part;
}

uint32_t cmi_product_cols(const cmi_product *p)
{
    return p->out == CMI_I8_OUT_SWIGLU ? p->linear->n_out / 2 : p->linear->n_out;
}

void cmi_product_part(const cmi_product *p, uint32_t begin, uint32_t n_cols, uint32_t worker)
{
    if (p->linear->dtype == CMI_DTYPE_I8) {
        product_i8(p, begin, n_cols);
    } else {
        product_float(p, begin, n_cols, worker);
    }
}

/* Columns of a task: several tasks a thread, so that nobody waits long for the last one, but enough
 * columns to stream. */
static uint32_t tile_cols(const cmi_forward *f, uint32_t n_cols)
{
    uint32_t tile = CMI_DIV_UP(n_cols, cmi_team_size(f->opt.team) * TILES_PER_THREAD);
    tile = CMI_ROUND_UP(tile, (uint32_t)MIN_TILE_COLS);
    return CMI_MIN(tile, (uint32_t)CMI_TILE_COLS_MAX);
}

static void group_part(const cmi_group *group, uint32_t task, uint32_t worker)
{
    uint32_t begin = (group->first_tile + task - group->first_task) * group->tile_cols;
    uint32_t n_cols = CMI_MIN(group->tile_cols, cmi_product_cols(&group->product) - begin);
    cmi_forward_move_on(group->product.f, worker);
    cmi_product_part(&group->product, begin, n_cols, worker);
}

static void product_task(void *arg, uint32_t task, uint32_t worker)
{
    group_part(arg, task, worker);
}

void cmi_forward_product(const cmi_product *p)
{
    uint32_t n_cols = cmi_product_cols(p);
    uint64_t macs = (uint64_t)p->n_rows * p->linear->n_out * p->linear->n_in;
    cmi_group group = {.product = *p, .tile_cols = tile_cols(p->f, n_cols)};
    uint32_t n_tasks = CMI_DIV_UP(n_cols, group.tile_cols);
    if (macs >= INLINE_MACS) {
        cmi_team_run(p->f->opt.team, product_task, &group, n_tasks);
        return;
    }
    for (uint32_t task = 0; task < n_tasks; task++) {
        product_task(&group, task, 0);
    }
}

/* The last group whose first task is not after this one. */
static const cmi_group *group_of(const cmi_forward *f, uint32_t task)
{
    uint32_t low = 0, high = f->n_groups;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (f->s.groups[middle].first_task <= task) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &f->s.groups[low];
}

static void grouped_task(void *arg, uint32_t task, uint32_t worker)
{
    group_part(group_of(arg, task), task, worker);
}

void cmi_forward_grouped_product(cmi_forward *f)
{
    const cmi_team *team = f->opt.team;
    uint32_t n_nodes = cmi_team_nodes(team), n_products = f->n_groups;
    uint32_t n_tasks[CMI_TOPOLOGY_MAX_NODES];
    uint32_t next_task = 0;
    f->n_groups = n_nodes * n_products;
    for (uint32_t node = 0; node < n_nodes; node++) {
        uint32_t first_task = next_task;
        for (uint32_t i = 0; i < n_products; i++) {
            cmi_group *group = &f->s.groups[node * n_products + i];
            group->product = f->s.groups[i].product;
            group->tile_cols = GROUP_TILE_COLS;
            group->first_task = next_task;
            uint32_t n_tiles = CMI_DIV_UP(cmi_product_cols(&group->product), group->tile_cols);
            group->first_tile = (uint32_t)cmi_team_share(team, node, n_tiles);
            next_task += (uint32_t)cmi_team_share(team, node + 1, n_tiles) - group->first_tile;
        }
        n_tasks[node] = next_task - first_task;
    }
    cmi_team_run_on_nodes(f->opt.team, grouped_task, f, n_tasks);
}

/* ---- rows --------------------------------------------------------------------------------------
 */

typedef struct row_job {
    cmi_forward *f;
    cmi_row_fn *fn;
    uint32_t n_rows;
    uint32_t rows_per_task;
} row_job;

static void row_task(void *arg, uint32_t task, uint32_t worker)
{
    const row_job *job = arg;
    cmi_forward_move_on(job->f, worker);
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
