/* text/jinja_literal.c - the inside of string and number literals, as Python reads them. */
#include <errno.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/jinja_lexer.h"

/* One-letter escapes; the rest are \newline, \ooo, \xhh, \uhhhh and \Uhhhhhhhh. */
static const char simple_escapes[][2] = {
    {'\\', '\\'}, {'\'', '\''}, {'"', '"'},  {'a', '\a'}, {'b', '\b'},
    {'f', '\f'},  {'n', '\n'},  {'r', '\r'}, {'t', '\t'}, {'v', '\v'},
};

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* Up to n_max digits of the base from p, not beyond end; returns how many there are. */
static size_t read_digits(const char *p, const char *end, size_t n_max, int base, uint32_t *out)
{
    size_t n = 0;
    *out = 0;
    while (n < n_max && p + n < end && digit_value(p[n]) < base) {
        *out = *out * (uint32_t)base + (uint32_t)digit_value(p[n]);
        n++;
    }
    return n;
}

/* The escape whose letter is at *p: appends what it stands for to *to. False: it is broken. */
static bool read_escape(const char **p, const char *end, char **to)
{
    char c = *(*p)++;
    if (c == '\n') {
        return true;
    }
    for (size_t i = 0; i < CMI_LEN(simple_escapes); i++) {
        if (simple_escapes[i][0] == c) {
            *(*to)++ = simple_escapes[i][1];
            return true;
        }
    }
    uint32_t cp = 0;
    if (c >= '0' && c <= '7') {
        *p += read_digits(*p - 1, end, 3, 8, &cp) - 1;
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (read_digits(*p, end, n_digits, 16, &cp) != n_digits || cp > 0x10FFFF ||
            (cp >= 0xD800 && cp <= 0xDFFF)) {
            return false;
        }
        *p += n_digits;
    } else if (c == 'N') {
        return false;
    } else {
        *(*to)++ = '\\'; /* not an escape: both characters stand for themselves */
        *(*to)++ = c;
        return true;
    }
    *to += cmi_utf8_encode(cp, *to);
    return true;
}

bool cmi_jinja_unescape(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    char *text = cmi_arena_alloc(lexer->arena, token->n_bytes);
    if (text == NULL) {
        return cmi_jinja_lexer_fail(lexer, CMI_ERR_TOO_LARGE, token->line, "too much text");
    }
    const char *p = token->text;
    const char *end = p + token->n_bytes;
    char *to = text; /* no escape is shorter than what it stands for */
    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        p++;
        const char *escape = p;
        if (!read_escape(&p, end, &to)) {
            return cmi_jinja_lexer_fail(
                lexer, CMI_ERR_BAD_DATA, token->line,
                "the escape '\\%c' of a string is not complete, not a character or not supported",
                *escape);
        }
    }
    token->text = text;
    token->n_bytes = (size_t)(to - text);
    return true;
}

/* Length of `digit (_? digit)*` at p; 0 when there is no digit. */
static size_t digit_run(const char *p, const char *end, int base)
{
    size_t n = 0;
    for (;;) {
        size_t at = n > 0 && p + n < end && p[n] == '_' ? n + 1 : n;
        if (p + at >= end || digit_value(p[at]) >= base) {
            return n;
        }
        n = at + 1;
    }
}

/* Length of a float literal at p; 0 when there is none. */
static size_t float_length(const char *p, const char *end)
{
    size_t whole = digit_run(p, end, 10);
    size_t n = whole;
    if (p + n < end && p[n] == '.') {
        size_t fraction = digit_run(p + n + 1, end, 10);
        n += fraction > 0 ? fraction + 1 : 0;
    }
    if (p + n < end && (p[n] | 0x20) == 'e') {
        size_t at = n + 1;
        at += p + at < end && (p[at] == '+' || p[at] == '-');
        size_t exponent = digit_run(p + at, end, 10);
        n = exponent > 0 ? at + exponent : n;
    }
    return n > whole ? n : 0;
}

/* The base of an integer at p and the length of what announces it. */
static int integer_base(const char *p, const char *end, size_t *prefix)
{
    static const struct {
        char letter;
        int base;
    } bases[] = {{'b', 2}, {'o', 8}, {'x', 16}};
    *prefix = 0;
    if (end - p < 3 || p[0] != '0') {
        return 10;
    }
    for (size_t i = 0; i < CMI_LEN(bases); i++) {
        size_t at = p[2] == '_' ? 3 : 2;
        if ((p[1] | 0x20) == bases[i].letter && p + at < end &&
            digit_value(p[at]) < bases[i].base) {
            *prefix = at;
            return bases[i].base;
        }
    }
    return 10;
}

enum { NUMBER_BYTES_MAX = 400 };

/* The digits of a literal without their underscores, as a C string; false when there are too many.
 */
static bool copy_digits(char digits[NUMBER_BYTES_MAX + 1], const char *p, size_t n)
{
    size_t n_digits = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '_') {
            continue;
        }
        if (n_digits == NUMBER_BYTES_MAX) {
            return false;
        }
        digits[n_digits++] = p[i];
    }
    digits[n_digits] = '\0';
    return true;
}

bool cmi_jinja_read_number(cmi_jinja_lexer *lexer, cmi_jinja_token *token)
{
    const char *p = lexer->source + lexer->at;
    const char *end = lexer->source + lexer->n_bytes;
    bool behind_dot = lexer->at > 0 && p[-1] == '.'; /* a.0.1 is two items, not the item 0.1 */
    size_t n_float = behind_dot ? 0 : float_length(p, end);
    size_t prefix = 0;
    int base = n_float > 0 ? 10 : integer_base(p, end, &prefix);
    size_t n = n_float > 0 ? n_float : prefix + digit_run(p + prefix, end, base);
    if (n_float == 0 && prefix == 0 && p[0] == '0') {
        for (n = 1; p + n < end && p[n] == '0'; n++) {
        }
    }
    token->n_bytes = n;
    lexer->at += n;
    char digits[NUMBER_BYTES_MAX + 1];
    bool fits = copy_digits(digits, p + prefix, n - prefix);
    if (n_float > 0) {
        token->kind = CMI_JINJA_T_FLOAT;
        token->real = fits ? strtod(digits, NULL) : 0;
    } else {
        token->kind = CMI_JINJA_T_INTEGER;
        errno = 0;
        token->integer = fits ? strtoll(digits, NULL, base) : 0;
        fits = fits && errno == 0;
    }
    return fits ||
           cmi_jinja_lexer_fail(lexer, CMI_ERR_BAD_DATA, token->line, "a number has more than %s",
                                n_float > 0 ? "400 digits" : "64 bits");
}
