/* Checkpoints made for the test: every variant of the two families in every dtype with awkward
 * sizes, and everything that is wrong with one is refused by name. */
#include "tests/test.h"

#include "model/weights_internal.h"
#include "tests/model/fixture.h"
#include "tests/model/weights_expect.h"

/* No size is a multiple of a cache line, and scale blocks end in the middle of rows and columns. */
#define SIZES                                                                                      \
    "\"vocab_size\":7,\"hidden_size\":20,\"intermediate_size\":37,\"moe_intermediate_size\":6,"    \
    "\"num_attention_heads\":2,\"kv_lora_rank\":10,\"qk_nope_head_dim\":3,\"qk_rope_head_dim\":2," \
    "\"v_head_dim\":5,\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"n_group\":2,"             \
    "\"topk_group\":1,\"max_position_embeddings\":64,\"num_hidden_layers\":3,"
#define FP8 "\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[4,8]},"
#define W8A8 "\"quantization_config\":{\"quant_method\":\"w8a8_int8\"},"
#define V3_AS(quantization)                                                                        \
    "{" SIZES quantization                                                                         \
    "\"model_type\":\"deepseek_v3\",\"q_lora_rank\":9,\"first_k_dense_replace\":1,"                \
    "\"n_shared_experts\":2,\"num_nextn_predict_layers\":1}"
#define V2_AS(quantization)                                                                        \
    "{" SIZES quantization                                                                         \
    "\"model_type\":\"deepseek_v2\",\"q_lora_rank\":null,\"tie_word_embeddings\":true,"            \
    "\"topk_method\":\"group_limited_greedy\",\"moe_layer_freq\":2}"

#define V3 V3_AS(FP8)
#define V2 V2_AS(FP8)
#define L1 "model.layers.1."

/* One deviation from what the config asks for; all NULL: none. */
typedef struct edit {
    const char *name;  /* of the tensor to change */
    const char *dtype; /* NULL: leave it out */
    uint64_t n_rows, n_cols;
    bool same_shape;   /* change the dtype only */
    bool zeros;        /* change the values only */
    const char *extra; /* name of a tensor to add */
} edit;

typedef struct maker {
    st_builder b;
    const char *dtype;           /* of matrices */
    const char *int8_scale;      /* dtype of an I8 matrix's weight_scale */
    bool int8_scale_is_a_vector; /* [n] instead of [n, 1] */
    edit change;
    uint32_t seed;
} maker;

static size_t element_bytes(const char *dtype)
{
    bool is_byte = strcmp(dtype, "F8_E4M3") == 0 || strcmp(dtype, "I8") == 0;
    return strcmp(dtype, "F32") == 0 ? 4 : is_byte ? 1 : 2;
}

/* Any finite values, whatever the type: bytes from a small generator, and exponents that are all
 * ones or, for F32, extreme are cleared. */
static void random_values(uint8_t *out, size_t n_bytes, const char *dtype, uint32_t *seed)
{
    size_t size = element_bytes(dtype);
    for (size_t i = 0; i < n_bytes; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        out[i] = (uint8_t)(*seed >> 24);
        bool top = i % size == size - 1;
        if (size == 1 && (out[i] & 0x7F) == 0x7F) {
            out[i] = 0x70;
        } else if (size == 2 && top) {
            out[i] = strcmp(dtype, "F16") == 0 ? out[i] & 0xBB : (out[i] & 0x81) | 0x3E;
        } else if (size == 4 && top) {
            out[i] = (out[i] & 0x81) | 0x3E;
        }
    }
}

static void add(maker *m, const char *name, const char *dtype, uint64_t n_rows, uint64_t n_cols)
{
    bool is_changed = m->change.name != NULL && strcmp(name, m->change.name) == 0;
    if (is_changed && !m->change.zeros) {
        if (m->change.dtype == NULL) {
            return;
        }
        dtype = m->change.dtype;
        n_rows = m->change.same_shape ? n_rows : m->change.n_rows;
        n_cols = m->change.same_shape ? n_cols : m->change.n_cols;
    }
    static uint8_t bytes[1 << 16];
    size_t n_bytes = CMI_MAX(n_rows, 1u) * n_cols * element_bytes(dtype);
    assert_true(n_bytes <= sizeof bytes);
    random_values(bytes, n_bytes, dtype, &m->seed);
    bool is_zero = is_changed && m->change.zeros;
    st_add(&m->b, name, dtype, n_rows, n_cols, is_zero ? NULL : bytes, n_bytes);
}

static void vector(maker *m, const char *prefix, const char *suffix, uint64_t n)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    add(m, name, "BF16", 0, n);
}

static void matrix(maker *m, const char *prefix, const char *suffix, uint64_t n_rows,
                   uint64_t n_cols)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s.weight", prefix, suffix);
    add(m, name, m->dtype, n_rows, n_cols);
    if (strcmp(m->dtype, "F8_E4M3") == 0) {
        snprintf(name, sizeof name, "%s%s.weight_scale_inv", prefix, suffix);
        add(m, name, "F32", CMI_DIV_UP(n_rows, 4), CMI_DIV_UP(n_cols, 8));
    } else if (strcmp(m->dtype, "I8") == 0) {
        snprintf(name, sizeof name, "%s%s.weight_scale", prefix, suffix);
        bool is_vector = m->int8_scale_is_a_vector;
        add(m, name, m->int8_scale, is_vector ? 0 : n_rows, is_vector ? n_rows : 1);
    }
}

static void network(maker *m, const char *prefix, uint64_t width)
{
    matrix(m, prefix, "gate_proj", width, 20);
    matrix(m, prefix, "up_proj", width, 20);
    matrix(m, prefix, "down_proj", 20, width);
}

static void attention(maker *m, const cmi_model_config *c, const char *prefix)
{
    if (c->q_lora_rank > 0) {
        matrix(m, prefix, "q_a_proj", 9, 20);
        vector(m, prefix, "q_a_layernorm.weight", 9);
        matrix(m, prefix, "q_b_proj", 10, 9);
    } else {
        matrix(m, prefix, "q_proj", 10, 20);
    }
    matrix(m, prefix, "kv_a_proj_with_mqa", 12, 20);
    vector(m, prefix, "kv_a_layernorm.weight", 10);
    matrix(m, prefix, "kv_b_proj", 16, 10);
    matrix(m, prefix, "o_proj", 20, 10);
}

static void layer(maker *m, const cmi_model_config *c, uint32_t idx)
{
    char prefix[64];
    char part[96];
    snprintf(prefix, sizeof prefix, "model.layers.%u.", idx);
    vector(m, prefix, "input_layernorm.weight", 20);
    vector(m, prefix, "post_attention_layernorm.weight", 20);
    snprintf(part, sizeof part, "%sself_attn.", prefix);
    attention(m, c, part);
    snprintf(part, sizeof part, "%smlp.", prefix);
    if (!cmi_model_config_is_moe(c, idx)) {
        network(m, part, 37);
        return;
    }
    snprintf(part, sizeof part, "%smlp.gate.weight", prefix);
    add(m, part, "BF16", 4, 20);
    if (c->topk_method == CMI_TOPK_NOAUX_TC) {
        snprintf(part, sizeof part, "%smlp.gate.e_score_correction_bias", prefix);
        add(m, part, "F32", 0, 4);
    }
    for (uint32_t e = 0; e < 4; e++) {
        snprintf(part, sizeof part, "%smlp.experts.%u.", prefix, e);
        network(m, part, 6);
    }
    if (c->n_shared_experts > 0) {
        snprintf(part, sizeof part, "%smlp.shared_experts.", prefix);
        network(m, part, 6 * c->n_shared_experts);
    }
}

/* Writes a checkpoint as the config asks for, as the maker says. A tensor of one byte goes first,
 * so that nothing is aligned; no config asks for it. */
static void write_model(const temp_dir *dir, const char *config, maker *m, bool with_mtp)
{
    cmi_model_config c;
    cmi_error err = {0};
    if (cmi_model_config_parse(&c, config, strlen(config), "config", &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    temp_write_text(dir, "config.json", config);
    m->seed = 1;
    st_begin(&m->b);
    st_add(&m->b, "odd", "U8", 0, 1, NULL, 1);
    add(m, "model.embed_tokens.weight", "BF16", 7, 20);
    for (uint32_t i = 0; i < c.num_hidden_layers; i++) {
        layer(m, &c, i);
    }
    if (with_mtp) {
        layer(m, &c, c.num_hidden_layers);
        vector(m, "model.layers.3.", "enorm.weight", 20);
        vector(m, "model.layers.3.", "hnorm.weight", 20);
        vector(m, "model.layers.3.", "shared_head.norm.weight", 20);
        matrix(m, "model.layers.3.", "eh_proj", 20, 40);
    }
    vector(m, "model.norm", ".weight", 20);
    if (!c.tie_word_embeddings) {
        add(m, "lm_head.weight", "BF16", 7, 20);
    }
    if (m->change.extra != NULL) {
        st_add(&m->b, m->change.extra, "U8", 0, 1, NULL, 1);
    }
    st_write(&m->b, dir, "model.safetensors");
}

/* Its matrices in dtype, but for one change. */
static void make_model(const temp_dir *dir, const char *config, const char *dtype, edit change,
                       bool with_mtp)
{
    maker m = {.dtype = dtype, .int8_scale = "F32", .change = change};
    write_model(dir, config, &m, with_mtp);
}

static void expect_loads(const temp_dir *dir, loaded_types types, bool with_mtp)
{
    loaded m;
    cmi_error err = {0};
    if (loaded_open(&m, dir->path, types, 2, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(m.weights->mtp != NULL, with_mtp);
    assert_int_equal(m.weights->n_bytes, m.estimated_bytes);
    loaded_expect_all(&m);
    loaded_close(&m);
}

static const loaded_types all_types[] = {
    {CMI_DTYPE_F32}, {CMI_DTYPE_BF16}, {CMI_DTYPE_I8, false}, {CMI_DTYPE_I8, true}};

static void every_family_loads_from_every_dtype(void **state)
{
    (void)state;
    static const char *const configs[] = {V3, V2};
    static const char *const dtypes[] = {"F32", "F16", "BF16", "F8_E4M3"};
    for (size_t i = 0; i < CMI_LEN(configs) * CMI_LEN(dtypes); i++) {
        temp_dir dir;
        temp_dir_make(&dir);
        bool is_v3 = i % 2 == 0;
        make_model(&dir, configs[i % 2], dtypes[i / 2], (edit){0}, is_v3);
        for (size_t t = 0; t < CMI_LEN(all_types); t++) {
            expect_loads(&dir, all_types[t], is_v3);
        }
        temp_dir_remove(&dir);
    }
}

static void int8_files_load_with_every_kind_of_scale(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 8; kind++) {
        temp_dir dir;
        temp_dir_make(&dir);
        bool is_v3 = (kind & 4) == 0;
        maker m = {.dtype = "I8",
                   .int8_scale = (kind & 1) == 0 ? "F32" : "BF16",
                   .int8_scale_is_a_vector = (kind & 2) != 0};
        write_model(&dir, is_v3 ? V3_AS(W8A8) : V2_AS(W8A8), &m, is_v3);
        for (size_t t = 0; t < CMI_LEN(all_types); t++) {
            expect_loads(&dir, all_types[t], is_v3);
        }
        temp_dir_remove(&dir);
    }
}

/* There is no amax to divide by. */
static void a_matrix_of_zeros_is_packed_as_zeros(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_model(&dir, V3, "BF16", (edit){.name = L1 "mlp.experts.2.down_proj.weight", .zeros = true},
               true);
    cmi_model_config c;
    cmi_generation_config g;
    cmi_error err = {0};
    cmi_weights *w;
    cmi_weights_options opt = {.dtype = CMI_DTYPE_I8, .with_mtp = true};
    assert_int_equal(cmi_team_create(&opt.team, 2, &err), CMI_OK);
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), CMI_OK);
    assert_int_equal(cmi_weights_load(&w, &c, dir.path, &opt, &err), CMI_OK);
    const cmi_linear *down = &w->layers[1].experts[2].down;
    const uint8_t *bytes = down->w;
    for (size_t i = 0; i < 2 * down->stride; i++) {
        assert_int_equal(bytes[i], 0);
    }
    cmi_weights_destroy(w);
    cmi_team_destroy(opt.team);
    temp_dir_remove(&dir);
}

/* An int32 could not hold the sum. */
static void a_matrix_too_wide_for_int8_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *width;
        cmi_status status;
    } cases[] = {{"65536", CMI_OK}, {"65537", CMI_ERR_UNSUPPORTED}};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        char text[sizeof V3 + 16];
        const char *v3 = V3;
        const char *at = strstr(v3, "\"intermediate_size\":37");
        snprintf(text, sizeof text, "%.*s\"intermediate_size\":%s%s", (int)(at - v3), v3,
                 cases[i].width, at + strlen("\"intermediate_size\":37"));
        cmi_model_config c;
        cmi_error err = {0};
        assert_int_equal(cmi_model_config_parse(&c, text, strlen(text), "x", &err), CMI_OK);
        cmi_weights_plan plan = {.config = &c, .dtype = CMI_DTYPE_I8, .err = &err};
        assert_null(cmi_weights_plan_walk(&plan));
        assert_int_equal(plan.status, cases[i].status);
        if (cases[i].status != CMI_OK) {
            assert_non_null(strstr(err.text, "at most 65536 inputs, one has 65537"));
        }
    }
}

static void a_config_with_mtp_and_files_without_load_without(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_model(&dir, V3, "BF16", (edit){0}, false);
    loaded m;
    cmi_error err = {0};
    assert_int_equal(loaded_open(&m, dir.path, (loaded_types){CMI_DTYPE_BF16}, 1, &err), CMI_OK);
    assert_null(m.weights->mtp);
    assert_true(m.weights->n_bytes < m.estimated_bytes); /* the estimate counts what config names */
    loaded_expect_all(&m);
    loaded_close(&m);
    temp_dir_remove(&dir);
}

static void mtp_can_be_left_out(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_model(&dir, V3, "BF16", (edit){0}, true);
    cmi_model_config c;
    cmi_generation_config g;
    cmi_error err = {0};
    cmi_weights *w;
    cmi_weights_options opt = {.dtype = CMI_DTYPE_F32};
    assert_int_equal(cmi_team_create(&opt.team, 1, &err), CMI_OK);
    assert_int_equal(cmi_model_config_load(&c, &g, dir.path, &err), CMI_OK);
    assert_int_equal(cmi_weights_load(&w, &c, dir.path, &opt, &err), CMI_OK);
    assert_null(w->mtp);
    assert_int_equal(w->n_bytes, cmi_weights_estimate_bytes(&c, &opt));
    cmi_weights_destroy(w);
    cmi_weights_destroy(NULL);
    cmi_team_destroy(opt.team);
    temp_dir_remove(&dir);
}

static void other_types_are_no_compute_types(void **state)
{
    (void)state;
    cmi_model_config c = {0};
    cmi_error err = {0};
    cmi_weights *w;
    cmi_weights_options opt = {.dtype = CMI_DTYPE_F16};
    assert_int_equal(cmi_weights_load(&w, &c, "/none", &opt, &err), CMI_ERR_INVALID);
}

typedef struct wrong_tensor {
    edit change;
    cmi_status status;
    const char *says; /* a part of the error line */
} wrong_tensor;

static void expect_refused(const wrong_tensor *wrong, const char *config, const char *dtype)
{
    temp_dir dir;
    temp_dir_make(&dir);
    make_model(&dir, config, dtype, wrong->change, true);
    loaded m;
    cmi_error err = {0};
    cmi_status st = loaded_open(&m, dir.path, (loaded_types){CMI_DTYPE_BF16}, 1, &err);
    if (st != wrong->status || strstr(err.text, wrong->says) == NULL ||
        strstr(err.text, dir.path) == NULL) {
        fail_msg("\"%s\": %d, %s", wrong->says, st, err.text);
    }
    temp_dir_remove(&dir);
}

static void wrong_tensors_are_refused_by_name(void **state)
{
    (void)state;
    static const wrong_tensor cases[] = {
        {{"lm_head.weight", NULL}, CMI_ERR_BAD_DATA, "tensor lm_head.weight is missing"},
        {{L1 "self_attn.q_b_proj.weight", NULL}, CMI_ERR_BAD_DATA, "q_b_proj.weight is missing"},
        {{L1 "mlp.gate.e_score_correction_bias", NULL}, CMI_ERR_BAD_DATA, "bias is missing"},
        {{L1 "mlp.experts.3.up_proj.weight", NULL}, CMI_ERR_BAD_DATA, "experts.3.up_proj.weight"},
        {{"model.layers.3.hnorm.weight", NULL}, CMI_ERR_BAD_DATA, "layers.3.hnorm.weight is miss"},
        {{"model.norm.weight", "BF16", 0, 21},
         CMI_ERR_BAD_DATA,
         "[21], but config.json asks for [20]"},
        {{"model.norm.weight", "BF16", 1, 20}, CMI_ERR_BAD_DATA, "[1, 20], but config.json asks"},
        {{"lm_head.weight", "BF16", 0, 20},
         CMI_ERR_BAD_DATA,
         "[20], but config.json asks for [7, 20]"},
        {{"lm_head.weight", "BF16", 20, 7}, CMI_ERR_BAD_DATA, "[20, 7], but config.json asks"},
        {{L1 "mlp.experts.0.down_proj.weight", "F8_E4M3", 20, 5}, CMI_ERR_BAD_DATA, "[20, 5], but"},
        {{L1 "self_attn.o_proj.weight_scale_inv", NULL},
         CMI_ERR_BAD_DATA,
         "o_proj.weight_scale_inv is missing"},
        {{L1 "self_attn.o_proj.weight_scale_inv", "F32", 5, 3},
         CMI_ERR_BAD_DATA,
         "[5, 3], but config.json asks for [5, 2]"},
        {{L1 "self_attn.o_proj.weight_scale_inv", "BF16", .same_shape = true},
         CMI_ERR_UNSUPPORTED,
         "o_proj.weight_scale_inv: dtype BF16"},
        {{L1 "self_attn.o_proj.weight", "I16", .same_shape = true},
         CMI_ERR_UNSUPPORTED,
         "o_proj.weight: dtype I16"},
        {{"model.norm.weight", "F8_E4M3", .same_shape = true},
         CMI_ERR_UNSUPPORTED,
         "model.norm.weight: dtype F8_E4M3"},
        {{.extra = "model.layers.4.x"}, CMI_ERR_BAD_DATA, "layers.4.x belongs to a layer beyond"},
        {{.extra = "model.layers.99999999999999999999.x"},
         CMI_ERR_BAD_DATA,
         "a layer beyond the 4"},
        {{.extra = L1 "mlp.experts.4.x"}, CMI_ERR_BAD_DATA, "experts.4.x belongs to an expert"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        expect_refused(&cases[i], V3, "F8_E4M3");
    }
}

static void wrong_int8_tensors_are_refused_by_name(void **state)
{
    (void)state;
    static const wrong_tensor cases[] = {
        {{L1 "self_attn.o_proj.weight_scale", NULL},
         CMI_ERR_BAD_DATA,
         "o_proj.weight_scale is missing"},
        {{L1 "self_attn.o_proj.weight_scale", "F32", 19, 1},
         CMI_ERR_BAD_DATA,
         "[19, 1], but config.json asks for [20, 1]"},
        {{L1 "self_attn.o_proj.weight_scale", "F32", 20, 2},
         CMI_ERR_BAD_DATA,
         "[20, 2], but config.json asks for [20, 1]"},
        {{L1 "self_attn.o_proj.weight_scale", "F32", 0, 19},
         CMI_ERR_BAD_DATA,
         "[19], but config.json asks for [20]"},
        {{L1 "self_attn.o_proj.weight_scale", "F16", .same_shape = true},
         CMI_ERR_UNSUPPORTED,
         "o_proj.weight_scale: dtype F16 is not supported for scales; F32 and BF16 are"},
        {{"model.norm.weight", "I8", .same_shape = true},
         CMI_ERR_UNSUPPORTED,
         "model.norm.weight: dtype I8"},
        {{L1 "mlp.experts.0.down_proj.weight", "I8", 20, 5}, CMI_ERR_BAD_DATA, "[20, 5], but"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        expect_refused(&cases[i], V3_AS(W8A8), "I8");
    }
}

static void unused_tensors_are_ignored(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.1.rotary_emb.inv_freq", "model.layers.x",
                                        "model.layers.1.mlp.experts.x", "visual.blocks.9"};
    for (size_t i = 0; i < CMI_LEN(names); i++) {
        temp_dir dir;
        temp_dir_make(&dir);
        make_model(&dir, V3, "BF16", (edit){.extra = names[i]}, true);
        loaded m;
        cmi_error err = {0};
        assert_int_equal(loaded_open(&m, dir.path, (loaded_types){CMI_DTYPE_BF16}, 1, &err),
                         CMI_OK);
        loaded_close(&m);
        temp_dir_remove(&dir);
    }
}

static void quantized_files_need_their_quantization_config(void **state)
{
    (void)state;
    static const struct {
        const char *dtype, *made_as, *config, *says;
    } cases[] = {
        {"F8_E4M3", V3, V3_AS(""), "dtype is F8_E4M3, but config.json has no quantization_config"},
        {"F8_E4M3", V3, V3_AS(W8A8),
         "dtype is F8_E4M3, but config.json has no quantization_config"},
        {"I8", V3_AS(W8A8), V3_AS(""), "dtype is I8, but config.json has no quantization_config"},
        {"I8", V3_AS(W8A8), V3, "dtype is I8, but config.json has no quantization_config"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        temp_dir dir;
        temp_dir_make(&dir);
        make_model(&dir, cases[i].made_as, cases[i].dtype, (edit){0}, true);
        temp_write_text(&dir, "config.json", cases[i].config);
        loaded m;
        cmi_error err = {0};
        assert_int_equal(loaded_open(&m, dir.path, (loaded_types){CMI_DTYPE_BF16}, 1, &err),
                         CMI_ERR_BAD_DATA);
        assert_non_null(strstr(err.text, cases[i].says));
        temp_dir_remove(&dir);
    }
}

/* A config that asks for far more than any machine has is found out by the files' shapes. */
static void sizes_are_checked_before_memory_is_taken(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    make_model(&dir, V3, "BF16", (edit){0}, true);
    char huge[sizeof V3 + 16];
    const char *v3 = V3;
    const char *at = strstr(v3, "\"vocab_size\":7");
    snprintf(huge, sizeof huge, "%.*s\"vocab_size\":4000000%s", (int)(at - v3), v3,
             at + strlen("\"vocab_size\":7"));
    temp_write_text(&dir, "config.json", huge);
    loaded m;
    cmi_error err = {0};
    assert_int_equal(loaded_open(&m, dir.path, (loaded_types){CMI_DTYPE_F32}, 1, &err),
                     CMI_ERR_BAD_DATA);
    assert_non_null(strstr(err.text, "[7, 20], but config.json asks for [4000000, 20]"));
    temp_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_loads_from_every_dtype),
        cmocka_unit_test(int8_files_load_with_every_kind_of_scale),
        cmocka_unit_test(a_matrix_of_zeros_is_packed_as_zeros),
        cmocka_unit_test(a_matrix_too_wide_for_int8_is_refused),
        cmocka_unit_test(a_config_with_mtp_and_files_without_load_without),
        cmocka_unit_test(mtp_can_be_left_out),
        cmocka_unit_test(other_types_are_no_compute_types),
        cmocka_unit_test(wrong_tensors_are_refused_by_name),
        cmocka_unit_test(wrong_int8_tensors_are_refused_by_name),
        cmocka_unit_test(unused_tensors_are_ignored),
        cmocka_unit_test(quantized_files_need_their_quantization_config),
        cmocka_unit_test(sizes_are_checked_before_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
