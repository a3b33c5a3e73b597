/* text/jinja_filters_order.c - filters that compare items. Like Jinja2 they ignore case unless
 * case_sensitive is given. */
#include <string.h>

#include "text/jinja_filters.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

static const cmi_jinja_str comma = CMI_JINJA_STR(",");
static const cmi_jinja_str by_key = CMI_JINJA_STR("key");

static bool fold_case(cmi_jinja_run *r, bool case_sensitive, cmi_jinja_value *v)
{
    return case_sensitive || v->kind != CMI_JINJA_STR ||
           cmi_jinja_map_case(r, v->str, CMI_UNICODE_LOWER, v);
}

/* What an item is compared by. */
static bool item_key(cmi_jinja_run *r, const cmi_jinja_value *item, const cmi_jinja_value *path,
                     bool case_sensitive, cmi_jinja_value *out)
{
    return cmi_jinja_charge(r, 1) && cmi_jinja_follow_path(r, item, path, out) &&
           fold_case(r, case_sensitive, out);
}

/* The list of keys that "a,b.c" asks for. A list even for one: so Jinja2 does it, and two undefined
 * keys are then equal instead of an error. */
static bool sort_key(cmi_jinja_run *r, const cmi_jinja_value *item, const cmi_jinja_value *path,
                     bool case_sensitive, cmi_jinja_value *out)
{
    cmi_jinja_seq paths = {.items = path, .n = 1};
    if (path->kind == CMI_JINJA_STR && memchr(path->str->bytes, ',', path->str->n_bytes) != NULL) {
        cmi_jinja_call split = {.self = *path, .argv = {cmi_jinja_text(&comma)}};
        cmi_jinja_value list;
        if (!cmi_jinja_text_split(r, &split, &list)) {
            return false;
        }
        paths = *list.seq;
    }
    cmi_jinja_value *keys = cmi_jinja_alloc(r, paths.n, sizeof *keys);
    for (size_t i = 0; keys != NULL && i < paths.n; i++) {
        if (!item_key(r, item, &paths.items[i], case_sensitive, &keys[i])) {
            return false;
        }
    }
    return keys != NULL && cmi_jinja_new_seq(r, CMI_JINJA_LIST, keys, paths.n, out);
}

/* The items in the order of the keys, as a list. */
static bool reorder(cmi_jinja_run *r, const cmi_jinja_seq *items, const cmi_jinja_value *keys,
                    bool reverse, cmi_jinja_value *out)
{
    const size_t *order;
    cmi_jinja_value *sorted = cmi_jinja_alloc(r, items->n, sizeof *sorted);
    if (sorted == NULL ||
        !cmi_jinja_sorted_order(r, &(cmi_jinja_seq){keys, items->n}, reverse, &order)) {
        return false;
    }
    for (size_t i = 0; i < items->n; i++) {
        sorted[i] = items->items[order[i]];
    }
    return cmi_jinja_new_seq(r, CMI_JINJA_LIST, sorted, items->n, out);
}

bool cmi_jinja_filter_sort(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { REVERSE, CASE_SENSITIVE, ATTRIBUTE };
    cmi_jinja_seq items;
    if (!cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    cmi_jinja_value *keys = cmi_jinja_alloc(r, items.n, sizeof *keys);
    for (size_t i = 0; keys != NULL && i < items.n; i++) {
        if (!sort_key(r, &items.items[i], &call->argv[ATTRIBUTE],
                      cmi_jinja_truth(&call->argv[CASE_SENSITIVE]), &keys[i])) {
            return false;
        }
    }
    return keys != NULL && reorder(r, &items, keys, cmi_jinja_truth(&call->argv[REVERSE]), out);
}

bool cmi_jinja_filter_dictsort(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { CASE_SENSITIVE, BY, REVERSE };
    const cmi_jinja_str *by = &by_key;
    if (call->self.kind != CMI_JINJA_DICT) {
        return cmi_jinja_misfit(r, "dictsort needs dict, not %s", cmi_jinja_type_name(&call->self));
    }
    if (call->argv[BY].kind != CMI_JINJA_UNSET &&
        !cmi_jinja_want_str(r, &call->argv[BY], "what dictsort sorts by", &by)) {
        return false;
    }
    bool by_value = cmi_jinja_str_is(by, "value");
    if (!by_value && !cmi_jinja_str_is(by, "key")) {
        return cmi_jinja_misfit(r, "dictsort sorts by \"key\" or \"value\"");
    }
    const cmi_jinja_dict *d = call->self.dict;
    cmi_jinja_value pairs;
    cmi_jinja_value *keys = cmi_jinja_alloc(r, d->n, sizeof *keys);
    if (keys == NULL || !cmi_jinja_dict_view(r, d, CMI_JINJA_ITEMS, &pairs)) {
        return false;
    }
    for (size_t i = 0; i < d->n; i++) {
        keys[i] = by_value ? d->values[i] : d->keys[i];
        if (!fold_case(r, cmi_jinja_truth(&call->argv[CASE_SENSITIVE]), &keys[i])) {
            return false;
        }
    }
    return reorder(r, pairs.seq, keys, cmi_jinja_truth(&call->argv[REVERSE]), out);
}

bool cmi_jinja_filter_unique(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { CASE_SENSITIVE, ATTRIBUTE };
    cmi_jinja_seq items;
    if (!cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    cmi_jinja_dict_builder seen = {0};
    cmi_jinja_value *kept = cmi_jinja_alloc(r, items.n, sizeof *kept);
    size_t n = 0;
    for (size_t i = 0; kept != NULL && i < items.n; i++) {
        cmi_jinja_value key;
        size_t n_before = seen.n;
        if (!item_key(r, &items.items[i], &call->argv[ATTRIBUTE],
                      cmi_jinja_truth(&call->argv[CASE_SENSITIVE]), &key) ||
            !cmi_jinja_dict_put(r, &seen, &key, &key)) {
            return false;
        }
        if (seen.n > n_before) {
            kept[n++] = items.items[i];
        }
    }
    return kept != NULL && cmi_jinja_new_iterator(r, kept, n, out);
}

/* The first item of which no other is before it in the given direction. */
static bool extreme(cmi_jinja_run *r, const cmi_jinja_call *call, int direction,
                    cmi_jinja_value *out)
{
    enum { CASE_SENSITIVE, ATTRIBUTE };
    cmi_jinja_walk w;
    cmi_jinja_value best_key = {.kind = CMI_JINJA_UNSET};
    *out = cmi_jinja_undefined("min, max: there is no item");
    if (!cmi_jinja_walk_begin(r, &w, &call->self)) {
        return false;
    }
    for (;;) {
        cmi_jinja_value item;
        cmi_jinja_value key;
        int order = direction;
        if (!cmi_jinja_walk_next(r, &w, &item)) {
            return false;
        }
        if (item.kind == CMI_JINJA_UNSET) {
            return true;
        }
        if (!item_key(r, &item, &call->argv[ATTRIBUTE],
                      cmi_jinja_truth(&call->argv[CASE_SENSITIVE]), &key) ||
            (best_key.kind != CMI_JINJA_UNSET && !cmi_jinja_order(r, &key, &best_key, &order))) {
            return false;
        }
        if (order == direction) {
            *out = item;
            best_key = key;
        }
    }
}

bool cmi_jinja_filter_min(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return extreme(r, call, -1, out);
}

bool cmi_jinja_filter_max(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return extreme(r, call, 1, out);
}
