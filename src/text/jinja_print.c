/* text/jinja_print.c - values as text: Python's str() and repr(). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_run.h"
#include "text/unicode.h"

enum { PRECISION_MAX = 17 }; /* digits that tell every double from its neighbours */

/* The digits of "d.ddde+xx" moved to where Python puts them: plain between 1e-4 and 1e16. */
static void place_digits(const char *scientific, char *out, size_t size)
{
    const char *sign = *scientific == '-' ? "-" : "";
    char digits[PRECISION_MAX + 1];
    size_t n = 0;
    const char *p = scientific + (*sign != '\0');
    for (; *p != 'e'; p++) {
        if (*p != '.') {
            digits[n++] = *p;
        }
    }
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    digits[n] = '\0';
    int exponent = (int)strtol(p + 1, NULL, 10);
    int n_digits = (int)n;
    if (exponent < -4 || exponent >= 16) {
        snprintf(out, size, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "", digits + 1,
                 exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        snprintf(out, size, "%s0.%.*s%s", sign, -exponent - 1, "000", digits);
    } else if (n_digits <= exponent + 1) {
        snprintf(out, size, "%s%s%.*s.0", sign, digits, exponent + 1 - n_digits,
                 "0000000000000000");
    } else {
        snprintf(out, size, "%s%.*s.%s", sign, exponent + 1, digits, digits + exponent + 1);
    }
}

void cmi_jinja_print_float(double d, char out[CMI_JINJA_FLOAT_BYTES])
{
    if (isnan(d) || isinf(d)) {
        snprintf(out, CMI_JINJA_FLOAT_BYTES, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    char scientific[CMI_JINJA_FLOAT_BYTES];
    for (int precision = 0; precision < PRECISION_MAX; precision++) {
        snprintf(scientific, sizeof scientific, "%.*e", precision, d);
        if (strtod(scientific, NULL) == d) {
            break;
        }
    }
    place_digits(scientific, out, CMI_JINJA_FLOAT_BYTES);
}

/* The letter behind the backslash of a short escape, or 0. */
static char short_escape(uint32_t cp, char quote)
{
    switch (cp) {
    case '\\':
        return '\\';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return cp == (uint32_t)(unsigned char)quote ? quote : '\0';
    }
}

static bool add_repr_char(cmi_jinja_builder *b, uint32_t cp, char quote)
{
    char letter = short_escape(cp, quote);
    if (letter != '\0') {
        char text[2] = {'\\', letter};
        return cmi_jinja_add(b, text, 2);
    }
    if (cmi_unicode_is_printable(cp)) {
        return cmi_jinja_add_char(b, cp);
    }
    if (cp < 0x100) {
        return cmi_jinja_add_hex(b, 'x', cp, 2);
    }
    return cp < 0x10000 ? cmi_jinja_add_hex(b, 'u', cp, 4) : cmi_jinja_add_hex(b, 'U', cp, 8);
}

static bool add_repr_text(cmi_jinja_builder *b, const cmi_jinja_str *s)
{
    bool has_single = memchr(s->bytes, '\'', s->n_bytes) != NULL;
    bool has_double = memchr(s->bytes, '"', s->n_bytes) != NULL;
    char quote = has_single && !has_double ? '"' : '\'';
    if (!cmi_jinja_charge(b->r, s->n_bytes * 8) || !cmi_jinja_add(b, &quote, 1)) {
        return false;
    }
    size_t at = 0;
    while (at < s->n_bytes) {
        uint32_t cp = 0;
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (!add_repr_char(b, cp, quote)) {
            return false;
        }
    }
    return cmi_jinja_add(b, &quote, 1);
}

static bool add_repr_items(cmi_jinja_builder *b, const cmi_jinja_seq *seq)
{
    for (size_t i = 0; i < seq->n; i++) {
        if ((i > 0 && !cmi_jinja_add_c(b, ", ")) || !cmi_jinja_add_repr(b, &seq->items[i])) {
            return false;
        }
    }
    return true;
}

static bool add_repr_pair(cmi_jinja_builder *b, const cmi_jinja_value *key,
                          const cmi_jinja_value *value, bool is_first)
{
    return (is_first || cmi_jinja_add_c(b, ", ")) && cmi_jinja_add_repr(b, key) &&
           cmi_jinja_add_c(b, ": ") && cmi_jinja_add_repr(b, value);
}

static bool add_repr_dict(cmi_jinja_builder *b, const cmi_jinja_dict *d)
{
    for (size_t i = 0; i < d->n; i++) {
        if (!add_repr_pair(b, &d->keys[i], &d->values[i], i == 0)) {
            return false;
        }
    }
    return true;
}

static bool add_repr_namespace(cmi_jinja_builder *b, const cmi_jinja_namespace *ns)
{
    for (size_t i = 0; i < ns->n; i++) {
        cmi_jinja_value name = cmi_jinja_text(ns->names[i]);
        if (!add_repr_pair(b, &name, &ns->values[i], i == 0)) {
            return false;
        }
    }
    return true;
}

static bool add_repr_range(cmi_jinja_builder *b, const cmi_jinja_range *range)
{
    char text[80];
    int64_t stop = cmi_jinja_range_at(range, range->n).integer;
    if (range->step == 1) {
        snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ")", range->start, stop);
    } else {
        snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", range->start,
                 stop, range->step);
    }
    return cmi_jinja_add_c(b, text);
}

static bool add_repr_macro(cmi_jinja_builder *b, const cmi_jinja_macro *macro)
{
    const cmi_jinja_str *name = macro->def->name;
    if (name == NULL) {
        return cmi_jinja_add_c(b, "<Macro anonymous>");
    }
    return cmi_jinja_add_c(b, "<Macro ") && add_repr_text(b, name) && cmi_jinja_add_c(b, ">");
}

/* What holds other values, between its brackets. */
static bool add_repr_container(cmi_jinja_builder *b, const cmi_jinja_value *v)
{
    static const char *const views[] = {
        [CMI_JINJA_KEYS] = "dict_keys([",
        [CMI_JINJA_VALUES] = "dict_values([",
        [CMI_JINJA_ITEMS] = "dict_items([",
    };
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_LIST:
        return cmi_jinja_add_c(b, "[") && add_repr_items(b, v->seq) && cmi_jinja_add_c(b, "]");
    case CMI_JINJA_TUPLE:
        return cmi_jinja_add_c(b, "(") && add_repr_items(b, v->seq) &&
               cmi_jinja_add_c(b, v->seq->n == 1 ? ",)" : ")");
    case CMI_JINJA_VIEW:
        return cmi_jinja_add_c(b, views[v->of]) && add_repr_items(b, v->seq) &&
               cmi_jinja_add_c(b, "])");
    case CMI_JINJA_DICT:
        return cmi_jinja_add_c(b, "{") && add_repr_dict(b, v->dict) && cmi_jinja_add_c(b, "}");
    case CMI_JINJA_NAMESPACE:
        return cmi_jinja_add_c(b, "<Namespace {") && add_repr_namespace(b, v->ns) &&
               cmi_jinja_add_c(b, "}>");
    default:
        return cmi_jinja_misfit(b->r, "%s cannot be printed", cmi_jinja_type_name(v));
    }
}

bool cmi_jinja_add_repr(cmi_jinja_builder *b, const cmi_jinja_value *v)
{
    char text[CMI_JINJA_FLOAT_BYTES];
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_UNDEFINED:
        return cmi_jinja_add_c(b, "Undefined");
    case CMI_JINJA_NONE:
        return cmi_jinja_add_c(b, "None");
    case CMI_JINJA_BOOL:
        return cmi_jinja_add_c(b, v->boolean ? "True" : "False");
    case CMI_JINJA_INT:
        snprintf(text, sizeof text, "%" PRId64, v->integer);
        return cmi_jinja_add_c(b, text);
    case CMI_JINJA_FLOAT:
        cmi_jinja_print_float(v->real, text);
        return cmi_jinja_add_c(b, text);
    case CMI_JINJA_STR:
        return add_repr_text(b, v->str);
    case CMI_JINJA_RANGE:
        return add_repr_range(b, v->range);
    case CMI_JINJA_MACRO:
        return add_repr_macro(b, v->macro);
    default:
        break;
    }
    if (!cmi_jinja_descend(b->r)) {
        return false;
    }
    bool ok = cmi_jinja_charge(b->r, 1) && add_repr_container(b, v);
    cmi_jinja_ascend(b->r);
    return ok;
}

bool cmi_jinja_add_text(cmi_jinja_builder *b, const cmi_jinja_value *v)
{
    if (v->kind == CMI_JINJA_STR) {
        return cmi_jinja_add_str(b, v->str);
    }
    return v->kind == CMI_JINJA_UNDEFINED || cmi_jinja_add_repr(b, v);
}

bool cmi_jinja_to_str(cmi_jinja_run *r, const cmi_jinja_value *v, const cmi_jinja_str **out)
{
    if (v->kind == CMI_JINJA_STR) {
        *out = v->str;
        return true;
    }
    cmi_jinja_builder b = {.r = r};
    cmi_jinja_value text;
    if (!cmi_jinja_add_text(&b, v) || !cmi_jinja_built(&b, &text)) {
        return false;
    }
    *out = text.str;
    return true;
}
