/* grammar/charset.c - see charset_internal.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "grammar/charset_internal.h"

enum { MAX_CHAR = 0x10FFFF, FIRST_SURROGATE = 0xD800, LAST_SURROGATE = 0xDFFF };

void cmi_charset_deinit(cmi_charset *set)
{
    cmi_free(set->ranges);
}

void cmi_charset_add(cmi_charset *set, uint32_t lo, uint32_t hi)
{
    set->ranges = cmi_build_grow(set->ranges, set->n, &set->cap, sizeof *set->ranges);
    set->ranges[set->n++] = (cmi_char_range){lo, hi};
}

static int compare_ranges(const void *a, const void *b)
{
    const cmi_char_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void cmi_charset_normalize(cmi_charset *set)
{
    uint32_t n = 0;
    if (set->n > 0) {
        qsort(set->ranges, set->n, sizeof *set->ranges, compare_ranges);
    }
    for (uint32_t i = 0; i < set->n; i++) {
        cmi_char_range r = set->ranges[i];
        if (n > 0 && r.lo <= set->ranges[n - 1].hi + 1) {
            set->ranges[n - 1].hi = CMI_MAX(set->ranges[n - 1].hi, r.hi);
        } else {
            set->ranges[n++] = r;
        }
    }
    set->n = n;
}

void cmi_charset_negate(cmi_charset *set)
{
    cmi_charset rest = {0};
    uint32_t at = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        if (set->ranges[i].lo > at) {
            cmi_charset_add(&rest, at, set->ranges[i].lo - 1);
        }
        at = set->ranges[i].hi + 1;
    }
    if (at <= MAX_CHAR) {
        cmi_charset_add(&rest, at, MAX_CHAR);
    }
    cmi_charset_deinit(set);
    *set = rest;
}

/* ---- Bytes ---- */

/* lo and hi have UTF-8 forms of the same length. Cut until each byte's range is independent of the
 * others': then every byte but the leading fixed ones spans all continuations. */
static void write_same_length(cmi_build *b, uint32_t lo, uint32_t hi, uint32_t from, uint32_t to)
{
    uint8_t first[4], last[4];
    size_t n = cmi_utf8_encode(lo, (char *)first);
    cmi_utf8_encode(hi, (char *)last);
    for (uint32_t i = 1; i < n; i++) {
        uint32_t below = (1u << 6 * i) - 1; /* the bits of the last i bytes */
        if ((lo & ~below) == (hi & ~below)) {
            continue;
        }
        if ((lo & below) != 0) {
            write_same_length(b, lo, lo | below, from, to);
            write_same_length(b, (lo | below) + 1, hi, from, to);
            return;
        }
        if ((hi & below) != below) {
            write_same_length(b, lo, (hi & ~below) - 1, from, to);
            write_same_length(b, hi & ~below, hi, from, to);
            return;
        }
    }
    cmi_nfa_sequence(b, from, to, first, last, n);
}

static void write_utf8_range(cmi_build *b, uint32_t lo, uint32_t hi, uint32_t from, uint32_t to)
{
    static const cmi_char_range same[] = {{0, 0x7F},
                                          {0x80, 0x7FF},
                                          {0x800, FIRST_SURROGATE - 1},
                                          {LAST_SURROGATE + 1, 0xFFFF},
                                          {0x10000, MAX_CHAR}};
    for (size_t i = 0; i < CMI_LEN(same); i++) {
        uint32_t first = CMI_MAX(lo, same[i].lo), last = CMI_MIN(hi, same[i].hi);
        if (first <= last) {
            write_same_length(b, first, last, from, to);
        }
    }
}

/* The one spelling of a character that JSON wants escaped. */
static void write_escaped(cmi_build *b, uint32_t c, uint32_t from, uint32_t to)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* character, letter */
    char text[8] = "\\";
    for (size_t i = 0; i < sizeof named - 1; i += 2) {
        if ((uint32_t)named[i] == c) {
            text[1] = named[i + 1];
        }
    }
    if (text[1] == '\0') {
        snprintf(text, sizeof text, "\\u%04x", c & 0xFFFF);
    }
    cmi_nfa_sequence(b, from, to, (uint8_t *)text, (uint8_t *)text, strlen(text));
}

static bool is_escaped(uint32_t c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

static void write_json_range(cmi_build *b, uint32_t lo, uint32_t hi, uint32_t from, uint32_t to)
{
    for (uint32_t c = CMI_MAX(lo, 1u); c <= CMI_MIN(hi, (uint32_t)'\\'); c++) {
        if (is_escaped(c)) {
            write_escaped(b, c, from, to);
        }
    }
    static const cmi_char_range plain[] = {
        {0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, MAX_CHAR}};
    for (size_t i = 0; i < CMI_LEN(plain); i++) {
        uint32_t first = CMI_MAX(lo, plain[i].lo), last = CMI_MIN(hi, plain[i].hi);
        if (first <= last) {
            write_utf8_range(b, first, last, from, to);
        }
    }
}

void cmi_charset_write(cmi_build *b, const cmi_charset *set, cmi_spelling spelling, uint32_t from,
                       uint32_t to)
{
    for (uint32_t i = 0; i < set->n && b->status == CMI_OK; i++) {
        if (spelling == CMI_SPELL_JSON) {
            write_json_range(b, set->ranges[i].lo, set->ranges[i].hi, from, to);
        } else {
            write_utf8_range(b, set->ranges[i].lo, set->ranges[i].hi, from, to);
        }
    }
}

void cmi_json_text_write(cmi_build *b, const char *text, size_t n_bytes, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < n_bytes && b->status == CMI_OK; i++) {
        uint32_t next = cmi_nfa_state(b);
        uint8_t byte = (uint8_t)text[i];
        if (is_escaped(byte)) {
            write_escaped(b, byte, from, next);
        } else {
            cmi_nfa_bytes(b, from, next, byte, byte);
        }
        from = next;
    }
    cmi_nfa_empty(b, from, to);
}

/* ---- Any character of a JSON string ---- */

/* Each pattern is a sequence of bytes; in it h is any hexadecimal digit, s a digit of the second
 * half of a surrogate pair, and the other letters are ranges of first digits. */
static void write_hex(cmi_build *b, const char *pattern, uint32_t from, uint32_t to)
{
    static const struct {
        char name;
        const char *ranges; /* pairs */
    } classes[] = {{'h', "09afAF"}, {'z', "19afAF"}, {'o', "19acefACEF"}, {'d', "ddDD"},
                   {'l', "07"},     {'u', "89abAB"}, {'v', "cfCF"}};
    if (*pattern == '\0') {
        cmi_nfa_empty(b, from, to);
        return;
    }
    uint32_t next = cmi_nfa_state(b);
    const char *ranges = NULL;
    for (size_t i = 0; i < CMI_LEN(classes); i++) {
        if (classes[i].name == *pattern) {
            ranges = classes[i].ranges;
        }
    }
    for (; ranges != NULL && *ranges != '\0'; ranges += 2) {
        cmi_nfa_bytes(b, from, next, (uint8_t)ranges[0], (uint8_t)ranges[1]);
    }
    if (ranges == NULL) {
        cmi_nfa_byte(b, from, next, *pattern == 'U' ? 'u' : *pattern);
    }
    write_hex(b, pattern + 1, next, to);
}

void cmi_json_char_write(cmi_build *b, uint32_t from, uint32_t to)
{
    static const cmi_char_range plain[] = {
        {0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, MAX_CHAR}};
    for (size_t i = 0; i < CMI_LEN(plain); i++) {
        write_utf8_range(b, plain[i].lo, plain[i].hi, from, to);
    }
    uint32_t escape = cmi_nfa_state(b), hex = cmi_nfa_state(b);
    cmi_nfa_byte(b, from, escape, '\\');
    for (const char *c = "\"\\/bfnrt"; *c != '\0'; c++) {
        cmi_nfa_byte(b, escape, to, *c);
    }
    cmi_nfa_byte(b, escape, hex, 'u');
    /* Not a surrogate and not U+0000, or a pair of surrogates. */
    static const char *const patterns[] = {"ohhh", "dlhh", "0zhh", "00zh", "000z", "duhh\\Udvhh"};
    for (size_t i = 0; i < CMI_LEN(patterns); i++) {
        write_hex(b, patterns[i], hex, to);
    }
}
