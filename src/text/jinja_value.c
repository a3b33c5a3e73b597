/* text/jinja_value.c - making values, and walking over those that hold others.
 *
 * A dict is two arrays that are searched from the front: those of messages and tools have a handful
 * of keys, and whoever searches a large one pays a step for every key. That leaves no hash table to
 * build, and none to attack with keys that collide. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_run.h"

const char *cmi_jinja_type_name(const cmi_jinja_value *v)
{
    static const char *const names[CMI_JINJA_N_KINDS] = {
        [CMI_JINJA_UNSET] = "nothing",
        [CMI_JINJA_UNDEFINED] = "Undefined",
        [CMI_JINJA_NONE] = "None",
        [CMI_JINJA_BOOL] = "bool",
        [CMI_JINJA_INT] = "int",
        [CMI_JINJA_FLOAT] = "float",
        [CMI_JINJA_STR] = "str",
        [CMI_JINJA_LIST] = "list",
        [CMI_JINJA_TUPLE] = "tuple",
        [CMI_JINJA_DICT] = "dict",
        [CMI_JINJA_RANGE] = "range",
        [CMI_JINJA_VIEW] = "dict view",
        [CMI_JINJA_ITERATOR] = "generator",
        [CMI_JINJA_NAMESPACE] = "namespace",
        [CMI_JINJA_LOOP] = "loop",
        [CMI_JINJA_MACRO] = "macro",
        [CMI_JINJA_FUNCTION] = "function",
        [CMI_JINJA_METHOD] = "method",
    };
    return names[v->kind];
}

bool cmi_jinja_truth(const cmi_jinja_value *v)
{
    size_t n;
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_UNSET:
    case CMI_JINJA_UNDEFINED:
    case CMI_JINJA_NONE:
        return false;
    case CMI_JINJA_BOOL:
        return v->boolean;
    case CMI_JINJA_INT:
        return v->integer != 0;
    case CMI_JINJA_FLOAT:
        return v->real != 0;
    default:
        return !cmi_jinja_length(v, &n) || n > 0;
    }
}

bool cmi_jinja_is_number(const cmi_jinja_value *v)
{
    return v->kind == CMI_JINJA_BOOL || v->kind == CMI_JINJA_INT || v->kind == CMI_JINJA_FLOAT;
}

cmi_jinja_value cmi_jinja_plain_number(const cmi_jinja_value *v)
{
    return v->kind == CMI_JINJA_BOOL ? cmi_jinja_int(v->boolean) : *v;
}

double cmi_jinja_as_double(const cmi_jinja_value *v)
{
    cmi_jinja_value plain = cmi_jinja_plain_number(v);
    return plain.kind == CMI_JINJA_FLOAT ? plain.real : (double)plain.integer;
}

bool cmi_jinja_new_seq(cmi_jinja_run *r, cmi_jinja_kind kind, const cmi_jinja_value *items,
                       size_t n, cmi_jinja_value *out)
{
    cmi_jinja_seq *seq = cmi_jinja_alloc(r, 1, sizeof *seq);
    if (seq == NULL) {
        return false;
    }
    *seq = (cmi_jinja_seq){.items = items, .n = n};
    *out = (cmi_jinja_value){.kind = (uint8_t)kind, .seq = seq};
    return true;
}

bool cmi_jinja_new_iterator(cmi_jinja_run *r, const cmi_jinja_value *items, size_t n,
                            cmi_jinja_value *out)
{
    struct {
        cmi_jinja_iterator iterator;
        cmi_jinja_seq seq;
    } *made = cmi_jinja_alloc(r, 1, sizeof *made);
    if (made == NULL) {
        return false;
    }
    made->seq = (cmi_jinja_seq){.items = items, .n = n};
    made->iterator = (cmi_jinja_iterator){.seq = &made->seq};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_ITERATOR, .iterator = &made->iterator};
    return true;
}

bool cmi_jinja_new_pair(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                        cmi_jinja_value *out)
{
    struct {
        cmi_jinja_seq seq;
        cmi_jinja_value items[2];
    } *made = cmi_jinja_alloc(r, 1, sizeof *made);
    if (made == NULL) {
        return false;
    }
    made->items[0] = *a;
    made->items[1] = *b;
    made->seq = (cmi_jinja_seq){.items = made->items, .n = 2};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_TUPLE, .seq = &made->seq};
    return true;
}

/* ---- dicts and namespaces ---- */

/* Python refuses keys that could change. */
static bool check_key(cmi_jinja_run *r, const cmi_jinja_value *key)
{
    if (key->kind == CMI_JINJA_LIST || key->kind == CMI_JINJA_DICT) {
        return cmi_jinja_misfit(r, "%s cannot be a key of a dict", cmi_jinja_type_name(key));
    }
    if (key->kind != CMI_JINJA_TUPLE) {
        return true;
    }
    if (!cmi_jinja_descend(r)) {
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < key->seq->n; i++) {
        ok = cmi_jinja_charge(r, 1) && check_key(r, &key->seq->items[i]);
    }
    cmi_jinja_ascend(r);
    return ok;
}

/* *at is n when the key is not among the n keys. */
static bool find_key(cmi_jinja_run *r, const cmi_jinja_value *keys, size_t n,
                     const cmi_jinja_value *key, size_t *at)
{
    if (!check_key(r, key) || !cmi_jinja_charge(r, n * 16)) {
        return false;
    }
    for (*at = 0; *at < n; ++*at) {
        bool same;
        if (!cmi_jinja_equal(r, &keys[*at], key, &same)) {
            return false;
        }
        if (same) {
            break;
        }
    }
    return true;
}

bool cmi_jinja_dict_put(cmi_jinja_run *r, cmi_jinja_dict_builder *b, const cmi_jinja_value *key,
                        const cmi_jinja_value *value)
{
    size_t at;
    if (!find_key(r, b->keys, b->n, key, &at)) {
        return false;
    }
    if (at < b->n) {
        b->values[at] = *value;
        return true;
    }
    if (b->n == b->cap) {
        size_t cap = b->cap * 2 + 4;
        cmi_jinja_value *keys = cmi_jinja_alloc(r, cap, sizeof *keys);
        cmi_jinja_value *values = keys == NULL ? NULL : cmi_jinja_alloc(r, cap, sizeof *values);
        if (values == NULL) {
            return false;
        }
        if (b->n > 0) {
            memcpy(keys, b->keys, b->n * sizeof *keys);
            memcpy(values, b->values, b->n * sizeof *values);
        }
        *b = (cmi_jinja_dict_builder){.keys = keys, .values = values, .n = b->n, .cap = cap};
    }
    b->keys[b->n] = *key;
    b->values[b->n++] = *value;
    return true;
}

bool cmi_jinja_dict_built(cmi_jinja_run *r, const cmi_jinja_dict_builder *b, cmi_jinja_value *out)
{
    cmi_jinja_dict *dict = cmi_jinja_alloc(r, 1, sizeof *dict);
    if (dict == NULL) {
        return false;
    }
    *dict = (cmi_jinja_dict){.keys = b->keys, .values = b->values, .n = b->n};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_DICT, .dict = dict};
    return true;
}

bool cmi_jinja_dict_get(cmi_jinja_run *r, const cmi_jinja_dict *d, const cmi_jinja_value *key,
                        cmi_jinja_value *out)
{
    size_t at;
    if (!find_key(r, d->keys, d->n, key, &at)) {
        return false;
    }
    *out = at < d->n ? d->values[at] : (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    return true;
}

bool cmi_jinja_dict_view(cmi_jinja_run *r, const cmi_jinja_dict *d, uint8_t which,
                         cmi_jinja_value *out)
{
    const cmi_jinja_value *items = which == CMI_JINJA_KEYS ? d->keys : d->values;
    if (which == CMI_JINJA_ITEMS) {
        cmi_jinja_value *pairs = cmi_jinja_alloc(r, d->n, sizeof *pairs);
        for (size_t i = 0; pairs != NULL && i < d->n; i++) {
            if (!cmi_jinja_new_pair(r, &d->keys[i], &d->values[i], &pairs[i])) {
                return false;
            }
        }
        items = pairs;
        if (pairs == NULL) {
            return false;
        }
    }
    bool ok = cmi_jinja_charge(r, d->n) && cmi_jinja_new_seq(r, CMI_JINJA_VIEW, items, d->n, out);
    out->of = which;
    return ok;
}

bool cmi_jinja_ns_set(cmi_jinja_run *r, cmi_jinja_namespace *ns, const cmi_jinja_str *name,
                      const cmi_jinja_value *value)
{
    if (!cmi_jinja_charge(r, ns->n * 16)) {
        return false;
    }
    for (size_t i = 0; i < ns->n; i++) {
        if (cmi_jinja_str_equal(ns->names[i], name)) {
            ns->values[i] = *value;
            return true;
        }
    }
    if (ns->n == ns->cap) {
        size_t cap = ns->cap * 2 + 4;
        const cmi_jinja_str **names = cmi_jinja_alloc(r, cap, sizeof *names);
        cmi_jinja_value *values = names == NULL ? NULL : cmi_jinja_alloc(r, cap, sizeof *values);
        if (values == NULL) {
            return false;
        }
        if (ns->n > 0) {
            memcpy(names, ns->names, ns->n * sizeof *names);
            memcpy(values, ns->values, ns->n * sizeof *values);
        }
        ns->names = names;
        ns->values = values;
        ns->cap = cap;
    }
    ns->names[ns->n] = name;
    ns->values[ns->n++] = *value;
    return true;
}

/* ---- walking ---- */

/* Unsigned, since i * step may not fit where the sum does. */
cmi_jinja_value cmi_jinja_range_at(const cmi_jinja_range *range, size_t i)
{
    return cmi_jinja_int((int64_t)((uint64_t)range->start + (uint64_t)i * (uint64_t)range->step));
}

bool cmi_jinja_length(const cmi_jinja_value *v, size_t *n_out)
{
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_UNDEFINED:
        *n_out = 0;
        return true;
    case CMI_JINJA_STR:
        *n_out = v->str->n_chars;
        return true;
    case CMI_JINJA_LIST:
    case CMI_JINJA_TUPLE:
    case CMI_JINJA_VIEW:
        *n_out = v->seq->n;
        return true;
    case CMI_JINJA_DICT:
        *n_out = v->dict->n;
        return true;
    case CMI_JINJA_RANGE:
        *n_out = v->range->n;
        return true;
    default:
        return false;
    }
}

bool cmi_jinja_is_iterable(const cmi_jinja_value *v)
{
    size_t n;
    return v->kind == CMI_JINJA_ITERATOR || cmi_jinja_length(v, &n);
}

bool cmi_jinja_walk_begin(cmi_jinja_run *r, cmi_jinja_walk *w, const cmi_jinja_value *over)
{
    *w = (cmi_jinja_walk){.over = *over};
    return cmi_jinja_is_iterable(over) ||
           cmi_jinja_misfit(r, "%s cannot be iterated over", cmi_jinja_type_name(over));
}

/* The code point at byte w->at as a text of its own; its bytes are those of the whole. */
static bool next_char(cmi_jinja_run *r, cmi_jinja_walk *w, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = w->over.str;
    uint32_t cp;
    int n = cmi_utf8_next(s->bytes + w->at, s->n_bytes - w->at, &cp);
    const cmi_jinja_str *one = cmi_jinja_str_borrow(r, s->bytes + w->at, (size_t)n);
    w->at += (size_t)n;
    *out = cmi_jinja_text(one);
    return one != NULL;
}

bool cmi_jinja_walk_next(cmi_jinja_run *r, cmi_jinja_walk *w, cmi_jinja_value *out)
{
    const cmi_jinja_value *over = &w->over;
    *out = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    if (over->kind == CMI_JINJA_ITERATOR) {
        cmi_jinja_iterator *it = over->iterator;
        if (it->at < it->seq->n) {
            *out = it->seq->items[it->at++];
        }
        return true;
    }
    size_t n = 0;
    cmi_jinja_length(over, &n);
    if (over->kind == CMI_JINJA_STR) {
        return w->at == over->str->n_bytes || next_char(r, w, out);
    }
    if (w->at >= n) {
        return true;
    }
    size_t i = w->at++;
    if (over->kind == CMI_JINJA_DICT) {
        *out = over->dict->keys[i];
    } else if (over->kind == CMI_JINJA_RANGE) {
        *out = cmi_jinja_range_at(over->range, i);
    } else {
        *out = over->seq->items[i];
    }
    return true;
}

bool cmi_jinja_collect(cmi_jinja_run *r, const cmi_jinja_value *over, cmi_jinja_seq *out)
{
    cmi_jinja_walk w;
    if (!cmi_jinja_walk_begin(r, &w, over)) {
        return false;
    }
    size_t n = 0;
    cmi_jinja_length(over, &n);
    switch ((cmi_jinja_kind)over->kind) {
    case CMI_JINJA_LIST:
    case CMI_JINJA_TUPLE:
    case CMI_JINJA_VIEW:
        *out = *over->seq;
        return true;
    case CMI_JINJA_DICT:
        *out = (cmi_jinja_seq){.items = over->dict->keys, .n = n};
        return true;
    case CMI_JINJA_ITERATOR:
        *out = *over->iterator->seq;
        if (over->iterator->at > 0) { /* an empty one may have no items to point into */
            out->items += over->iterator->at;
            out->n -= over->iterator->at;
        }
        over->iterator->at = over->iterator->seq->n;
        return true;
    default:
        break;
    }
    cmi_jinja_value *items = cmi_jinja_charge(r, n) ? cmi_jinja_alloc(r, n, sizeof *items) : NULL;
    if (items == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!cmi_jinja_walk_next(r, &w, &items[i])) {
            return false;
        }
    }
    *out = (cmi_jinja_seq){.items = items, .n = n};
    return true;
}
