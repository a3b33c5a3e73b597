/* grammar/schema_object.c - objects.
 *
 * With properties: a chain in the schema's order. In front of each property stand two states, one
 * for "nothing yet" and one for "something before", which wants a comma. Without: a list of
 * members whose names are free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "grammar/schema_internal.h"

/* ---- Names that are not the schema's ---- */

typedef struct other_names {
    cmi_build *b;
    const char **names; /* sorted */
    uint32_t any;       /* inside the name, which already differs from all of them */
    uint32_t to;
} other_names;

static uint32_t char_at(const char *name, size_t at, size_t *next)
{
    uint32_t c = 0;
    int n = cmi_utf8_next(name + at, strlen(name + at), &c);
    *next = at + (size_t)CMI_MAX(n, 1);
    return c;
}

/* names[first..end) begin with the same `at` bytes, which have been read. */
static void write_branch(other_names *o, size_t first, size_t end, size_t at, uint32_t from)
{
    cmi_charset others = {0};
    bool is_name = false;
    for (size_t i = first; i < end && cmi_build_work(o->b, 10);) {
        if (o->names[i][at] == '\0') {
            is_name = true;
            i++;
            continue;
        }
        size_t next, same = i + 1, ignored;
        uint32_t c = char_at(o->names[i], at, &next), child = cmi_nfa_state(o->b);
        while (same < end && char_at(o->names[same], at, &ignored) == c) {
            same++;
        }
        cmi_char_range one = {c, c};
        const cmi_charset set = {.ranges = &one, .n = 1};
        cmi_charset_write(o->b, &set, CMI_SPELL_JSON, from, child);
        write_branch(o, i, same, next, child);
        cmi_charset_add(&others, c, c);
        i = same;
    }
    cmi_charset_normalize(&others);
    cmi_charset_negate(&others);
    cmi_charset_write(o->b, &others, CMI_SPELL_JSON, from, o->any);
    cmi_charset_deinit(&others);
    if (!is_name) {
        cmi_nfa_byte(o->b, from, o->to, '"');
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void cmi_schema_other_name_write(cmi_build *b, const json_t *properties, uint32_t from, uint32_t to)
{
    size_t n = json_object_size(properties), i = 0;
    if (n == 0) {
        cmi_json_string_write(b, 0, CMI_UNBOUNDED, from, to);
        return;
    }
    other_names o = {.b = b, .names = cmi_alloc(n, sizeof *o.names), .to = to};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)properties, name, value)
    {
        o.names[i++] = name;
        if (strlen(name) > CMI_SCHEMA_MAX_NAME_BYTES) {
            cmi_schema_fail(b, CMI_ERR_TOO_LARGE, "a property's name is over %d bytes",
                            CMI_SCHEMA_MAX_NAME_BYTES);
        }
    }
    qsort(o.names, n, sizeof *o.names, compare_names);
    uint32_t root = cmi_nfa_state(b);
    o.any = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, root, '"');
    cmi_json_char_write(b, o.any, o.any);
    cmi_nfa_byte(b, o.any, to, '"');
    write_branch(&o, 0, n, 0, root);
    cmi_free(o.names);
}

/* ---- What the schema says ---- */

typedef struct object {
    cmi_build *b;
    json_t *properties;  /* those that are required but not described included; owned */
    const json_t *other; /* the schema of other properties; NULL: there are none */
    bool *required;      /* [properties] */
    size_t n_required;
    uint32_t min, max; /* properties */
} object;

static void read_required(object *o, const json_t *schema)
{
    const json_t *required = cmi_schema_array(o->b, schema, "required");
    size_t n_required = json_array_size(required), n = 0;
    for (size_t i = 0; i < n_required && cmi_build_work(o->b, 1); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name == NULL) {
            cmi_schema_fail(o->b, CMI_ERR_BAD_DATA, "\"required\" must be a list of names");
        } else if (json_object_get(o->properties, name) == NULL) {
            json_object_set_new(o->properties, name,
                                o->other != NULL ? json_incref((json_t *)(uintptr_t)o->other)
                                                 : json_true());
        }
    }
    o->required = cmi_alloc(json_object_size(o->properties), sizeof *o->required);
    json_t *names = json_object(); /* a set, as lists can be long */
    for (size_t i = 0; o->b->status == CMI_OK && i < n_required; i++) {
        json_object_set_new(names, json_string_value(json_array_get(required, i)), json_null());
    }
    const char *name;
    json_t *value;
    json_object_foreach(o->properties, name, value)
    {
        o->required[n] = json_object_get(names, name) != NULL;
        o->n_required += o->required[n++];
    }
    json_decref(names);
}

static void read_other(object *o, const json_t *schema)
{
    const json_t *other = json_object_get(schema, "additionalProperties");
    const json_t *properties = json_object_get(schema, "properties");
    if (properties != NULL && !json_is_object(properties)) {
        cmi_schema_fail(o->b, CMI_ERR_BAD_DATA, "\"properties\" must be an object");
    }
    o->properties = json_object();
    if (json_is_object(properties)) {
        json_object_update(o->properties, (json_t *)(uintptr_t)properties);
    }
    if (other == NULL && json_object_size(properties) == 0) {
        o->other = json_true();
    } else if (other != NULL && !json_is_false(other)) {
        o->other = other;
    }
}

static bool read_object(object *o, const json_t *schema)
{
    cmi_build *b = o->b;
    read_other(o, schema);
    const json_t *closed = json_object_get(schema, "additionalProperties");
    size_t n_described = json_object_size(o->properties);
    read_required(o, schema);
    size_t n = json_object_size(o->properties);
    if (n > n_described && json_is_false(closed)) {
        return false; /* required and forbidden */
    }
    o->min = cmi_schema_count(b, schema, "minProperties", 0);
    o->max = cmi_schema_count(b, schema, "maxProperties", CMI_UNBOUNDED);
    if (n > 0 &&
        (o->min > o->n_required || o->max < n || (o->max != CMI_UNBOUNDED && o->other != NULL))) {
        cmi_schema_fail(b, CMI_ERR_UNSUPPORTED,
                        "\"minProperties\" and \"maxProperties\" beside properties are not "
                        "supported");
    }
    return b->status == CMI_OK && o->min <= o->max;
}

/* ---- Text ---- */

static void write_member(object *o, const char *name, const json_t *schema, uint32_t from,
                         uint32_t to)
{
    cmi_build *b = o->b;
    uint32_t text = cmi_nfa_state(b), quote = cmi_nfa_state(b), colon = cmi_nfa_state(b);
    uint32_t value = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, text, '"');
    cmi_json_text_write(b, name, strlen(name), text, quote);
    cmi_nfa_byte(b, quote, colon, '"');
    cmi_json_colon_write(b, colon, value);
    size_t mark = cmi_schema_enter(b, "properties", name);
    cmi_schema_part_write(b, schema, value, to);
    cmi_schema_leave(b, mark);
}

static void write_other_member(object *o, uint32_t from, uint32_t to)
{
    cmi_build *b = o->b;
    uint32_t colon = cmi_nfa_state(b), value = cmi_nfa_state(b);
    cmi_schema_other_name_write(b, o->properties, from, colon);
    cmi_json_colon_write(b, colon, value);
    size_t mark = cmi_schema_enter(b, "additionalProperties", NULL);
    cmi_schema_part_write(b, o->other, value, to);
    cmi_schema_leave(b, mark);
}

/* Members with free names, as many as wanted; behind the opening brace. */
static void write_map(object *o, uint32_t from, uint32_t to)
{
    cmi_build *b = o->b;
    uint32_t first = cmi_nfa_state(b), member = cmi_nfa_state(b), after = cmi_nfa_state(b);
    uint32_t comma = cmi_nfa_state(b), last = cmi_nfa_state(b);
    cmi_json_space_write(b, from, first);
    if (o->min == 0) {
        cmi_nfa_byte(b, first, to, '}');
    }
    if (o->max == 0) {
        return;
    }
    cmi_nfa_empty(b, first, member);
    write_other_member(o, member, after);
    cmi_nfa_byte(b, after, comma, ',');
    cmi_json_space_write(b, comma, member);
    cmi_json_space_write(b, after, last);
    cmi_nfa_byte(b, last, to, '}');
    if (b->status == CMI_OK && (o->min > 1 || o->max != CMI_UNBOUNDED)) {
        b->nfa.counters[after] = cmi_build_counter(
            b, o->min > 0 ? o->min - 1 : 0, o->max == CMI_UNBOUNDED ? o->max : o->max - 1, ',');
    }
}

/* A comma and space, then a member. */
static uint32_t write_comma(cmi_build *b, uint32_t from)
{
    uint32_t comma = cmi_nfa_state(b), member = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, comma, ',');
    cmi_json_space_write(b, comma, member);
    return member;
}

/* The schema's properties, then perhaps others; behind the opening brace. */
static void write_properties(object *o, uint32_t from, uint32_t to)
{
    cmi_build *b = o->b;
    uint32_t none = cmi_nfa_state(b), some = UINT32_MAX, close = cmi_nfa_state(b);
    size_t i = 0;
    const char *name;
    json_t *schema;
    cmi_json_space_write(b, from, none);
    json_object_foreach(o->properties, name, schema)
    {
        if (b->status != CMI_OK) {
            return;
        }
        bool required = o->required[i++];
        uint32_t after = cmi_nfa_state(b), member = cmi_nfa_state(b);
        if (none != UINT32_MAX) {
            cmi_nfa_empty(b, none, member);
        }
        if (some != UINT32_MAX) {
            cmi_nfa_empty(b, write_comma(b, some), member);
        }
        write_member(o, name, schema, member, after);
        if (!required && some != UINT32_MAX) {
            cmi_nfa_empty(b, some, after);
        }
        some = after;
        none = required ? UINT32_MAX : none;
    }
    if (none != UINT32_MAX) {
        cmi_nfa_byte(b, none, to, '}');
    }
    if (o->other != NULL) {
        uint32_t member = write_comma(b, some);
        if (none != UINT32_MAX) {
            cmi_nfa_empty(b, none, member);
        }
        write_other_member(o, member, some);
    }
    cmi_json_space_write(b, some, close);
    cmi_nfa_byte(b, close, to, '}');
}

static void write_map_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    object o = {.b = b};
    if (read_object(&o, rule->schema)) {
        uint32_t open = cmi_nfa_state(b);
        cmi_nfa_byte(b, from, open, '{');
        write_map(&o, open, to);
    }
    json_decref(o.properties);
    cmi_free(o.required);
}

void cmi_schema_object_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    object o = {.b = b};
    if (read_object(&o, schema)) {
        if (json_object_size(o.properties) > 0) {
            uint32_t open = cmi_nfa_state(b);
            cmi_nfa_byte(b, from, open, '{');
            write_properties(&o, open, to);
        } else if (o.other == NULL) {
            cmi_nfa_literal(b, from, to, "{}", 2);
        } else { /* a frame of its own, for the count */
            cmi_rule rule = {.write = write_map_rule, .schema = schema};
            cmi_nfa_call(b, from, to, cmi_schema_rule(b, "map", &rule));
        }
    }
    json_decref(o.properties);
    cmi_free(o.required);
}
