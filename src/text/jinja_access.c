/* text/jinja_access.c - attributes, items and slices, in the order in which Jinja2 looks for them:
 * object.name takes a method before an item, object['name'] an item before a method. */
#include "base/utf8.h"
#include "text/jinja_run.h"

bool cmi_jinja_undefined_used(cmi_jinja_run *r, const cmi_jinja_value *v)
{
    if (v->of == CMI_JINJA_OF_REASON) {
        return cmi_jinja_misfit(r, "%s", v->reason);
    }
    int n = v->str == NULL ? 0 : (int)CMI_MIN(v->str->n_bytes, (size_t)200);
    const char *text = v->str == NULL ? "" : v->str->bytes;
    if (v->of == CMI_JINJA_OF_CONTEXT) {
        return cmi_jinja_misfit(r, "'%.*s' is undefined", n, text);
    }
    const char *type = cmi_jinja_type_name(&(cmi_jinja_value){.kind = v->of});
    if (v->str == NULL) {
        return cmi_jinja_misfit(r, "%s has no item at that place", type);
    }
    return cmi_jinja_misfit(r, "%s has no attribute or item '%.*s'", type, n, text);
}

bool cmi_jinja_want_int(cmi_jinja_run *r, const cmi_jinja_value *v, const char *what, int64_t *out)
{
    cmi_jinja_value plain = cmi_jinja_is_number(v) ? cmi_jinja_plain_number(v) : *v;
    if (plain.kind != CMI_JINJA_INT) {
        return cmi_jinja_misfit(r, "%s must be int, not %s", what, cmi_jinja_type_name(v));
    }
    *out = plain.integer;
    return true;
}

bool cmi_jinja_want_str(cmi_jinja_run *r, const cmi_jinja_value *v, const char *what,
                        const cmi_jinja_str **out)
{
    if (v->kind != CMI_JINJA_STR) {
        return cmi_jinja_misfit(r, "%s must be str, not %s", what, cmi_jinja_type_name(v));
    }
    *out = v->str;
    return true;
}

static cmi_jinja_value missing(const cmi_jinja_value *object, const cmi_jinja_str *name)
{
    return (cmi_jinja_value){.kind = CMI_JINJA_UNDEFINED, .of = object->kind, .str = name};
}

/* *out is UNSET when the object has no attribute of this name. */
static bool find_attr(cmi_jinja_run *r, const cmi_jinja_value *object, const cmi_jinja_str *name,
                      cmi_jinja_value *out)
{
    *out = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    if (object->kind == CMI_JINJA_NAMESPACE) {
        const cmi_jinja_namespace *ns = object->ns;
        for (size_t i = 0; i < ns->n; i++) {
            if (cmi_jinja_str_equal(ns->names[i], name)) {
                *out = ns->values[i];
                break;
            }
        }
        return cmi_jinja_charge(r, ns->n * 16);
    }
    if (object->kind == CMI_JINJA_LOOP) {
        return cmi_jinja_loop_attr(r, object->loop, name, out);
    }
    const cmi_jinja_builtin *builtin = cmi_jinja_find_method(object->kind, name);
    if (builtin == NULL) {
        return true;
    }
    if (builtin->fn == NULL) {
        *out = cmi_jinja_undefined("a template may not call a method that changes a list or dict");
        return true;
    }
    cmi_jinja_method *method = cmi_jinja_alloc(r, 1, sizeof *method);
    if (method == NULL) {
        return false;
    }
    *method = (cmi_jinja_method){.self = *object, .builtin = builtin};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_METHOD, .method = method};
    return true;
}

/* The item at index i of n, where a negative i counts from the end; n when there is none. */
static size_t item_place(int64_t i, size_t n)
{
    if (i < 0) {
        i += (int64_t)n;
    }
    return i < 0 || (uint64_t)i >= n ? n : (size_t)i;
}

static bool char_at(cmi_jinja_run *r, const cmi_jinja_str *s, size_t i, cmi_jinja_value *out)
{
    size_t at = cmi_jinja_str_offset(s, i);
    uint32_t cp;
    int n = cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
    const cmi_jinja_str *one = cmi_jinja_charge(r, s->n_bytes == s->n_chars ? 0 : at)
                                   ? cmi_jinja_str_borrow(r, s->bytes + at, (size_t)n)
                                   : NULL;
    *out = cmi_jinja_text(one);
    return one != NULL;
}

/* *out is UNSET when there is no such item. */
static bool find_item(cmi_jinja_run *r, const cmi_jinja_value *object, const cmi_jinja_value *index,
                      cmi_jinja_value *out)
{
    *out = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    if (object->kind == CMI_JINJA_DICT) {
        bool hashable = index->kind != CMI_JINJA_LIST && index->kind != CMI_JINJA_DICT;
        return !hashable || cmi_jinja_dict_get(r, object->dict, index, out);
    }
    bool has_places = object->kind == CMI_JINJA_STR || object->kind == CMI_JINJA_LIST ||
                      object->kind == CMI_JINJA_TUPLE || object->kind == CMI_JINJA_RANGE;
    if (!has_places || (index->kind != CMI_JINJA_INT && index->kind != CMI_JINJA_BOOL)) {
        return true;
    }
    size_t n = 0;
    cmi_jinja_length(object, &n);
    size_t i = item_place(cmi_jinja_plain_number(index).integer, n);
    if (i == n) {
        return true;
    }
    if (object->kind == CMI_JINJA_STR) {
        return char_at(r, object->str, i, out);
    }
    *out = object->kind == CMI_JINJA_RANGE ? cmi_jinja_range_at(object->range, i)
                                           : object->seq->items[i];
    return true;
}

bool cmi_jinja_get_attr(cmi_jinja_run *r, const cmi_jinja_value *object, const cmi_jinja_str *name,
                        cmi_jinja_value *out)
{
    if (object->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, object);
    }
    cmi_jinja_value key = cmi_jinja_text(name);
    if (!find_attr(r, object, name, out)) {
        return false;
    }
    if (out->kind == CMI_JINJA_UNSET && !find_item(r, object, &key, out)) {
        return false;
    }
    if (out->kind == CMI_JINJA_UNSET) {
        *out = missing(object, name);
    }
    return true;
}

bool cmi_jinja_get_item(cmi_jinja_run *r, const cmi_jinja_value *object,
                        const cmi_jinja_value *index, cmi_jinja_value *out)
{
    if (object->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, object);
    }
    if (!find_item(r, object, index, out)) {
        return false;
    }
    bool is_name = index->kind == CMI_JINJA_STR;
    if (out->kind == CMI_JINJA_UNSET && is_name && !find_attr(r, object, index->str, out)) {
        return false;
    }
    if (out->kind == CMI_JINJA_UNSET) {
        *out = missing(object, is_name ? index->str : NULL);
    }
    return true;
}

/* ---- slices ---- */

typedef struct slice_span {
    size_t start; /* of the first item */
    int64_t step;
    size_t n;
} slice_span;

/* A bound within 0..n, or -1..n-1 when going back; `otherwise` when it is not given. */
static bool clamp_bound(cmi_jinja_run *r, const cmi_jinja_value *v, size_t n, bool back,
                        int64_t otherwise, int64_t *out)
{
    int64_t length = (int64_t)n;
    *out = otherwise;
    if (v->kind == CMI_JINJA_NONE || v->kind == CMI_JINJA_UNSET) {
        return true;
    }
    if (!cmi_jinja_want_int(r, v, "the bound of a slice", out)) {
        return false;
    }
    int64_t lowest = back ? -1 : 0;
    if (*out < 0) {
        *out = *out + length < lowest ? lowest : *out + length;
    }
    *out = CMI_MIN(*out, back ? length - 1 : length);
    return true;
}

static bool resolve_slice(cmi_jinja_run *r, const cmi_jinja_value bounds[3], size_t n,
                          slice_span *out)
{
    out->step = 1;
    if (bounds[2].kind != CMI_JINJA_NONE &&
        !cmi_jinja_want_int(r, &bounds[2], "the step of a slice", &out->step)) {
        return false;
    }
    if (out->step == 0) {
        return cmi_jinja_misfit(r, "the step of a slice cannot be 0");
    }
    bool back = out->step < 0;
    int64_t start;
    int64_t stop;
    if (!clamp_bound(r, &bounds[0], n, back, back ? (int64_t)n - 1 : 0, &start) ||
        !clamp_bound(r, &bounds[1], n, back, back ? -1 : (int64_t)n, &stop)) {
        return false;
    }
    uint64_t distance = back ? (uint64_t)(start - stop) : (uint64_t)(stop - start);
    uint64_t stride = back ? 0 - (uint64_t)out->step : (uint64_t)out->step;
    bool is_empty = back ? start <= stop : stop <= start;
    out->n = is_empty ? 0 : (size_t)((distance - 1) / stride + 1);
    out->start = is_empty ? 0 : (size_t)start;
    return true;
}

bool cmi_jinja_char_span(cmi_jinja_run *r, const cmi_jinja_str *s, const cmi_jinja_value *start,
                         const cmi_jinja_value *stop, size_t *from, size_t *to)
{
    int64_t first;
    int64_t last;
    if (!clamp_bound(r, start, s->n_chars, false, 0, &first) ||
        !clamp_bound(r, stop, s->n_chars, false, (int64_t)s->n_chars, &last) ||
        !cmi_jinja_charge(r, s->n_bytes * 4)) {
        return false;
    }
    *from = cmi_jinja_str_offset(s, (size_t)first);
    *to = cmi_jinja_str_offset(s, (size_t)last);
    return true;
}

static bool slice_text(cmi_jinja_run *r, const cmi_jinja_str *s, const slice_span *span,
                       cmi_jinja_value *out)
{
    const cmi_jinja_str *made = NULL;
    if (span->step == 1) {
        size_t from = cmi_jinja_str_offset(s, span->start);
        size_t to = cmi_jinja_str_offset(s, span->start + span->n);
        if (cmi_jinja_charge(r, s->n_bytes == s->n_chars ? 0 : to)) {
            made = cmi_jinja_str_borrow(r, s->bytes + from, to - from);
        }
        *out = cmi_jinja_text(made);
        return made != NULL;
    }
    cmi_jinja_value whole = cmi_jinja_text(s);
    cmi_jinja_seq chars;
    if (!cmi_jinja_collect(r, &whole, &chars)) {
        return false;
    }
    cmi_jinja_builder b = {.r = r};
    size_t at = span->start;
    for (size_t i = 0; i < span->n; i++, at += (size_t)span->step) {
        if (!cmi_jinja_add_str(&b, chars.items[at].str)) {
            return false;
        }
    }
    return cmi_jinja_built(&b, out);
}

static bool slice_items(cmi_jinja_run *r, const cmi_jinja_value *object, const slice_span *span,
                        cmi_jinja_value *out)
{
    const cmi_jinja_value *from = object->seq->items;
    if (span->step == 1) {
        from += span->n == 0 ? 0 : span->start;
        return cmi_jinja_new_seq(r, object->kind, from, span->n, out);
    }
    cmi_jinja_value *items = cmi_jinja_alloc(r, span->n, sizeof *items);
    if (items == NULL || !cmi_jinja_charge(r, span->n)) {
        return false;
    }
    size_t at = span->start;
    for (size_t i = 0; i < span->n; i++, at += (size_t)span->step) {
        items[i] = from[at];
    }
    return cmi_jinja_new_seq(r, object->kind, items, span->n, out);
}

static bool slice_range(cmi_jinja_run *r, const cmi_jinja_range *range, const slice_span *span,
                        cmi_jinja_value *out)
{
    cmi_jinja_range *made = cmi_jinja_alloc(r, 1, sizeof *made);
    if (made == NULL) {
        return false;
    }
    made->start = cmi_jinja_range_at(range, span->start).integer;
    made->step = (int64_t)((uint64_t)range->step * (uint64_t)span->step);
    made->n = span->n;
    *out = (cmi_jinja_value){.kind = CMI_JINJA_RANGE, .range = made};
    return true;
}

bool cmi_jinja_slice(cmi_jinja_run *r, const cmi_jinja_value *object,
                     const cmi_jinja_value bounds[3], cmi_jinja_value *out)
{
    slice_span span = {0};
    size_t n = 0;
    if (object->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, object);
    }
    if (!cmi_jinja_length(object, &n) || object->kind == CMI_JINJA_DICT ||
        object->kind == CMI_JINJA_VIEW) {
        return cmi_jinja_misfit(r, "%s cannot be sliced", cmi_jinja_type_name(object));
    }
    if (!resolve_slice(r, bounds, n, &span)) {
        return false;
    }
    switch ((cmi_jinja_kind)object->kind) {
    case CMI_JINJA_STR:
        return slice_text(r, object->str, &span, out);
    case CMI_JINJA_RANGE:
        return slice_range(r, object->range, &span, out);
    default:
        return slice_items(r, object, &span, out);
    }
}
