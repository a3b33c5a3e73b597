/* grammar/schema_keywords.c - which keywords there are, and the types that they imply. */
#include <string.h>

#include "grammar/schema_internal.h"

/* Say nothing about which values fit, or nothing on their own. */
static const char *const annotations[] = {
    "title",         "description", "default",      "example",          "examples", "$schema",
    "$id",           "id",          "$comment",     "deprecated",       "readOnly", "writeOnly",
    "contentSchema", "$anchor",     "externalDocs", "contentMediaType", "xml",      "$vocabulary",
    "discriminator", "$defs",       "definitions",  "contentEncoding"};

/* Supported keywords and the types whose values they restrict; 0: any. */
static const struct {
    const char *name;
    unsigned types;
} keywords[] = {
    {"type", 0},
    {"enum", 0},
    {"const", 0},
    {"anyOf", 0},
    {"oneOf", 0},
    {"allOf", 0},
    {"$ref", 0},
    {"nullable", 0},
    {"properties", CMI_TYPE_OBJECT},
    {"required", CMI_TYPE_OBJECT},
    {"additionalProperties", CMI_TYPE_OBJECT},
    {"minProperties", CMI_TYPE_OBJECT},
    {"maxProperties", CMI_TYPE_OBJECT},
    {"items", CMI_TYPE_ARRAY},
    {"prefixItems", CMI_TYPE_ARRAY},
    {"additionalItems", CMI_TYPE_ARRAY},
    {"minItems", CMI_TYPE_ARRAY},
    {"maxItems", CMI_TYPE_ARRAY},
    {"uniqueItems", CMI_TYPE_ARRAY},
    {"minLength", CMI_TYPE_STRING},
    {"maxLength", CMI_TYPE_STRING},
    {"pattern", CMI_TYPE_STRING},
    {"format", CMI_TYPE_STRING},
    {"minimum", CMI_TYPE_NUMBER},
    {"maximum", CMI_TYPE_NUMBER},
    {"exclusiveMinimum", CMI_TYPE_NUMBER},
    {"exclusiveMaximum", CMI_TYPE_NUMBER},
    {"multipleOf", CMI_TYPE_NUMBER},
};

static const struct {
    const char *name;
    unsigned type;
} types[] = {{"null", CMI_TYPE_NULL},       {"boolean", CMI_TYPE_BOOLEAN},
             {"integer", CMI_TYPE_INTEGER}, {"number", CMI_TYPE_NUMBER},
             {"string", CMI_TYPE_STRING},   {"array", CMI_TYPE_ARRAY},
             {"object", CMI_TYPE_OBJECT}};

bool cmi_schema_is_annotation(const char *keyword)
{
    for (size_t i = 0; i < CMI_LEN(annotations); i++) {
        if (strcmp(annotations[i], keyword) == 0) {
            return true;
        }
    }
    return strncmp(keyword, "x-", 2) == 0;
}

static int find_keyword(const char *name)
{
    for (size_t i = 0; i < CMI_LEN(keywords); i++) {
        if (strcmp(keywords[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void cmi_schema_check_keywords(cmi_build *b, const json_t *schema)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, name, value)
    {
        if (find_keyword(name) < 0 && !cmi_schema_is_annotation(name)) {
            cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "the keyword \"%.60s\" is not supported", name);
        }
    }
    value = json_object_get(schema, "uniqueItems");
    if (value != NULL && !json_is_false(value)) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "\"uniqueItems\" is not supported");
    }
}

static unsigned type_named(cmi_build *b, const json_t *name)
{
    for (size_t i = 0; json_is_string(name) && i < CMI_LEN(types); i++) {
        if (strcmp(types[i].name, json_string_value(name)) == 0) {
            return types[i].type;
        }
    }
    cmi_schema_fail(b, CMI_ERR_BAD_DATA,
                    "\"type\" must be null, boolean, integer, number, string, array or object, or "
                    "a list of these");
    return 0;
}

const char *cmi_schema_type_name(unsigned type)
{
    for (size_t i = 0; i < CMI_LEN(types); i++) {
        if (types[i].type == type) {
            return types[i].name;
        }
    }
    return "";
}

unsigned cmi_schema_types(cmi_build *b, const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    unsigned found = 0;
    if (json_is_array(type)) {
        for (size_t i = 0; i < json_array_size(type); i++) {
            found |= type_named(b, json_array_get(type, i));
        }
    } else if (type != NULL) {
        found = type_named(b, type);
    } else {
        const char *name;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)schema, name, value)
        {
            int i = find_keyword(name);
            found |= i < 0 ? 0 : keywords[i].types;
        }
        return found == 0 ? CMI_TYPE_ANY : found;
    }
    if (json_is_true(json_object_get(schema, "nullable"))) {
        found |= CMI_TYPE_NULL;
    }
    return (found & CMI_TYPE_NUMBER) != 0 ? found & ~(unsigned)CMI_TYPE_INTEGER : found;
}
