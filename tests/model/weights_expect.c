#include "tests/test.h"

#include "tests/model/weights_expect.h"

static void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    loaded *m = arg;
    assert_true(done_bytes > m->last_done && done_bytes <= total_bytes);
    m->last_done = done_bytes;
    m->last_total = total_bytes;
}

cmi_status loaded_open(loaded *m, const char *dir, cmi_dtype dtype, uint32_t n_threads,
                       cmi_error *err)
{
    *m = (loaded){0};
    cmi_generation_config generation;
    cmi_status st = cmi_model_config_load(&m->config, &generation, dir, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_options opt = {
        .dtype = dtype, .with_mtp = true, .progress = on_progress, .progress_arg = m};
    assert_int_equal(cmi_team_create(&opt.team, n_threads, err), CMI_OK);
    st = cmi_weights_load(&m->weights, &m->config, dir, &opt, err);
    cmi_team_destroy(opt.team);
    if (st != CMI_OK) {
        return st;
    }
    assert_true(m->last_done > 0);
    assert_int_equal(m->last_done, m->last_total);
    m->estimated_bytes = cmi_weights_estimate_bytes(&m->config, &opt);
    return cmi_checkpoint_open(&m->files, dir, err);
}

void loaded_close(loaded *m)
{
    cmi_weights_destroy(m->weights);
    cmi_checkpoint_close(&m->files);
}

/* A tensor of the files, and its scales where it is FP8. */
typedef struct source {
    const uint8_t *data;
    cmi_dtype dtype;
    uint64_t n_cols;
    const uint8_t *scales; /* NULL: none */
    uint64_t scale_cols;
    const cmi_fp8_config *fp8;
} source;

static source source_find(const loaded *m, const char *name)
{
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(&m->files, name);
    if (t == NULL) {
        fail_msg("no tensor %s", name);
    }
    source s = {.data = cmi_safetensors_data(t->file, t->tensor), .dtype = t->tensor->dtype};
    s.n_cols = t->tensor->dims[t->tensor->n_dims - 1];
    if (s.dtype == CMI_DTYPE_F8_E4M3) {
        char scale_name[176];
        snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
        source scales = source_find(m, scale_name);
        s.scales = scales.data;
        s.scale_cols = scales.n_cols;
        s.fp8 = &m->config.fp8;
    }
    return s;
}

/* Element [row][col] as float32: what the format says, without the loader's code. */
static float source_value(const source *s, uint64_t row, uint64_t col)
{
    uint64_t at = row * s->n_cols + col;
    float x = 0;
    uint16_t half;
    if (s->dtype == CMI_DTYPE_F32) {
        memcpy(&x, s->data + at * 4, 4);
    } else if (s->dtype == CMI_DTYPE_F8_E4M3) {
        uint64_t block = row / s->fp8->block_rows * s->scale_cols + col / s->fp8->block_cols;
        memcpy(&x, s->scales + block * 4, 4);
        x *= cmi_f8e4m3_to_f32(s->data[at]);
    } else {
        memcpy(&half, s->data + at * 2, 2);
        x = s->dtype == CMI_DTYPE_BF16 ? cmi_bf16_to_f32(half) : cmi_f16_to_f32(half);
    }
    return x;
}

static float linear_value(const cmi_linear *w, size_t row, size_t col)
{
    size_t at = row * w->stride + col;
    return w->dtype == CMI_DTYPE_F32 ? ((const float *)w->w)[at]
                                     : cmi_bf16_to_f32(((const cmi_bf16 *)w->w)[at]);
}

static float rounded(float x, cmi_dtype dtype)
{
    return dtype == CMI_DTYPE_F32 ? x : cmi_bf16_to_f32(cmi_bf16_from_f32(x));
}

/* Rows first .. first + n of w are the tensor; alignment and padding are as promised. */
static void expect_rows(const loaded *m, const cmi_linear *w, size_t first, size_t n,
                        const char *name)
{
    assert_true((uintptr_t)w->w % 64 == 0);
    assert_true(w->stride * cmi_dtype_bytes(w->dtype) % 64 == 0);
    assert_true(w->stride >= w->n_in);
    const source s = source_find(m, name);
    for (size_t row = 0; row < n; row++) {
        for (size_t col = 0; col < w->n_in; col++) {
            float want = rounded(source_value(&s, row, col), w->dtype);
            float got = linear_value(w, first + row, col);
            if (memcmp(&want, &got, sizeof want) != 0) {
                fail_msg("%s[%zu][%zu]: %g, want %g", name, row, col, got, want);
            }
        }
        for (size_t col = w->n_in; col < w->stride; col++) {
            if (linear_value(w, first + row, col) != 0) {
                fail_msg("%s[%zu]: padding is not zero", name, row);
            }
        }
    }
}

static void expect_vector(const loaded *m, const float *v, const char *prefix, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    const source s = source_find(m, name);
    assert_true((uintptr_t)v % 64 == 0);
    for (size_t i = 0; i < s.n_cols; i++) {
        float want = source_value(&s, 0, i);
        assert_memory_equal(&v[i], &want, sizeof want);
    }
}

/* A matrix of its own, of the weights' type. */
static void expect_linear(const loaded *m, const cmi_linear *w, uint32_t n_out, uint32_t n_in,
                          const char *prefix, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    assert_int_equal(w->dtype, m->weights->dtype);
    assert_int_equal(w->n_out, n_out);
    assert_int_equal(w->n_in, n_in);
    expect_rows(m, w, 0, n_out, name);
}

static void expect_attention(const loaded *m, const cmi_layer_weights *l, const char *prefix)
{
    const cmi_model_config *c = &m->config;
    uint32_t heads = c->num_attention_heads;
    uint32_t n_q = heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    uint32_t n_kv = heads * (c->qk_nope_head_dim + c->v_head_dim);
    char attn[96];
    snprintf(attn, sizeof attn, "%sself_attn.", prefix);
    char name[160];
    uint32_t n_kv_a = c->kv_lora_rank + c->qk_rope_head_dim;
    assert_int_equal(l->qkv_a_proj.dtype, m->weights->dtype);
    assert_int_equal(l->qkv_a_proj.n_out, c->q_lora_rank + n_kv_a);
    assert_int_equal(l->qkv_a_proj.n_in, c->hidden_size);
    if (c->q_lora_rank > 0) {
        snprintf(name, sizeof name, "%sq_a_proj.weight", attn);
        expect_rows(m, &l->qkv_a_proj, 0, c->q_lora_rank, name);
        expect_linear(m, &l->q_b_proj, n_q, c->q_lora_rank, attn, "q_b_proj.weight");
        expect_vector(m, l->q_a_layernorm, attn, "q_a_layernorm.weight");
    } else {
        assert_null(l->q_a_layernorm);
        expect_linear(m, &l->q_b_proj, n_q, c->hidden_size, attn, "q_proj.weight");
    }
    snprintf(name, sizeof name, "%skv_a_proj_with_mqa.weight", attn);
    expect_rows(m, &l->qkv_a_proj, c->q_lora_rank, n_kv_a, name);
    expect_vector(m, l->kv_a_layernorm, attn, "kv_a_layernorm.weight");
    expect_linear(m, &l->kv_b_proj, n_kv, c->kv_lora_rank, attn, "kv_b_proj.weight");
    expect_linear(m, &l->o_proj, c->hidden_size, heads * c->v_head_dim, attn, "o_proj.weight");
}

/* Row (head, r) of w_uk_t, column d, is row (head, d) of kv_b_proj, column r. */
static void expect_transposed(const loaded *m, const cmi_layer_weights *l)
{
    const cmi_model_config *c = &m->config;
    assert_int_equal(l->w_uk_t.n_out, c->num_attention_heads * c->kv_lora_rank);
    assert_int_equal(l->w_uk_t.n_in, c->qk_nope_head_dim);
    for (uint32_t head = 0; head < c->num_attention_heads; head++) {
        for (uint32_t r = 0; r < c->kv_lora_rank; r++) {
            for (uint32_t d = 0; d < c->qk_nope_head_dim; d++) {
                float want = linear_value(&l->kv_b_proj,
                                          head * (c->qk_nope_head_dim + c->v_head_dim) + d, r);
                float got = linear_value(&l->w_uk_t, head * c->kv_lora_rank + r, d);
                if (memcmp(&got, &want, sizeof want) != 0) {
                    fail_msg("w_uk_t: head %u, [%u][%u]", head, r, d);
                }
            }
        }
    }
}

/* prefix ends with a dot here and below. */
static void expect_ffn(const loaded *m, const cmi_ffn *ffn, const char *prefix)
{
    char name[160];
    snprintf(name, sizeof name, "%sgate_proj.weight", prefix);
    expect_rows(m, &ffn->gate_up, 0, ffn->width, name);
    snprintf(name, sizeof name, "%sup_proj.weight", prefix);
    expect_rows(m, &ffn->gate_up, ffn->width, ffn->width, name);
    assert_int_equal(ffn->gate_up.n_out, 2 * ffn->width);
    expect_linear(m, &ffn->down, m->config.hidden_size, ffn->width, prefix, "down_proj.weight");
    size_t slab = ffn->gate_up.n_out * ffn->gate_up.stride * cmi_dtype_bytes(ffn->gate_up.dtype);
    assert_ptr_equal((const uint8_t *)ffn->gate_up.w + slab, ffn->down.w);
}

static void expect_moe(const loaded *m, const cmi_layer_weights *l, const char *prefix)
{
    char name[160];
    for (uint32_t e = 0; e < m->config.n_routed_experts; e++) {
        snprintf(name, sizeof name, "%sexperts.%u.", prefix, e);
        assert_int_equal(l->experts[e].width, m->config.moe_intermediate_size);
        expect_ffn(m, &l->experts[e], name);
    }
    if (m->config.n_shared_experts > 0) {
        snprintf(name, sizeof name, "%sshared_experts.", prefix);
        expect_ffn(m, &l->shared, name);
    } else {
        assert_null(l->shared.down.w);
    }
    assert_int_equal(l->gate.dtype, CMI_DTYPE_F32);
    snprintf(name, sizeof name, "%sgate.weight", prefix);
    expect_rows(m, &l->gate, 0, m->config.n_routed_experts, name);
    if (m->config.topk_method == CMI_TOPK_NOAUX_TC) {
        expect_vector(m, l->gate_bias, prefix, "gate.e_score_correction_bias");
    } else {
        assert_null(l->gate_bias);
    }
}

static void expect_layer(const loaded *m, const cmi_layer_weights *l, uint32_t idx)
{
    char prefix[64];
    char mlp[96];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", idx);
    snprintf(mlp, sizeof mlp, "%smlp.", prefix);
    expect_attention(m, l, prefix);
    expect_transposed(m, l);
    expect_vector(m, l->input_layernorm, prefix, "input_layernorm.weight");
    expect_vector(m, l->post_attention_layernorm, prefix, "post_attention_layernorm.weight");
    assert_int_equal(l->is_moe, cmi_model_config_is_moe(&m->config, idx));
    if (l->is_moe) {
        expect_moe(m, l, mlp);
    } else {
        expect_ffn(m, &l->dense, mlp);
    }
}

static void expect_mtp(const loaded *m, const cmi_mtp_weights *mtp)
{
    uint32_t hidden = m->config.hidden_size;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", m->config.num_hidden_layers);
    expect_layer(m, &mtp->layer, m->config.num_hidden_layers);
    expect_vector(m, mtp->enorm, prefix, "enorm.weight");
    expect_vector(m, mtp->hnorm, prefix, "hnorm.weight");
    expect_vector(m, mtp->head_norm, prefix, "shared_head.norm.weight");
    expect_linear(m, &mtp->eh_proj, hidden, 2 * hidden, prefix, "eh_proj.weight");
}

void loaded_expect_all(const loaded *m)
{
    const cmi_weights *w = m->weights;
    const cmi_model_config *c = &m->config;
    expect_linear(m, &w->embed, c->vocab_size, c->hidden_size, "model.embed_tokens.weight", "");
    if (c->tie_word_embeddings) {
        assert_ptr_equal(w->lm_head.w, w->embed.w);
    } else {
        expect_linear(m, &w->lm_head, c->vocab_size, c->hidden_size, "lm_head.weight", "");
    }
    expect_vector(m, w->norm, "model.norm.weight", "");
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        expect_layer(m, &w->layers[i], i);
    }
    if (w->mtp != NULL) {
        expect_mtp(m, w->mtp);
    }
}
