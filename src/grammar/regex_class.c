/* grammar/regex_class.c - classes and escapes of regular expressions. */
#include <string.h>

#include "base/utf8.h"
#include "grammar/regex_parse_internal.h"

void cmi_regex_refuse(cmi_regex *r, cmi_status st, const char *problem)
{
    cmi_build_fail(r->b, st, "%s: %s at byte %zu of the expression", r->what, problem,
                   (size_t)(r->p - r->begin));
}

uint32_t cmi_regex_char(cmi_regex *r)
{
    uint32_t c = 0;
    int n = cmi_utf8_next(r->p, (size_t)(r->end - r->p), &c);
    if (n <= 0) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "broken UTF-8");
        r->p = r->end;
        return 0;
    }
    r->p += n;
    return c;
}

static uint32_t hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return (uint32_t)(c - '0');
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10 : UINT32_MAX;
}

/* n digits, or those up to a closing brace when n is 0. */
static uint32_t hex_number(cmi_regex *r, int n)
{
    uint32_t value = 0;
    bool braces = n == 0;
    for (n = braces ? 6 : n; n > 0 && r->p < r->end; n--, r->p++) {
        uint32_t digit = hex_digit(*r->p);
        if (digit == UINT32_MAX) {
            break;
        }
        value = value * 16 + digit;
    }
    if (braces ? r->p == r->end || *r->p++ != '}' : n > 0) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "malformed hexadecimal escape");
    }
    return value;
}

static uint32_t unicode_escape(cmi_regex *r)
{
    if (r->p < r->end && *r->p == '{') {
        r->p++;
        return hex_number(r, 0);
    }
    uint32_t c = hex_number(r, 4);
    if (c >= 0xD800 && c <= 0xDBFF && r->end - r->p >= 2 && memcmp(r->p, "\\u", 2) == 0) {
        r->p += 2;
        uint32_t low = hex_number(r, 4);
        c = low >= 0xDC00 && low <= 0xDFFF ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : c;
    }
    return c;
}

/* \d, \w and \s are those of ASCII, as in ECMAScript and JSON Schema. */
static bool add_class(cmi_charset *set, uint32_t letter)
{
    static const struct {
        char letter;
        const char *ranges; /* pairs */
    } classes[] = {{'d', "09"}, {'w', "09AZ__az"}, {'s', "\t\r  "}};
    for (size_t i = 0; i < CMI_LEN(classes); i++) {
        bool same = (uint32_t)classes[i].letter == letter;
        if (!same && (uint32_t)classes[i].letter != (letter | 0x20)) {
            continue;
        }
        cmi_charset some = {0};
        for (const char *c = classes[i].ranges; *c != '\0'; c += 2) {
            cmi_charset_add(&some, (uint32_t)c[0], (uint32_t)c[1]);
        }
        cmi_charset_normalize(&some);
        if (!same) {
            cmi_charset_negate(&some);
        }
        for (uint32_t k = 0; k < some.n; k++) {
            cmi_charset_add(set, some.ranges[k].lo, some.ranges[k].hi);
        }
        cmi_charset_deinit(&some);
        return true;
    }
    return false;
}

/* The character behind a backslash that is not a class. */
static uint32_t single_escape(cmi_regex *r, uint32_t c, bool in_class)
{
    static const char controls[] = "n\nr\rt\tf\fv\v";
    for (size_t i = 0; i < sizeof controls - 1; i += 2) {
        if ((uint32_t)controls[i] == c) {
            return (uint32_t)controls[i + 1];
        }
    }
    bool next_is_digit = r->p < r->end && *r->p >= '0' && *r->p <= '9';
    if (c == '0' && !next_is_digit) {
        return 0;
    }
    if (c == 'b' && in_class) {
        return '\b';
    }
    if (c == 'x') {
        return hex_number(r, 2);
    }
    if (c == 'u') {
        return unicode_escape(r);
    }
    bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    if (letter || (c >= '0' && c <= '9') || c > 0x7F) {
        r->p--;
        cmi_regex_refuse(r, CMI_ERR_UNSUPPORTED,
                         c >= '1' && c <= '9' ? "a back-reference is not supported"
                                              : "this escape is not supported");
    }
    return c;
}

void cmi_regex_escape(cmi_regex *r, cmi_charset *set, bool in_class, uint32_t *single_out)
{
    *single_out = UINT32_MAX;
    if (r->p == r->end) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a backslash with nothing behind it");
        return;
    }
    uint32_t c = cmi_regex_char(r);
    if (add_class(set, c)) {
        return;
    }
    c = single_escape(r, c, in_class);
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "an escape that is no character");
        return;
    }
    cmi_charset_add(set, c, c);
    *single_out = c;
}

/* One character or escape between brackets; UINT32_MAX for \d and the like. */
static uint32_t class_item(cmi_regex *r, cmi_charset *set)
{
    uint32_t c = cmi_regex_char(r);
    if (c == '\\') {
        cmi_regex_escape(r, set, true, &c);
    } else {
        cmi_charset_add(set, c, c);
    }
    return c;
}

void cmi_regex_class(cmi_regex *r, cmi_charset *set)
{
    bool negated = r->p < r->end && *r->p == '^';
    r->p += negated;
    for (bool first = true; r->b->status == CMI_OK; first = false) {
        if (r->p == r->end) {
            cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a class without its closing bracket");
            return;
        }
        if (*r->p == ']' && !first) {
            r->p++;
            break;
        }
        if (*r->p == ']' || *r->p == '[') { /* dialects differ on what these mean */
            cmi_regex_refuse(r, CMI_ERR_UNSUPPORTED, "a bracket in a class must be escaped");
            return;
        }
        uint32_t lo = class_item(r, set);
        if (r->end - r->p < 2 || r->p[0] != '-' || r->p[1] == ']') {
            continue;
        }
        r->p++;
        uint32_t hi = class_item(r, set);
        if (lo == UINT32_MAX || hi == UINT32_MAX || lo > hi) {
            cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a range of a class that ends before it begins");
            return;
        }
        cmi_charset_add(set, lo, hi);
    }
    cmi_charset_normalize(set);
    if (negated) {
        cmi_charset_negate(set);
    }
}
