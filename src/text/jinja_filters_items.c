/* text/jinja_filters_items.c - filters on lists and whatever else can be iterated over.
 *
 * Where Python gives a generator these give an iterator over values that are all there already: it
 * is gone through once and has no length, so that a template sees the same. */
#include <string.h>

#include "text/jinja_filters.h"

static const cmi_jinja_str empty = CMI_JINJA_STR("");

bool cmi_jinja_filter_length(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    size_t n = 0;
    if (!cmi_jinja_length(&call->self, &n)) {
        return cmi_jinja_misfit(r, "%s has no length", cmi_jinja_type_name(&call->self));
    }
    *out = cmi_jinja_int((int64_t)n);
    return true;
}

bool cmi_jinja_filter_first(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_walk w;
    if (!cmi_jinja_walk_begin(r, &w, &call->self) || !cmi_jinja_walk_next(r, &w, out)) {
        return false;
    }
    if (out->kind == CMI_JINJA_UNSET) {
        *out = cmi_jinja_undefined("first: there is no item");
    }
    return true;
}

bool cmi_jinja_filter_last(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value *v = &call->self;
    cmi_jinja_value minus_one = cmi_jinja_int(-1);
    size_t n = 0;
    if (!cmi_jinja_length(v, &n)) {
        return cmi_jinja_misfit(r, "last: %s has no last item; put |list before it",
                                cmi_jinja_type_name(v));
    }
    if (n == 0) {
        *out = cmi_jinja_undefined("last: there is no item");
        return true;
    }
    if (v->kind == CMI_JINJA_DICT) {
        *out = v->dict->keys[n - 1];
        return true;
    }
    if (v->kind == CMI_JINJA_VIEW) {
        *out = v->seq->items[n - 1];
        return true;
    }
    return cmi_jinja_get_item(r, v, &minus_one, out);
}

bool cmi_jinja_filter_list(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_seq items;
    return cmi_jinja_collect(r, &call->self, &items) &&
           cmi_jinja_new_seq(r, CMI_JINJA_LIST, items.items, items.n, out);
}

bool cmi_jinja_filter_reverse(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value back[3] = {cmi_jinja_none(), cmi_jinja_none(), cmi_jinja_int(-1)};
    if (call->self.kind == CMI_JINJA_STR) {
        return cmi_jinja_slice(r, &call->self, back, out);
    }
    cmi_jinja_seq items;
    if (!cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    cmi_jinja_value list;
    cmi_jinja_value reversed;
    if (!cmi_jinja_new_seq(r, CMI_JINJA_LIST, items.items, items.n, &list) ||
        !cmi_jinja_slice(r, &list, back, &reversed)) {
        return false;
    }
    if (call->self.kind == CMI_JINJA_ITERATOR) {
        *out = reversed;
        return true;
    }
    return cmi_jinja_new_iterator(r, reversed.seq->items, reversed.seq->n, out);
}

bool cmi_jinja_filter_items(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    if (call->self.kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_new_iterator(r, NULL, 0, out);
    }
    if (call->self.kind != CMI_JINJA_DICT) {
        return cmi_jinja_misfit(r, "items needs dict, not %s", cmi_jinja_type_name(&call->self));
    }
    cmi_jinja_value view;
    return cmi_jinja_dict_view(r, call->self.dict, CMI_JINJA_ITEMS, &view) &&
           cmi_jinja_new_iterator(r, view.seq->items, view.seq->n, out);
}

/* Lists of linecount items each; the last one is filled up with fill_with when that is given. */
bool cmi_jinja_filter_batch(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { LINECOUNT, FILL_WITH };
    const cmi_jinja_value *fill = &call->argv[FILL_WITH];
    int64_t size;
    cmi_jinja_seq items;
    if (!cmi_jinja_want_int(r, &call->argv[LINECOUNT], "the size of a batch", &size) ||
        !cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    if (size <= 0) {
        return cmi_jinja_misfit(r, "the size of a batch must be at least 1");
    }
    size_t step = (size_t)size;
    size_t n = items.n == 0 ? 0 : (items.n - 1) / step + 1;
    cmi_jinja_value *batches = cmi_jinja_alloc(r, n, sizeof *batches);
    for (size_t i = 0; batches != NULL && i < n; i++) {
        size_t n_here = CMI_MIN(step, items.n - i * step);
        const cmi_jinja_value *from = items.items + i * step;
        bool filled =
            n_here < step && fill->kind != CMI_JINJA_UNSET && fill->kind != CMI_JINJA_NONE;
        if (filled) {
            cmi_jinja_value *all = cmi_jinja_alloc(r, step, sizeof *all);
            if (all == NULL || !cmi_jinja_charge(r, step)) {
                return false;
            }
            for (size_t k = 0; k < step; k++) {
                all[k] = k < n_here ? from[k] : *fill;
            }
            from = all;
            n_here = step;
        }
        if (!cmi_jinja_new_seq(r, CMI_JINJA_LIST, from, n_here, &batches[i])) {
            return false;
        }
    }
    return batches != NULL && cmi_jinja_new_iterator(r, batches, n, out);
}

/* ---- attributes ---- */

/* One part of a path: a number when it is made of digits. */
static bool follow_part(cmi_jinja_run *r, const cmi_jinja_value *item, const char *part, size_t n,
                        cmi_jinja_value *out)
{
    const cmi_jinja_str *name = cmi_jinja_str_borrow(r, part, n);
    if (name == NULL) {
        return false;
    }
    cmi_jinja_value key = cmi_jinja_text(name);
    int64_t place = 0;
    bool is_place = n > 0 && n < 10;
    for (size_t i = 0; is_place && i < n; i++) {
        is_place = part[i] >= '0' && part[i] <= '9';
        place = place * 10 + (part[i] - '0');
    }
    if (is_place) {
        key = cmi_jinja_int(place);
    }
    return cmi_jinja_get_item(r, item, &key, out);
}

bool cmi_jinja_follow_path(cmi_jinja_run *r, const cmi_jinja_value *item,
                           const cmi_jinja_value *path, cmi_jinja_value *out)
{
    *out = *item;
    if (path->kind == CMI_JINJA_UNSET || path->kind == CMI_JINJA_NONE) {
        return true;
    }
    if (path->kind != CMI_JINJA_STR) {
        return cmi_jinja_get_item(r, item, path, out);
    }
    const char *p = path->str->bytes;
    const char *end = p + path->str->n_bytes;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        const char *stop = dot == NULL ? end : dot;
        cmi_jinja_value object = *out;
        if (!follow_part(r, &object, p, (size_t)(stop - p), out)) {
            return false;
        }
        if (dot == NULL) {
            return true;
        }
        p = dot + 1;
    }
}

/* Only attributes proper: methods, and what a namespace or loop holds. */
bool cmi_jinja_filter_attr(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value *v = &call->self;
    const cmi_jinja_str *name;
    if (!cmi_jinja_want_str(r, &call->argv[0], "the name of an attribute", &name)) {
        return false;
    }
    if (v->kind == CMI_JINJA_DICT && cmi_jinja_find_method(CMI_JINJA_DICT, name) == NULL) {
        *out = cmi_jinja_undefined("attr: a dict has no such attribute");
        return true;
    }
    return cmi_jinja_get_attr(r, v, name, out);
}

bool cmi_jinja_filter_join(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { D, ATTRIBUTE };
    cmi_jinja_builder b = {.r = r};
    const cmi_jinja_str *between = &empty;
    cmi_jinja_walk w;
    if ((call->argv[D].kind != CMI_JINJA_UNSET && !cmi_jinja_to_str(r, &call->argv[D], &between)) ||
        !cmi_jinja_walk_begin(r, &w, &call->self)) {
        return false;
    }
    for (size_t i = 0;; i++) {
        cmi_jinja_value item;
        cmi_jinja_value v;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_walk_next(r, &w, &item)) {
            return false;
        }
        if (item.kind == CMI_JINJA_UNSET) {
            return cmi_jinja_built(&b, out);
        }
        if (!cmi_jinja_follow_path(r, &item, &call->argv[ATTRIBUTE], &v) ||
            (i > 0 && !cmi_jinja_add_str(&b, between)) || !cmi_jinja_add_text(&b, &v)) {
            return false;
        }
    }
}

bool cmi_jinja_filter_sum(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { ATTRIBUTE, START };
    cmi_jinja_walk w;
    *out = call->argv[START].kind == CMI_JINJA_UNSET ? cmi_jinja_int(0) : call->argv[START];
    if (out->kind == CMI_JINJA_STR) {
        return cmi_jinja_misfit(r, "sum does not add texts; use join");
    }
    if (!cmi_jinja_walk_begin(r, &w, &call->self)) {
        return false;
    }
    for (;;) {
        cmi_jinja_value item;
        cmi_jinja_value v;
        cmi_jinja_value so_far = *out;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_walk_next(r, &w, &item)) {
            return false;
        }
        if (item.kind == CMI_JINJA_UNSET) {
            return true;
        }
        if (!cmi_jinja_follow_path(r, &item, &call->argv[ATTRIBUTE], &v) ||
            !cmi_jinja_binary(r, CMI_JINJA_ADD, &so_far, &v, out)) {
            return false;
        }
    }
}

/* ---- map and select ---- */

/* The arguments from the given place on. */
static cmi_jinja_args args_from(const cmi_jinja_args *args, size_t at)
{
    cmi_jinja_args rest = *args;
    at = CMI_MIN(at, args->n_positional);
    rest.positional = at == 0 ? args->positional : args->positional + at;
    rest.n_positional -= at;
    return rest;
}

/* map(attribute=path, default=value): sets both; UNSET path when this is not what is asked for. */
static bool map_by_attribute(cmi_jinja_run *r, const cmi_jinja_args *args, cmi_jinja_value *path,
                             cmi_jinja_value *otherwise)
{
    *path = *otherwise = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    const cmi_jinja_str *unknown = NULL;
    for (size_t i = 0; args->n_positional == 0 && i < args->n_keywords; i++) {
        const cmi_jinja_named *k = &args->keywords[i];
        if (cmi_jinja_str_is(k->name, "attribute")) {
            *path = k->value;
        } else if (cmi_jinja_str_is(k->name, "default")) {
            *otherwise = k->value;
        } else {
            unknown = k->name;
        }
    }
    if (path->kind != CMI_JINJA_UNSET && unknown != NULL) {
        return cmi_jinja_misfit(r, "map(attribute=...) knows no argument '%.*s'",
                                (int)CMI_MIN(unknown->n_bytes, (size_t)80), unknown->bytes);
    }
    return true;
}

/* A filter or test that is named by a value. */
static bool find_named(cmi_jinja_run *r, const cmi_jinja_value *name, bool is_filter,
                       const cmi_jinja_builtin **out)
{
    const char *what = is_filter ? "filter" : "test";
    const cmi_jinja_str *text;
    if (!cmi_jinja_want_str(r, name, is_filter ? "the name of a filter" : "the name of a test",
                            &text)) {
        return false;
    }
    *out = is_filter ? cmi_jinja_find_filter(text) : cmi_jinja_find_test(text);
    return *out != NULL || cmi_jinja_misfit(r, "there is no %s '%.*s'", what,
                                            (int)CMI_MIN(text->n_bytes, (size_t)80), text->bytes);
}

static bool map_one(cmi_jinja_run *r, const cmi_jinja_value *item, const cmi_jinja_value *path,
                    const cmi_jinja_value *otherwise, cmi_jinja_value *out)
{
    if (!cmi_jinja_follow_path(r, item, path, out)) {
        return false;
    }
    bool has_default = otherwise->kind != CMI_JINJA_UNSET && otherwise->kind != CMI_JINJA_NONE;
    if (out->kind == CMI_JINJA_UNDEFINED && has_default) {
        *out = *otherwise;
    }
    return true;
}

bool cmi_jinja_filter_map(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_value path;
    cmi_jinja_value otherwise;
    const cmi_jinja_builtin *filter = NULL;
    cmi_jinja_seq items = {0};
    if (!cmi_jinja_truth(&call->self)) {
        return cmi_jinja_new_iterator(r, NULL, 0, out);
    }
    if (!map_by_attribute(r, call->args, &path, &otherwise) ||
        !cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    if (path.kind == CMI_JINJA_UNSET) {
        if (call->args->n_positional == 0) {
            return cmi_jinja_misfit(r, "map needs the name of a filter or attribute=");
        }
        if (!find_named(r, &call->args->positional[0], true, &filter)) {
            return false;
        }
    }
    cmi_jinja_args rest = args_from(call->args, 1);
    cmi_jinja_value *mapped = cmi_jinja_alloc(r, items.n, sizeof *mapped);
    for (size_t i = 0; mapped != NULL && i < items.n; i++) {
        bool ok = cmi_jinja_charge(r, 1) &&
                  (filter == NULL ? map_one(r, &items.items[i], &path, &otherwise, &mapped[i])
                                  : cmi_jinja_apply(r, filter, &items.items[i], &rest, &mapped[i]));
        if (!ok) {
            return false;
        }
    }
    return mapped != NULL && cmi_jinja_new_iterator(r, mapped, items.n, out);
}

/* Keeps the items of which the test (or, without one, the truth) is `wanted`; by_attribute: of what
 * the first argument leads to. */
static bool select_items(cmi_jinja_run *r, const cmi_jinja_call *call, bool wanted,
                         bool by_attribute, cmi_jinja_value *out)
{
    size_t test_at = by_attribute ? 1 : 0;
    const cmi_jinja_args *args = call->args;
    const cmi_jinja_builtin *test = NULL;
    cmi_jinja_seq items = {0};
    if (!cmi_jinja_truth(&call->self)) {
        return cmi_jinja_new_iterator(r, NULL, 0, out);
    }
    if (by_attribute && args->n_positional == 0) {
        return cmi_jinja_misfit(r, "selectattr and rejectattr need the name of an attribute");
    }
    if ((args->n_positional > test_at &&
         !find_named(r, &args->positional[test_at], false, &test)) ||
        !cmi_jinja_collect(r, &call->self, &items)) {
        return false;
    }
    cmi_jinja_args rest = args_from(args, test_at + 1);
    cmi_jinja_value unset = {.kind = CMI_JINJA_UNSET};
    const cmi_jinja_value *path = by_attribute ? &args->positional[0] : &unset;
    cmi_jinja_value *kept = cmi_jinja_alloc(r, items.n, sizeof *kept);
    size_t n = 0;
    for (size_t i = 0; kept != NULL && i < items.n; i++) {
        cmi_jinja_value v;
        cmi_jinja_value verdict;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_follow_path(r, &items.items[i], path, &v)) {
            return false;
        }
        verdict = v;
        if (test != NULL && !cmi_jinja_apply(r, test, &v, &rest, &verdict)) {
            return false;
        }
        if (cmi_jinja_truth(&verdict) == wanted) {
            kept[n++] = items.items[i];
        }
    }
    return kept != NULL && cmi_jinja_new_iterator(r, kept, n, out);
}

bool cmi_jinja_filter_select(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return select_items(r, call, true, false, out);
}

bool cmi_jinja_filter_reject(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return select_items(r, call, false, false, out);
}

bool cmi_jinja_filter_selectattr(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return select_items(r, call, true, true, out);
}

bool cmi_jinja_filter_rejectattr(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return select_items(r, call, false, true, out);
}
