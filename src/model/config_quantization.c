/* model/config_quantization.c - how a checkpoint's weights are stored: quantization_config of
 * config.json. Three forms are read: DeepSeek's FP8 with block scales, and INT8 with one scale for
 * each output and dynamic activations for each token, as compressed-tensors ("int-quantized") and
 * as SGLang ("w8a8_int8") write it. */
#include "model/config_internal.h"

#include <string.h>

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
    if (rows < 1 || rows > CMI_CONFIG_MAX_FP8_BLOCK || cols < 1 ||
        cols > CMI_CONFIG_MAX_FP8_BLOCK) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "weight_block_size", "[%lld, %lld] is not in 1..%d",
                      rows, cols, CMI_CONFIG_MAX_FP8_BLOCK);
        return;
    }
    *fp8 = (cmi_fp8_config){(uint32_t)rows, (uint32_t)cols};
}

/* One side of a compressed-tensors scheme: symmetric INT8 with the strategy given. */
static void check_int8_args(cmi_json_fields *f, const char *name, const char *want_strategy)
{
    const json_t *object = cmi_json_get(f, name);
    if (!json_is_object(object)) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, name, "is missing: only W8A8 is supported");
        return;
    }
    char scope[160];
    snprintf(scope, sizeof scope, "%s%s.", f->scope, name);
    cmi_json_fields sub = {object, f->file, scope, f->err, f->status};
    const char *type = "int", *strategy = "";
    uint32_t num_bits = 0;
    bool symmetric = true;
    cmi_json_string(&sub, "type", &type);
    cmi_json_string(&sub, "strategy", &strategy);
    cmi_json_bool(&sub, "symmetric", &symmetric);
    cmi_json_u32(&sub, "num_bits", CMI_JSON_REQUIRED, 1, 64, &num_bits);
    f->status = sub.status;
    if (f->status == CMI_OK && (strcmp(type, "int") != 0 || num_bits != 8 || !symmetric ||
                                strcmp(strategy, want_strategy) != 0)) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, name,
                      "is not symmetric INT8 with strategy \"%s\", the only scheme supported",
                      want_strategy);
    }
}

static void read_compressed_tensors(cmi_json_fields *f, cmi_model_config *c)
{
    const char *format = "";
    cmi_json_string(f, "format", &format);
    if (strcmp(format, "int-quantized") != 0) {
        cmi_json_fail(f, CMI_ERR_UNSUPPORTED, "format",
                      "\"%.40s\" is not supported; int-quantized is", format);
        return;
    }
    const json_t *groups = cmi_json_get(f, "config_groups");
    if (!json_is_object(groups) || json_object_size(groups) == 0) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, "config_groups", "has no group");
        return;
    }
    const char *key;
    json_t *group;
    json_object_foreach((json_t *)(uintptr_t)groups, key, group)
    {
        char scope[128];
        snprintf(scope, sizeof scope, "%sconfig_groups.%.40s.", f->scope, key);
        cmi_json_fields sub = {group, f->file, scope, f->err, f->status};
        check_int8_args(&sub, "weights", "channel");
        check_int8_args(&sub, "input_activations", "token");
        f->status = sub.status;
    }
    c->is_int8 = f->status == CMI_OK;
}

void cmi_config_read_quantization(cmi_json_fields *f, cmi_model_config *c)
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
    } else if (strcmp(method, "fp8") == 0) {
        read_fp8(&sub, &c->fp8);
    } else if (strcmp(method, "compressed-tensors") == 0) {
        read_compressed_tensors(&sub, c);
    } else if (strcmp(method, "w8a8_int8") == 0) {
        c->is_int8 = true;
    } else {
        cmi_json_fail(&sub, CMI_ERR_UNSUPPORTED, "quant_method",
                      "\"%.40s\" is not supported; fp8, compressed-tensors (int-quantized) and "
                      "w8a8_int8 are, and checkpoints that are not quantized",
                      method);
    }
    f->status = sub.status;
}
