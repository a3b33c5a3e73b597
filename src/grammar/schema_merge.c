/* grammar/schema_merge.c - one schema for what two schemas allow both.
 *
 * Keyword by keyword. $ref, anyOf, oneOf and allOf of both stay side by side, for whoever writes
 * the result takes them apart again. What cannot be said by one keyword is refused. */
#include <stdlib.h>
#include <string.h>

#include "grammar/schema_internal.h"

/* An entry of an object takes about 100 bytes until the end: with the limit of work it is the limit
 * of memory, 50 MB. */
enum { ENTRY_WORK = 40 };

/* b owns it from here on. */
static json_t *keep(cmi_build *b, json_t *schema)
{
    json_array_append_new(b->kept, schema);
    return schema;
}

/* ---- References ---- */

/* One step of a JSON pointer: ~1 is /, ~0 is ~, and as part of a URL %xx is a byte. */
static bool next_name(const char **pointer, char *name, size_t cap)
{
    const char *p = *pointer + 1;
    size_t n = 0;
    for (; *p != '\0' && *p != '/' && n + 1 < cap; p++) {
        char c = *p;
        if (c == '~' && (p[1] == '0' || p[1] == '1')) {
            c = *++p == '0' ? '~' : '/';
        } else if (c == '%' && p[1] != '\0' && p[2] != '\0') {
            const char hex[3] = {p[1], p[2], '\0'};
            c = (char)strtol(hex, NULL, 16);
            p += 2;
        }
        name[n++] = c;
    }
    name[n] = '\0';
    *pointer = p;
    return *p == '\0' || *p == '/';
}

const json_t *cmi_schema_resolve(cmi_build *b, const char *reference)
{
    const json_t *at = b->root;
    const char *p = reference + 1;
    char name[CMI_SCHEMA_MAX_NAME_BYTES + 1];
    bool ok = reference[0] == '#' && (*p == '\0' || *p == '/');
    while (ok && *p != '\0') {
        ok = next_name(&p, name, sizeof name);
        at = json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10))
                               : json_object_get(at, name);
        ok = ok && at != NULL;
    }
    if (!ok) {
        cmi_schema_fail(b, reference[0] == '#' ? CMI_ERR_BAD_DATA : CMI_ERR_UNSUPPORTED,
                        "\"$ref\": \"%.100s\" is nothing inside this schema", reference);
        return NULL;
    }
    return at;
}

/* ---- Parts ---- */

const json_t *cmi_schema_without(cmi_build *b, const json_t *schema, const char *keyword)
{
    json_t *rest = keep(b, json_object());
    const char *name;
    json_t *value;
    (void)!cmi_build_work(b, ENTRY_WORK * (1 + json_object_size(schema)));
    json_object_foreach((json_t *)(uintptr_t)schema, name, value)
    {
        if (strcmp(name, keyword) != 0 && !cmi_schema_is_annotation(name)) {
            json_object_set(rest, name, value);
        }
    }
    return rest;
}

/* Both of two schemas, to be merged when it is written; one of them may be NULL. New. */
static json_t *both(const json_t *x, const json_t *y)
{
    if (x == NULL || y == NULL || json_is_true(x)) {
        return json_incref((json_t *)(uintptr_t)(y == NULL ? x : y));
    }
    if (json_is_true(y)) {
        return json_incref((json_t *)(uintptr_t)x);
    }
    if (json_is_false(x) || json_is_false(y)) {
        return json_false();
    }
    if (json_equal(x, y)) {
        return json_incref((json_t *)(uintptr_t)x);
    }
    json_t *parts = json_array(), *all = json_object();
    json_array_append(parts, (json_t *)(uintptr_t)x);
    json_array_append(parts, (json_t *)(uintptr_t)y);
    json_object_set_new(all, "allOf", parts);
    return all;
}

static json_t *merge_properties(cmi_build *b, const json_t *a, const json_t *c)
{
    json_t *merged = json_object();
    const json_t *from_a = json_object_get(a, "properties");
    const json_t *from_c = json_object_get(c, "properties");
    if (!cmi_build_work(b, ENTRY_WORK * (json_object_size(from_a) + json_object_size(from_c)))) {
        return merged;
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from_a, name, value)
    {
        const json_t *other = json_object_get(from_c, name);
        other = other != NULL ? other : json_object_get(c, "additionalProperties");
        json_object_set_new(merged, name, both(value, other));
    }
    json_object_foreach((json_t *)(uintptr_t)from_c, name, value)
    {
        if (json_object_get(from_a, name) == NULL) {
            const json_t *other = json_object_get(a, "additionalProperties");
            json_object_set_new(merged, name, both(other, value));
        }
    }
    return merged;
}

static bool array_has(const json_t *array, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (json_equal(json_array_get(array, i), value)) {
            return true;
        }
    }
    return false;
}

/* Those of x that are in y (in_y), or those of both. */
static json_t *merge_lists(cmi_build *b, const json_t *x, const json_t *y, bool in_y)
{
    json_t *merged = json_array();
    (void)!cmi_build_work(b, json_array_size(x) * json_array_size(y) +
                                 ENTRY_WORK / 2 * (json_array_size(x) + json_array_size(y)));
    for (size_t i = 0; b->status == CMI_OK && i < json_array_size(x); i++) {
        if (!in_y || array_has(y, json_array_get(x, i))) {
            json_array_append(merged, json_array_get(x, i));
        }
    }
    for (size_t i = 0; b->status == CMI_OK && !in_y && i < json_array_size(y); i++) {
        if (!array_has(x, json_array_get(y, i))) {
            json_array_append(merged, json_array_get(y, i));
        }
    }
    return merged;
}

/* ---- Keywords ---- */

/* Chooses the larger or the smaller of two numbers; NULL where the keyword is no such. */
static json_t *merge_numbers(const char *name, const json_t *x, const json_t *y)
{
    static const char *const largest[] = {"minLength", "minItems", "minProperties", "minimum",
                                          "exclusiveMinimum"};
    static const char *const smallest[] = {"maxLength", "maxItems", "maxProperties", "maximum",
                                           "exclusiveMaximum"};
    bool x_is_larger = json_number_value(x) > json_number_value(y);
    for (size_t i = 0; json_is_number(x) && json_is_number(y) && i < CMI_LEN(largest); i++) {
        bool takes_largest = strcmp(name, largest[i]) == 0;
        if (takes_largest || strcmp(name, smallest[i]) == 0) {
            return json_incref((json_t *)(uintptr_t)(x_is_larger == takes_largest ? x : y));
        }
    }
    return NULL;
}

/* The keyword's value where both schemas have it. NULL: no single keyword says it. */
static json_t *merge_values(cmi_build *b, const char *name, const json_t *x, const json_t *y)
{
    if (json_equal(x, y)) {
        return json_incref((json_t *)(uintptr_t)x);
    }
    if (strcmp(name, "enum") == 0) {
        return merge_lists(b, x, y, true);
    }
    if (strcmp(name, "required") == 0) {
        return merge_lists(b, x, y, false);
    }
    if (strcmp(name, "items") == 0 || strcmp(name, "additionalProperties") == 0) {
        return both(x, y);
    }
    return merge_numbers(name, x, y);
}

/* $ref, allOf, anyOf and oneOf of c, where result has its own. */
static void append_combination(json_t *result, const char *name, json_t *value)
{
    json_t *parts = json_array(), *part = json_object();
    json_array_extend(parts, json_object_get(result, "allOf"));
    json_object_set(part, name, value);
    json_array_append_new(parts, part);
    json_object_set_new(result, "allOf", parts);
}

static bool is_combination(const char *name)
{
    return strcmp(name, "$ref") == 0 || strcmp(name, "allOf") == 0 || strcmp(name, "anyOf") == 0 ||
           strcmp(name, "oneOf") == 0;
}

static void merge_keyword(cmi_build *b, json_t *result, const char *name, json_t *value)
{
    json_t *old = json_object_get(result, name);
    if (old == NULL) {
        json_object_set(result, name, value);
        return;
    }
    if (is_combination(name)) {
        append_combination(result, name, value);
        return;
    }
    json_t *merged = merge_values(b, name, old, value);
    if (merged == NULL) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "two different values of \"%.60s\" at once", name);
        return;
    }
    json_object_set_new(result, name, merged);
}

/* `type` as a list, nullable included; false when no type is left. */
static bool set_types(cmi_build *b, json_t *result, const json_t *a, const json_t *c)
{
    unsigned x = CMI_TYPE_ANY, y = CMI_TYPE_ANY;
    bool in_a = json_object_get(a, "type") != NULL, in_c = json_object_get(c, "type") != NULL;
    json_object_del(result, "nullable");
    if (!in_a && !in_c) {
        return true;
    }
    x = in_a ? cmi_schema_types(b, a) : x;
    y = in_c ? cmi_schema_types(b, c) : y;
    unsigned left = x & y;
    if (((x | y) & CMI_TYPE_INTEGER) != 0 && ((x | y) & CMI_TYPE_NUMBER) != 0) {
        left |= CMI_TYPE_INTEGER; /* which is a number */
    }
    json_t *types = json_array();
    for (unsigned type = 1; type <= CMI_TYPE_OBJECT; type *= 2) {
        if ((left & type) != 0) {
            json_array_append_new(types, json_string(cmi_schema_type_name(type)));
        }
    }
    json_object_set_new(result, "type", types);
    return left != 0;
}

/* Tuples restrict items by their place, which two of them together would have to agree on. */
static bool has_tuple(const json_t *schema)
{
    return json_object_get(schema, "prefixItems") != NULL ||
           json_is_array(json_object_get(schema, "items"));
}

const json_t *cmi_schema_merge(cmi_build *b, const json_t *a, const json_t *c)
{
    if (json_is_boolean(a) || json_is_boolean(c)) {
        return json_is_true(a) ? c : json_is_true(c) || json_is_false(a) ? a : c;
    }
    if (!json_is_object(a) || !json_is_object(c)) {
        cmi_schema_fail(b, CMI_ERR_BAD_DATA, "a schema must be an object or a boolean");
        return NULL;
    }
    cmi_schema_check_keywords(b, a);
    cmi_schema_check_keywords(b, c);
    if ((has_tuple(a) && json_object_get(c, "items") != NULL) ||
        (has_tuple(c) && json_object_get(a, "items") != NULL)) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED, "two descriptions of the same array's items");
    }
    json_t *result = (json_t *)(uintptr_t)cmi_schema_without(b, a, "");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)c, name, value)
    {
        if (strcmp(name, "type") != 0 && strcmp(name, "properties") != 0 &&
            !cmi_schema_is_annotation(name) && cmi_build_work(b, 1)) {
            merge_keyword(b, result, name, value);
        }
    }
    if (json_object_get(a, "properties") != NULL || json_object_get(c, "properties") != NULL) {
        json_object_set_new(result, "properties", merge_properties(b, a, c));
    }
    bool possible = set_types(b, result, a, c);
    return b->status != CMI_OK ? NULL : possible ? result : keep(b, json_false());
}
