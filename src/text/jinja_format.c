/* text/jinja_format.c - "..." % values, and "...".format(values) without format specifications. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"

enum { WIDTH_MAX = 1000, SPEC_BYTES = 16 };

/* ---- % ---- */

typedef struct percent_spec {
    char flags[6];
    int width, precision; /* -1: not given */
    char conversion;
} percent_spec;

typedef struct percent_args {
    const cmi_jinja_value *items;
    size_t n, at;
} percent_args;

static bool next_arg(cmi_jinja_run *r, percent_args *args, cmi_jinja_value *out)
{
    if (args->at == args->n) {
        return cmi_jinja_misfit(r, "too few values for the format");
    }
    *out = args->items[args->at++];
    return true;
}

static const char *read_int(const char *p, const char *end, int *out)
{
    *out = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        *out = CMI_MIN(*out * 10 + (*p - '0'), WIDTH_MAX + 1);
    }
    return p;
}

/* Reads what follows a "%"; returns the position behind it, or NULL when it is not one. */
static const char *read_spec(const char *p, const char *end, percent_spec *spec)
{
    *spec = (percent_spec){.width = -1, .precision = -1};
    size_t n_flags = 0;
    while (p < end && *p != '\0' && strchr("-+ 0#", *p) != NULL) {
        if (strchr(spec->flags, *p) == NULL) {
            spec->flags[n_flags++] = *p;
        }
        p++;
    }
    if (p < end && *p >= '0' && *p <= '9') {
        p = read_int(p, end, &spec->width);
    }
    if (p < end && *p == '.') {
        p = read_int(p + 1, end, &spec->precision);
    }
    if (p >= end || spec->width > WIDTH_MAX || spec->precision > WIDTH_MAX) {
        return NULL;
    }
    spec->conversion = *p;
    return p + 1;
}

static bool add_padded(cmi_jinja_builder *b, const percent_spec *spec, const cmi_jinja_str *s)
{
    size_t n_chars = s->n_chars;
    if (spec->precision >= 0) {
        n_chars = CMI_MIN(n_chars, (size_t)spec->precision);
    }
    size_t n_bytes = cmi_jinja_str_offset(s, n_chars);
    size_t n_pad =
        spec->width > 0 && (size_t)spec->width > n_chars ? (size_t)spec->width - n_chars : 0;
    bool left = strchr(spec->flags, '-') != NULL;
    if (left && !cmi_jinja_add(b, s->bytes, n_bytes)) {
        return false;
    }
    for (size_t i = 0; i < n_pad; i++) {
        if (!cmi_jinja_add_c(b, " ")) {
            return false;
        }
    }
    return left || cmi_jinja_add(b, s->bytes, n_bytes);
}

/* The C format for a number with the flags, width and precision of spec. */
static void c_format(const percent_spec *spec, const char *length, char out[SPEC_BYTES * 2])
{
    char width[SPEC_BYTES] = "";
    char precision[SPEC_BYTES] = "";
    if (spec->width >= 0) {
        snprintf(width, sizeof width, "%d", spec->width);
    }
    if (spec->precision >= 0) {
        snprintf(precision, sizeof precision, ".%d", spec->precision);
    }
    snprintf(out, SPEC_BYTES * 2, "%%%s%s%s%s%c", spec->flags, width, precision, length,
             spec->conversion);
}

static bool add_number(cmi_jinja_builder *b, const percent_spec *spec, const cmi_jinja_value *v)
{
    char format[SPEC_BYTES * 2];
    char text[WIDTH_MAX * 2 + 400]; /* a float has up to 309 digits before its point */
    if (!cmi_jinja_is_number(v)) {
        return cmi_jinja_misfit(b->r, "%%%c needs a number, not %s", spec->conversion,
                                cmi_jinja_type_name(v));
    }
    cmi_jinja_value plain = cmi_jinja_plain_number(v);
    bool is_float_format = strchr("fFeEgG", spec->conversion) != NULL;
    bool wants_int = strchr("xXo", spec->conversion) != NULL;
    int n;
    if (is_float_format) {
        c_format(spec, "", format);
        n = snprintf(text, sizeof text, format, cmi_jinja_as_double(&plain));
        return cmi_jinja_add(b, text, (size_t)n);
    }
    if (plain.kind == CMI_JINJA_FLOAT) {
        bool fits = plain.real >= -9223372036854775808.0 && plain.real < 9223372036854775808.0;
        if (wants_int || !fits) {
            return cmi_jinja_misfit(b->r, "%%%c needs an int of 64 bits", spec->conversion);
        }
        plain = cmi_jinja_int((int64_t)plain.real);
    }
    if (wants_int && plain.integer < 0) {
        return cmi_jinja_misfit(b->r, "%%%c of a negative number is not supported",
                                spec->conversion);
    }
    percent_spec shown = *spec;
    shown.conversion = wants_int ? spec->conversion : 'd';
    c_format(&shown, "ll", format);
    n = snprintf(text, sizeof text, format, (long long)plain.integer);
    return cmi_jinja_add(b, text, (size_t)n);
}

static bool add_conversion(cmi_jinja_builder *b, const percent_spec *spec, percent_args *args)
{
    cmi_jinja_value v;
    if (spec->conversion == '%') {
        return cmi_jinja_add_c(b, "%");
    }
    if (spec->conversion == '\0' || strchr("srdiufFeEgGxXo", spec->conversion) == NULL) {
        return cmi_jinja_misfit(b->r, "this %% format is not supported: only s r d i u f e g x o");
    }
    if (!next_arg(b->r, args, &v)) {
        return false;
    }
    if (spec->conversion != 's' && spec->conversion != 'r') {
        return add_number(b, spec, &v);
    }
    cmi_jinja_builder part = {.r = b->r};
    cmi_jinja_value text;
    bool ok =
        spec->conversion == 's' ? cmi_jinja_add_text(&part, &v) : cmi_jinja_add_repr(&part, &v);
    return ok && cmi_jinja_built(&part, &text) && add_padded(b, spec, text.str);
}

bool cmi_jinja_percent(cmi_jinja_run *r, const cmi_jinja_str *format, const cmi_jinja_value *value,
                       cmi_jinja_value *out)
{
    percent_args args = {.items = value, .n = 1};
    if (value->kind == CMI_JINJA_TUPLE) {
        args = (percent_args){.items = value->seq->items, .n = value->seq->n};
    }
    cmi_jinja_builder b = {.r = r};
    const char *p = format->bytes;
    const char *end = p + format->n_bytes;
    while (p < end) {
        const char *percent = memchr(p, '%', (size_t)(end - p));
        const char *stop = percent == NULL ? end : percent;
        if (!cmi_jinja_add(&b, p, (size_t)(stop - p))) {
            return false;
        }
        p = stop;
        if (percent != NULL) {
            percent_spec spec;
            p = read_spec(percent + 1, end, &spec);
            if (p == NULL) {
                return cmi_jinja_misfit(r, "a %% format is not complete or too wide");
            }
            if (!add_conversion(&b, &spec, &args)) {
                return false;
            }
        }
    }
    /* What could hold values by name need not be used up: so Python decides it. */
    bool is_mapping = value->kind == CMI_JINJA_DICT || value->kind == CMI_JINJA_LIST ||
                      value->kind == CMI_JINJA_RANGE || value->kind == CMI_JINJA_UNDEFINED;
    bool unused = args.at < args.n && !is_mapping;
    if (unused) {
        return cmi_jinja_misfit(r, "more values than the format has places");
    }
    return cmi_jinja_built(&b, out);
}

/* ---- str.format ---- */

/* The value that a field's first part names: a place, a keyword, or nothing for the next place. */
static bool field_root(cmi_jinja_run *r, const cmi_jinja_args *args, const char *name, size_t n,
                       size_t *n_auto, cmi_jinja_value *out)
{
    size_t place = 0;
    size_t n_digits = 0;
    while (n_digits < n && n_digits < 9 && name[n_digits] >= '0' && name[n_digits] <= '9') {
        place = place * 10 + (size_t)(name[n_digits++] - '0');
    }
    if (n_digits == n) {
        place = n == 0 ? (*n_auto)++ : place;
        if (place >= args->n_positional) {
            return cmi_jinja_misfit(r, "format has no value number %zu", place);
        }
        *out = args->positional[place];
        return true;
    }
    for (size_t i = 0; i < args->n_keywords; i++) {
        const cmi_jinja_str *key = args->keywords[i].name;
        if (key->n_bytes == n && memcmp(key->bytes, name, n) == 0) {
            *out = args->keywords[i].value;
            return true;
        }
    }
    return cmi_jinja_misfit(r, "format has no value '%.*s'", (int)CMI_MIN(n, (size_t)80), name);
}

/* name, name.attribute or name[item], as often as it goes on. */
static bool field_value(cmi_jinja_run *r, const cmi_jinja_args *args, const char *p, size_t n,
                        size_t *n_auto, cmi_jinja_value *out)
{
    size_t at = 0;
    while (at < n && p[at] != '.' && p[at] != '[') {
        at++;
    }
    if (!field_root(r, args, p, at, n_auto, out)) {
        return false;
    }
    while (at < n) {
        bool is_attr = p[at++] == '.';
        size_t from = at;
        while (at < n && (is_attr ? p[at] != '.' && p[at] != '[' : p[at] != ']')) {
            at++;
        }
        const cmi_jinja_str *name = cmi_jinja_str_borrow(r, p + from, at - from);
        if (name == NULL) {
            return false;
        }
        cmi_jinja_value object = *out;
        cmi_jinja_value key = cmi_jinja_text(name);
        int64_t place = 0;
        bool is_place = !is_attr && name->n_bytes > 0 && name->n_bytes < 10;
        for (size_t i = 0; is_place && i < name->n_bytes; i++) {
            is_place = name->bytes[i] >= '0' && name->bytes[i] <= '9';
            place = place * 10 + (name->bytes[i] - '0');
        }
        if (is_place) {
            key = cmi_jinja_int(place);
        }
        if (!(is_attr ? cmi_jinja_get_attr(r, &object, name, out)
                      : cmi_jinja_get_item(r, &object, &key, out))) {
            return false;
        }
        at += !is_attr;
    }
    return true;
}

/* The field between its braces. */
static bool add_field(cmi_jinja_builder *b, const cmi_jinja_args *args, const char *p, size_t n,
                      size_t *n_auto)
{
    bool as_repr = n >= 2 && memcmp(p + n - 2, "!r", 2) == 0;
    bool as_text = n >= 2 && memcmp(p + n - 2, "!s", 2) == 0;
    n -= as_repr || as_text ? 2 : 0;
    if (memchr(p, ':', n) != NULL || memchr(p, '!', n) != NULL || memchr(p, '{', n) != NULL) {
        return cmi_jinja_misfit(b->r, "format does not support specifications here");
    }
    cmi_jinja_value v;
    return field_value(b->r, args, p, n, n_auto, &v) &&
           (as_repr ? cmi_jinja_add_repr(b, &v) : cmi_jinja_add_text(b, &v));
}

bool cmi_jinja_str_format(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *format = call->self.str;
    cmi_jinja_builder b = {.r = r};
    size_t n_auto = 0;
    size_t at = 0;
    while (at < format->n_bytes) {
        const char *p = format->bytes + at;
        size_t n_left = format->n_bytes - at;
        bool is_brace = *p == '{' || *p == '}';
        if (!is_brace || (n_left > 1 && p[1] == p[0])) {
            if (!cmi_jinja_add(&b, p, 1)) {
                return false;
            }
            at += is_brace ? 2 : 1;
            continue;
        }
        const char *end = *p == '{' ? memchr(p, '}', n_left) : NULL;
        if (end == NULL) {
            return cmi_jinja_misfit(r, "a single '%c' in a format", *p);
        }
        if (!add_field(&b, call->args, p + 1, (size_t)(end - p - 1), &n_auto)) {
            return false;
        }
        at = (size_t)(end - format->bytes) + 1;
    }
    return cmi_jinja_charge(r, format->n_bytes) && cmi_jinja_built(&b, out);
}
