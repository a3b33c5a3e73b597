#include "tests/grammar/validator.h"

#include <math.h>
#include <regex.h>
#include <string.h>

#include "base/utf8.h"

static bool has_type(const char *name, const json_t *value)
{
    if (strcmp(name, "integer") == 0) {
        return json_is_integer(value) ||
               (json_is_real(value) && floor(json_real_value(value)) == json_real_value(value));
    }
    return (strcmp(name, "null") == 0 && json_is_null(value)) ||
           (strcmp(name, "boolean") == 0 && json_is_boolean(value)) ||
           (strcmp(name, "number") == 0 && json_is_number(value)) ||
           (strcmp(name, "string") == 0 && json_is_string(value)) ||
           (strcmp(name, "array") == 0 && json_is_array(value)) ||
           (strcmp(name, "object") == 0 && json_is_object(value));
}

static bool type_allows(const json_t *schema, const json_t *value)
{
    const json_t *type = json_object_get(schema, "type");
    bool fits = type == NULL || (json_is_string(type) && has_type(json_string_value(type), value));
    for (size_t i = 0; i < json_array_size(type); i++) {
        fits = fits || has_type(json_string_value(json_array_get(type, i)), value);
    }
    return fits || (json_is_null(value) && json_is_true(json_object_get(schema, "nullable")));
}

static bool enum_allows(const json_t *schema, const json_t *value)
{
    const json_t *list = json_object_get(schema, "enum"), *one = json_object_get(schema, "const");
    bool fits = list == NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        fits = fits || json_equal(json_array_get(list, i), value);
    }
    return fits && (one == NULL || json_equal(one, value));
}

static double number(const json_t *schema, const char *keyword, double fallback)
{
    const json_t *value = json_object_get(schema, keyword);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

static bool number_allows(const json_t *schema, const json_t *value)
{
    double x = json_number_value(value);
    return !json_is_number(value) ||
           (x >= number(schema, "minimum", -INFINITY) && x <= number(schema, "maximum", INFINITY) &&
            x > number(schema, "exclusiveMinimum", -INFINITY) &&
            x < number(schema, "exclusiveMaximum", INFINITY));
}

static bool string_allows(const json_t *schema, const json_t *value)
{
    if (!json_is_string(value)) {
        return true;
    }
    const char *text = json_string_value(value);
    double n_chars = 0;
    for (const char *c = text; *c != '\0'; c++) {
        n_chars += (*c & 0xC0) != 0x80;
    }
    if (n_chars < number(schema, "minLength", 0) ||
        n_chars > number(schema, "maxLength", INFINITY)) {
        return false;
    }
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    regex_t compiled;
    bool fits = true;
    if (pattern != NULL) {
        fits = regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) == 0 &&
               regexec(&compiled, text, 0, NULL, 0) == 0;
        regfree(&compiled);
    }
    return fits;
}

static bool array_allows(const json_t *root, const json_t *schema, const json_t *value)
{
    const json_t *prefix = json_object_get(schema, "prefixItems");
    const json_t *items = json_object_get(schema, "items");
    double n = (double)json_array_size(value);
    bool fits = n >= number(schema, "minItems", 0) && n <= number(schema, "maxItems", INFINITY);
    for (size_t i = 0; fits && i < json_array_size(value); i++) {
        const json_t *own = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        fits = own == NULL || schema_allows(root, own, json_array_get(value, i));
    }
    return fits;
}

static bool object_allows(const json_t *root, const json_t *schema, const json_t *value)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    double n = (double)json_object_size(value);
    bool fits = n <= number(schema, "maxProperties", INFINITY);
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        fits = fits && json_object_get(value, name) != NULL;
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        const json_t *own = json_object_get(properties, name);
        own = own != NULL ? own : json_object_get(schema, "additionalProperties");
        fits = fits && (own == NULL || schema_allows(root, own, member));
    }
    return fits;
}

static bool combined_allow(const json_t *root, const json_t *schema, const json_t *value)
{
    const json_t *all = json_object_get(schema, "allOf"), *any = json_object_get(schema, "anyOf");
    bool fits = any == NULL;
    for (size_t i = 0; i < json_array_size(any); i++) {
        fits = fits || schema_allows(root, json_array_get(any, i), value);
    }
    for (size_t i = 0; i < json_array_size(all); i++) {
        fits = fits && schema_allows(root, json_array_get(all, i), value);
    }
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference != NULL) { /* "#" or "#/$defs/NAME" */
        const json_t *target = root;
        if (strlen(reference) > 1) {
            target = json_object_get(json_object_get(root, "$defs"), strrchr(reference, '/') + 1);
        }
        fits = fits && schema_allows(root, target, value);
    }
    return fits;
}

bool schema_allows(const json_t *root, const json_t *schema, const json_t *value)
{
    if (json_is_boolean(schema)) {
        return json_is_true(schema);
    }
    return type_allows(schema, value) && enum_allows(schema, value) &&
           number_allows(schema, value) && string_allows(schema, value) &&
           (!json_is_array(value) || array_allows(root, schema, value)) &&
           (!json_is_object(value) || object_allows(root, schema, value)) &&
           combined_allow(root, schema, value);
}
