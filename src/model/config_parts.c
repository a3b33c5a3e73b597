/* model/config_parts.c - the fields of config.json that belong to experts and positions;
 * see config.h for what they mean and config.c for the rest. */
#include "model/config_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- Experts ---- */

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

void cmi_config_read_experts(cmi_json_fields *f, cmi_model_config *c, cmi_config_family family)
{
    cmi_json_u32(f, "n_routed_experts", CMI_JSON_OPTIONAL, 0, CMI_CONFIG_MAX_EXPERTS,
                 &c->n_routed_experts);
    if (c->n_routed_experts == 0 || f->status != CMI_OK) {
        return;
    }
    const cmi_json_need need = CMI_JSON_REQUIRED;
    cmi_json_u32(f, "moe_intermediate_size", need, 1, CMI_CONFIG_MAX_WIDTH,
                 &c->moe_intermediate_size);
    cmi_json_u32(f, "num_experts_per_tok", need, 1,
                 CMI_MIN(c->n_routed_experts, (uint32_t)CMI_CONFIG_MAX_EXPERTS_PER_TOK),
                 &c->num_experts_per_tok);
    const cmi_json_need may = CMI_JSON_OPTIONAL;
    cmi_json_u32(f, "n_shared_experts", may, 0, CMI_CONFIG_MAX_SHARED_EXPERTS,
                 &c->n_shared_experts);
    cmi_json_u32(f, "first_k_dense_replace", may, 0, CMI_CONFIG_MAX_LAYERS,
                 &c->first_k_dense_replace);
    cmi_json_u32(f, "moe_layer_freq", may, 1, CMI_CONFIG_MAX_LAYERS, &c->moe_layer_freq);
    cmi_json_u32(f, "n_group", may, 1, CMI_CONFIG_MAX_EXPERTS, &c->n_group);
    cmi_json_u32(f, "topk_group", may, 1, CMI_CONFIG_MAX_EXPERTS, &c->topk_group);
    cmi_json_bool(f, "norm_topk_prob", &c->norm_topk_prob);
    cmi_json_double(f, "routed_scaling_factor", may, 0, 1e6, &c->routed_scaling_factor);
    read_scoring(f, c);
    read_topk_method(f, c);
    if (f->status == CMI_OK) {
        check_groups(f, c);
    }
    c->norm_topk_prob = c->norm_topk_prob && c->num_experts_per_tok > 1;
    if (family == CMI_CONFIG_V2 && c->norm_topk_prob && c->topk_method != CMI_TOPK_NOAUX_TC) {
        c->routed_scaling_factor = 1.0;
    }
}

/* ---- Positions ---- */

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
    cmi_json_u32(f, "original_max_position_embeddings", CMI_JSON_REQUIRED, 1,
                 CMI_CONFIG_MAX_POSITIONS, &rope->original_max_position_embeddings);
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
    cmi_json_double(&sub, "rope_theta", CMI_JSON_OPTIONAL, 2, 1e12, &c->rope_theta);
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

void cmi_config_read_rope(cmi_json_fields *f, cmi_model_config *c)
{
    cmi_json_double(f, "rope_theta", CMI_JSON_OPTIONAL, 2, 1e12, &c->rope_theta);
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
