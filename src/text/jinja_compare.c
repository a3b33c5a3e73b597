/* text/jinja_compare.c - equality, order and membership, as in Python. */
#include <math.h>
#include <string.h>

#include "text/jinja_run.h"

enum { UNORDERED = 2, SHORT_TEXT_BYTES = 32 };

/* -1, 0 or 1; UNORDERED when there is a NaN. Exact: an int64 may have no equal as a double, but it
 * has one as a long double on every machine that we build for, or the double is beyond all int64.
 */
static int order_numbers(const cmi_jinja_value *a, const cmi_jinja_value *b)
{
    cmi_jinja_value x = cmi_jinja_plain_number(a);
    cmi_jinja_value y = cmi_jinja_plain_number(b);
    if (x.kind == CMI_JINJA_INT && y.kind == CMI_JINJA_INT) {
        return (x.integer > y.integer) - (x.integer < y.integer);
    }
    long double p = x.kind == CMI_JINJA_INT ? (long double)x.integer : (long double)x.real;
    long double q = y.kind == CMI_JINJA_INT ? (long double)y.integer : (long double)y.real;
    if (isnan(p) || isnan(q)) {
        return UNORDERED;
    }
    return (p > q) - (p < q);
}

static bool equal_texts(cmi_jinja_run *r, const cmi_jinja_str *a, const cmi_jinja_str *b, bool *out)
{
    *out = false;
    if (a->n_bytes != b->n_bytes) {
        return true;
    }
    if (a->n_bytes > SHORT_TEXT_BYTES && !cmi_jinja_charge(r, a->n_bytes)) {
        return false;
    }
    *out = cmi_jinja_str_equal(a, b);
    return true;
}

static bool equal_seqs(cmi_jinja_run *r, const cmi_jinja_seq *a, const cmi_jinja_seq *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_equal(r, &a->items[i], &b->items[i], out)) {
            return false;
        }
    }
    return true;
}

static bool equal_dicts(cmi_jinja_run *r, const cmi_jinja_dict *a, const cmi_jinja_dict *b,
                        bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        cmi_jinja_value other;
        if (!cmi_jinja_dict_get(r, b, &a->keys[i], &other)) {
            return false;
        }
        *out = other.kind != CMI_JINJA_UNSET;
        if (*out && !cmi_jinja_equal(r, &a->values[i], &other, out)) {
            return false;
        }
    }
    return true;
}

static bool equal_ranges(const cmi_jinja_range *a, const cmi_jinja_range *b)
{
    return a->n == b->n && (a->n == 0 || a->start == b->start) && (a->n <= 1 || a->step == b->step);
}

static bool equal_containers(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                             bool *out)
{
    if (!cmi_jinja_descend(r)) {
        return false;
    }
    bool ok = a->kind == CMI_JINJA_DICT ? equal_dicts(r, a->dict, b->dict, out)
                                        : equal_seqs(r, a->seq, b->seq, out);
    cmi_jinja_ascend(r);
    return ok;
}

bool cmi_jinja_equal(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                     bool *out)
{
    if (cmi_jinja_is_number(a) && cmi_jinja_is_number(b)) {
        *out = order_numbers(a, b) == 0;
        return true;
    }
    *out = false;
    if (a->kind != b->kind) {
        return true;
    }
    switch ((cmi_jinja_kind)a->kind) {
    case CMI_JINJA_UNDEFINED:
    case CMI_JINJA_NONE:
        *out = true;
        return true;
    case CMI_JINJA_STR:
        return equal_texts(r, a->str, b->str, out);
    case CMI_JINJA_LIST:
    case CMI_JINJA_TUPLE:
    case CMI_JINJA_DICT:
        return equal_containers(r, a, b, out);
    case CMI_JINJA_RANGE:
        *out = equal_ranges(a->range, b->range);
        return true;
    default:
        *out = a->seq == b->seq; /* the same object: all of the rest hold one pointer */
        return true;
    }
}

/* UTF-8 has the order of the code points. */
static bool order_texts(cmi_jinja_run *r, const cmi_jinja_str *a, const cmi_jinja_str *b, int *out)
{
    size_t n = CMI_MIN(a->n_bytes, b->n_bytes);
    int order = n == 0 ? 0 : memcmp(a->bytes, b->bytes, n);
    if (order == 0) {
        order = (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
    }
    *out = order < 0 ? -1 : order > 0;
    return cmi_jinja_charge(r, n);
}

/* The order of the first items that differ; the shorter one comes first. */
static bool order_seqs(cmi_jinja_run *r, const cmi_jinja_seq *a, const cmi_jinja_seq *b, int *out)
{
    size_t n = CMI_MIN(a->n, b->n);
    for (size_t i = 0; i < n; i++) {
        bool same;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_equal(r, &a->items[i], &b->items[i], &same)) {
            return false;
        }
        if (!same) {
            return cmi_jinja_order(r, &a->items[i], &b->items[i], out);
        }
    }
    *out = (a->n > b->n) - (a->n < b->n);
    return true;
}

bool cmi_jinja_order(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b, int *out)
{
    if (cmi_jinja_is_number(a) && cmi_jinja_is_number(b)) {
        *out = order_numbers(a, b);
        return true;
    }
    if (a->kind == CMI_JINJA_STR && b->kind == CMI_JINJA_STR) {
        return order_texts(r, a->str, b->str, out);
    }
    if (a->kind == b->kind && (a->kind == CMI_JINJA_LIST || a->kind == CMI_JINJA_TUPLE)) {
        if (!cmi_jinja_descend(r)) {
            return false;
        }
        bool ok = order_seqs(r, a->seq, b->seq, out);
        cmi_jinja_ascend(r);
        return ok;
    }
    if (a->kind == CMI_JINJA_UNDEFINED || b->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, a->kind == CMI_JINJA_UNDEFINED ? a : b);
    }
    return cmi_jinja_misfit(r, "there is no order between %s and %s", cmi_jinja_type_name(a),
                            cmi_jinja_type_name(b));
}

bool cmi_jinja_contains(cmi_jinja_run *r, const cmi_jinja_value *container,
                        const cmi_jinja_value *item, bool *out)
{
    *out = false;
    if (container->kind == CMI_JINJA_STR) {
        const cmi_jinja_str *part;
        const cmi_jinja_str *whole = container->str;
        if (!cmi_jinja_want_str(r, item, "what is looked for in a text", &part) ||
            !cmi_jinja_charge(r, whole->n_bytes * 4)) {
            return false;
        }
        *out = memmem(whole->bytes, whole->n_bytes, part->bytes, part->n_bytes) != NULL;
        return true;
    }
    if (container->kind == CMI_JINJA_DICT) {
        cmi_jinja_value found;
        bool ok = cmi_jinja_dict_get(r, container->dict, item, &found);
        *out = ok && found.kind != CMI_JINJA_UNSET;
        return ok;
    }
    cmi_jinja_walk w;
    if (!cmi_jinja_walk_begin(r, &w, container)) {
        return false;
    }
    for (;;) {
        cmi_jinja_value v;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_walk_next(r, &w, &v)) {
            return false;
        }
        if (v.kind == CMI_JINJA_UNSET) {
            return true;
        }
        if (!cmi_jinja_equal(r, &v, item, out)) {
            return false;
        }
        if (*out) {
            return true;
        }
    }
}

bool cmi_jinja_compare(cmi_jinja_run *r, cmi_jinja_op op, const cmi_jinja_value *a,
                       const cmi_jinja_value *b, bool *out)
{
    bool found = false;
    int order = UNORDERED;
    switch (op) {
    case CMI_JINJA_EQ:
        return cmi_jinja_equal(r, a, b, out);
    case CMI_JINJA_NE:
        if (!cmi_jinja_equal(r, a, b, &found)) {
            return false;
        }
        *out = !found;
        return true;
    case CMI_JINJA_IN:
    case CMI_JINJA_NOT_IN:
        if (!cmi_jinja_contains(r, b, a, &found)) {
            return false;
        }
        *out = found == (op == CMI_JINJA_IN);
        return true;
    default:
        break;
    }
    if (!cmi_jinja_order(r, a, b, &order)) {
        return false;
    }
    bool or_equal = (op == CMI_JINJA_LE || op == CMI_JINJA_GE) && order == 0;
    *out = or_equal || order == (op == CMI_JINJA_LT || op == CMI_JINJA_LE ? -1 : 1);
    return true;
}
