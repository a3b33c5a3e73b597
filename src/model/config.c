/* model/config.c - see config.h.
 *
 * The limits below are far above every published model and low enough that no product of sizes in
 * model/ or engine/ can overflow 64 bits: the largest, layers x experts x 3 matrices x width x
 * hidden_size x 4 bytes, stays under 2^62. A row's length (heads x head dimensions, 2 x width)
 * stays under 2^27. */
#include "model/config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/json_fields.h"
#include "os/file.h"

enum {
    MAX_FILE_BYTES = 16 * 1024 * 1024,
    MAX_VOCAB = 1 << 24,
    MAX_HIDDEN = 1 << 16,
    MAX_WIDTH = 1 << 20,
    MAX_LAYERS = 1 << 10,
    MAX_HEADS = 1 << 12,
    MAX_HEAD_DIM = 1 << 12,
    MAX_RANK = 1 << 16,
    MAX_EXPERTS = 1 << 12,
    MAX_SHARED_EXPERTS = 1 << 6,
    MAX_POSITIONS = 1 << 30,
    MAX_FP8_BLOCK = 1 << 16,
};

typedef enum family { FAMILY_V2, FAMILY_V3 } family;

/* What the family's configuration class says where the file is silent. DeepSeek's V2 class spells
 * its default topk_method "gready"; greedy is meant. */
static cmi_model_config family_defaults(family f)
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
    if (f == FAMILY_V3) {
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

static family read_family(cmi_json_fields *f)
{
    const char *type = NULL;
    cmi_json_string(f, "model_type", &type);
    if (type == NULL) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "model_type", "is missing");
        return FAMILY_V3;
    }
    if (strcmp(type, "deepseek_v2") == 0) {
        return FAMILY_V2;
    }
    if (strcmp(type, "deepseek_v3") != 0 && strcmp(type, "kimi_k2") != 0) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "model_type",
                      "\"%.40s\" is not supported; deepseek_v2, deepseek_v3 and kimi_k2 are", type);
    }
    return FAMILY_V3;
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
    cmi_json_u32(f, "q_lora_rank", CMI_JSON_OPTIONAL, 0, MAX_RANK, &c->q_lora_rank);
}

static void read_sizes(cmi_json_fields *f, cmi_model_config *c)
{
    const cmi_json_need need = CMI_JSON_REQUIRED;
    cmi_json_u32(f, "vocab_size", need, 1, MAX_VOCAB, &c->vocab_size);
    cmi_json_u32(f, "hidden_size", need, 1, MAX_HIDDEN, &c->hidden_size);
    cmi_json_u32(f, "intermediate_size", need, 1, MAX_WIDTH, &c->intermediate_size);
    cmi_json_u32(f, "num_hidden_layers", need, 1, MAX_LAYERS, &c->num_hidden_layers);
    cmi_json_u32(f, "num_attention_heads", need, 1, MAX_HEADS, &c->num_attention_heads);
    cmi_json_u32(f, "kv_lora_rank", need, 1, MAX_RANK, &c->kv_lora_rank);
    cmi_json_u32(f, "qk_nope_head_dim", need, 1, MAX_HEAD_DIM, &c->qk_nope_head_dim);
    cmi_json_u32(f, "qk_rope_head_dim", need, 2, MAX_HEAD_DIM, &c->qk_rope_head_dim);
    cmi_json_u32(f, "v_head_dim", need, 1, MAX_HEAD_DIM, &c->v_head_dim);
    cmi_json_u32(f, "max_position_embeddings", need, 1, MAX_POSITIONS, &c->max_position_embeddings);
    read_q_lora_rank(f, c);
    if (f->status == CMI_OK && c->qk_rope_head_dim % 2 != 0) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "qk_rope_head_dim", "%u is odd; positions rotate pairs",
                      c->qk_rope_head_dim);
    }
    uint32_t n_kv_heads = c->num_attention_heads;
    cmi_json_u32(f, "num_key_value_heads", CMI_JSON_OPTIONAL, 1, MAX_HEADS, &n_kv_heads);
    if (n_kv_heads != c->num_attention_heads) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "num_key_value_heads",
                      "%u differs from num_attention_heads (%u): latent attention has one latent "
                      "for all heads",
                      n_kv_heads, c->num_attention_heads);
    }
    cmi_json_bool(f, "tie_word_embeddings", &c->tie_word_embeddings);
    cmi_json_double(f, "rms_norm_eps", CMI_JSON_OPTIONAL, 1e-30, 1.0, &c->rms_norm_eps);
    uint32_t n_mtp = c->num_nextn_predict_layers;
    cmi_json_u32(f, "num_nextn_predict_layers", CMI_JSON_OPTIONAL, 0, MAX_LAYERS, &n_mtp);
    if (n_mtp > 1) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "num_nextn_predict_layers",
                      "%u is not supported; 0 and 1 are", n_mtp);
    }
    c->num_nextn_predict_layers = n_mtp;
}

static void read_scoring(cmi_json_fields *f, cmi_model_config *c)
{
    const char *func = NULL;
    cmi_json_string(f, "scoring_func", &func);
    if (func != NULL && strcmp(func, "sigmoid") == 0) {
        c->scoring_func = CMI_SCORING_SIGMOID;
    } else if (func != NULL && strcmp(func, "softmax") == 0) {
        c->scoring_func = CMI_SCORING_SOFTMAX;
    } else if (func != NULL) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "scoring_func",
                      "\"%.40s\" is not supported; sigmoid and softmax are", func);
    }
}

static void read_topk_method(cmi_json_fields *f, cmi_model_config *c)
{
    static const struct {
        const char *name;
        cmi_topk_method method;
    } rows[] = {
        {"greedy", CMI_TOPK_GREEDY},
        {"gready", CMI_TOPK_GREEDY},
        {"group_limited_greedy", CMI_TOPK_GROUP_LIMITED_GREEDY},
        {"noaux_tc", CMI_TOPK_NOAUX_TC},
    };
    const char *name = NULL;
    cmi_json_string(f, "topk_method", &name);
    if (name == NULL) {
        return;
    }
    for (size_t i = 0; i < CMI_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            c->topk_method = rows[i].method;
            return;
        }
    }
    cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "topk_method",
                  "\"%.40s\" is not supported; greedy, group_limited_greedy and noaux_tc are",
                  name);
}

/* Groups of experts matter to the methods that rank groups; greedy takes no notice of them. */
static void check_groups(cmi_json_fields *f, cmi_model_config *c)
{
    if (c->topk_method == CMI_TOPK_GREEDY) {
        c->n_group = 1;
        c->topk_group = 1;
        return;
    }
    uint32_t n_experts = c->n_routed_experts;
    if (n_experts % c->n_group != 0) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "n_group", "%u does not divide n_routed_experts (%u)",
                      c->n_group, n_experts);
        return;
    }
    uint32_t group_experts = n_experts / c->n_group;
    if (c->topk_group > c->n_group) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "topk_group", "%u is more than n_group (%u)",
                      c->topk_group, c->n_group);
    } else if (c->num_experts_per_tok > c->topk_group * group_experts) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "num_experts_per_tok",
                      "%u is more than the %u experts of topk_group groups", c->num_experts_per_tok,
                      c->topk_group * group_experts);
    } else if (c->topk_method == CMI_TOPK_NOAUX_TC && c->n_group > 1 && group_experts < 2) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "n_group",
                      "%u leaves one expert a group; noaux_tc ranks groups by two", c->n_group);
    }
}

static void read_experts(cmi_json_fields *f, cmi_model_config *c, family fam)
{
    cmi_json_u32(f, "n_routed_experts", CMI_JSON_OPTIONAL, 0, MAX_EXPERTS, &c->n_routed_experts);
    if (c->n_routed_experts == 0 || f->status != CMI_OK) {
        return;
    }
    const cmi_json_need need = CMI_JSON_REQUIRED;
    cmi_json_u32(f, "moe_intermediate_size", need, 1, MAX_WIDTH, &c->moe_intermediate_size);
    cmi_json_u32(f, "num_experts_per_tok", need, 1, c->n_routed_experts, &c->num_experts_per_tok);
    const cmi_json_need may = CMI_JSON_OPTIONAL;
    cmi_json_u32(f, "n_shared_experts", may, 0, MAX_SHARED_EXPERTS, &c->n_shared_experts);
    cmi_json_u32(f, "first_k_dense_replace", may, 0, MAX_LAYERS, &c->first_k_dense_replace);
    cmi_json_u32(f, "moe_layer_freq", may, 1, MAX_LAYERS, &c->moe_layer_freq);
    cmi_json_u32(f, "n_group", may, 1, MAX_EXPERTS, &c->n_group);
    cmi_json_u32(f, "topk_group", may, 1, MAX_EXPERTS, &c->topk_group);
    cmi_json_bool(f, "norm_topk_prob", &c->norm_topk_prob);
    cmi_json_double(f, "routed_scaling_factor", may, 0, 1e6, &c->routed_scaling_factor);
    read_scoring(f, c);
    read_topk_method(f, c);
    if (f->status == CMI_OK) {
        check_groups(f, c);
    }
    c->norm_topk_prob = c->norm_topk_prob && c->num_experts_per_tok > 1;
    if (fam == FAMILY_V2 && c->norm_topk_prob && c->topk_method != CMI_TOPK_NOAUX_TC) {
        c->routed_scaling_factor = 1.0;
    }
}

static void read_yarn(cmi_json_fields *f, cmi_rope_scaling *rope)
{
    const cmi_json_need may = CMI_JSON_OPTIONAL;
    rope->is_yarn = true;
    cmi_json_double(f, "factor", CMI_JSON_REQUIRED, 1.0, 1e6, &rope->factor);
    cmi_json_double(f, "beta_fast", may, 1e-3, 1e6, &rope->beta_fast);
    cmi_json_double(f, "beta_slow", may, 1e-3, 1e6, &rope->beta_slow);
    cmi_json_double(f, "mscale", may, 0, 1e3, &rope->mscale);
    cmi_json_double(f, "mscale_all_dim", may, 0, 1e3, &rope->mscale_all_dim);
    /* required: the published classes have different defaults */
    cmi_json_u32(f, "original_max_position_embeddings", CMI_JSON_REQUIRED, 1, MAX_POSITIONS,
                 &rope->original_max_position_embeddings);
    bool truncate = true;
    cmi_json_bool(f, "truncate", &truncate);
    if (!truncate) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "truncate", "false is not supported");
    }
    if (cmi_json_get(f, "attention_factor") != NULL) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "attention_factor",
                      "is not supported; mscale and mscale_all_dim are");
    }
    if (f->status == CMI_OK && rope->beta_fast < rope->beta_slow) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "beta_fast", "%g is less than beta_slow (%g)",
                      rope->beta_fast, rope->beta_slow);
    }
}

/* Reads the object under key, rope_scaling or the newer rope_parameters. */
static void read_rope_object(cmi_json_fields *f, cmi_model_config *c, const char *key)
{
    const json_t *object = cmi_json_get(f, key);
    char scope[40];
    snprintf(scope, sizeof scope, "%s.", key);
    if (!json_is_object(object)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is not an object");
        return;
    }
    cmi_json_fields sub = {object, f->file, scope, f->err, f->status};
    const char *type = NULL;
    cmi_json_double(&sub, "rope_theta", CMI_JSON_OPTIONAL, 1e-3, 1e12, &c->rope_theta);
    cmi_json_string(&sub, "type", &type);
    cmi_json_string(&sub, "rope_type", &type);
    if (type == NULL) {
        cmi_json_fail(&sub, CMI_ERR_BAD_DATA, "rope_type", "is missing");
    } else if (strcmp(type, "yarn") == 0) {
        read_yarn(&sub, &c->rope_scaling);
    } else if (strcmp(type, "default") != 0) {
        cmi_json_fail(&sub, CMI_ERR_UNSUPPORTED, "rope_type",
                      "\"%.40s\" is not supported; yarn and default are", type);
    }
    f->status = sub.status;
}

static void read_rope(cmi_json_fields *f, cmi_model_config *c)
{
    cmi_json_double(f, "rope_theta", CMI_JSON_OPTIONAL, 1e-3, 1e12, &c->rope_theta);
    if (cmi_json_get(f, "rope_scaling") != NULL) {
        read_rope_object(f, c, "rope_scaling");
    } else if (cmi_json_get(f, "rope_parameters") != NULL) {
        read_rope_object(f, c, "rope_parameters");
    }
    bool interleave = true;
    cmi_json_bool(f, "rope_interleave", &interleave);
    if (!interleave && c->qk_rope_head_dim != 2) { /* with one pair both orders are the same */
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "rope_interleave",
                      "false (pairs half a head apart) is not supported; true (neighbours) is");
    }
}

static void read_fp8(cmi_json_fields *f, cmi_fp8_config *fp8)
{
    const char *fmt = "e4m3";
    cmi_json_string(f, "fmt", &fmt);
    if (strcmp(fmt, "e4m3") != 0) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "fmt", "\"%.40s\" is not supported; e4m3 is", fmt);
    }
    const json_t *block = cmi_json_get(f, "weight_block_size");
    const json_t *dims[2] = {json_array_get(block, 0), json_array_get(block, 1)};
    if (json_array_size(block) != 2 || !json_is_integer(dims[0]) || !json_is_integer(dims[1])) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "weight_block_size",
                      "is not a list of two sizes: only block scales are supported");
        return;
    }
    long long rows = json_integer_value(dims[0]);
    long long cols = json_integer_value(dims[1]);
    if (rows < 1 || rows > MAX_FP8_BLOCK || cols < 1 || cols > MAX_FP8_BLOCK) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "weight_block_size", "[%lld, %lld] is not in 1..%d",
                      rows, cols, MAX_FP8_BLOCK);
        return;
    }
    *fp8 = (cmi_fp8_config){(uint32_t)rows, (uint32_t)cols};
}

static void read_quantization(cmi_json_fields *f, cmi_model_config *c)
{
    if (cmi_json_get(f, "compression_config") != NULL) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "compression_config", "is not supported");
    }
    const json_t *object = cmi_json_get(f, "quantization_config");
    if (object == NULL || f->status != CMI_OK) {
        return;
    }
    if (!json_is_object(object)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "quantization_config", "is not an object");
        return;
    }
    cmi_json_fields sub = {object, f->file, "quantization_config.", f->err, CMI_OK};
    const char *method = NULL;
    cmi_json_string(&sub, "quant_method", &method);
    if (method == NULL) {
        cmi_json_fail(&sub, CMI_ERR_BAD_DATA, "quant_method", "is missing");
    } else if (strcmp(method, "fp8") != 0) {
        cmi_json_fail(&sub, CMI_ERR_UNSUPPORTED, "quant_method",
                      "\"%.40s\" is not supported; fp8 is, and checkpoints that are not quantized",
                      method);
    } else {
        read_fp8(&sub, &c->fp8);
    }
    f->status = sub.status;
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
    family fam = read_family(&f);
    cmi_model_config c = family_defaults(fam);
    refuse_variants(&f);
    read_sizes(&f, &c);
    read_experts(&f, &c, fam);
    read_rope(&f, &c);
    read_quantization(&f, &c);
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
