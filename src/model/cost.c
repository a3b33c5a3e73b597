#include "model/cost.h"

#include <math.h>

#include "kernels/int8.h"

/* What the rows of a step add up to. */
typedef struct step_rows {
    double n_rows, n_decode, n_expanded;
    double keys;        /* over all rows the positions that they attend to */
    double decode_keys; /* of decode rows; prefill has the rest */
    double stored;      /* positions whose KV is read: a span's rows share it */
} step_rows;

static double linear_bytes(cmi_dtype dtype, uint32_t n_out, uint32_t n_in)
{
    if (dtype == CMI_DTYPE_I8) {
        return (double)cmi_i8_packed_bytes(n_out, n_in);
    }
    size_t row_bytes = CMI_ROUND_UP(n_in * cmi_dtype_bytes(dtype), (size_t)CMI_CACHE_LINE);
    return (double)row_bytes * n_out;
}

/* One matrix on n_rows rows. */
static void add_linear(cmi_cost_part *part, double n_rows, uint32_t n_out, uint32_t n_in)
{
    part->ops += 2 * n_rows * n_out * n_in;
    part->bytes += n_rows > 0 ? linear_bytes(part->dtype, n_out, n_in) : 0;
}

/* n_used networks, on n_rows rows in all. */
static void add_ffn(cmi_cost_part *part, double n_rows, double n_used, uint32_t hidden,
                    uint32_t width)
{
    part->ops += 2 * n_rows * 3 * hidden * width;
    part->bytes += n_used * (2 * linear_bytes(part->dtype, width, hidden) +
                             linear_bytes(part->dtype, hidden, width));
}

static step_rows count_rows(const cmi_cost_batch *batch)
{
    step_rows r = {0};
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const cmi_cost_span *span = &batch->spans[i];
        double n = span->n_rows;
        double keys = n * span->position + n * (n + 1) / 2;
        r.n_rows += n;
        r.keys += keys;
        r.stored += span->position + n;
        if (span->is_prefill) {
            r.n_expanded += span->n_expanded;
        } else {
            r.n_decode += n;
            r.decode_keys += keys;
        }
    }
    return r;
}

static void add_attention(cmi_cost *cost, const cmi_cost_model *m, const step_rows *r)
{
    const cmi_model_config *c = m->config;
    const uint32_t heads = c->num_attention_heads, rank = c->kv_lora_rank;
    const uint32_t nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim, v = c->v_head_dim;
    cmi_cost_part *prolog = &cost->parts[CMI_COST_PROLOG];
    cmi_cost_part *attention = &cost->parts[CMI_COST_ATTENTION];
    add_linear(prolog, r->n_rows, c->q_lora_rank + rank + rope, c->hidden_size);
    add_linear(prolog, r->n_rows, heads * (nope + rope),
               c->q_lora_rank > 0 ? c->q_lora_rank : c->hidden_size);
    add_linear(&cost->parts[CMI_COST_ABSORPTION], r->n_decode, heads * rank, nope);
    add_linear(&cost->parts[CMI_COST_VALUES_UP], r->n_decode, heads * v, rank);
    add_linear(&cost->parts[CMI_COST_OUTPUT], r->n_rows, c->hidden_size, heads * v);
    add_linear(&cost->parts[CMI_COST_EXPANSION], r->n_expanded, heads * (nope + v), rank);
    /* A key costs a head in expanded form nope + rope + v multiply-adds, absorbed twice the rank
     * and rope. */
    attention->ops += 2.0 * heads * (nope + rope + v) * (r->keys - r->decode_keys) +
                      2.0 * heads * (2 * rank + rope) * r->decode_keys;
    attention->bytes += r->stored * (double)m->kv_layout.layer_bytes / CMI_KV_PAGE_TOKENS;
}

static void add_moe(cmi_cost *cost, const cmi_model_config *c, double n_rows, double n_used)
{
    const double experts = c->n_routed_experts, k = c->num_experts_per_tok;
    n_used = n_used > 0 ? n_used : experts * (1 - pow(1 - k / experts, n_rows));
    add_linear(&cost->parts[CMI_COST_GATE], n_rows, c->n_routed_experts, c->hidden_size);
    add_ffn(&cost->parts[CMI_COST_ROUTED], n_rows * k, n_used, c->hidden_size,
            c->moe_intermediate_size);
    if (c->n_shared_experts > 0) {
        add_ffn(&cost->parts[CMI_COST_SHARED], n_rows, 1, c->hidden_size,
                c->n_shared_experts * c->moe_intermediate_size);
    }
}

/* Nothing yet, but what each part computes with. */
static cmi_cost begin_cost(const cmi_cost_model *m)
{
    const cmi_model_config *c = m->config;
    const cmi_dtype linears = m->weights_dtype;
    const cmi_dtype attention = linears == CMI_DTYPE_F32 ? CMI_DTYPE_F32 : CMI_DTYPE_BF16;
    const bool int8_head = linears == CMI_DTYPE_I8 && m->int8_head && !c->tie_word_embeddings;
    cmi_cost cost = {0};
    for (uint32_t i = 0; i < CMI_COST_N_PARTS; i++) {
        cost.parts[i].dtype = linears;
    }
    cost.parts[CMI_COST_ABSORPTION].dtype = attention;
    cost.parts[CMI_COST_ATTENTION].dtype = attention;
    cost.parts[CMI_COST_VALUES_UP].dtype = attention;
    cost.parts[CMI_COST_GATE].dtype = CMI_DTYPE_F32;
    cost.parts[CMI_COST_HEAD].dtype = int8_head ? CMI_DTYPE_I8 : attention;
    cost.parts[CMI_COST_MTP_INPUT].dtype = attention;
    return cost;
}

static void add_layer(cmi_cost *cost, const cmi_cost_model *m, uint32_t layer_idx,
                      const cmi_cost_batch *batch)
{
    const cmi_model_config *c = m->config;
    const step_rows r = count_rows(batch);
    add_attention(cost, m, &r);
    if (cmi_model_config_is_moe(c, layer_idx)) {
        add_moe(cost, c, r.n_rows, batch->n_experts);
    } else {
        add_ffn(&cost->parts[CMI_COST_DENSE], r.n_rows, 1, c->hidden_size, c->intermediate_size);
    }
}

cmi_cost cmi_cost_step(const cmi_cost_model *m, const cmi_cost_batch *batch)
{
    const cmi_model_config *c = m->config;
    cmi_cost cost = begin_cost(m);
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        add_layer(&cost, m, i, batch);
    }
    add_linear(&cost.parts[CMI_COST_HEAD], batch->n_head_rows, c->vocab_size, c->hidden_size);
    return cost;
}

cmi_cost cmi_cost_mtp_pass(const cmi_cost_model *m, const cmi_cost_batch *batch)
{
    const cmi_model_config *c = m->config;
    cmi_cost cost = begin_cost(m);
    add_linear(&cost.parts[CMI_COST_MTP_INPUT], count_rows(batch).n_rows, c->hidden_size,
               2 * c->hidden_size);
    add_layer(&cost, m, c->num_hidden_layers, batch);
    add_linear(&cost.parts[CMI_COST_HEAD], batch->n_head_rows, c->vocab_size, c->hidden_size);
    return cost;
}

double cmi_cost_ops(const cmi_cost *cost)
{
    double ops = 0;
    for (uint32_t i = 0; i < CMI_COST_N_PARTS; i++) {
        ops += cost->parts[i].ops;
    }
    return ops;
}

double cmi_cost_bytes(const cmi_cost *cost)
{
    double bytes = 0;
    for (uint32_t i = 0; i < CMI_COST_N_PARTS; i++) {
        bytes += cost->parts[i].bytes;
    }
    return bytes;
}

void cmi_cost_add_part_time(cmi_cost_time *time, const cmi_cost_part *part,
                            const cmi_cost_rates *rates)
{
    double *computing = &time->f32, rate = rates->f32_ops;
    if (part->dtype == CMI_DTYPE_I8) {
        computing = &time->i8;
        rate = rates->i8_ops;
    } else if (part->dtype == CMI_DTYPE_BF16) {
        computing = &time->bf16;
        rate = rates->bf16_ops;
    }
    double read_seconds = part->bytes / rates->read_bytes, ops_seconds = part->ops / rate;
    if (ops_seconds > read_seconds) {
        *computing += ops_seconds;
    } else {
        time->read += read_seconds;
    }
}

void cmi_cost_add_time(cmi_cost_time *time, const cmi_cost *cost, const cmi_cost_rates *rates)
{
    for (uint32_t i = 0; i < CMI_COST_N_PARTS; i++) {
        cmi_cost_add_part_time(time, &cost->parts[i], rates);
    }
}

double cmi_cost_seconds(const cmi_cost_time *time)
{
    return time->read + time->i8 + time->bf16 + time->f32;
}
