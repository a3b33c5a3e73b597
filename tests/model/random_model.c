#include "tests/test.h"

#include "tests/model/random_model.h"

#include <math.h>

#include "base/alloc.h"
#include "base/rng.h"

/* ---- config.json ---- */

static void json_u32_or_null(cmi_buf *text, const char *key, uint32_t value)
{
    bool ok = value > 0 ? cmi_buf_printf(text, "\"%s\": %u,\n", key, value)
                        : cmi_buf_printf(text, "\"%s\": null,\n", key);
    assert_true(ok);
}

static void append_sizes(cmi_buf *text, const model_spec *s)
{
    json_u32_or_null(text, "q_lora_rank", s->q_lora_rank);
    assert_true(cmi_buf_printf(
        text,
        "\"vocab_size\": %u,\n\"hidden_size\": %u,\n\"intermediate_size\": %u,\n"
        "\"num_hidden_layers\": %u,\n\"num_nextn_predict_layers\": %u,\n"
        "\"num_attention_heads\": %u,\n\"num_key_value_heads\": %u,\n\"kv_lora_rank\": %u,\n"
        "\"qk_nope_head_dim\": %u,\n\"qk_rope_head_dim\": %u,\n\"v_head_dim\": %u,\n",
        s->vocab_size, s->hidden_size, s->intermediate_size, s->num_hidden_layers,
        s->num_nextn_predict_layers, s->num_attention_heads, s->num_attention_heads,
        s->kv_lora_rank, s->qk_nope_head_dim, s->qk_rope_head_dim, s->v_head_dim));
}

static void append_experts(cmi_buf *text, const model_spec *s)
{
    json_u32_or_null(text, "n_routed_experts", s->n_routed_experts);
    if (s->n_routed_experts == 0) {
        return;
    }
    json_u32_or_null(text, "n_shared_experts", s->n_shared_experts);
    assert_true(cmi_buf_printf(
        text,
        "\"moe_intermediate_size\": %u,\n\"num_experts_per_tok\": %u,\n\"n_group\": %u,\n"
        "\"topk_group\": %u,\n\"first_k_dense_replace\": %u,\n\"moe_layer_freq\": %u,\n"
        "\"scoring_func\": \"%s\",\n\"topk_method\": \"%s\",\n\"norm_topk_prob\": %s,\n"
        "\"routed_scaling_factor\": %g,\n",
        s->moe_intermediate_size, s->num_experts_per_tok, s->n_group, s->topk_group,
        s->first_k_dense_replace, s->moe_layer_freq, s->scoring_func, s->topk_method,
        s->norm_topk_prob ? "true" : "false", s->routed_scaling_factor));
}

static void write_config(const random_model *m)
{
    const model_spec *s = &m->spec;
    cmi_buf text;
    cmi_buf_init(&text, 1 << 16);
    assert_true(
        cmi_buf_printf(&text, "{\"model_type\": \"deepseek_%s\",\n", s->is_v2 ? "v2" : "v3"));
    append_sizes(&text, s);
    append_experts(&text, s);
    if (s->yarn_factor > 0) {
        assert_true(cmi_buf_printf(
            &text,
            "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": %g, \"beta_fast\": %g,\n"
            "\"beta_slow\": %g, \"mscale\": %g, \"mscale_all_dim\": %g,\n"
            "\"original_max_position_embeddings\": %u},\n",
            s->yarn_factor, s->yarn_beta_fast, s->yarn_beta_slow, s->yarn_mscale,
            s->yarn_mscale_all_dim, s->yarn_original_positions));
    }
    assert_true(
        cmi_buf_printf(&text,
                       "\"tie_word_embeddings\": %s,\n\"rms_norm_eps\": %g,\n\"rope_theta\": %g,\n"
                       "\"max_position_embeddings\": %u}\n",
                       s->tie_word_embeddings ? "true" : "false", s->rms_norm_eps, s->rope_theta,
                       RANDOM_MODEL_POSITIONS));
    temp_write_text(&m->dir, "config.json", cmi_buf_cstr(&text));
    cmi_buf_deinit(&text);
}

/* ---- weights ---- */

/* Values uniform in centre +- spread. */
static void add(random_model *m, const char *prefix, const char *suffix, uint32_t n_rows,
                uint32_t n_cols, double centre, double spread)
{
    assert_true(m->n_tensors < RANDOM_MODEL_MAX_TENSORS);
    size_t n = (size_t)CMI_MAX(n_rows, 1u) * n_cols;
    random_tensor *t = &m->tensors[m->n_tensors];
    *t = (random_tensor){.n_rows = n_rows, .n_cols = n_cols};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, suffix);
    t->values = cmi_alloc(n, sizeof *t->values);
    for (size_t i = 0; i < n; i++) {
        double u = (double)cmi_philox_uniform(m->spec.seed, i, m->n_tensors);
        t->values[i] = (float)(centre + spread * (2 * u - 1));
    }
    m->n_tensors++;
}

static void vector(random_model *m, const char *prefix, const char *suffix, uint32_t n)
{
    add(m, prefix, suffix, 0, n, 1.0, 0.3);
}

/* Spread so that a product with values of variance 1 has variance 1. */
static void matrix(random_model *m, const char *prefix, const char *suffix, uint32_t n_out,
                   uint32_t n_in)
{
    add(m, prefix, suffix, n_out, n_in, 0.0, sqrt(3.0 / n_in));
}

static void network(random_model *m, const char *prefix, uint32_t width)
{
    uint32_t hidden = m->spec.hidden_size;
    matrix(m, prefix, "gate_proj.weight", width, hidden);
    matrix(m, prefix, "up_proj.weight", width, hidden);
    matrix(m, prefix, "down_proj.weight", hidden, width);
}

static void attention(random_model *m, const char *prefix)
{
    const model_spec *s = &m->spec;
    uint32_t heads = s->num_attention_heads;
    uint32_t n_q = heads * (s->qk_nope_head_dim + s->qk_rope_head_dim);
    if (s->q_lora_rank > 0) {
        matrix(m, prefix, "q_a_proj.weight", s->q_lora_rank, s->hidden_size);
        vector(m, prefix, "q_a_layernorm.weight", s->q_lora_rank);
        matrix(m, prefix, "q_b_proj.weight", n_q, s->q_lora_rank);
    } else {
        matrix(m, prefix, "q_proj.weight", n_q, s->hidden_size);
    }
    matrix(m, prefix, "kv_a_proj_with_mqa.weight", s->kv_lora_rank + s->qk_rope_head_dim,
           s->hidden_size);
    vector(m, prefix, "kv_a_layernorm.weight", s->kv_lora_rank);
    matrix(m, prefix, "kv_b_proj.weight", heads * (s->qk_nope_head_dim + s->v_head_dim),
           s->kv_lora_rank);
    matrix(m, prefix, "o_proj.weight", s->hidden_size, heads * s->v_head_dim);
}

bool random_model_is_moe(const model_spec *s, uint32_t layer)
{
    if (s->n_routed_experts == 0 || layer == s->num_hidden_layers) {
        return s->n_routed_experts > 0;
    }
    return layer >= s->first_k_dense_replace && layer % s->moe_layer_freq == 0;
}

static void layer(random_model *m, uint32_t idx)
{
    const model_spec *s = &m->spec;
    char prefix[64];
    char part[96];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", idx);
    vector(m, prefix, "input_layernorm.weight", s->hidden_size);
    vector(m, prefix, "post_attention_layernorm.weight", s->hidden_size);
    snprintf(part, sizeof part, "%sself_attn.", prefix);
    attention(m, part);
    snprintf(part, sizeof part, "%smlp.", prefix);
    if (!random_model_is_moe(s, idx)) {
        network(m, part, s->intermediate_size);
        return;
    }
    matrix(m, part, "gate.weight", s->n_routed_experts, s->hidden_size);
    if (strcmp(s->topk_method, "noaux_tc") == 0) {
        add(m, part, "gate.e_score_correction_bias", 0, s->n_routed_experts, 0.0, 0.2);
    }
    for (uint32_t e = 0; e < s->n_routed_experts; e++) {
        snprintf(part, sizeof part, "%smlp.experts.%u.", prefix, e);
        network(m, part, s->moe_intermediate_size);
    }
    if (s->n_shared_experts > 0) {
        snprintf(part, sizeof part, "%smlp.shared_experts.", prefix);
        network(m, part, s->n_shared_experts * s->moe_intermediate_size);
    }
}

static void mtp_layer(random_model *m)
{
    uint32_t hidden = m->spec.hidden_size;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", m->spec.num_hidden_layers);
    vector(m, prefix, "enorm.weight", hidden);
    vector(m, prefix, "hnorm.weight", hidden);
    matrix(m, prefix, "eh_proj.weight", hidden, 2 * hidden);
    vector(m, prefix, "shared_head.norm.weight", hidden);
    layer(m, m->spec.num_hidden_layers);
}

static void write_weights(const random_model *m)
{
    st_builder b;
    st_begin(&b);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const random_tensor *t = &m->tensors[i];
        size_t n = (size_t)CMI_MAX(t->n_rows, 1u) * t->n_cols;
        st_add(&b, t->name, "F32", t->n_rows, t->n_cols, t->values, n * sizeof *t->values);
    }
    st_write(&b, &m->dir, "model.safetensors");
}

random_model *random_model_create(const model_spec *spec)
{
    random_model *m = cmi_alloc(1, sizeof *m);
    m->spec = *spec;
    temp_dir_make(&m->dir);
    add(m, "model.embed_tokens.weight", "", spec->vocab_size, spec->hidden_size, 0.0, 1.7);
    for (uint32_t i = 0; i < spec->num_hidden_layers; i++) {
        layer(m, i);
    }
    if (spec->num_nextn_predict_layers > 0) {
        mtp_layer(m);
    }
    vector(m, "model.norm.weight", "", spec->hidden_size);
    if (!spec->tie_word_embeddings) {
        matrix(m, "lm_head.weight", "", spec->vocab_size, spec->hidden_size);
    }
    write_config(m);
    write_weights(m);
    return m;
}

void random_model_destroy(random_model *m)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        cmi_free(m->tensors[i].values);
    }
    temp_dir_remove(&m->dir);
    cmi_free(m);
}

const random_tensor *random_model_tensor(const random_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        if (strcmp(m->tensors[i].name, name) == 0) {
            return &m->tensors[i];
        }
    }
    fail_msg("%s: no tensor %s", m->spec.name, name);
    return NULL;
}

const random_tensor *random_model_layer_tensor(const random_model *m, uint32_t idx,
                                               const char *rest)
{
    char name[160];
    snprintf(name, sizeof name, "model.layers.%u.%s", idx, rest);
    return random_model_tensor(m, name);
}
