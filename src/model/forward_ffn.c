/* Feed-forward networks: dense layers, and the mixture of experts (paper section 5 and figure 10).
 *
 * Dispatch sorts the pairs (row, expert) by expert, so that each expert's rows lie together; the
 * grouped experts run over those with rows in this step, the shared experts among them as one more.
 * SwiGLU is part of the first product. What an expert returns is rounded as it would be on a wire.
 */
#include "model/forward_internal.h"

#include "model/gate.h"

static void norm_post_attention(cmi_forward *f, uint32_t row)
{
    cmi_forward_norm_x(f, row, f->layer->post_attention_layernorm, f->layer->is_moe);
}

/* ---- dense layers ------------------------------------------------------------------------------
 */

static void activation_to_operand(cmi_forward *f, uint32_t row)
{
    cmi_operand *op = &f->s.ffn_op;
    cmi_forward_write_operand(f, f->s.ffn_act + (size_t)row * op->n, op, row);
}

void cmi_stage_dense_ffn(cmi_forward *f)
{
    const cmi_ffn *ffn = &f->layer->dense;
    uint32_t n_rows = f->batch->n_rows;
    uint32_t hidden = f->opt.config->hidden_size;
    cmi_operand_begin(&f->s.operand, ffn->gate_up.dtype, hidden);
    cmi_forward_each_row(f, n_rows, norm_post_attention);
    cmi_product gate_up = {.f = f,
                           .linear = &ffn->gate_up,
                           .x = &f->s.operand,
                           .n_rows = n_rows,
                           .y = f->s.ffn_act,
                           .y_stride = ffn->width,
                           .out = CMI_I8_OUT_SWIGLU};
    cmi_forward_product(&gate_up);
    cmi_operand_begin(&f->s.ffn_op, ffn->down.dtype, ffn->width);
    cmi_forward_each_row(f, n_rows, activation_to_operand);
    cmi_product down = {.f = f,
                        .linear = &ffn->down,
                        .x = &f->s.ffn_op,
                        .n_rows = n_rows,
                        .y = f->s.x,
                        .y_stride = hidden,
                        .out = CMI_I8_OUT_ADD};
    cmi_forward_product(&down);
}

/* ---- gate and dispatch -------------------------------------------------------------------------
 */

static void select_experts(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    size_t k = c->num_experts_per_tok;
    cmi_gate_select(c, f->s.gate_logits + (size_t)row * c->n_routed_experts, f->layer->gate_bias,
                    f->s.expert_ids + row * k, f->s.expert_weights + row * k);
    if (f->batch->expert_ids != NULL) {
        memcpy(f->s.expert_ids + row * k, f->batch->expert_ids + row * k,
               k * sizeof *f->s.expert_ids);
    }
}

/* What the experts read. */
static cmi_dtype expert_dtype(const cmi_forward *f)
{
    return f->layer->experts[0].gate_up.dtype;
}

/* The gate is float32 in every compute type: it reads the normed row unrounded. */
void cmi_stage_gate(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t n_rows = f->batch->n_rows;
    cmi_operand_begin(&f->s.operand, expert_dtype(f), c->hidden_size);
    cmi_forward_each_row(f, n_rows, norm_post_attention);
    cmi_operand normed = {.values = f->s.normed};
    cmi_operand_begin(&normed, CMI_DTYPE_F32, c->hidden_size);
    cmi_product gate = {.f = f,
                        .linear = &f->layer->gate,
                        .x = &normed,
                        .n_rows = n_rows,
                        .y = f->s.gate_logits,
                        .y_stride = c->n_routed_experts};
    cmi_forward_product(&gate);
    cmi_forward_each_row(f, n_rows, select_experts);
}

static void send_row(cmi_forward *f, uint32_t row)
{
    size_t k = f->opt.config->num_experts_per_tok;
    const cmi_operand *from = &f->s.operand;
    cmi_operand *to = &f->s.expert_x;
    for (uint32_t rank = 0; rank < k; rank++) {
        uint32_t slot = f->s.slot_of[row * k + rank];
        memcpy(cmi_operand_row(to, slot), cmi_operand_row(from, row), from->row_bytes);
        to->scales[slot] = from->scales[row];
    }
}

static void send_rows(cmi_forward *f)
{
    cmi_exchange *exchange = f->opt.exchange;
    cmi_operand *op = &f->s.operand;
    cmi_operand_begin(op, expert_dtype(f), f->opt.config->hidden_size); /* also without rows */
    const cmi_exchange_rows rows = {.values = op->values,
                                    .scales = op->dtype == CMI_DTYPE_I8 ? op->scales : NULL,
                                    .row_bytes = op->row_bytes,
                                    .n_rows = f->batch->n_rows,
                                    .expert_ids = f->s.expert_ids,
                                    .layer_idx = f->layer_idx,
                                    .says = f->batch->says,
                                    .vote = f->batch->vote};
    f->status = exchange->calls->send(exchange, &rows);
}

/* Sorts the pairs by expert (counting sort, rows ascending inside an expert) and copies each row to
 * the slots of its experts. */
static void sort_rows(cmi_forward *f)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t *begin = f->s.expert_begin;
    uint32_t n_pairs = f->batch->n_rows * c->num_experts_per_tok;
    memset(begin, 0, (c->n_routed_experts + 2) * sizeof *begin);
    for (uint32_t i = 0; i < n_pairs; i++) {
        begin[f->s.expert_ids[i] + 2]++;
    }
    for (uint32_t e = 0; e < c->n_routed_experts; e++) {
        begin[e + 2] += begin[e + 1];
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        f->s.slot_of[i] = begin[f->s.expert_ids[i] + 1]++;
    }
    cmi_operand_begin(&f->s.expert_x, f->s.operand.dtype, f->s.operand.n);
    cmi_forward_each_row(f, f->batch->n_rows, send_row);
}

void cmi_stage_dispatch(cmi_forward *f)
{
    if (f->opt.exchange != NULL) {
        send_rows(f);
    } else {
        sort_rows(f);
    }
}

static void receive_rows(cmi_forward *f)
{
    cmi_exchange *exchange = f->opt.exchange;
    cmi_operand *op = &f->s.expert_x;
    cmi_operand_begin(op, expert_dtype(f), f->opt.config->hidden_size);
    const cmi_exchange_arrivals arrivals = {.values = op->values,
                                            .scales = op->dtype == CMI_DTYPE_I8 ? op->scales : NULL,
                                            .expert_begin = f->s.expert_begin,
                                            .heard = &f->heard,
                                            .heard_vote = &f->heard_vote};
    f->status = exchange->calls->receive(exchange, &arrivals);
}

/* ---- experts -----------------------------------------------------------------------------------
 */

static bool has_shared(const cmi_forward *f)
{
    return f->layer->shared.down.w != NULL;
}

/* What differs between the two products of the experts. */
typedef struct expert_pass {
    const cmi_operand *x, *shared_x;
    void *y, *shared_y;
    size_t y_value_bytes;
    cmi_i8_out out;
    bool is_down;
    bool with_shared, with_routed;
} expert_pass;

static const cmi_linear *linear_of(const expert_pass *pass, const cmi_ffn *ffn)
{
    return pass->is_down ? &ffn->down : &ffn->gate_up;
}

static bool has_shared_rows(const cmi_forward *f)
{
    return has_shared(f) && f->batch->n_rows > 0;
}

/* A group for the shared experts, then one for every expert with rows in this step. */
static void run_expert_pass(cmi_forward *f, const expert_pass *pass)
{
    const cmi_layer_weights *layer = f->layer;
    f->n_groups = 0;
    if (pass->with_shared && has_shared_rows(f)) {
        cmi_product product = {.f = f,
                               .linear = linear_of(pass, &layer->shared),
                               .x = pass->shared_x,
                               .n_rows = f->batch->n_rows,
                               .y = pass->shared_y,
                               .out = pass->out};
        product.y_stride = cmi_product_cols(&product);
        f->s.groups[f->n_groups++].product = product;
    }
    for (uint32_t e = 0; pass->with_routed && e < f->opt.config->n_routed_experts; e++) {
        uint32_t first = f->s.expert_begin[e];
        uint32_t n_rows = f->s.expert_begin[e + 1] - first;
        if (n_rows == 0) {
            continue;
        }
        cmi_product product = {.f = f,
                               .linear = linear_of(pass, &layer->experts[e]),
                               .x = pass->x,
                               .x_row = first,
                               .n_rows = n_rows,
                               .out = pass->out};
        product.y_stride = cmi_product_cols(&product);
        product.y = (uint8_t *)pass->y + first * product.y_stride * pass->y_value_bytes;
        f->s.groups[f->n_groups++].product = product;
    }
    if (f->n_groups > 0) {
        cmi_forward_grouped_product(f);
    }
}

static void shared_activation_to_operand(cmi_forward *f, uint32_t row)
{
    cmi_operand *op = &f->s.shared_op;
    cmi_forward_write_operand(f, f->s.shared_act + (size_t)row * op->n, op, row);
}

static void run_experts(cmi_forward *f, bool with_shared, bool with_routed)
{
    const cmi_ffn *any = &f->layer->experts[0];
    uint32_t n_rows = f->batch->n_rows;
    expert_pass gate_up = {.x = &f->s.expert_x,
                           .shared_x = &f->s.operand,
                           .y = f->s.ffn_act,
                           .shared_y = f->s.shared_act,
                           .y_value_bytes = sizeof(float),
                           .out = CMI_I8_OUT_SWIGLU,
                           .with_shared = with_shared,
                           .with_routed = with_routed};
    run_expert_pass(f, &gate_up);
    if (with_routed) {
        cmi_operand_begin(&f->s.ffn_op, any->down.dtype, any->width);
        cmi_forward_each_row(f, f->s.expert_begin[f->opt.config->n_routed_experts],
                             activation_to_operand);
    }
    if (with_shared && has_shared(f)) {
        cmi_operand_begin(&f->s.shared_op, f->layer->shared.down.dtype, f->layer->shared.width);
        cmi_forward_each_row(f, n_rows, shared_activation_to_operand);
    }
    expert_pass down = {.x = &f->s.ffn_op,
                        .shared_x = &f->s.shared_op,
                        .y = f->s.expert_y,
                        .shared_y = f->s.shared_y,
                        .y_value_bytes = f->value_bytes,
                        .out = f->dtype == CMI_DTYPE_BF16 ? CMI_I8_OUT_BF16 : CMI_I8_OUT_F32,
                        .is_down = true,
                        .with_shared = with_shared,
                        .with_routed = with_routed};
    run_expert_pass(f, &down);
}

void cmi_stage_grouped_experts(cmi_forward *f)
{
    cmi_exchange *exchange = f->opt.exchange;
    if (exchange == NULL) {
        run_experts(f, true, true);
        return;
    }
    if (has_shared_rows(f)) { /* while rows are on their way */
        run_experts(f, true, false);
    }
    receive_rows(f);
    if (f->status == CMI_OK) {
        run_experts(f, false, true);
        f->status = exchange->calls->send_back(exchange, f->s.expert_y);
    }
}

/* x += sum over the row's experts, in the order of selection, of weight * output; the shared ones
 * come last. */
static void combine_row(cmi_forward *f, uint32_t row)
{
    const cmi_model_config *c = f->opt.config;
    uint32_t n = c->hidden_size;
    uint32_t top = c->num_experts_per_tok;
    const void *rows[CMI_GATE_MAX_TOP_K + 1];
    float weights[CMI_GATE_MAX_TOP_K + 1];
    for (uint32_t rank = 0; rank < top; rank++) {
        size_t pair = (size_t)row * top + rank;
        size_t at = f->returned != NULL ? pair * f->returned_stride
                                        : f->s.slot_of[pair] * (size_t)n * f->value_bytes;
        rows[rank] = (const uint8_t *)(f->returned != NULL ? f->returned : f->s.expert_y) + at;
        weights[rank] = f->s.expert_weights[pair];
    }
    cmi_combine_args args = {
        .rows = rows, .weights = weights, .x = f->s.x + (size_t)row * n, .n_rows = top, .n = n};
    if (has_shared(f)) {
        rows[top] = cmi_operand_at(f, f->s.shared_y, row * (size_t)n);
        weights[top] = 1.0f;
        args.n_rows++;
    }
    if (f->dtype == CMI_DTYPE_BF16) {
        f->opt.kernels->combine_bf16(&args);
    } else {
        f->opt.kernels->combine_f32(&args);
    }
}

void cmi_stage_combine(cmi_forward *f)
{
    cmi_exchange *exchange = f->opt.exchange;
    f->returned = NULL;
    if (exchange != NULL) {
        f->status = exchange->calls->receive_back(exchange, &f->returned, &f->returned_stride);
    }
    if (f->status == CMI_OK) {
        cmi_forward_each_row(f, f->batch->n_rows, combine_row);
    }
}
