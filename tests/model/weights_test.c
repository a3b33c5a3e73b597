/* The bundled models, tensor by tensor against the bytes of their files. What broken files do is
 * in weights_refuse_test.c. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

#include "model/checkpoint.h"
#include "model/weights.h"

typedef struct loaded {
    cmi_checkpoint files;
    cmi_model_config config;
    cmi_weights *weights;
    uint64_t last_done, last_total;
    uint32_t n_reports;
} loaded;

static void model_dir(char *out, size_t size, const char *model)
{
    const char *models = getenv("CMI_MODELS");
    assert_non_null(models);
    snprintf(out, size, "%s/%s", models, model);
}

static void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    loaded *m = arg;
    assert_true(done_bytes > m->last_done && done_bytes <= total_bytes);
    m->last_done = done_bytes;
    m->last_total = total_bytes;
    m->n_reports++;
}

static void load(loaded *m, const char *model, cmi_dtype dtype, uint32_t n_threads, bool with_mtp)
{
    char dir[512];
    model_dir(dir, sizeof dir, model);
    *m = (loaded){0};
    cmi_error err = {0};
    cmi_generation_config generation;
    if (cmi_model_config_load(&m->config, &generation, dir, &err) != CMI_OK ||
        cmi_checkpoint_open(&m->files, dir, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    cmi_weights_options opt = {
        .dtype = dtype, .with_mtp = with_mtp, .progress = on_progress, .progress_arg = m};
    assert_int_equal(cmi_team_create(&opt.team, n_threads, &err), CMI_OK);
    if (cmi_weights_load(&m->weights, &m->config, dir, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(m->weights->n_bytes, cmi_weights_estimate_bytes(&m->config, &opt));
    assert_true(m->n_reports > 0);
    assert_int_equal(m->last_done, m->last_total);
    cmi_team_destroy(opt.team);
}

static void unload(loaded *m)
{
    cmi_weights_destroy(m->weights);
    cmi_checkpoint_close(&m->files);
}

/* Element [row][col] of a tensor of the files, as float32: what the format says, element by
 * element and without the loader's code. */
static float source_value(const loaded *m, const char *name, uint64_t row, uint64_t col)
{
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(&m->files, name);
    if (t == NULL) {
        fail_msg("no tensor %s", name);
    }
    const uint8_t *data = cmi_safetensors_data(t->file, t->tensor);
    uint64_t n_cols = t->tensor->dims[t->tensor->n_dims - 1];
    uint64_t at = row * n_cols + col;
    float x = 0;
    uint16_t half;
    switch (t->tensor->dtype) {
    case CMI_DTYPE_F32:
        memcpy(&x, data + at * 4, 4);
        return x;
    case CMI_DTYPE_BF16:
        memcpy(&half, data + at * 2, 2);
        return cmi_bf16_to_f32(half);
    case CMI_DTYPE_F8_E4M3: {
        char scale_name[160];
        snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
        return cmi_f8e4m3_to_f32(data[at]) * source_value(m, scale_name, row / 128, col / 128);
    }
    default:
        fail_msg("%s: unexpected dtype %s", name, t->tensor->dtype_label);
        return 0;
    }
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
    for (size_t row = 0; row < n; row++) {
        for (size_t col = 0; col < w->n_in; col++) {
            float want = rounded(source_value(m, name, row, col), w->dtype);
            float got = linear_value(w, first + row, col);
            if (memcmp(&want, &got, sizeof want) != 0) {
                fail_msg("%s[%zu][%zu]: %g, want %g", name, row, col, got, want);
            }
        }
        for (size_t col = w->n_in; col < w->stride; col++) {
            assert_true(linear_value(w, first + row, col) == 0);
        }
    }
}

static void expect_vector(const loaded *m, const float *v, const char *name)
{
    const cmi_checkpoint_tensor *t = cmi_checkpoint_find(&m->files, name);
    assert_non_null(t);
    for (size_t i = 0; i < t->tensor->dims[0]; i++) {
        float want = source_value(m, name, 0, i);
        assert_memory_equal(&v[i], &want, sizeof want);
    }
}

static void expect_attention(const loaded *m, const cmi_layer_weights *l, const char *prefix)
{
    static const char *const names[] = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                        "o_proj"};
    const cmi_linear *linears[] = {&l->q_a_proj, &l->q_b_proj, &l->kv_a_proj, &l->kv_b_proj,
                                   &l->o_proj};
    char name[160];
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        snprintf(name, sizeof name, "%s.self_attn.%s.weight", prefix, names[i]);
        assert_int_equal(linears[i]->dtype, m->weights->dtype);
        expect_rows(m, linears[i], 0, linears[i]->n_out, name);
    }
    snprintf(name, sizeof name, "%s.self_attn.q_a_layernorm.weight", prefix);
    expect_vector(m, l->q_a_layernorm, name);
    snprintf(name, sizeof name, "%s.self_attn.kv_a_layernorm.weight", prefix);
    expect_vector(m, l->kv_a_layernorm, name);
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
                assert_memory_equal(&got, &want, sizeof want);
            }
        }
    }
}

static void expect_ffn(const loaded *m, const cmi_ffn *ffn, const char *prefix)
{
    char name[160];
    snprintf(name, sizeof name, "%s.gate_proj.weight", prefix);
    expect_rows(m, &ffn->gate_up, 0, ffn->width, name);
    snprintf(name, sizeof name, "%s.up_proj.weight", prefix);
    expect_rows(m, &ffn->gate_up, ffn->width, ffn->width, name);
    snprintf(name, sizeof name, "%s.down_proj.weight", prefix);
    expect_rows(m, &ffn->down, 0, m->config.hidden_size, name);
    size_t slab = ffn->gate_up.n_out * ffn->gate_up.stride * cmi_dtype_bytes(ffn->gate_up.dtype);
    assert_ptr_equal((const uint8_t *)ffn->gate_up.w + slab, ffn->down.w);
}

static void expect_layer(const loaded *m, const cmi_layer_weights *l, uint32_t idx)
{
    char prefix[64];
    char name[160];
    snprintf(prefix, sizeof prefix, "model.layers.%u", idx);
    expect_attention(m, l, prefix);
    expect_transposed(m, l);
    snprintf(name, sizeof name, "%s.input_layernorm.weight", prefix);
    expect_vector(m, l->input_layernorm, name);
    snprintf(name, sizeof name, "%s.post_attention_layernorm.weight", prefix);
    expect_vector(m, l->post_attention_layernorm, name);
    assert_int_equal(l->is_moe, idx != 0);
    if (!l->is_moe) {
        snprintf(name, sizeof name, "%s.mlp", prefix);
        expect_ffn(m, &l->dense, name);
        return;
    }
    for (uint32_t e = 0; e < m->config.n_routed_experts; e++) {
        snprintf(name, sizeof name, "%s.mlp.experts.%u", prefix, e);
        expect_ffn(m, &l->experts[e], name);
    }
    snprintf(name, sizeof name, "%s.mlp.shared_experts", prefix);
    expect_ffn(m, &l->shared, name);
    snprintf(name, sizeof name, "%s.mlp.gate.weight", prefix);
    assert_int_equal(l->gate.dtype, CMI_DTYPE_F32);
    expect_rows(m, &l->gate, 0, m->config.n_routed_experts, name);
    snprintf(name, sizeof name, "%s.mlp.gate.e_score_correction_bias", prefix);
    expect_vector(m, l->gate_bias, name);
}

static void expect_all(const loaded *m)
{
    const cmi_weights *w = m->weights;
    expect_rows(m, &w->embed, 0, m->config.vocab_size, "model.embed_tokens.weight");
    expect_rows(m, &w->lm_head, 0, m->config.vocab_size, "lm_head.weight");
    expect_vector(m, w->norm, "model.norm.weight");
    for (uint32_t i = 0; i < m->config.num_hidden_layers; i++) {
        expect_layer(m, &w->layers[i], i);
    }
    assert_non_null(w->mtp);
    expect_layer(m, &w->mtp->layer, m->config.num_hidden_layers);
    expect_vector(m, w->mtp->enorm, "model.layers.5.enorm.weight");
    expect_vector(m, w->mtp->hnorm, "model.layers.5.hnorm.weight");
    expect_vector(m, w->mtp->head_norm, "model.layers.5.shared_head.norm.weight");
    expect_rows(m, &w->mtp->eh_proj, 0, w->mtp->eh_proj.n_out, "model.layers.5.eh_proj.weight");
    assert_int_equal(w->mtp->eh_proj.n_in, 2 * m->config.hidden_size);
}

static void bundled_models_load_as_their_files_say(void **state)
{
    (void)state;
    static const char *const models[] = {"matrix-tiny", "matrix-tiny-fp8"};
    static const cmi_dtype dtypes[] = {CMI_DTYPE_F32, CMI_DTYPE_BF16};
    for (size_t i = 0; i < CMI_LEN(models); i++) {
        for (size_t j = 0; j < CMI_LEN(dtypes); j++) {
            loaded m;
            load(&m, models[i], dtypes[j], 1 + (uint32_t)j, true);
            expect_all(&m);
            unload(&m);
        }
    }
}

static void the_mtp_layer_can_be_left_out(void **state)
{
    (void)state;
    loaded with, without;
    load(&with, "matrix-tiny", CMI_DTYPE_BF16, 1, true);
    load(&without, "matrix-tiny", CMI_DTYPE_BF16, 1, false);
    assert_null(without.weights->mtp);
    assert_true(without.weights->n_bytes < with.weights->n_bytes);
    expect_layer(&without, &without.weights->layers[4], 4);
    unload(&with);
    unload(&without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bundled_models_load_as_their_files_say),
        cmocka_unit_test(the_mtp_layer_can_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
