/* grammar/schema.c - see schema_internal.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "grammar/schema_internal.h"

void cmi_schema_fail(cmi_build *b, cmi_status st, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    cmi_build_fail(b, st, "schema at %s: %s", b->path, text);
}

/* A path that is too long ends early; it is for people only. */
size_t cmi_schema_enter(cmi_build *b, const char *keyword, const char *name)
{
    size_t mark = strlen(b->path);
    if (mark + 1 < sizeof b->path) {
        snprintf(b->path + mark, sizeof b->path - mark, "/%s%s%s", keyword, name == NULL ? "" : "/",
                 name == NULL ? "" : name);
    }
    return mark;
}

void cmi_schema_leave(cmi_build *b, size_t mark)
{
    b->path[mark] = '\0';
}

uint32_t cmi_schema_count(cmi_build *b, const json_t *schema, const char *keyword,
                          uint32_t fallback)
{
    const json_t *value = json_object_get(schema, keyword);
    if (value == NULL) {
        return fallback;
    }
    double count = json_number_value(value);
    if (!json_is_number(value) || count < 0 || count != (double)(uint64_t)CMI_MIN(count, 1e18)) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "\"%s\" must be a whole number from 0 on", keyword);
        return fallback;
    }
    if (count <= CMI_SCHEMA_MAX_COUNT) {
        return (uint32_t)count;
    }
    if (strncmp(keyword, "min", 3) == 0) {
        cmi_schema_fail(b, CMI_ERR_TOO_LARGE, "\"%s\" is over %d", keyword, CMI_SCHEMA_MAX_COUNT);
    }
    return CMI_UNBOUNDED;
}

const json_t *cmi_schema_array(cmi_build *b, const json_t *schema, const char *keyword)
{
    const json_t *value = json_object_get(schema, keyword);
    if (value != NULL && !json_is_array(value)) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "\"%s\" must be an array", keyword);
        return NULL;
    }
    return value;
}

/* Reals by the fewest digits that mean them. */
static size_t real_digits(const json_t *value)
{
    char text[64];
    for (size_t digits = 15; json_is_real(value) && digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", (int)digits, json_real_value(value));
        if (strtod(text, NULL) == json_real_value(value)) {
            return digits;
        }
    }
    return 17;
}

char *cmi_schema_dump(cmi_build *b, const json_t *value)
{
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(real_digits(value));
    size_t n = json_dumpb(value, NULL, 0, flags);
    char *text = cmi_alloc(n + 1, 1);
    if (cmi_build_work(b, n / 4)) {
        json_dumpb(value, text, n, flags);
    }
    return text;
}

/* ---- Combined schemas ---- */

static void write_reference(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference == NULL) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "\"$ref\" must be a string");
        return;
    }
    const json_t *target = cmi_schema_resolve(b, reference);
    const json_t *rest = cmi_schema_without(b, schema, "$ref");
    if (target != NULL && json_object_size(rest) > 0) {
        target = cmi_schema_merge(b, target, rest);
    }
    if (target != NULL) {
        size_t mark = cmi_schema_enter(b, "$ref", NULL);
        cmi_schema_write(b, target, from, to);
        cmi_schema_leave(b, mark);
    }
}

static void write_all_of(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    const json_t *parts = cmi_schema_array(b, schema, "allOf");
    const json_t *merged = cmi_schema_without(b, schema, "allOf");
    for (size_t i = 0; merged != NULL && i < json_array_size(parts); i++) {
        merged = cmi_schema_merge(b, merged, json_array_get(parts, i));
    }
    if (merged != NULL) {
        size_t mark = cmi_schema_enter(b, "allOf", NULL);
        cmi_schema_write(b, merged, from, to);
        cmi_schema_leave(b, mark);
    }
}

static void write_alternatives(cmi_build *b, const json_t *schema, const char *keyword,
                               uint32_t from, uint32_t to)
{
    const json_t *parts = cmi_schema_array(b, schema, keyword);
    const json_t *rest = cmi_schema_without(b, schema, keyword);
    for (size_t i = 0; b->status == CMI_OK && i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        size_t mark = cmi_schema_enter(b, keyword, number);
        if (json_object_size(rest) > 0) {
            part = cmi_schema_merge(b, rest, part);
        }
        if (part != NULL) {
            cmi_schema_write(b, part, from, to);
        }
        cmi_schema_leave(b, mark);
    }
}

/* ---- A single schema ---- */

static void write_type(cmi_build *b, const json_t *schema, unsigned type, uint32_t from,
                       uint32_t to)
{
    switch (type) {
    case CMI_TYPE_NULL:
        cmi_nfa_literal(b, from, to, "null", 4);
        break;
    case CMI_TYPE_BOOLEAN:
        cmi_nfa_literal(b, from, to, "true", 4);
        cmi_nfa_literal(b, from, to, "false", 5);
        break;
    case CMI_TYPE_INTEGER:
    case CMI_TYPE_NUMBER:
        cmi_schema_number_write(b, schema, type == CMI_TYPE_INTEGER, from, to);
        break;
    case CMI_TYPE_STRING:
        cmi_schema_string_write(b, schema, from, to);
        break;
    case CMI_TYPE_ARRAY:
        cmi_schema_array_write(b, schema, from, to);
        break;
    default:
        cmi_schema_object_write(b, schema, from, to);
        break;
    }
}

static void write_single(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    if (json_object_size(cmi_schema_without(b, schema, "nullable")) == 0) {
        cmi_json_value_write(b, from, to);
        return;
    }
    if (json_object_get(schema, "enum") != NULL || json_object_get(schema, "const") != NULL) {
        cmi_schema_enum_write(b, schema, from, to);
        return;
    }
    unsigned types = cmi_schema_types(b, schema);
    for (unsigned type = 1; type <= CMI_TYPE_OBJECT && b->status == CMI_OK; type *= 2) {
        if ((types & type) != 0) {
            write_type(b, schema, type, from, to);
        }
    }
}

static void write_object_schema(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    cmi_schema_check_keywords(b, schema);
    if (json_object_get(schema, "$ref") != NULL) {
        write_reference(b, schema, from, to);
    } else if (json_object_get(schema, "allOf") != NULL) {
        write_all_of(b, schema, from, to);
    } else if (json_object_get(schema, "anyOf") != NULL) {
        write_alternatives(b, schema, "anyOf", from, to);
    } else if (json_object_get(schema, "oneOf") != NULL) {
        write_alternatives(b, schema, "oneOf", from, to);
    } else {
        write_single(b, schema, from, to);
    }
}

void cmi_schema_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    if (!cmi_build_work(b, 1) || json_is_false(schema)) {
        return;
    }
    if (json_is_true(schema)) {
        cmi_json_value_write(b, from, to);
        return;
    }
    if (!json_is_object(schema)) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "a schema must be an object or a boolean");
        return;
    }
    if (++b->inlined > CMI_SCHEMA_MAX_INLINED) {
        cmi_schema_fail(b, CMI_ERR_TOO_LARGE,
                        "it refers to itself, or combines schemas over %d times, without a "
                        "property or an item between",
                        CMI_SCHEMA_MAX_INLINED);
    } else {
        write_object_schema(b, schema, from, to);
    }
    b->inlined--;
}

/* ---- Rules ---- */

static void write_schema_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    cmi_schema_write(b, rule->schema, from, to);
}

void cmi_schema_root_write(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    json_error_t error;
    const cmi_grammar_source *source = rule->source;
    b->root = b->source =
        json_loadb(source->text, source->n_bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (b->source == NULL) {
        cmi_build_fail(b, CMI_ERR_BAD_DATA, "the schema is not JSON: line %d, column %d: %s",
                       error.line, error.column, error.text);
        return;
    }
    snprintf(b->path, sizeof b->path, "#");
    cmi_schema_write(b, b->root, from, to);
}

void cmi_schema_call_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    const json_t *root = b->root;
    const uint32_t root_id = b->root_id;
    char key[24];
    b->root = schema;
    b->root_id = ++b->n_roots;
    snprintf(key, sizeof key, "root %u", b->root_id);
    cmi_rule rule = {.write = write_schema_rule, .schema = schema};
    cmi_nfa_call(b, from, to, cmi_build_rule(b, key, &rule));
    b->root = root;
    b->root_id = root_id;
}

/* Follows references that stand alone, so that all that name a schema share its rule. */
static const json_t *follow(cmi_build *b, const json_t *schema)
{
    for (int i = 0; i < CMI_SCHEMA_MAX_INLINED && schema != NULL; i++) {
        const char *reference = json_string_value(json_object_get(schema, "$ref"));
        if (reference == NULL || json_object_size(cmi_schema_without(b, schema, "$ref")) > 0) {
            break;
        }
        cmi_schema_check_keywords(b, schema);
        schema = cmi_schema_resolve(b, reference);
    }
    return schema;
}

uint32_t cmi_schema_rule(cmi_build *b, const char *kind, const cmi_rule *rule)
{
    enum { MAX_KEY_BYTES = CMI_GRAMMAR_MAX_WORK * 4 + 100 }; /* as the dump counts its work */
    char *text = cmi_schema_dump(b, rule->schema);
    cmi_buf key;
    cmi_buf_init(&key, MAX_KEY_BYTES);
    cmi_buf_printf(&key, "%s %u %u %u ", kind, b->root_id, rule->min, rule->max);
    cmi_buf_str(&key, text);
    uint32_t id = cmi_build_rule(b, cmi_buf_cstr(&key), rule);
    cmi_buf_deinit(&key);
    cmi_free(text);
    return id;
}

/* Few states in place, or a call anyway. */
static bool is_small(cmi_build *b, const json_t *schema)
{
    static const char *const combining[] = {"$ref", "allOf", "anyOf", "oneOf"};
    static const char *const shaping[] = {"pattern",   "format",           "minimum",
                                          "maximum",   "exclusiveMinimum", "exclusiveMaximum",
                                          "multipleOf"};
    const json_t *values = json_object_get(schema, "enum");
    if (!json_is_object(schema) || json_object_size(schema) == 0) {
        return true;
    }
    for (size_t i = 0; i < CMI_LEN(combining); i++) {
        if (json_object_get(schema, combining[i]) != NULL) {
            return false;
        }
    }
    if (values != NULL || json_object_get(schema, "const") != NULL) {
        return json_array_size(values) <= 4;
    }
    for (size_t i = 0; i < CMI_LEN(shaping); i++) {
        if (json_object_get(schema, shaping[i]) != NULL) {
            return false;
        }
    }
    return (cmi_schema_types(b, schema) & (CMI_TYPE_ARRAY | CMI_TYPE_OBJECT)) == 0;
}

void cmi_schema_part_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    schema = follow(b, schema);
    if (schema == NULL || b->status != CMI_OK) {
        return;
    }
    if (is_small(b, schema)) {
        cmi_schema_write(b, schema, from, to);
        return;
    }
    cmi_rule rule = {.write = write_schema_rule, .schema = schema};
    cmi_nfa_call(b, from, to, cmi_schema_rule(b, "schema", &rule));
}
