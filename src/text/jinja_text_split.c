/* text/jinja_text_split.c - taking texts apart: strip, split and lines. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_text.h"

/* ---- strip ---- */

/* Whether cp is among the code points of chars, or with NULL whether it is whitespace. */
static bool is_stripped(uint32_t cp, const cmi_jinja_str *chars)
{
    if (chars == NULL) {
        return cmi_unicode_is_space(cp);
    }
    size_t at = 0;
    while (at < chars->n_bytes) {
        uint32_t other = 0;
        at += (size_t)cmi_utf8_next(chars->bytes + at, chars->n_bytes - at, &other);
        if (other == cp) {
            return true;
        }
    }
    return false;
}

/* Accounts for one call of is_stripped. */
static bool charge_one(cmi_jinja_run *r, const cmi_jinja_str *chars)
{
    return cmi_jinja_charge(r, chars == NULL ? 0 : chars->n_bytes * 16);
}

static bool strip_front(cmi_jinja_run *r, const cmi_jinja_str *s, const cmi_jinja_str *chars,
                        size_t *from)
{
    while (*from < s->n_bytes) {
        uint32_t cp = 0;
        int n = cmi_utf8_next(s->bytes + *from, s->n_bytes - *from, &cp);
        if (!charge_one(r, chars)) {
            return false;
        }
        if (!is_stripped(cp, chars)) {
            break;
        }
        *from += (size_t)n;
    }
    return true;
}

static bool strip_back(cmi_jinja_run *r, const cmi_jinja_str *s, const cmi_jinja_str *chars,
                       size_t from, size_t *to)
{
    while (*to > from) {
        size_t at = *to - 1;
        while (((unsigned char)s->bytes[at] & 0xC0) == 0x80) {
            at--;
        }
        uint32_t cp = 0;
        cmi_utf8_next(s->bytes + at, *to - at, &cp);
        if (!charge_one(r, chars)) {
            return false;
        }
        if (!is_stripped(cp, chars)) {
            break;
        }
        *to = at;
    }
    return true;
}

static bool strip(cmi_jinja_run *r, const cmi_jinja_call *call, bool front, bool back,
                  cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_str *chars = NULL;
    const cmi_jinja_value *arg = &call->argv[0];
    if (arg->kind != CMI_JINJA_UNSET && arg->kind != CMI_JINJA_NONE &&
        !cmi_jinja_want_str(r, arg, "what is stripped", &chars)) {
        return false;
    }
    size_t from = 0;
    size_t to = s->n_bytes;
    if ((front && !strip_front(r, s, chars, &from)) ||
        (back && !strip_back(r, s, chars, from, &to))) {
        return false;
    }
    const cmi_jinja_str *made = cmi_jinja_str_borrow(r, s->bytes + from, to - from);
    *out = cmi_jinja_text(made);
    return made != NULL;
}

bool cmi_jinja_text_strip(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return strip(r, call, true, true, out);
}

bool cmi_jinja_text_lstrip(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return strip(r, call, true, false, out);
}

bool cmi_jinja_text_rstrip(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return strip(r, call, false, true, out);
}

/* ---- split ---- */

/* Pieces of one text, in the order in which they are found. */
typedef struct pieces {
    cmi_jinja_run *r;
    const cmi_jinja_str *s;
    cmi_jinja_value *items;
    size_t n, cap;
} pieces;

static bool add_piece(pieces *p, size_t from, size_t to)
{
    if (p->n == p->cap) {
        size_t cap = p->cap * 2 + 4;
        cmi_jinja_value *items = cmi_jinja_alloc(p->r, cap, sizeof *items);
        if (items == NULL) {
            return false;
        }
        if (p->n > 0) {
            memcpy(items, p->items, p->n * sizeof *items);
        }
        p->items = items;
        p->cap = cap;
    }
    const cmi_jinja_str *piece = cmi_jinja_str_borrow(p->r, p->s->bytes + from, to - from);
    p->items[p->n++] = cmi_jinja_text(piece);
    return piece != NULL;
}

static void reverse_pieces(pieces *p)
{
    for (size_t i = 0; i < p->n / 2; i++) {
        cmi_jinja_value swap = p->items[i];
        p->items[i] = p->items[p->n - 1 - i];
        p->items[p->n - 1 - i] = swap;
    }
}

/* The first byte at or behind `at` that is (or is not) the beginning of whitespace. */
static size_t find_space(const cmi_jinja_str *s, size_t at, bool wanted)
{
    while (at < s->n_bytes) {
        uint32_t cp = 0;
        int n = cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (cmi_unicode_is_space(cp) == wanted) {
            break;
        }
        at += (size_t)n;
    }
    return at;
}

/* The end of what remains of [0, to) when what is (or is not) whitespace at its end is dropped. */
static size_t find_space_back(const cmi_jinja_str *s, size_t to, bool wanted)
{
    while (to > 0) {
        size_t at = to - 1;
        while (((unsigned char)s->bytes[at] & 0xC0) == 0x80) {
            at--;
        }
        uint32_t cp = 0;
        cmi_utf8_next(s->bytes + at, to - at, &cp);
        if (cmi_unicode_is_space(cp) == wanted) {
            break;
        }
        to = at;
    }
    return to;
}

static bool split_words(pieces *p, uint64_t n_max)
{
    size_t at = find_space(p->s, 0, false);
    while (at < p->s->n_bytes) {
        bool is_rest = p->n == n_max;
        size_t end = is_rest ? p->s->n_bytes : find_space(p->s, at, true);
        if (!add_piece(p, at, end)) {
            return false;
        }
        at = find_space(p->s, end, false);
    }
    return true;
}

static bool rsplit_words(pieces *p, uint64_t n_max)
{
    size_t to = find_space_back(p->s, p->s->n_bytes, false);
    while (to > 0) {
        bool is_rest = p->n == n_max;
        size_t from = is_rest ? 0 : find_space_back(p->s, to, true);
        if (!add_piece(p, from, to)) {
            return false;
        }
        to = find_space_back(p->s, from, false);
    }
    reverse_pieces(p);
    return true;
}

static bool split_at(pieces *p, const cmi_jinja_str *sep, uint64_t n_max)
{
    size_t at = 0;
    while (p->n < n_max) {
        size_t found = cmi_jinja_find_bytes(p->s->bytes, p->s->n_bytes, at, sep);
        if (found > p->s->n_bytes) {
            break;
        }
        if (!add_piece(p, at, found)) {
            return false;
        }
        at = found + sep->n_bytes;
    }
    return add_piece(p, at, p->s->n_bytes);
}

static bool rsplit_at(pieces *p, const cmi_jinja_str *sep, uint64_t n_max)
{
    size_t to = p->s->n_bytes;
    while (p->n < n_max) {
        size_t found;
        if (!cmi_jinja_rfind_bytes(p->r, p->s->bytes, to, sep, &found)) {
            return false;
        }
        if (found > to) {
            break;
        }
        if (!add_piece(p, found + sep->n_bytes, to)) {
            return false;
        }
        to = found;
    }
    if (!add_piece(p, 0, to)) {
        return false;
    }
    reverse_pieces(p);
    return true;
}

/* The separator of a split: *out is NULL for whitespace. */
static bool want_separator(cmi_jinja_run *r, const cmi_jinja_value *arg, const cmi_jinja_str **out)
{
    *out = NULL;
    if (arg->kind == CMI_JINJA_UNSET || arg->kind == CMI_JINJA_NONE) {
        return true;
    }
    if (!cmi_jinja_want_str(r, arg, "the separator", out)) {
        return false;
    }
    return (*out)->n_bytes > 0 || cmi_jinja_misfit(r, "the separator is empty");
}

static bool split(cmi_jinja_run *r, const cmi_jinja_call *call, bool from_right,
                  cmi_jinja_value *out)
{
    pieces p = {.r = r, .s = call->self.str};
    const cmi_jinja_str *sep;
    int64_t n_max = -1;
    if (!want_separator(r, &call->argv[0], &sep) || !cmi_jinja_charge(r, p.s->n_bytes * 8) ||
        (call->argv[1].kind != CMI_JINJA_UNSET &&
         !cmi_jinja_want_int(r, &call->argv[1], "maxsplit", &n_max))) {
        return false;
    }
    uint64_t limit = n_max < 0 ? UINT64_MAX : (uint64_t)n_max;
    bool ok;
    if (sep == NULL) {
        ok = from_right ? rsplit_words(&p, limit) : split_words(&p, limit);
    } else {
        ok = from_right ? rsplit_at(&p, sep, limit) : split_at(&p, sep, limit);
    }
    return ok && cmi_jinja_new_seq(r, CMI_JINJA_LIST, p.items, p.n, out);
}

bool cmi_jinja_text_split(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return split(r, call, false, out);
}

bool cmi_jinja_text_rsplit(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return split(r, call, true, out);
}

/* What is before the separator, the separator, and what is behind it; without it the text stands
 * first, or with from_right last. */
static bool partition(cmi_jinja_run *r, const cmi_jinja_call *call, bool from_right,
                      cmi_jinja_value *out)
{
    pieces p = {.r = r, .s = call->self.str};
    const cmi_jinja_str *sep;
    if (!want_separator(r, &call->argv[0], &sep)) {
        return false;
    }
    if (sep == NULL) {
        return cmi_jinja_misfit(r, "the separator must be str");
    }
    size_t n = p.s->n_bytes;
    size_t at = cmi_jinja_find_bytes(p.s->bytes, n, 0, sep);
    if (from_right && !cmi_jinja_rfind_bytes(r, p.s->bytes, n, sep, &at)) {
        return false;
    }
    size_t behind = at + sep->n_bytes;
    if (at > n) {
        at = behind = from_right ? 0 : n;
    }
    return cmi_jinja_charge(r, n * 4) && add_piece(&p, 0, at) && add_piece(&p, at, behind) &&
           add_piece(&p, behind, n) && cmi_jinja_new_seq(r, CMI_JINJA_TUPLE, p.items, 3, out);
}

bool cmi_jinja_text_partition(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return partition(r, call, false, out);
}

bool cmi_jinja_text_rpartition(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return partition(r, call, true, out);
}

/* ---- lines ---- */

static bool ends_line(uint32_t cp)
{
    return (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

bool cmi_jinja_lines(cmi_jinja_run *r, const cmi_jinja_str *s, bool keep_ends, cmi_jinja_seq *out)
{
    pieces p = {.r = r, .s = s};
    size_t from = 0;
    size_t at = 0;
    if (!cmi_jinja_charge(r, s->n_bytes * 4)) {
        return false;
    }
    while (at < s->n_bytes) {
        uint32_t cp = 0;
        size_t end = at;
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (!ends_line(cp)) {
            continue;
        }
        if (cp == '\r' && at < s->n_bytes && s->bytes[at] == '\n') {
            at++;
        }
        if (!add_piece(&p, from, keep_ends ? at : end)) {
            return false;
        }
        from = at;
    }
    if (from < s->n_bytes && !add_piece(&p, from, s->n_bytes)) {
        return false;
    }
    *out = (cmi_jinja_seq){.items = p.items, .n = p.n};
    return true;
}

bool cmi_jinja_text_splitlines(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_seq lines;
    return cmi_jinja_lines(r, call->self.str, cmi_jinja_truth(&call->argv[0]), &lines) &&
           cmi_jinja_new_seq(r, CMI_JINJA_LIST, lines.items, lines.n, out);
}
