/* text/jinja_text_find.c - looking for texts in texts, and putting them together. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_text.h"

enum { FIND_FIRST, FIND_LAST };

size_t cmi_jinja_find_bytes(const char *p, size_t n, size_t from, const cmi_jinja_str *part)
{
    const char *at = memmem(p + from, n - from, part->bytes, part->n_bytes);
    return at == NULL ? n + 1 : (size_t)(at - p);
}

/* Compares at every place from the right; what that costs is accounted for. */
bool cmi_jinja_rfind_bytes(cmi_jinja_run *r, const char *p, size_t to, const cmi_jinja_str *part,
                           size_t *at_out)
{
    *at_out = to + 1;
    if (part->n_bytes > to) {
        return true;
    }
    size_t n_compared = 0;
    for (size_t at = to - part->n_bytes;; at--) {
        n_compared++;
        if (part->n_bytes == 0 || p[at] == part->bytes[0]) {
            n_compared += part->n_bytes;
            if (memcmp(p + at, part->bytes, part->n_bytes) == 0) {
                *at_out = at;
                break;
            }
            if (!cmi_jinja_charge(r, part->n_bytes)) {
                return false;
            }
        }
        if (at == 0) {
            break;
        }
    }
    return cmi_jinja_charge(r, n_compared);
}

/* The part of self that the arguments 1 and 2 (start, end) leave, as bytes. *in_range is false when
 * there is no such part, in which not even an empty text is found. */
static bool search_span(cmi_jinja_run *r, const cmi_jinja_call *call, size_t *from, size_t *to,
                        bool *in_range)
{
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_value *start = &call->argv[1];
    int64_t place = 0;
    if (!cmi_jinja_char_span(r, s, start, &call->argv[2], from, to) ||
        (start->kind != CMI_JINJA_UNSET && start->kind != CMI_JINJA_NONE &&
         !cmi_jinja_want_int(r, start, "start", &place))) {
        return false;
    }
    *in_range = place <= (int64_t)s->n_chars && *from <= *to;
    *to = CMI_MAX(*from, *to);
    return true;
}

/* Sets the code point at which the part stands, or -1. */
static bool find(cmi_jinja_run *r, const cmi_jinja_call *call, int which, int64_t *place_out)
{
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_str *part;
    size_t from;
    size_t to;
    bool in_range;
    *place_out = -1;
    if (!cmi_jinja_want_str(r, &call->argv[0], "what is looked for", &part) ||
        !search_span(r, call, &from, &to, &in_range)) {
        return false;
    }
    if (!in_range) {
        return true;
    }
    size_t n = to - from;
    size_t at = cmi_jinja_find_bytes(s->bytes + from, n, 0, part);
    if (which == FIND_LAST && !cmi_jinja_rfind_bytes(r, s->bytes + from, n, part, &at)) {
        return false;
    }
    if (at <= n) {
        *place_out = (int64_t)cmi_jinja_count_chars(s->bytes, from + at);
    }
    return true;
}

static bool find_or_fail(cmi_jinja_run *r, const cmi_jinja_call *call, int which,
                         cmi_jinja_value *out)
{
    int64_t place;
    if (!find(r, call, which, &place)) {
        return false;
    }
    *out = cmi_jinja_int(place);
    return place >= 0 || cmi_jinja_misfit(r, "the text that index looks for is not there");
}

bool cmi_jinja_text_find(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    int64_t place;
    bool ok = find(r, call, FIND_FIRST, &place);
    *out = cmi_jinja_int(place);
    return ok;
}

bool cmi_jinja_text_rfind(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    int64_t place;
    bool ok = find(r, call, FIND_LAST, &place);
    *out = cmi_jinja_int(place);
    return ok;
}

bool cmi_jinja_text_index(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return find_or_fail(r, call, FIND_FIRST, out);
}

bool cmi_jinja_text_rindex(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return find_or_fail(r, call, FIND_LAST, out);
}

bool cmi_jinja_text_count(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_str *part;
    size_t from;
    size_t to;
    bool in_range;
    if (!cmi_jinja_want_str(r, &call->argv[0], "what is counted", &part) ||
        !search_span(r, call, &from, &to, &in_range)) {
        return false;
    }
    int64_t n = 0;
    if (part->n_bytes == 0) { /* stands before, between and behind all code points */
        n = (int64_t)cmi_jinja_count_chars(s->bytes + from, to - from) + 1;
    }
    size_t at = from;
    while (part->n_bytes > 0 && (at = cmi_jinja_find_bytes(s->bytes, to, at, part)) <= to) {
        n++;
        at += part->n_bytes;
    }
    *out = cmi_jinja_int(in_range ? n : 0);
    return true;
}

/* Whether the bytes [from, to) begin or end with an affix, or with one of a tuple of them. */
static bool match_affix(cmi_jinja_run *r, const cmi_jinja_call *call, bool at_end,
                        cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    size_t from;
    size_t to;
    bool in_range;
    if (!search_span(r, call, &from, &to, &in_range)) {
        return false;
    }
    cmi_jinja_seq affixes = {.items = &call->argv[0], .n = 1};
    if (call->argv[0].kind == CMI_JINJA_TUPLE) {
        affixes = *call->argv[0].seq;
    }
    *out = cmi_jinja_bool(false);
    for (size_t i = 0; i < affixes.n && !out->boolean; i++) {
        const cmi_jinja_str *affix;
        if (!cmi_jinja_want_str(r, &affixes.items[i], "a prefix or suffix", &affix) ||
            !cmi_jinja_charge(r, affix->n_bytes)) {
            return false;
        }
        bool fits = in_range && affix->n_bytes <= to - from;
        size_t at = at_end ? to - (fits ? affix->n_bytes : 0) : from;
        out->boolean = fits && memcmp(s->bytes + at, affix->bytes, affix->n_bytes) == 0;
    }
    return true;
}

bool cmi_jinja_text_startswith(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return match_affix(r, call, false, out);
}

bool cmi_jinja_text_endswith(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return match_affix(r, call, true, out);
}

static bool remove_affix(cmi_jinja_run *r, const cmi_jinja_call *call, bool at_end,
                         cmi_jinja_value *out)
{
    cmi_jinja_value matches;
    const cmi_jinja_str *affix;
    if (!cmi_jinja_want_str(r, &call->argv[0], "a prefix or suffix", &affix) ||
        !match_affix(r, call, at_end, &matches)) {
        return false;
    }
    *out = call->self;
    if (!matches.boolean) {
        return true;
    }
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_str *rest = cmi_jinja_str_borrow(r, s->bytes + (at_end ? 0 : affix->n_bytes),
                                                     s->n_bytes - affix->n_bytes);
    *out = cmi_jinja_text(rest);
    return rest != NULL;
}

bool cmi_jinja_text_removeprefix(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return remove_affix(r, call, false, out);
}

bool cmi_jinja_text_removesuffix(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return remove_affix(r, call, true, out);
}

static bool replace_all(cmi_jinja_builder *b, const cmi_jinja_str *s, const cmi_jinja_str *old,
                        const cmi_jinja_str *new, uint64_t n_max)
{
    size_t at = 0; /* of what has not been copied yet */
    for (uint64_t i = 0; i < n_max; i++) {
        size_t found = cmi_jinja_find_bytes(s->bytes, s->n_bytes, at, old);
        if (found > s->n_bytes) {
            break;
        }
        if (!cmi_jinja_charge(b->r, 1) || !cmi_jinja_add(b, s->bytes + at, found - at) ||
            !cmi_jinja_add_str(b, new)) {
            return false;
        }
        at = found + old->n_bytes;
    }
    return cmi_jinja_add(b, s->bytes + at, s->n_bytes - at);
}

/* What replacing "" does: it stands before every code point and at the end. */
static bool put_between(cmi_jinja_builder *b, const cmi_jinja_str *s, const cmi_jinja_str *new,
                        uint64_t n_max)
{
    size_t at = 0;
    for (uint64_t i = 0; i < n_max; i++) {
        if (!cmi_jinja_charge(b->r, 1) || !cmi_jinja_add_str(b, new)) {
            return false;
        }
        if (at == s->n_bytes) {
            break;
        }
        uint32_t cp;
        size_t n = (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (!cmi_jinja_add(b, s->bytes + at, n)) {
            return false;
        }
        at += n;
    }
    return cmi_jinja_add(b, s->bytes + at, s->n_bytes - at);
}

bool cmi_jinja_text_replace(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    const cmi_jinja_str *old;
    const cmi_jinja_str *new;
    int64_t n_max = -1;
    const cmi_jinja_value *count = &call->argv[2];
    if (!cmi_jinja_want_str(r, &call->argv[0], "what is replaced", &old) ||
        !cmi_jinja_want_str(r, &call->argv[1], "what replaces it", &new) ||
        (count->kind != CMI_JINJA_UNSET && count->kind != CMI_JINJA_NONE &&
         !cmi_jinja_want_int(r, count, "the count of replace", &n_max)) ||
        !cmi_jinja_charge(r, s->n_bytes * 4)) {
        return false;
    }
    uint64_t limit = n_max < 0 ? UINT64_MAX : (uint64_t)n_max;
    cmi_jinja_builder b = {.r = r};
    bool ok =
        old->n_bytes == 0 ? put_between(&b, s, new, limit) : replace_all(&b, s, old, new, limit);
    return ok && cmi_jinja_built(&b, out);
}

bool cmi_jinja_text_join(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    cmi_jinja_walk w;
    cmi_jinja_builder b = {.r = r};
    if (!cmi_jinja_walk_begin(r, &w, &call->argv[0])) {
        return false;
    }
    for (size_t i = 0;; i++) {
        cmi_jinja_value v;
        const cmi_jinja_str *s;
        if (!cmi_jinja_charge(r, 1) || !cmi_jinja_walk_next(r, &w, &v)) {
            return false;
        }
        if (v.kind == CMI_JINJA_UNSET) {
            return cmi_jinja_built(&b, out);
        }
        if (!cmi_jinja_want_str(r, &v, "what is joined", &s) ||
            (i > 0 && !cmi_jinja_add_str(&b, call->self.str)) || !cmi_jinja_add_str(&b, s)) {
            return false;
        }
    }
}

bool cmi_jinja_text_isdigit(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    bool all = s->n_bytes > 0;
    for (size_t i = 0; all && i < s->n_bytes; i++) {
        all = s->bytes[i] >= '0' && s->bytes[i] <= '9';
    }
    *out = cmi_jinja_bool(all);
    return cmi_jinja_charge(r, s->n_bytes);
}

bool cmi_jinja_text_isspace(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    bool all = s->n_bytes > 0;
    size_t at = 0;
    if (!cmi_jinja_charge(r, s->n_bytes * 8)) {
        return false;
    }
    while (all && at < s->n_bytes) {
        uint32_t cp = 0;
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        all = cmi_unicode_is_space(cp);
    }
    *out = cmi_jinja_bool(all);
    return true;
}
