/* model/config.c - see config.h. The fields of experts, positions and quantization are read in
 * config_parts.c. */
#include "model/config_internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "os/file.h"

enum { MAX_FILE_BYTES = 16 * 1024 * 1024 };

/* What the family's configuration class says where the file is silent. DeepSeek's V2 class spells
 * its default topk_method "gready"; greedy is meant. */
static cmi_model_config family_defaults(cmi_config_family family)
{
    cmi_model_config c = {
        .moe_layer_freq = 1,
        .n_group = 1,
        .topk_group = 1,
        .scoring_func = CMI_SCORING_SOFTMAX,
        .topk_method = CMI_TOPK_GREEDY,
        .routed_scaling_factor = 1.0,
        .rms_norm_eps = 1e-6,
        .rope_theta = 10000.0,
        .rope_scaling = {.factor = 1.0, .beta_fast = 32, .beta_slow = 1, .mscale = 1.0},
        .bos_token_id = UINT32_MAX,
    };
    if (family == CMI_CONFIG_V3) {
        c.first_k_dense_replace = 3;
        c.n_group = 8;
        c.topk_group = 4;
        c.scoring_func = CMI_SCORING_SIGMOID;
        c.topk_method = CMI_TOPK_NOAUX_TC;
        c.norm_topk_prob = true;
        c.routed_scaling_factor = 2.5;
        c.num_nextn_predict_layers = 1;
    }
    return c;
}

/* ---- Groups of fields ---- */

static cmi_config_family read_family(cmi_json_fields *f)
{
    const char *type = NULL;
    cmi_json_string(f, "model_type", &type);
    if (type == NULL) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "model_type", "is missing");
        return CMI_CONFIG_V3;
    }
    if (strcmp(type, "deepseek_v2") == 0) {
        return CMI_CONFIG_V2;
    }
    if (strcmp(type, "deepseek_v3") != 0 && strcmp(type, "kimi_k2") != 0) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "model_type",
                      "\"%.40s\" is not supported; deepseek_v2, deepseek_v3 and kimi_k2 are", type);
    }
    return CMI_CONFIG_V3;
}

static void refuse_true(cmi_json_fields *f, const char *key)
{
    bool value = false;
    cmi_json_bool(f, key, &value);
    if (value) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, key, "true is not supported");
    }
}

/* Switches that change the architecture into one that is not implemented. */
static void refuse_variants(cmi_json_fields *f)
{
    const char *act = "silu";
    bool use_mla = true;
    cmi_json_string(f, "hidden_act", &act);
    if (strcmp(act, "silu") != 0) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "hidden_act", "\"%.40s\" is not supported; silu is",
                      act);
    }
    refuse_true(f, "attention_bias");
    refuse_true(f, "mlp_bias");
    cmi_json_bool(f, "use_mla", &use_mla);
    if (!use_mla) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "use_mla", "false is not supported");
    }
}

static void read_q_lora_rank(cmi_json_fields *f, cmi_model_config *c)
{
    if (f->status == CMI_OK && json_object_get(f->object, "q_lora_rank") == NULL) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "q_lora_rank", "is missing; null stands for none");
    }
    cmi_json_u32(f, "q_lora_rank", CMI_JSON_OPTIONAL, 0, CMI_CONFIG_MAX_RANK, &c->q_lora_rank);
}

static void read_sizes(cmi_json_fields *f, cmi_model_config *c)
{
    const cmi_json_need need = CMI_JSON_REQUIRED;
    cmi_json_u32(f, "vocab_size", need, 1, CMI_CONFIG_MAX_VOCAB, &c->vocab_size);
    cmi_json_u32(f, "hidden_size", need, 1, CMI_CONFIG_MAX_HIDDEN, &c->hidden_size);
    cmi_json_u32(f, "intermediate_size", need, 1, CMI_CONFIG_MAX_WIDTH, &c->intermediate_size);
    cmi_json_u32(f, "num_hidden_layers", need, 1, CMI_CONFIG_MAX_LAYERS, &c->num_hidden_layers);
    cmi_json_u32(f, "num_attention_heads", need, 1, CMI_CONFIG_MAX_HEADS, &c->num_attention_heads);
    cmi_json_u32(f, "kv_lora_rank", need, 1, CMI_CONFIG_MAX_RANK, &c->kv_lora_rank);
    cmi_json_u32(f, "qk_nope_head_dim", need, 1, CMI_CONFIG_MAX_HEAD_DIM, &c->qk_nope_head_dim);
    cmi_json_u32(f, "qk_rope_head_dim", need, 2, CMI_CONFIG_MAX_HEAD_DIM, &c->qk_rope_head_dim);
    cmi_json_u32(f, "v_head_dim", need, 1, CMI_CONFIG_MAX_HEAD_DIM, &c->v_head_dim);
    cmi_json_u32(f, "max_position_embeddings", need, 1, CMI_CONFIG_MAX_POSITIONS,
                 &c->max_position_embeddings);
    read_q_lora_rank(f, c);
    if (f->status == CMI_OK && c->qk_rope_head_dim % 2 != 0) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "qk_rope_head_dim", "%u is odd; positions rotate pairs",
                      c->qk_rope_head_dim);
    }
    uint32_t n_kv_heads = c->num_attention_heads;
    cmi_json_u32(f, "num_key_value_heads", CMI_JSON_OPTIONAL, 1, CMI_CONFIG_MAX_HEADS, &n_kv_heads);
    if (n_kv_heads != c->num_attention_heads) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "num_key_value_heads",
                      "%u differs from num_attention_heads (%u): latent attention has one latent "
                      "for all heads",
                      n_kv_heads, c->num_attention_heads);
    }
    cmi_json_bool(f, "tie_word_embeddings", &c->tie_word_embeddings);
    cmi_json_double(f, "rms_norm_eps", CMI_JSON_OPTIONAL, 1e-30, 1.0, &c->rms_norm_eps);
    uint32_t n_mtp = c->num_nextn_predict_layers;
    cmi_json_u32(f, "num_nextn_predict_layers", CMI_JSON_OPTIONAL, 0, CMI_CONFIG_MAX_LAYERS,
                 &n_mtp);
    if (n_mtp > 1) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "num_nextn_predict_layers",
                      "%u is not supported; 0 and 1 are", n_mtp);
    }
    c->num_nextn_predict_layers = n_mtp;
}

/* ---- Token ids ---- */

static void add_eos(cmi_json_fields *f, cmi_model_config *c, const json_t *id)
{
    long long x = json_integer_value(id);
    if (!json_is_integer(id) || x < 0 || x >= c->vocab_size) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "eos_token_id",
                      "is not a token id below vocab_size (%u), or a list of them", c->vocab_size);
        return;
    }
    for (uint32_t i = 0; i < c->n_eos_token_ids; i++) {
        if (c->eos_token_ids[i] == x) {
            return;
        }
    }
    if (c->n_eos_token_ids == CMI_LEN(c->eos_token_ids)) {
        cmi_json_fail(f, CMI_ERR_TOO_LARGE, "eos_token_id", "more than %zu different ids",
                      CMI_LEN(c->eos_token_ids));
        return;
    }
    c->eos_token_ids[c->n_eos_token_ids++] = (uint32_t)x;
}

static void read_eos(cmi_json_fields *f, cmi_model_config *c)
{
    const json_t *eos = f->status == CMI_OK ? cmi_json_get(f, "eos_token_id") : NULL;
    if (eos == NULL) {
        return;
    }
    if (!json_is_array(eos)) {
        add_eos(f, c, eos);
        return;
    }
    for (size_t i = 0; i < json_array_size(eos) && f->status == CMI_OK; i++) {
        add_eos(f, c, json_array_get(eos, i));
    }
}

/* ---- Interface ---- */

cmi_status cmi_model_config_parse(cmi_model_config *config_out, const char *text, size_t n_bytes,
                                  const char *name, cmi_error *err)
{
    json_t *root;
    cmi_status st = cmi_json_parse_object(&root, text, n_bytes, name, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_json_fields f = {root, name, "", err, CMI_OK};
    cmi_config_family family = read_family(&f);
    cmi_model_config c = family_defaults(family);
    refuse_variants(&f);
    read_sizes(&f, &c);
    cmi_config_read_experts(&f, &c, family);
    cmi_config_read_rope(&f, &c);
    cmi_config_read_quantization(&f, &c);
    if (f.status == CMI_OK) {
        cmi_json_u32(&f, "bos_token_id", CMI_JSON_OPTIONAL, 0, c.vocab_size - 1, &c.bos_token_id);
    }
    read_eos(&f, &c);
    json_decref(root);
    if (f.status == CMI_OK) {
        *config_out = c;
    }
    return f.status;
}

static cmi_generation_config generation_defaults(void)
{
    return (cmi_generation_config){
        .temperature = NAN, .top_p = NAN, .repetition_penalty = NAN, .do_sample = true};
}

cmi_status cmi_generation_config_parse(cmi_generation_config *generation_out,
                                       cmi_model_config *config, const char *text, size_t n_bytes,
                                       const char *name, cmi_error *err)
{
    json_t *root;
    cmi_status st = cmi_json_parse_object(&root, text, n_bytes, name, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_json_fields f = {root, name, "", err, CMI_OK};
    cmi_generation_config g = generation_defaults();
    cmi_model_config c = *config;
    const cmi_json_need may = CMI_JSON_OPTIONAL;
    cmi_json_double(&f, "temperature", may, 0, 1e3, &g.temperature);
    cmi_json_double(&f, "top_p", may, 0, 1, &g.top_p);
    cmi_json_u32(&f, "top_k", may, 0, INT32_MAX, &g.top_k);
    cmi_json_double(&f, "repetition_penalty", may, 0, 1e3, &g.repetition_penalty);
    cmi_json_bool(&f, "do_sample", &g.do_sample);
    read_eos(&f, &c);
    json_decref(root);
    if (f.status == CMI_OK) {
        *generation_out = g;
        *config = c;
    }
    return f.status;
}

/* Reads dir/name whole; path_out is the joined path, for error lines. */
static cmi_status read_file(cmi_buf *text, char path_out[PATH_MAX], const char *dir,
                            const char *name, cmi_error *err)
{
    int n = snprintf(path_out, PATH_MAX, "%s/%s", dir, name);
    if (n < 0 || n >= PATH_MAX) {
        cmi_buf_init(text, 0);
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "%s: path is longer than %d bytes", dir,
                             PATH_MAX);
    }
    return cmi_file_read(text, path_out, MAX_FILE_BYTES, err);
}

static cmi_status load_generation(cmi_generation_config *g, cmi_model_config *c, const char *dir,
                                  cmi_error *err)
{
    char path[PATH_MAX];
    cmi_buf text;
    cmi_error no_file;
    cmi_status st = read_file(&text, path, dir, "generation_config.json", &no_file);
    if (st == CMI_OK) {
        st = cmi_generation_config_parse(g, c, cmi_buf_cstr(&text), text.len, path, err);
    } else if (st == CMI_ERR_NOT_FOUND) {
        st = CMI_OK;
    } else {
        st = cmi_error_set(err, st, "%s", no_file.text);
    }
    cmi_buf_deinit(&text);
    return st;
}

cmi_status cmi_model_config_load(cmi_model_config *config_out,
                                 cmi_generation_config *generation_out, const char *dir,
                                 cmi_error *err)
{
    char path[PATH_MAX];
    cmi_buf text;
    cmi_model_config c = {0};
    cmi_generation_config g = generation_defaults();
    cmi_status st = read_file(&text, path, dir, "config.json", err);
    if (st == CMI_OK) {
        st = cmi_model_config_parse(&c, cmi_buf_cstr(&text), text.len, path, err);
    }
    cmi_buf_deinit(&text);
    if (st != CMI_OK) {
        return st;
    }
    st = load_generation(&g, &c, dir, err);
    if (st == CMI_OK) {
        *config_out = c;
        *generation_out = g;
    }
    return st;
}

bool cmi_model_config_is_moe(const cmi_model_config *config, uint32_t layer_idx)
{
    if (config->n_routed_experts == 0) {
        return false;
    }
    if (layer_idx >= config->num_hidden_layers) {
        return true;
    }
    return layer_idx >= config->first_k_dense_replace && layer_idx % config->moe_layer_freq == 0;
}
