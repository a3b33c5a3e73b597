/* text/jinja_filters_number.c - filters that make numbers. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "text/jinja_filters.h"
#include "text/unicode.h"

enum { NUMBER_BYTES_MAX = 400 };

static const cmi_jinja_str common = CMI_JINJA_STR("common");

/* A text without the whitespace around it and the underscores between digits, as a C string. False:
 * it cannot be a number. */
static bool number_text(const cmi_jinja_str *s, char out[NUMBER_BYTES_MAX + 1])
{
    const char *p = s->bytes;
    size_t n = s->n_bytes;
    while (n > 0 && cmi_unicode_is_space((unsigned char)*p)) {
        p++;
        n--;
    }
    while (n > 0 && cmi_unicode_is_space((unsigned char)p[n - 1])) {
        n--;
    }
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '_') {
            bool between = i > 0 && i + 1 < n && p[i - 1] != '_' && p[i + 1] != '_';
            if (!between) {
                return false;
            }
            continue;
        }
        if (n_out == NUMBER_BYTES_MAX || p[i] <= ' ') {
            return false;
        }
        out[n_out++] = p[i];
    }
    out[n_out] = '\0';
    return n_out > 0;
}

/* 1: *out is set. 0: the text is no integer of this base. -1: it has more than 64 bits. */
static int parse_int(const char *text, int base, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    bool has_prefix = digits[0] == '0' && (digits[1] | 0x20) == (base == 16  ? 'x'
                                                                 : base == 8 ? 'o'
                                                                 : base == 2 ? 'b'
                                                                             : -1);
    digits += has_prefix ? 2 : 0;
    static const char alphabet[] = "0123456789abcdef0123456789ABCDEF";
    size_t n = strlen(digits);
    char joined[NUMBER_BYTES_MAX + 2];
    for (size_t i = 0; i < n; i++) {
        const char *at = strchr(alphabet, digits[i]);
        if (at == NULL || (at - alphabet) % 16 >= base) {
            return 0;
        }
    }
    if (n == 0) {
        return 0;
    }
    snprintf(joined, sizeof joined, "%s%s", *text == '-' ? "-" : "", digits);
    errno = 0;
    *out = strtoll(joined, NULL, base);
    return errno == 0 ? 1 : -1;
}

static bool parse_float(const char *text, double *out)
{
    static const char *const words[] = {"inf", "infinity", "nan"};
    const char *body = text + (*text == '-' || *text == '+');
    bool is_word = false;
    for (size_t i = 0; i < CMI_LEN(words); i++) {
        is_word |= strcasecmp(body, words[i]) == 0;
    }
    if (!is_word && (*body == '\0' || strspn(body, "0123456789.eE+-") != strlen(body))) {
        return false;
    }
    char *end;
    *out = strtod(text, &end);
    return *end == '\0' && end != text;
}

static bool too_many_bits(cmi_jinja_run *r)
{
    return cmi_jinja_misfit(r, "int: the number does not fit in 64 bits");
}

/* Sets *out unless d is not a number. */
static bool truncate_float(cmi_jinja_run *r, double d, cmi_jinja_value *out)
{
    if (isnan(d)) {
        return true;
    }
    if (!(d > -9223372036854775809.0 && d < 9223372036854775808.0)) {
        return too_many_bits(r);
    }
    *out = cmi_jinja_int((int64_t)d);
    return true;
}

static bool int_of_text(cmi_jinja_run *r, const cmi_jinja_str *s, int base, cmi_jinja_value *out)
{
    char text[NUMBER_BYTES_MAX + 1];
    int64_t value;
    double d;
    if (!number_text(s, text)) {
        return true;
    }
    int found = parse_int(text, base, &value);
    if (found > 0) {
        *out = cmi_jinja_int(value);
        return true;
    }
    if (found < 0) {
        return too_many_bits(r);
    }
    if (parse_float(text, &d)) { /* "42.9" is 42 */
        return isinf(d) || truncate_float(r, d, out);
    }
    return true;
}

bool cmi_jinja_filter_int(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { DEFAULT, BASE };
    int64_t base = 10;
    const cmi_jinja_value *v = &call->self;
    *out = call->argv[DEFAULT].kind == CMI_JINJA_UNSET ? cmi_jinja_int(0) : call->argv[DEFAULT];
    if (call->argv[BASE].kind != CMI_JINJA_UNSET &&
        !cmi_jinja_want_int(r, &call->argv[BASE], "the base of int", &base)) {
        return false;
    }
    if (base != 2 && base != 8 && base != 10 && base != 16) {
        return cmi_jinja_misfit(r, "int knows the bases 2, 8, 10 and 16");
    }
    switch ((cmi_jinja_kind)v->kind) {
    case CMI_JINJA_UNDEFINED:
        return cmi_jinja_undefined_used(r, v);
    case CMI_JINJA_STR:
        return int_of_text(r, v->str, (int)base, out);
    case CMI_JINJA_BOOL:
    case CMI_JINJA_INT:
        *out = cmi_jinja_plain_number(v);
        return true;
    case CMI_JINJA_FLOAT:
        return truncate_float(r, v->real, out);
    default:
        return true;
    }
}

bool cmi_jinja_filter_float(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value *v = &call->self;
    char text[NUMBER_BYTES_MAX + 1];
    double d;
    *out = call->argv[0].kind == CMI_JINJA_UNSET ? cmi_jinja_float(0) : call->argv[0];
    if (v->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, v);
    }
    if (cmi_jinja_is_number(v)) {
        *out = cmi_jinja_float(cmi_jinja_as_double(v));
    } else if (v->kind == CMI_JINJA_STR && number_text(v->str, text) && parse_float(text, &d)) {
        *out = cmi_jinja_float(d);
    }
    return true;
}

bool cmi_jinja_filter_abs(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_value *v = &call->self;
    if (v->kind == CMI_JINJA_UNDEFINED) {
        return cmi_jinja_undefined_used(r, v);
    }
    if (!cmi_jinja_is_number(v)) {
        return cmi_jinja_misfit(r, "abs needs a number, not %s", cmi_jinja_type_name(v));
    }
    *out = cmi_jinja_plain_number(v);
    if (out->kind == CMI_JINJA_FLOAT) {
        out->real = fabs(out->real);
        return true;
    }
    return out->integer >= 0 || cmi_jinja_negate(r, v, out);
}

/* To the nearest, a tie to the even digit, of the exact value: what printf does. */
static double round_half_even(double d, int precision)
{
    char text[NUMBER_BYTES_MAX * 2];
    if (!isfinite(d) || precision > 330) {
        return d;
    }
    snprintf(text, sizeof text, "%.*f", precision, d);
    return strtod(text, NULL);
}

bool cmi_jinja_filter_round(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    enum { PRECISION, METHOD };
    const cmi_jinja_value *v = &call->self;
    int64_t precision = 0;
    const cmi_jinja_str *method = &common;
    if ((call->argv[PRECISION].kind != CMI_JINJA_UNSET &&
         !cmi_jinja_want_int(r, &call->argv[PRECISION], "the precision of round", &precision)) ||
        (call->argv[METHOD].kind != CMI_JINJA_UNSET &&
         !cmi_jinja_want_str(r, &call->argv[METHOD], "the method of round", &method))) {
        return false;
    }
    bool is_ceil = cmi_jinja_str_is(method, "ceil");
    bool is_common = cmi_jinja_str_is(method, "common");
    if (!cmi_jinja_is_number(v) || precision < 0 ||
        (!is_ceil && !is_common && !cmi_jinja_str_is(method, "floor"))) {
        return cmi_jinja_misfit(r, "round takes a number, a precision of 0 or more, and common, "
                                   "ceil or floor");
    }
    cmi_jinja_value plain = cmi_jinja_plain_number(v);
    if (is_common && plain.kind == CMI_JINJA_INT) {
        *out = plain;
        return true;
    }
    double d = cmi_jinja_as_double(v);
    int digits = (int)CMI_MIN(precision, (int64_t)1000);
    if (is_common) {
        *out = cmi_jinja_float(round_half_even(d, digits));
        return true;
    }
    double scale = pow(10, digits);
    *out = cmi_jinja_float((is_ceil ? ceil(d * scale) : floor(d * scale)) / scale);
    return true;
}
