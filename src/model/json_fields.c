#include "model/json_fields.h"

#include <stdarg.h>
#include <stdio.h>

cmi_status cmi_json_parse_object(json_t **root_out, const char *text, size_t n_bytes,
                                 const char *file, cmi_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s:%d: %s", file, why.line, why.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: not a JSON object", file);
    }
    *root_out = root;
    return CMI_OK;
}

void cmi_json_fail(cmi_json_fields *f, cmi_status st, const char *key, const char *fmt, ...)
{
    if (f->status != CMI_OK) {
        return;
    }
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    f->status = cmi_error_set(f->err, st, "%s: %s%s: %s", f->file, f->scope, key, line);
}

const json_t *cmi_json_get(const cmi_json_fields *f, const char *key)
{
    const json_t *value = json_object_get(f->object, key);
    return json_is_null(value) ? NULL : value;
}

/* As cmi_json_get, but NULL after an error, and missing required fields are one. */
static const json_t *need_value(cmi_json_fields *f, const char *key, cmi_json_need need)
{
    const json_t *value = f->status == CMI_OK ? cmi_json_get(f, key) : NULL;
    if (value == NULL && need == CMI_JSON_REQUIRED) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is missing");
    }
    return value;
}

void cmi_json_u32(cmi_json_fields *f, const char *key, cmi_json_need need, uint32_t min,
                  uint32_t max, uint32_t *value)
{
    const json_t *json = need_value(f, key, need);
    if (json == NULL) {
        return;
    }
    if (!json_is_integer(json)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is not a whole number");
        return;
    }
    long long x = json_integer_value(json);
    if (x < (long long)min || x > (long long)max) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "%lld is not in %u..%u", x, min, max);
        return;
    }
    *value = (uint32_t)x;
}

void cmi_json_double(cmi_json_fields *f, const char *key, cmi_json_need need, double min,
                     double max, double *value)
{
    const json_t *json = need_value(f, key, need);
    if (json == NULL) {
        return;
    }
    if (!json_is_number(json)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is not a number");
        return;
    }
    double x = json_number_value(json);
    if (!(x >= min && x <= max)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "%g is not in %g..%g", x, min, max);
        return;
    }
    *value = x;
}

void cmi_json_bool(cmi_json_fields *f, const char *key, bool *value)
{
    const json_t *json = need_value(f, key, CMI_JSON_OPTIONAL);
    if (json == NULL) {
        return;
    }
    if (!json_is_boolean(json)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is not true or false");
        return;
    }
    *value = json_is_true(json);
}

void cmi_json_string(cmi_json_fields *f, const char *key, const char **value)
{
    const json_t *json = need_value(f, key, CMI_JSON_OPTIONAL);
    if (json == NULL) {
        return;
    }
    if (!json_is_string(json)) {
        cmi_json_fail(f, CMI_ERR_BAD_DATA, key, "is not a string");
        return;
    }
    *value = json_string_value(json);
}
