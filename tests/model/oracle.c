/* tests/model/oracle.c - see oracle.h. Function for function what the published PyTorch code does;
 * arrays are [position][feature]. */
#include "tests/test.h"

#include "tests/model/oracle.h"

#include <math.h>

#include "base/alloc.h"

static const double PI = 3.14159265358979323846;
static const double LATENT_EPS = 1e-6; /* the class's default, whatever rms_norm_eps says */

typedef struct context {
    const random_model *model;
    const model_spec *spec;
    uint32_t n; /* positions */
    double margin;
} context;

static double *doubles(size_t n)
{
    return cmi_alloc(n, sizeof(double));
}

/* y[i] = W x[i] for n rows. */
static void linear(const random_tensor *w, const double *x, uint32_t n, double *y)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t r = 0; r < w->n_rows; r++) {
            double sum = 0;
            for (uint32_t c = 0; c < w->n_cols; c++) {
                sum += (double)w->values[(size_t)r * w->n_cols + c] * x[(size_t)i * w->n_cols + c];
            }
            y[(size_t)i * w->n_rows + r] = sum;
        }
    }
}

/* stride: features from row to row; the first w->n_cols of each are normed. */
static void rms_norm(const random_tensor *w, double eps, const double *x, uint32_t stride,
                     uint32_t n, double *y)
{
    uint32_t width = w->n_cols;
    for (uint32_t i = 0; i < n; i++) {
        const double *row = x + (size_t)i * stride;
        double sum = 0;
        for (uint32_t c = 0; c < width; c++) {
            sum += row[c] * row[c];
        }
        for (uint32_t c = 0; c < width; c++) {
            y[(size_t)i * width + c] = row[c] / sqrt(sum / width + eps) * (double)w->values[c];
        }
    }
}

/* ---- rotary embedding ---- */

static double yarn_get_mscale(double scale, double mscale)
{
    return scale <= 1 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static double yarn_correction_dim(const model_spec *s, double n_rotations)
{
    return s->qk_rope_head_dim * log(s->yarn_original_positions / (n_rotations * 2 * PI)) /
           (2 * log(s->rope_theta));
}

static double inverse_frequency(const model_spec *s, uint32_t i)
{
    double dim = s->qk_rope_head_dim;
    double extra = 1.0 / pow(s->rope_theta, 2.0 * i / dim);
    if (s->yarn_factor == 0) {
        return extra;
    }
    double inter = extra / s->yarn_factor;
    double low = fmax(floor(yarn_correction_dim(s, s->yarn_beta_fast)), 0);
    double high = fmin(ceil(yarn_correction_dim(s, s->yarn_beta_slow)), dim - 1);
    if (low == high) {
        high += 0.001;
    }
    double mask = 1.0 - fmin(fmax((i - low) / (high - low), 0), 1);
    return inter * (1 - mask) + extra * mask;
}

/* The published code brings neighbours (2i, 2i+1) to (i, i + dim/2) and rotates halves. */
static void rotate(const model_spec *s, const double *x, double position, double *out)
{
    uint32_t half = s->qk_rope_head_dim / 2;
    double amplitude = 1;
    if (s->yarn_factor > 0) {
        amplitude = yarn_get_mscale(s->yarn_factor, s->yarn_mscale) /
                    yarn_get_mscale(s->yarn_factor, s->yarn_mscale_all_dim);
    }
    for (uint32_t i = 0; i < half; i++) {
        double angle = position * inverse_frequency(s, i);
        double c = cos(angle) * amplitude;
        double n = sin(angle) * amplitude;
        double a = x[2 * i];
        double b = x[2 * i + 1];
        out[i] = a * c - b * n;
        out[i + half] = b * c + a * n;
    }
}

static double softmax_scale(const model_spec *s)
{
    double scale = pow(s->qk_nope_head_dim + s->qk_rope_head_dim, -0.5);
    if (s->yarn_factor > 0 && s->yarn_mscale_all_dim != 0) {
        double mscale = yarn_get_mscale(s->yarn_factor, s->yarn_mscale_all_dim);
        scale *= mscale * mscale;
    }
    return scale;
}

/* ---- attention ---- */

/* Queries [n][heads][nope + rope], the last rope features rotated. */
static double *queries(const context *ctx, uint32_t layer, const double *x)
{
    const model_spec *s = ctx->spec;
    const random_model *m = ctx->model;
    uint32_t dim = s->qk_nope_head_dim + s->qk_rope_head_dim;
    double *q = doubles((size_t)ctx->n * s->num_attention_heads * dim);
    if (s->q_lora_rank > 0) {
        double *q_a = doubles((size_t)ctx->n * s->q_lora_rank);
        linear(random_model_layer_tensor(m, layer, "self_attn.q_a_proj.weight"), x, ctx->n, q_a);
        rms_norm(random_model_layer_tensor(m, layer, "self_attn.q_a_layernorm.weight"), LATENT_EPS,
                 q_a, s->q_lora_rank, ctx->n, q_a);
        linear(random_model_layer_tensor(m, layer, "self_attn.q_b_proj.weight"), q_a, ctx->n, q);
        cmi_free(q_a);
    } else {
        linear(random_model_layer_tensor(m, layer, "self_attn.q_proj.weight"), x, ctx->n, q);
    }
    double *rotated = doubles(s->qk_rope_head_dim);
    for (uint32_t i = 0; i < ctx->n * s->num_attention_heads; i++) {
        double *rope = q + (size_t)i * dim + s->qk_nope_head_dim;
        rotate(s, rope, i / s->num_attention_heads, rotated);
        memcpy(rope, rotated, s->qk_rope_head_dim * sizeof *rope);
    }
    cmi_free(rotated);
    return q;
}

/* Keys [n][heads][nope + rope] and values [n][heads][v], written out for every head. */
static void keys_and_values(const context *ctx, uint32_t layer, const double *x, double *k,
                            double *v)
{
    const model_spec *s = ctx->spec;
    const random_model *m = ctx->model;
    uint32_t heads = s->num_attention_heads;
    uint32_t nope = s->qk_nope_head_dim;
    uint32_t rope = s->qk_rope_head_dim;
    uint32_t width = s->kv_lora_rank + rope;
    double *kv_a = doubles((size_t)ctx->n * width);
    double *latent = doubles((size_t)ctx->n * s->kv_lora_rank);
    double *kv = doubles((size_t)ctx->n * heads * (nope + s->v_head_dim));
    linear(random_model_layer_tensor(m, layer, "self_attn.kv_a_proj_with_mqa.weight"), x, ctx->n,
           kv_a);
    rms_norm(random_model_layer_tensor(m, layer, "self_attn.kv_a_layernorm.weight"), LATENT_EPS,
             kv_a, width, ctx->n, latent);
    linear(random_model_layer_tensor(m, layer, "self_attn.kv_b_proj.weight"), latent, ctx->n, kv);
    for (uint32_t i = 0; i < ctx->n * heads; i++) {
        uint32_t position = i / heads;
        const double *from = kv + (size_t)i * (nope + s->v_head_dim);
        double *key = k + (size_t)i * (nope + rope);
        memcpy(key, from, nope * sizeof *key);
        rotate(s, kv_a + (size_t)position * width + s->kv_lora_rank, position, key + nope);
        memcpy(v + (size_t)i * s->v_head_dim, from + nope, s->v_head_dim * sizeof *v);
    }
    cmi_free(kv);
    cmi_free(latent);
    cmi_free(kv_a);
}

/* One query against the keys of positions 0 .. position. */
static void attend(const context *ctx, const double *q, const double *k, const double *v,
                   uint32_t position, uint32_t head, double *out)
{
    const model_spec *s = ctx->spec;
    uint32_t heads = s->num_attention_heads;
    uint32_t dim = s->qk_nope_head_dim + s->qk_rope_head_dim;
    double *p = doubles(position + 1);
    double max = -INFINITY;
    double sum = 0;
    for (uint32_t t = 0; t <= position; t++) {
        const double *key = k + ((size_t)t * heads + head) * dim;
        for (uint32_t i = 0; i < dim; i++) {
            p[t] += q[i] * key[i];
        }
        p[t] *= softmax_scale(s);
        max = fmax(max, p[t]);
    }
    for (uint32_t t = 0; t <= position; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
    }
    for (uint32_t i = 0; i < s->v_head_dim; i++) {
        out[i] = 0;
        for (uint32_t t = 0; t <= position; t++) {
            out[i] += p[t] / sum * v[((size_t)t * heads + head) * s->v_head_dim + i];
        }
    }
    cmi_free(p);
}

/* y = attention(x). */
static void attention(const context *ctx, uint32_t layer, const double *x, double *y)
{
    const model_spec *s = ctx->spec;
    size_t n_heads = (size_t)ctx->n * s->num_attention_heads;
    uint32_t dim = s->qk_nope_head_dim + s->qk_rope_head_dim;
    double *q = queries(ctx, layer, x);
    double *k = doubles(n_heads * dim);
    double *v = doubles(n_heads * s->v_head_dim);
    double *o = doubles(n_heads * s->v_head_dim);
    keys_and_values(ctx, layer, x, k, v);
    for (uint32_t i = 0; i < n_heads; i++) {
        attend(ctx, q + (size_t)i * dim, k, v, i / s->num_attention_heads,
               i % s->num_attention_heads, o + (size_t)i * s->v_head_dim);
    }
    linear(random_model_layer_tensor(ctx->model, layer, "self_attn.o_proj.weight"), o, ctx->n, y);
    cmi_free(o);
    cmi_free(v);
    cmi_free(k);
    cmi_free(q);
}

/* ---- feed-forward ---- */

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* y = down(silu(gate x) * up x) for n rows. part: "mlp.", "mlp.experts.3.", ... */
static void network(const context *ctx, uint32_t layer, const char *part, const double *x,
                    uint32_t n, double *y)
{
    char name[64];
    snprintf(name, sizeof name, "%sgate_proj.weight", part);
    const random_tensor *gate = random_model_layer_tensor(ctx->model, layer, name);
    snprintf(name, sizeof name, "%sup_proj.weight", part);
    const random_tensor *up = random_model_layer_tensor(ctx->model, layer, name);
    snprintf(name, sizeof name, "%sdown_proj.weight", part);
    const random_tensor *down = random_model_layer_tensor(ctx->model, layer, name);
    double *g = doubles((size_t)n * gate->n_rows);
    double *u = doubles((size_t)n * gate->n_rows);
    linear(gate, x, n, g);
    linear(up, x, n, u);
    for (size_t i = 0; i < (size_t)n * gate->n_rows; i++) {
        g[i] = silu(g[i]) * u[i];
    }
    linear(down, g, n, y);
    cmi_free(u);
    cmi_free(g);
}

/* Marks the k largest of n values; -INFINITY is never marked unless nothing else is left. Returns
 * the distance between the smallest marked and the largest other. */
static double mark_largest(const double *values, uint32_t n, uint32_t k, bool *marked)
{
    double last = INFINITY;
    for (uint32_t j = 0; j <= k && j < n; j++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++) {
            if (!marked[i] && (best == n || values[i] > values[best])) {
                best = i;
            }
        }
        if (j == k) {
            return last - values[best];
        }
        marked[best] = true;
        last = values[best];
    }
    return INFINITY;
}

static void gate_scores(const model_spec *s, const double *logits, double *scores)
{
    double sum = 0;
    for (uint32_t e = 0; e < s->n_routed_experts; e++) {
        bool sigmoid = strcmp(s->scoring_func, "sigmoid") == 0;
        scores[e] = sigmoid ? 1 / (1 + exp(-logits[e])) : exp(logits[e]);
        sum += scores[e];
    }
    for (uint32_t e = 0; e < s->n_routed_experts && strcmp(s->scoring_func, "softmax") == 0; e++) {
        scores[e] /= sum;
    }
}

/* Experts outside the topk_group best groups get -INFINITY. */
static void limit_groups(context *ctx, double *choice)
{
    const model_spec *s = ctx->spec;
    uint32_t size = s->n_routed_experts / s->n_group;
    bool by_two = strcmp(s->topk_method, "noaux_tc") == 0;
    double *ranks = doubles(s->n_group);
    bool *kept = cmi_alloc(s->n_group, sizeof *kept);
    for (uint32_t g = 0; g < s->n_group; g++) {
        bool *top = cmi_alloc(size, sizeof *top);
        mark_largest(choice + g * size, size, by_two ? 2 : 1, top);
        for (uint32_t i = 0; i < size; i++) {
            ranks[g] += top[i] ? choice[g * size + i] : 0;
        }
        cmi_free(top);
    }
    ctx->margin = fmin(ctx->margin, mark_largest(ranks, s->n_group, s->topk_group, kept));
    for (uint32_t e = 0; e < s->n_routed_experts; e++) {
        choice[e] = kept[e / size] ? choice[e] : -INFINITY;
    }
    cmi_free(kept);
    cmi_free(ranks);
}

/* The weight of every expert for one position; 0 for those that are not chosen. */
static void gate(context *ctx, uint32_t layer, const double *x, double *weights)
{
    const model_spec *s = ctx->spec;
    uint32_t n = s->n_routed_experts;
    double *choice = doubles(n);
    bool *chosen = cmi_alloc(n, sizeof *chosen);
    linear(random_model_layer_tensor(ctx->model, layer, "mlp.gate.weight"), x, 1, choice);
    gate_scores(s, choice, weights);
    memcpy(choice, weights, n * sizeof *choice);
    if (strcmp(s->topk_method, "noaux_tc") == 0) {
        const random_tensor *bias =
            random_model_layer_tensor(ctx->model, layer, "mlp.gate.e_score_correction_bias");
        for (uint32_t e = 0; e < n; e++) {
            choice[e] += (double)bias->values[e];
        }
    }
    if (strcmp(s->topk_method, "greedy") != 0) {
        limit_groups(ctx, choice);
    }
    ctx->margin = fmin(ctx->margin, mark_largest(choice, n, s->num_experts_per_tok, chosen));
    double sum = 0;
    for (uint32_t e = 0; e < n; e++) {
        weights[e] = chosen[e] ? weights[e] : 0;
        sum += weights[e];
    }
    bool norm = s->norm_topk_prob && s->num_experts_per_tok > 1;
    for (uint32_t e = 0; e < n; e++) {
        weights[e] /= norm ? sum + 1e-20 : 1;
        weights[e] *= norm && s->is_v2 ? 1 : s->routed_scaling_factor;
    }
    cmi_free(chosen);
    cmi_free(choice);
}

static void mixture(context *ctx, uint32_t layer, const double *x, double *y)
{
    const model_spec *s = ctx->spec;
    uint32_t hidden = s->hidden_size;
    double *weights = doubles(s->n_routed_experts);
    double *out = doubles(hidden);
    for (uint32_t i = 0; i < ctx->n; i++) {
        const double *row = x + (size_t)i * hidden;
        gate(ctx, layer, row, weights);
        for (uint32_t e = 0; e < s->n_routed_experts; e++) {
            if (weights[e] == 0) {
                continue;
            }
            char part[32];
            snprintf(part, sizeof part, "mlp.experts.%u.", e);
            network(ctx, layer, part, row, 1, out);
            for (uint32_t c = 0; c < hidden; c++) {
                y[(size_t)i * hidden + c] += weights[e] * out[c];
            }
        }
        if (s->n_shared_experts > 0) {
            network(ctx, layer, "mlp.shared_experts.", row, 1, out);
            for (uint32_t c = 0; c < hidden; c++) {
                y[(size_t)i * hidden + c] += out[c];
            }
        }
    }
    cmi_free(out);
    cmi_free(weights);
}

/* ---- layers ---- */

static void add_to(double *x, const double *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

static void run_layer(context *ctx, uint32_t layer, double *x)
{
    const model_spec *s = ctx->spec;
    uint32_t hidden = s->hidden_size;
    size_t size = (size_t)ctx->n * hidden;
    double *normed = doubles(size);
    double *y = doubles(size);
    rms_norm(random_model_layer_tensor(ctx->model, layer, "input_layernorm.weight"),
             s->rms_norm_eps, x, hidden, ctx->n, normed);
    attention(ctx, layer, normed, y);
    add_to(x, y, size);
    memset(y, 0, size * sizeof *y);
    rms_norm(random_model_layer_tensor(ctx->model, layer, "post_attention_layernorm.weight"),
             s->rms_norm_eps, x, hidden, ctx->n, normed);
    if (random_model_is_moe(s, layer)) {
        mixture(ctx, layer, normed, y);
    } else {
        network(ctx, layer, "mlp.", normed, ctx->n, y);
    }
    add_to(x, y, size);
    cmi_free(y);
    cmi_free(normed);
}

static void embed(const random_model *m, const uint32_t *tokens, uint32_t n, double *x)
{
    const random_tensor *table = random_model_tensor(m, "model.embed_tokens.weight");
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; c < table->n_cols; c++) {
            x[(size_t)i * table->n_cols + c] =
                (double)table->values[(size_t)tokens[i] * table->n_cols + c];
        }
    }
}

/* Position i of the layer is (h_i, token i+1); its output goes to row i+1 of mtp. */
static void run_mtp(context *ctx, const uint32_t *tokens, const double *h, double *mtp)
{
    const random_model *m = ctx->model;
    const model_spec *s = ctx->spec;
    uint32_t layer = s->num_hidden_layers;
    uint32_t hidden = s->hidden_size;
    context inner = {.model = m, .spec = s, .n = ctx->n - 1, .margin = ctx->margin};
    double *e = doubles((size_t)inner.n * hidden);
    double *joined = doubles((size_t)inner.n * 2 * hidden);
    double *part = doubles((size_t)inner.n * hidden);
    embed(m, tokens + 1, inner.n, e);
    rms_norm(random_model_layer_tensor(m, layer, "enorm.weight"), s->rms_norm_eps, e, hidden,
             inner.n, part);
    for (uint32_t i = 0; i < inner.n; i++) {
        memcpy(joined + (size_t)2 * i * hidden, part + (size_t)i * hidden, hidden * sizeof *part);
    }
    rms_norm(random_model_layer_tensor(m, layer, "hnorm.weight"), s->rms_norm_eps, h, hidden,
             inner.n, part);
    for (uint32_t i = 0; i < inner.n; i++) {
        memcpy(joined + (size_t)(2 * i + 1) * hidden, part + (size_t)i * hidden,
               hidden * sizeof *part);
    }
    linear(random_model_layer_tensor(m, layer, "eh_proj.weight"), joined, inner.n, e);
    run_layer(&inner, layer, e);
    rms_norm(random_model_layer_tensor(m, layer, "shared_head.norm.weight"), s->rms_norm_eps, e,
             hidden, inner.n, mtp + hidden);
    ctx->margin = inner.margin;
    cmi_free(part);
    cmi_free(joined);
    cmi_free(e);
}

oracle oracle_run(const random_model *m, const uint32_t *tokens, uint32_t n)
{
    const model_spec *s = &m->spec;
    context ctx = {.model = m, .spec = s, .n = n, .margin = INFINITY};
    oracle o = {.n = n};
    double *x = doubles((size_t)n * s->hidden_size);
    embed(m, tokens, n, x);
    for (uint32_t layer = 0; layer < s->num_hidden_layers; layer++) {
        run_layer(&ctx, layer, x);
    }
    o.hidden = doubles((size_t)n * s->hidden_size);
    rms_norm(random_model_tensor(m, "model.norm.weight"), s->rms_norm_eps, x, s->hidden_size, n,
             o.hidden);
    if (s->num_nextn_predict_layers > 0) {
        o.mtp = doubles((size_t)n * s->hidden_size);
        run_mtp(&ctx, tokens, o.hidden, o.mtp);
    }
    o.margin = ctx.margin;
    cmi_free(x);
    return o;
}

void oracle_free(oracle *o)
{
    cmi_free(o->hidden);
    cmi_free(o->mtp);
}

void oracle_logits(const random_model *m, const double *hidden, double *logits_out)
{
    const char *head = m->spec.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    linear(random_model_tensor(m, head), hidden, 1, logits_out);
}
