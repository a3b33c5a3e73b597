#include "tests/test.h"

#include "tests/model/weights_expect.h"

#include <math.h>

static void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    loaded *m = arg;
    assert_true(done_bytes > m->last_done && done_bytes <= total_bytes);
    m->last_done = done_bytes;
    m->last_total = total_bytes;
}

cmi_status loaded_open(loaded *m, const char *dir, loaded_types types, uint32_t n_threads,
                       cmi_error *err)
{
    *m = (loaded){.int8_head = types.int8_head};
    cmi_generation_config generation;
    cmi_status st = cmi_model_config_load(&m->config, &generation, dir, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_weights_options opt = {.dtype = types.dtype,
                               .int8_head = types.int8_head,
                               .with_mtp = true,
                               .progress = on_progress,
                               .progress_arg = m};
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

/* A tensor of the files, and its scales where it is FP8 or INT8. */
typedef struct source {
    const uint8_t *data;
    cmi_dtype dtype;
    uint64_t n_cols;
    const uint8_t *scales; /* NULL: none */
    cmi_dtype scale_dtype;
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
    if (s.dtype == CMI_DTYPE_F8_E4M3 || s.dtype == CMI_DTYPE_I8) {
        char scale_name[176];
        snprintf(scale_name, sizeof scale_name, "%s_scale%s", name,
                 s.dtype == CMI_DTYPE_I8 ? "" : "_inv");
        source scales = source_find(m, scale_name);
        s.scales = scales.data;
        s.scale_dtype = scales.dtype;
        s.scale_cols = scales.n_cols;
        s.fp8 = &m->config.fp8;
    }
    return s;
}

/* Value idx of an array in one of the float types. */
static float value_at(const uint8_t *data, cmi_dtype dtype, uint64_t idx)
{
    float x = 0;
    uint16_t half;
    if (dtype == CMI_DTYPE_F32) {
        memcpy(&x, data + idx * 4, 4);
    } else {
        memcpy(&half, data + idx * 2, 2);
        x = dtype == CMI_DTYPE_BF16 ? cmi_bf16_to_f32(half) : cmi_f16_to_f32(half);
    }
    return x;
}

/* Element [row][col] as float32: what the format says, without the loader's code. */
static float source_value(const source *s, uint64_t row, uint64_t col)
{
    uint64_t at = row * s->n_cols + col;
    if (s->dtype == CMI_DTYPE_F8_E4M3) {
        uint64_t block = row / s->fp8->block_rows * s->scale_cols + col / s->fp8->block_cols;
        return value_at(s->scales, s->scale_dtype, block) * cmi_f8e4m3_to_f32(s->data[at]);
    }
    if (s->dtype == CMI_DTYPE_I8) {
        return value_at(s->scales, s->scale_dtype, row) * (float)(int8_t)s->data[at];
    }
    return value_at(s->data, s->dtype, at);
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

/* ---- INT8 blocks ---- */

/* One output as it should be packed. */
typedef struct packed_output {
    float scale;
    int32_t offset;
    int8_t codes[512];
} packed_output;

/* Row `row` of the tensor: its own codes if it has some, else round to nearest of amax / 127. */
static packed_output want_output(const source *s, uint64_t row, uint32_t n_in, const char *name)
{
    packed_output want = {0};
    assert_true(n_in <= CMI_LEN(want.codes));
    float amax = 0;
    for (uint32_t k = 0; k < n_in; k++) {
        amax = fmaxf(amax, fabsf(source_value(s, row, k)));
    }
    assert_true(amax > 0);
    want.scale = s->dtype == CMI_DTYPE_I8 ? value_at(s->scales, s->scale_dtype, row) : amax / 127;
    for (uint32_t k = 0; k < n_in; k++) {
        if (s->dtype == CMI_DTYPE_I8) {
            want.codes[k] = (int8_t)s->data[row * n_in + k];
        } else {
            float x = source_value(s, row, k);
            want.codes[k] = (int8_t)lrintf(x * (127 / amax));
            double error = fabs((double)want.codes[k] * want.scale - x);
            if (error > want.scale * (0.5 + 1e-4)) { /* what "nearest" means, but for float32 */
                fail_msg("%s[%u][%u]: %g is not the nearest code of %g", name, (unsigned)row, k,
                         want.codes[k] * want.scale, x);
            }
        }
        want.offset -= 128 * want.codes[k];
    }
    return want;
}

/* Output `lane` of a block is `want`, and zeros follow it up to a whole group of inputs. */
static void expect_output(const uint8_t *block, uint32_t lane, const packed_output *want,
                          uint32_t n_in, const char *name)
{
    assert_memory_equal(block + lane * 4, &want->scale, 4);
    assert_memory_equal(block + 64 + lane * 4, &want->offset, 4);
    for (uint32_t k = 0; k < CMI_ROUND_UP(n_in, 4u); k++) {
        int8_t got = (int8_t)block[128 + (k / 4 * 16 + lane) * 4 + k % 4];
        int8_t code = k < n_in ? want->codes[k] : 0;
        if (got != code) {
            fail_msg("%s, lane %u, input %u: code %d, want %d", name, lane, k, got, code);
        }
    }
}

static const uint8_t *block_at(const cmi_linear *w, size_t idx)
{
    assert_true((uintptr_t)w->w % 64 == 0);
    assert_int_equal(w->stride, 128 + 64 * CMI_DIV_UP(w->n_in, 4u));
    return (const uint8_t *)w->w + idx * w->stride;
}

/* The tensor's n rows are outputs first .. of the blocks first_block, first_block + step, ... */
static void expect_outputs(const loaded *m, const cmi_linear *w, size_t first, size_t n,
                           size_t first_block, size_t step, const char *name)
{
    const source s = source_find(m, name);
    for (size_t row = 0; row < n; row++) {
        size_t output = first + row;
        packed_output want = want_output(&s, row, w->n_in, name);
        expect_output(block_at(w, first_block + output / 16 * step), output % 16, &want, w->n_in,
                      name);
    }
}

/* Lanes n_used .. 15 of a block are zeros. */
static void expect_unused_lanes(const cmi_linear *w, size_t block, uint32_t n_used)
{
    static const packed_output zero = {0};
    for (uint32_t lane = n_used; lane < 16; lane++) {
        expect_output(block_at(w, block), lane, &zero, w->n_in, "unused lane");
    }
}

/* What is behind the last of n outputs in its block. */
static void expect_last_block(const cmi_linear *w, size_t n, size_t first_block, size_t step)
{
    if (n % 16 != 0) {
        expect_unused_lanes(w, first_block + n / 16 * step, n % 16);
    }
}

/* ---- Matrices ---- */

/* Rows first .. first + n of w are the tensor; alignment and padding are as promised. */
static void expect_rows(const loaded *m, const cmi_linear *w, size_t first, size_t n,
                        const char *name)
{
    if (w->dtype == CMI_DTYPE_I8) {
        expect_outputs(m, w, first, n, 0, 1, name);
        return;
    }
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

/* Of what stays out of INT8. */
static cmi_dtype attention_dtype(const loaded *m)
{
    return m->weights->dtype == CMI_DTYPE_I8 ? CMI_DTYPE_BF16 : m->weights->dtype;
}

/* A matrix of its own. */
static void expect_matrix(const loaded *m, const cmi_linear *w, cmi_dtype dtype, uint32_t n_out,
                          uint32_t n_in, const char *name)
{
    assert_int_equal(w->dtype, dtype);
    assert_int_equal(w->n_out, n_out);
    assert_int_equal(w->n_in, n_in);
    expect_rows(m, w, 0, n_out, name);
    if (dtype == CMI_DTYPE_I8) {
        expect_last_block(w, n_out, 0, 1);
    }
}

/* The same of the weights' type. */
static void expect_linear(const loaded *m, const cmi_linear *w, uint32_t n_out, uint32_t n_in,
                          const char *prefix, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    expect_matrix(m, w, m->weights->dtype, n_out, n_in, name);
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
    if (l->qkv_a_proj.dtype == CMI_DTYPE_I8) {
        expect_last_block(&l->qkv_a_proj, c->q_lora_rank + n_kv_a, 0, 1);
    }
    expect_vector(m, l->kv_a_layernorm, attn, "kv_a_layernorm.weight");
    expect_linear(m, &l->kv_b_proj, n_kv, c->kv_lora_rank, attn, "kv_b_proj.weight");
    expect_linear(m, &l->o_proj, c->hidden_size, heads * c->v_head_dim, attn, "o_proj.weight");
}

/* The halves of kv_b_proj for decode: row (head, r) of w_uk_t, column d, is row (head, d) of the
 * tensor, column r; row (head, d) of w_uv is the tensor's row d behind the head's nope ones. */
static void expect_absorbed(const loaded *m, const cmi_layer_weights *l, const char *prefix)
{
    const cmi_model_config *c = &m->config;
    char name[160];
    snprintf(name, sizeof name, "%sself_attn.kv_b_proj.weight", prefix);
    const source s = source_find(m, name);
    uint32_t nope = c->qk_nope_head_dim, v = c->v_head_dim, rank = c->kv_lora_rank;
    assert_int_equal(l->w_uk_t.dtype, attention_dtype(m));
    assert_int_equal(l->w_uk_t.n_out, c->num_attention_heads * rank);
    assert_int_equal(l->w_uk_t.n_in, nope);
    assert_int_equal(l->w_uv.dtype, attention_dtype(m));
    assert_int_equal(l->w_uv.n_out, v);
    assert_int_equal(l->w_uv.n_in, rank);
    for (uint32_t head = 0; head < c->num_attention_heads; head++) {
        cmi_linear w_uv = l->w_uv;
        w_uv.w = (const uint8_t *)w_uv.w + head * l->w_uv_head_stride * cmi_dtype_bytes(w_uv.dtype);
        for (uint32_t r = 0; r < rank; r++) {
            for (uint32_t d = 0; d < nope + v; d++) {
                float want =
                    rounded(source_value(&s, head * (nope + v) + d, r), attention_dtype(m));
                float got = d < nope ? linear_value(&l->w_uk_t, head * rank + r, d)
                                     : linear_value(&w_uv, d - nope, r);
                if (memcmp(&got, &want, sizeof want) != 0) {
                    fail_msg("%s absorbed: head %u, [%u][%u]: %g, want %g", name, head, r, d, got,
                             want);
                }
            }
        }
    }
}

/* prefix ends with a dot here and below. */
static void expect_ffn(const loaded *m, const cmi_ffn *ffn, const char *prefix)
{
    const cmi_linear *gate_up = &ffn->gate_up;
    char gate[160], up[160];
    snprintf(gate, sizeof gate, "%sgate_proj.weight", prefix);
    snprintf(up, sizeof up, "%sup_proj.weight", prefix);
    assert_int_equal(gate_up->dtype, m->weights->dtype);
    assert_int_equal(gate_up->n_out, 2 * ffn->width);
    assert_int_equal(gate_up->n_in, m->config.hidden_size);
    size_t slab;
    if (gate_up->dtype == CMI_DTYPE_I8) {
        expect_outputs(m, gate_up, 0, ffn->width, 0, 2, gate);
        expect_outputs(m, gate_up, 0, ffn->width, 1, 2, up);
        expect_last_block(gate_up, ffn->width, 0, 2);
        expect_last_block(gate_up, ffn->width, 1, 2);
        slab = CMI_DIV_UP(ffn->width, 16u) * 2 * gate_up->stride;
    } else {
        expect_rows(m, gate_up, 0, ffn->width, gate);
        expect_rows(m, gate_up, ffn->width, ffn->width, up);
        slab = gate_up->n_out * gate_up->stride * cmi_dtype_bytes(gate_up->dtype);
    }
    expect_linear(m, &ffn->down, m->config.hidden_size, ffn->width, prefix, "down_proj.weight");
    assert_ptr_equal((const uint8_t *)gate_up->w + slab, ffn->down.w);
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
    expect_absorbed(m, l, prefix);
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
    expect_matrix(m, &w->embed, attention_dtype(m), c->vocab_size, c->hidden_size,
                  "model.embed_tokens.weight");
    if (c->tie_word_embeddings) {
        assert_ptr_equal(w->lm_head.w, w->embed.w);
    } else {
        expect_matrix(m, &w->lm_head, m->int8_head ? w->dtype : attention_dtype(m), c->vocab_size,
                      c->hidden_size, "lm_head.weight");
    }
    expect_vector(m, w->norm, "model.norm.weight", "");
    for (uint32_t i = 0; i < c->num_hidden_layers; i++) {
        expect_layer(m, &w->layers[i], i);
    }
    if (w->mtp != NULL) {
        expect_mtp(m, w->mtp);
    }
}
