/* grammar/schema_array.c - arrays.
 *
 * Items that are all alike are counted in a frame of the array's own, so that a thousand of them
 * take no more states than one. A tuple is a chain. */
#include <string.h>

#include "grammar/schema_internal.h"

typedef struct array {
    cmi_build *b;
    const json_t *prefix; /* NULL: no tuple */
    const json_t *rest;   /* the schema of items behind the tuple; NULL: there are none */
    uint32_t min, max;
} array;

static void read_array(array *a, const json_t *schema)
{
    cmi_build *b = a->b;
    const json_t *items = json_object_get(schema, "items");
    const json_t *additional = json_object_get(schema, "additionalItems");
    a->prefix = cmi_schema_array(b, schema, "prefixItems");
    a->min = cmi_schema_count(b, schema, "minItems", 0);
    a->max = cmi_schema_count(b, schema, "maxItems", CMI_UNBOUNDED);
    if (json_is_array(items)) { /* as tuples were written before 2020 */
        a->prefix = items;
        items = additional;
    }
    if (items == NULL && (json_array_size(a->prefix) == 0 || a->min > json_array_size(a->prefix))) {
        items = json_true();
    }
    a->rest = json_is_false(items) ? NULL : items;
    if (a->rest == NULL && a->max > json_array_size(a->prefix)) {
        a->max = (uint32_t)json_array_size(a->prefix);
    }
}

static void write_item(array *a, const json_t *schema, const char *keyword, uint32_t from,
                       uint32_t to)
{
    size_t mark = cmi_schema_enter(a->b, keyword, NULL);
    cmi_schema_part_write(a->b, schema, from, to);
    cmi_schema_leave(a->b, mark);
}

/* ---- Items that are all alike ---- */

static void write_list(array *a, uint32_t from, uint32_t to)
{
    cmi_build *b = a->b;
    uint32_t open = cmi_nfa_state(b), first = cmi_nfa_state(b), item = cmi_nfa_state(b);
    uint32_t after = cmi_nfa_state(b), comma = cmi_nfa_state(b), last = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, open, '[');
    cmi_json_space_write(b, open, first);
    if (a->min == 0) {
        cmi_nfa_byte(b, first, to, ']');
    }
    if (a->max == 0) {
        return;
    }
    cmi_nfa_empty(b, first, item);
    write_item(a, a->rest, "items", item, after);
    cmi_nfa_byte(b, after, comma, ',');
    cmi_json_space_write(b, comma, item);
    cmi_json_space_write(b, after, last);
    cmi_nfa_byte(b, last, to, ']');
    if (b->status == CMI_OK && (a->min > 1 || a->max != CMI_UNBOUNDED)) {
        b->nfa.counters[after] = cmi_build_counter(
            b, a->min > 0 ? a->min - 1 : 0, a->max == CMI_UNBOUNDED ? a->max : a->max - 1, ',');
    }
}

static void write_list_rule(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to)
{
    array a = {.b = b, .rest = rule->schema, .min = rule->min, .max = rule->max};
    write_list(&a, from, to);
}

/* ---- Tuples ---- */

static void write_tuple(array *a, uint32_t from, uint32_t to)
{
    cmi_build *b = a->b;
    size_t n_prefix = json_array_size(a->prefix);
    size_t n = CMI_MAX(n_prefix, (size_t)a->min);
    n = a->max == CMI_UNBOUNDED ? n : CMI_MIN((size_t)a->max, n_prefix + CMI_SCHEMA_MAX_TUPLE);
    if (n > n_prefix + CMI_SCHEMA_MAX_TUPLE || (a->max != CMI_UNBOUNDED && n < a->max)) {
        cmi_schema_fail(b, CMI_ERR_TOO_LARGE,
                        "\"minItems\" and \"maxItems\" are at most %d over \"prefixItems\"",
                        CMI_SCHEMA_MAX_TUPLE);
    }
    uint32_t open = cmi_nfa_state(b), at = cmi_nfa_state(b), close = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, open, '[');
    cmi_json_space_write(b, open, at);
    for (size_t i = 0; b->status == CMI_OK && i <= n; i++) {
        if (i > 0 && i >= a->min) {
            cmi_json_space_write(b, at, close);
        } else if (i == 0 && a->min == 0) {
            cmi_nfa_empty(b, at, close);
        }
        bool loops = i == n;
        if (loops && a->max != CMI_UNBOUNDED) {
            break;
        }
        uint32_t item = i == 0 ? at : cmi_nfa_state(b), comma = cmi_nfa_state(b);
        uint32_t after = loops ? at : cmi_nfa_state(b);
        if (i > 0) {
            cmi_nfa_byte(b, at, comma, ',');
            cmi_json_space_write(b, comma, item);
        }
        bool in_prefix = i < n_prefix;
        write_item(a, in_prefix ? json_array_get(a->prefix, i) : a->rest,
                   in_prefix ? "prefixItems" : "items", item, after);
        at = after;
    }
    cmi_nfa_byte(b, close, to, ']');
}

void cmi_schema_array_write(cmi_build *b, const json_t *schema, uint32_t from, uint32_t to)
{
    array a = {.b = b};
    read_array(&a, schema);
    if (b->status != CMI_OK || a.min > a.max) {
        return;
    }
    if (json_array_size(a.prefix) > 0) {
        write_tuple(&a, from, to);
    } else if (a.rest == NULL) {
        cmi_nfa_literal(b, from, to, "[]", 2);
    } else if (a.min > 1 || a.max != CMI_UNBOUNDED) {
        cmi_rule rule = {.write = write_list_rule, .schema = a.rest, .min = a.min, .max = a.max};
        cmi_nfa_call(b, from, to, cmi_schema_rule(b, "list", &rule));
    } else {
        write_list(&a, from, to);
    }
}
