/* The shape of random weights: a config.json with some fields replaced. */
#include <jansson.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli/bench/bench.h"
#include "os/file.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

static cmi_status apply(json_t *config, const char *override, cmi_error *err)
{
    const char *equals = strchr(override, '=');
    if (equals == NULL || equals == override) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--override takes NAME=VALUE, not \"%s\"",
                             override);
    }
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (value == NULL) {
        value = json_string(equals + 1);
    }
    char *name = cmi_strndup(override, (size_t)(equals - override));
    int rc = value == NULL ? -1 : json_object_set_new(config, name, value);
    cmi_free(name);
    return rc == 0
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_INVALID, "--override \"%s\" is not UTF-8", override);
}

static cmi_status parse(cmi_model_config *config_out, const json_t *root, const char *path,
                        cmi_error *err)
{
    cmi_buf text;
    cmi_buf_init(&text, 2 * MAX_CONFIG_BYTES);
    size_t n = json_dumpb(root, NULL, 0, 0);
    char *to = cmi_buf_reserve(&text, n);
    cmi_status st = CMI_ERR_TOO_LARGE;
    if (to != NULL) {
        text.len += json_dumpb(root, to, n, 0);
        st = cmi_model_config_parse(config_out, text.data, text.len, path, err);
    }
    cmi_buf_deinit(&text);
    return st;
}

cmi_status cmi_bench_config_load(cmi_model_config *config_out, const char *path,
                                 const cmi_option_list *overrides, cmi_error *err)
{
    cmi_buf text;
    cmi_status st = cmi_file_read(&text, path, MAX_CONFIG_BYTES, err);
    json_error_t json_err;
    json_t *root = NULL;
    if (st == CMI_OK) {
        root = json_loadb(cmi_buf_cstr(&text), text.len, 0, &json_err);
        st = json_is_object(root)
                 ? CMI_OK
                 : cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: not a JSON object", path);
    }
    for (size_t i = 0; st == CMI_OK && i < overrides->n_items; i++) {
        st = apply(root, overrides->items[i], err);
    }
    if (st == CMI_OK) {
        st = parse(config_out, root, path, err);
    }
    json_decref(root);
    cmi_buf_deinit(&text);
    return st;
}
