#include "cli/eplb_load.h"

#include <jansson.h>

#include "base/alloc.h"
#include "policy/expert_load.h"

void cmi_eplb_load_deinit(cmi_eplb_load *load)
{
    if (load != NULL) {
        cmi_free(load->loads);
        *load = (cmi_eplb_load){0};
    }
}

/* The number of items, which must be an array's of 1 .. max. what: "layers". */
static cmi_status count(const json_t *array, uint32_t max, const char *what, uint32_t *n_out,
                        cmi_error *err)
{
    if (!json_is_array(array) || json_array_size(array) == 0) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "must be an array of %s", what);
    }
    if (json_array_size(array) > max) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "%zu %s, but at most %u are taken",
                             json_array_size(array), what, max);
    }
    *n_out = (uint32_t)json_array_size(array);
    return CMI_OK;
}

static cmi_status read_load(const json_t *value, float *load_out, cmi_error *err)
{
    if (!json_is_number(value)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "a load must be a number");
    }
    if (json_number_value(value) < 0) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "a load must not be negative, as %g is",
                             json_number_value(value));
    }
    *load_out =
        json_is_integer(value) ? (float)json_integer_value(value) : (float)json_real_value(value);
    if (json_number_value(value) != 0 &&
        !(*load_out >= CMI_EXPERT_LOAD_MIN && *load_out <= CMI_EXPERT_LOAD_MAX)) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "a load must be 0 or 1e-30 to 1e30, not %g",
                             json_number_value(value));
    }
    return CMI_OK;
}

static cmi_status read_layer(const json_t *layer, float *loads, uint32_t n_experts, cmi_error *err)
{
    uint32_t n = 0;
    cmi_status st = count(layer, CMI_EXPERTS_MAX, "loads", &n, err);
    if (st == CMI_OK && n != n_experts) {
        st = cmi_error_set(err, CMI_ERR_BAD_DATA, "%u loads, but layer 0 has %u", n, n_experts);
    }
    for (uint32_t e = 0; e < n_experts && st == CMI_OK; e++) {
        st = read_load(json_array_get(layer, e), &loads[e], err);
        if (st != CMI_OK) {
            cmi_error_prefix(err, "expert %u", e);
        }
    }
    return st;
}

static cmi_status read_layers(cmi_eplb_load *out, const json_t *root, cmi_error *err)
{
    cmi_status st =
        count(root, CMI_EXPERT_LAYERS_MAX, "layers, each an array of loads", &out->n_layers, err);
    if (st != CMI_OK) {
        return st;
    }
    st = count(json_array_get(root, 0), CMI_EXPERTS_MAX, "loads", &out->n_experts, err);
    if (st != CMI_OK) {
        return cmi_error_prefix(err, "layer 0");
    }
    out->loads = cmi_alloc((size_t)out->n_layers * out->n_experts, sizeof *out->loads);
    for (uint32_t l = 0; l < out->n_layers; l++) {
        float *loads = out->loads + (size_t)l * out->n_experts;
        st = read_layer(json_array_get(root, l), loads, out->n_experts, err);
        if (st != CMI_OK) {
            return cmi_error_prefix(err, "layer %u", l);
        }
    }
    return CMI_OK;
}

cmi_status cmi_eplb_load_parse(cmi_eplb_load *out, const char *text, size_t n_bytes,
                               const char *file, cmi_error *err)
{
    *out = (cmi_eplb_load){0};
    json_error_t where;
    json_t *root = json_loadb(text, n_bytes, 0, &where);
    if (root == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: line %d: %s", file, where.line,
                             where.text);
    }
    cmi_status st = read_layers(out, root, err);
    json_decref(root);
    return st == CMI_OK ? CMI_OK : cmi_error_prefix(err, "%s", file);
}
