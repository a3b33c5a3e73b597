/* text/jinja_arith.c - + - * / // % ** on numbers, texts and lists, as in Python.
 *
 * Integers have 64 bits here; an operation whose exact result needs more is an error, never a wrong
 * number. */
#include <math.h>
#include <string.h>

#include "text/jinja_run.h"

static const char *const op_texts[] = {
    [CMI_JINJA_ADD] = "+",       [CMI_JINJA_SUB] = "-", [CMI_JINJA_MUL] = "*",
    [CMI_JINJA_DIV] = "/",       [CMI_JINJA_MOD] = "%", [CMI_JINJA_POW] = "**",
    [CMI_JINJA_FLOORDIV] = "//",
};

static bool overflow(cmi_jinja_run *r, cmi_jinja_op op)
{
    return cmi_jinja_misfit(r, "the result of %s does not fit in 64 bits", op_texts[op]);
}

/* The quotient rounded down, and the remainder that goes with it. b is not 0, and not -1. */
static int64_t floor_div(int64_t a, int64_t b, int64_t *mod)
{
    int64_t q = a / b;
    *mod = a % b;
    if (*mod != 0 && (*mod < 0) != (b < 0)) {
        *mod += b;
        q--;
    }
    return q;
}

static bool int_pow(cmi_jinja_run *r, int64_t base, int64_t exponent, int64_t *out)
{
    int64_t result = 1;
    for (;;) {
        if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
            return overflow(r, CMI_JINJA_POW);
        }
        exponent >>= 1;
        if (exponent == 0) {
            *out = result;
            return true;
        }
        if (__builtin_mul_overflow(base, base, &base)) {
            return overflow(r, CMI_JINJA_POW);
        }
    }
}

/* Everything whose result is an integer; `/` and negative powers are not. */
static bool int_op(cmi_jinja_run *r, cmi_jinja_op op, int64_t a, int64_t b, cmi_jinja_value *out)
{
    int64_t result = 0;
    int64_t other;
    bool over = false;
    switch (op) {
    case CMI_JINJA_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case CMI_JINJA_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case CMI_JINJA_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case CMI_JINJA_FLOORDIV:
        if (b == -1) {
            over = __builtin_sub_overflow((int64_t)0, a, &result);
        } else {
            result = floor_div(a, b, &other);
        }
        break;
    case CMI_JINJA_MOD:
        if (b != -1) {
            floor_div(a, b, &result);
        }
        break;
    default:
        if (!int_pow(r, a, b, &result)) {
            return false;
        }
        break;
    }
    *out = cmi_jinja_int(result);
    return !over || overflow(r, op);
}

/* Python's float // and %: the remainder has the sign of b, and the quotient goes with it. */
static double float_floor_div(double a, double b, double *mod)
{
    *mod = fmod(a, b);
    double div = (a - *mod) / b;
    if (*mod != 0) {
        if ((b < 0) != (*mod < 0)) {
            *mod += b;
            div -= 1;
        }
    } else {
        *mod = copysign(0, b);
    }
    if (div == 0) {
        return copysign(0, a / b);
    }
    double whole = floor(div);
    return div - whole > 0.5 ? whole + 1 : whole;
}

static bool float_pow(cmi_jinja_run *r, double a, double b, cmi_jinja_value *out)
{
    double result = pow(a, b);
    if (isnan(result) && !isnan(a) && !isnan(b)) {
        return cmi_jinja_misfit(r, "a negative number has no power with a fraction");
    }
    if (isinf(result) && isfinite(a) && isfinite(b)) {
        return overflow(r, CMI_JINJA_POW);
    }
    *out = cmi_jinja_float(result);
    return true;
}

static bool float_op(cmi_jinja_run *r, cmi_jinja_op op, double a, double b, cmi_jinja_value *out)
{
    double mod = 0;
    double div;
    switch (op) {
    case CMI_JINJA_ADD:
        *out = cmi_jinja_float(a + b);
        return true;
    case CMI_JINJA_SUB:
        *out = cmi_jinja_float(a - b);
        return true;
    case CMI_JINJA_MUL:
        *out = cmi_jinja_float(a * b);
        return true;
    case CMI_JINJA_DIV:
        *out = cmi_jinja_float(a / b);
        return true;
    case CMI_JINJA_POW:
        return float_pow(r, a, b, out);
    default:
        div = float_floor_div(a, b, &mod);
        *out = cmi_jinja_float(op == CMI_JINJA_MOD ? mod : div);
        return true;
    }
}

static bool number_op(cmi_jinja_run *r, cmi_jinja_op op, const cmi_jinja_value *a,
                      const cmi_jinja_value *b, cmi_jinja_value *out)
{
    cmi_jinja_value x = cmi_jinja_plain_number(a);
    cmi_jinja_value y = cmi_jinja_plain_number(b);
    bool is_int = x.kind == CMI_JINJA_INT && y.kind == CMI_JINJA_INT;
    bool negative_power = op == CMI_JINJA_POW && cmi_jinja_as_double(&y) < 0;
    bool divides = op == CMI_JINJA_DIV || op == CMI_JINJA_FLOORDIV || op == CMI_JINJA_MOD;
    if ((divides && cmi_jinja_as_double(&y) == 0) ||
        (negative_power && cmi_jinja_as_double(&x) == 0)) {
        return cmi_jinja_misfit(r, "%s by zero", op == CMI_JINJA_MOD ? "modulo" : "division");
    }
    if (is_int && op != CMI_JINJA_DIV && !negative_power) {
        return int_op(r, op, x.integer, y.integer, out);
    }
    return float_op(r, op, cmi_jinja_as_double(&x), cmi_jinja_as_double(&y), out);
}

static bool repeat_text(cmi_jinja_run *r, const cmi_jinja_str *s, size_t times,
                        cmi_jinja_value *out)
{
    size_t n;
    if (__builtin_mul_overflow(s->n_bytes, times, &n)) {
        n = SIZE_MAX;
    }
    char *bytes = cmi_jinja_alloc(r, n, 1);
    if (bytes == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i += s->n_bytes) {
        memcpy(bytes + i, s->bytes, s->n_bytes);
    }
    const cmi_jinja_str *made = cmi_jinja_str_borrow(r, bytes, n);
    *out = cmi_jinja_text(made);
    return made != NULL;
}

static bool repeat_items(cmi_jinja_run *r, const cmi_jinja_value *v, size_t times,
                         cmi_jinja_value *out)
{
    const cmi_jinja_seq *seq = v->seq;
    size_t n;
    if (__builtin_mul_overflow(seq->n, times, &n)) {
        n = SIZE_MAX;
    }
    cmi_jinja_value *items = cmi_jinja_alloc(r, n, sizeof *items);
    if (items == NULL || !cmi_jinja_charge(r, n)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        items[i] = seq->items[i % seq->n];
    }
    return cmi_jinja_new_seq(r, v->kind, items, n, out);
}

static bool join_items(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                       cmi_jinja_value *out)
{
    size_t n = a->seq->n + b->seq->n;
    cmi_jinja_value *items = cmi_jinja_alloc(r, n, sizeof *items);
    if (items == NULL || !cmi_jinja_charge(r, n)) {
        return false;
    }
    if (a->seq->n > 0) {
        memcpy(items, a->seq->items, a->seq->n * sizeof *items);
    }
    if (b->seq->n > 0) {
        memcpy(items + a->seq->n, b->seq->items, b->seq->n * sizeof *items);
    }
    return cmi_jinja_new_seq(r, a->kind, items, n, out);
}

static bool is_items(const cmi_jinja_value *v)
{
    return v->kind == CMI_JINJA_LIST || v->kind == CMI_JINJA_TUPLE;
}

/* text * n, items * n, and both the other way round. */
static bool repeat(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                   cmi_jinja_value *out)
{
    bool number_first = cmi_jinja_is_number(a);
    const cmi_jinja_value *what = number_first ? b : a;
    cmi_jinja_value n = cmi_jinja_plain_number(number_first ? a : b);
    size_t times = n.integer > 0 ? (size_t)n.integer : 0;
    return what->kind == CMI_JINJA_STR ? repeat_text(r, what->str, times, out)
                                       : repeat_items(r, what, times, out);
}

static bool can_repeat(const cmi_jinja_value *what, const cmi_jinja_value *times)
{
    return (what->kind == CMI_JINJA_STR || is_items(what)) && cmi_jinja_is_number(times) &&
           times->kind != CMI_JINJA_FLOAT;
}

bool cmi_jinja_binary(cmi_jinja_run *r, cmi_jinja_op op, const cmi_jinja_value *a,
                      const cmi_jinja_value *b, cmi_jinja_value *out)
{
    if (cmi_jinja_is_number(a) && cmi_jinja_is_number(b)) {
        return number_op(r, op, a, b, out);
    }
    if (op == CMI_JINJA_MOD && a->kind == CMI_JINJA_STR) {
        return cmi_jinja_percent(r, a->str, b, out);
    }
    if (op == CMI_JINJA_ADD && a->kind == CMI_JINJA_STR && b->kind == CMI_JINJA_STR) {
        const cmi_jinja_str *s = cmi_jinja_concat(r, a->str, b->str);
        *out = cmi_jinja_text(s);
        return s != NULL;
    }
    if (op == CMI_JINJA_ADD && is_items(a) && a->kind == b->kind) {
        return join_items(r, a, b, out);
    }
    if (op == CMI_JINJA_MUL && (can_repeat(a, b) || can_repeat(b, a))) {
        return repeat(r, a, b, out);
    }
    if (a->kind == CMI_JINJA_UNDEFINED || b->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, a->kind == CMI_JINJA_UNDEFINED ? a : b);
    }
    return cmi_jinja_misfit(r, "%s cannot be used between %s and %s", op_texts[op],
                            cmi_jinja_type_name(a), cmi_jinja_type_name(b));
}

bool cmi_jinja_negate(cmi_jinja_run *r, const cmi_jinja_value *v, cmi_jinja_value *out)
{
    if (v->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, v);
    }
    if (!cmi_jinja_is_number(v)) {
        return cmi_jinja_misfit(r, "%s has no negative", cmi_jinja_type_name(v));
    }
    if (v->kind == CMI_JINJA_FLOAT) {
        *out = cmi_jinja_float(-v->real);
        return true;
    }
    cmi_jinja_value plain = cmi_jinja_plain_number(v);
    return int_op(r, CMI_JINJA_SUB, 0, plain.integer, out);
}
