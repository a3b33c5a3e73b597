/* Feed-forward stages: dense layers, and mixture of experts as gate, dispatch, grouped experts,
 * combine.
 *
 * In one process dispatch is a sort of the (row, expert) pairs by expert and combine a gather; over
 * ranks the same four stages stand around the network (paper section 5). What an expert receives
 * and returns is in the compute type here as there, so where an expert lives does not change a bit.
 */
#include "model/forward_internal.h"

#include "model/gate.h"

enum { EXPERT_TILE_COLS = 128 };

/* ---- one network over all rows (dense layers, shared experts)
 * ------------------------------------- */

static void swiglu_row(cmi_forward *f, uint32_t row)
{
    uint32_t width = f->ffn->width;
    float *gate = f->s.ffn_gate_up + (size_t)row * 2 * width;
    f->opt.kernels->swiglu(gate, gate + width, width, gate);
    cmi_forward_to_operand(f, gate, width, cmi_operand_at(f, f->s.ffn_op, (size_t)row * width));
}

/* projected = ffn(operand) for all rows of the batch. */
static void run_ffn(cmi_forward *f, const cmi_ffn *ffn)
{
    uint32_t n_rows = f->batch->n_rows;
    uint32_t hidden = f->opt.config->hidden_size;
    f->ffn = ffn;
    cmi_forward_linear(f, &ffn->gate_up, f->s.operand, hidden, n_rows, f->s.ffn_gate_up,
                       2 * (size_t)ffn->width);
    cmi_forward_each_row(f, n_rows, swiglu_row);
    cmi_forward_linear(f, &ffn->down, f->s.ffn_op, ffn->width, n_rows, f->s.projected, hidden);
}

static void norm_post_attention(cmi_forward *f, uint32_t row)
{
    cmi_forward_norm_x(f, row, f->layer->post_attention_layernorm);
}

void cmi_stage_dense_ffn(cmi_forward *f)
{
    cmi_forward_each_row(f, f->batch->n_rows, norm_post_attention);
    run_ffn(f, &f->layer->dense);
    cmi_forward_each_row(f, f->batch->n_rows, cmi_forward_add_projected);
}

/* ---- mixture of experts
 * --------------------------------------------------------------------------- */

static void select_experts(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    size_t k = c->num_experts_per_tok;
    cmi_gate_select(c, f->s.gate_logits + (size_t)row * c->n_routed_experts, f->layer->gate_bias,
                    f->s.expert_ids + row * k, f->s.expert_weights + row * k);
}

/* The gate is float32 in every compute type: it reads the normed row unrounded. */
void cmi_stage_gate(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    cmi_forward_each_row(f, f->batch->n_rows, norm_post_attention);
    cmi_forward_linear(f, &f->layer->gate, f->s.normed, c->hidden_size, f->batch->n_rows,
                       f->s.gate_logits, c->n_routed_experts);
    cmi_forward_each_row(f, f->batch->n_rows, select_experts);
}

static void send_row(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    size_t k = c->num_experts_per_tok;
    size_t n = c->hidden_size;
    for (uint32_t rank = 0; rank < k; rank++) {
        memcpy(cmi_operand_at(f, f->s.expert_x, f->s.slot_of[row * k + rank] * n),
               cmi_operand_at(f, f->s.operand, row * n), n * f->value_bytes);
    }
}

/* Sorts the pairs by expert (counting sort, rows ascending inside an expert) and copies each row to
 * the slots of its experts. */
void cmi_stage_dispatch(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t *begin = f->s.expert_begin;
    uint32_t n_pairs = f->batch->n_rows * c->num_experts_per_tok;
    memset(begin, 0, (c->n_routed_experts + 2) * sizeof *begin);
    for (uint32_t i = 0; i < n_pairs; i++) {
        begin[f->s.expert_ids[i] + 2]++;
    }
    f->n_active_experts = 0;
    for (uint32_t e = 0; e < c->n_routed_experts; e++) {
        if (begin[e + 2] > 0) {
            f->s.active_experts[f->n_active_experts++] = e;
        }
        begin[e + 2] += begin[e + 1];
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        f->s.slot_of[i] = begin[f->s.expert_ids[i] + 1]++;
    }
    cmi_forward_each_row(f, f->batch->n_rows, send_row);
}

/* A tile of columns of one expert's product with the rows that were sent to it. */
static void expert_product(cmi_forward *f, uint32_t expert, const cmi_linear *linear, uint32_t tile,
                           const void *x, float *y)
{
    uint32_t first = f->s.expert_begin[expert];
    uint32_t col = tile * EXPERT_TILE_COLS;
    cmi_gemm_args args = {.x = cmi_operand_at(f, x, (size_t)first * linear->n_in),
                          .w = cmi_operand_at(f, linear->w, col * linear->stride),
                          .y = y + (size_t)first * linear->n_out + col,
                          .x_stride = linear->n_in,
                          .w_stride = linear->stride,
                          .y_stride = linear->n_out,
                          .n_rows = f->s.expert_begin[expert + 1] - first,
                          .n_cols = CMI_MIN(linear->n_out - col, (uint32_t)EXPERT_TILE_COLS),
                          .n_k = linear->n_in};
    cmi_forward_gemm(f, linear->dtype, &args);
}

static void gate_up_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    uint32_t n_tiles = CMI_DIV_UP(f->layer->experts[0].gate_up.n_out, EXPERT_TILE_COLS);
    uint32_t expert = f->s.active_experts[task / n_tiles];
    expert_product(f, expert, &f->layer->experts[expert].gate_up, task % n_tiles, f->s.expert_x,
                   f->s.ffn_gate_up);
}

static void down_task(void *arg, uint32_t task, uint32_t worker)
{
    (void)worker;
    cmi_forward *f = arg;
    uint32_t n_tiles = CMI_DIV_UP(f->layer->experts[0].down.n_out, EXPERT_TILE_COLS);
    uint32_t expert = f->s.active_experts[task / n_tiles];
    expert_product(f, expert, &f->layer->experts[expert].down, task % n_tiles, f->s.ffn_op,
                   f->s.expert_y);
}

void cmi_stage_grouped_experts(cmi_forward *f)
{
    const cmi_ffn *any = &f->layer->experts[0];
    uint32_t n_pairs = f->batch->n_rows * f->opt.config->num_experts_per_tok;
    cmi_team_run(f->opt.team, gate_up_task, f,
                 f->n_active_experts * CMI_DIV_UP(any->gate_up.n_out, EXPERT_TILE_COLS));
    f->ffn = any;
    cmi_forward_each_row(f, n_pairs, swiglu_row);
    cmi_team_run(f->opt.team, down_task, f,
                 f->n_active_experts * CMI_DIV_UP(any->down.n_out, EXPERT_TILE_COLS));
    if (f->layer->shared.down.w != NULL) {
        run_ffn(f, &f->layer->shared);
    }
}

/* y as it would be after a trip between ranks: rounded to the compute type. tmp: n operands. */
static void through_wire(cmi_forward *f, float *y, uint32_t n, void *tmp)
{
    if (f->dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->round_bf16(y, n, tmp);
        f->opt.kernels->widen_bf16(tmp, n, y);
    }
}

/* x += sum over the row's experts, in the order of selection, of weight * output; then the shared
 * one. */
static void combine_row(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    const cmi_kernels *k = f->opt.kernels;
    uint32_t n = c->hidden_size;
    size_t top = c->num_experts_per_tok;
    float *sum = f->s.normed + (size_t)row * n; /* the gate has read it */
    void *tmp = cmi_operand_at(f, f->s.operand, (size_t)row * n);
    memset(sum, 0, n * sizeof *sum);
    for (uint32_t rank = 0; rank < top; rank++) {
        float *y = f->s.expert_y + f->s.slot_of[row * top + rank] * (size_t)n;
        through_wire(f, y, n, tmp);
        k->axpy(f->s.expert_weights[row * top + rank], y, n, sum);
    }
    if (f->layer->shared.down.w != NULL) {
        float *y = f->s.projected + (size_t)row * n;
        through_wire(f, y, n, tmp);
        k->axpy(1.0f, y, n, sum);
    }
    k->axpy(1.0f, sum, n, f->s.x + (size_t)row * n);
}

void cmi_stage_combine(cmi_forward *f)
{
    cmi_forward_each_row(f, f->batch->n_rows, combine_row);
}
