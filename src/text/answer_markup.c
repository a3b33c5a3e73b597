#include "text/answer_markup_internal.h"

#include <string.h>

#include "text/answer_parser.h"

enum { MAX_SPACES = 64 };

static const cmi_marker call_begin = CMI_MARKER("<｜tool▁call▁begin｜>");
static const cmi_marker call_sep = CMI_MARKER("<｜tool▁sep｜>");
static const cmi_marker function = CMI_MARKER("function");
static const cmi_marker newline = CMI_MARKER("\n");
static const cmi_marker fence = CMI_MARKER("```json\n");

cmi_match cmi_marker_match(const char *text, size_t n, const cmi_marker *m)
{
    if (memcmp(text, m->text, CMI_MIN(n, m->n)) != 0) {
        return CMI_MATCH_NO;
    }
    return n < m->n ? CMI_MATCH_PARTIAL : CMI_MATCH_YES;
}

size_t cmi_marker_partial_end(const char *text, size_t n, const cmi_marker *m)
{
    for (size_t k = CMI_MIN(n, m->n - 1); k > 0; k--) {
        if (memcmp(text + n - k, m->text, k) == 0) {
            return k;
        }
    }
    return 0;
}

cmi_match cmi_markup_take(cmi_markup_cursor *c, const cmi_marker *m)
{
    cmi_match found = cmi_marker_match(c->text + c->at, c->n - c->at, m);
    if (found == CMI_MATCH_YES) {
        c->at += m->n;
    }
    return found;
}

void cmi_markup_take_spaces(cmi_markup_cursor *c)
{
    size_t end = CMI_MIN(c->n, c->at + MAX_SPACES);
    while (c->at < end && (c->text[c->at] == '\n' || c->text[c->at] == ' ')) {
        c->at++;
    }
}

static bool is_name_byte(char c)
{
    unsigned char u = (unsigned char)c;
    return u > ' ' && u != 0x7F && u != '<' && u != '{' && u != '`' && u != '"';
}

/* Takes a name and the marker behind it. */
static cmi_match take_name(cmi_markup_cursor *c, const cmi_marker *behind, size_t *name_at,
                           size_t *name_bytes)
{
    size_t start = c->at;
    size_t end = CMI_MIN(c->n, start + CMI_ANSWER_MAX_CALL_NAME_BYTES);
    while (c->at < end && is_name_byte(c->text[c->at])) {
        c->at++;
    }
    size_t n = c->at - start;
    if (n == 0 && c->at < c->n) {
        return CMI_MATCH_NO;
    }
    *name_at = start;
    *name_bytes = n;
    return cmi_markup_take(c, behind);
}

cmi_match cmi_markup_take_call_head(cmi_markup_cursor *c, cmi_call_head *head)
{
    cmi_match found = cmi_markup_take(c, &call_begin);
    if (found == CMI_MATCH_YES) {
        found = take_name(c, &call_sep, &head->name_at, &head->name_bytes);
    }
    if (found != CMI_MATCH_YES) {
        return found;
    }
    head->fenced = false;
    head->arguments_at = c->at;
    if (head->name_bytes != function.n ||
        memcmp(c->text + head->name_at, function.text, function.n) != 0) {
        return CMI_MATCH_YES; /* V3.1 */
    }
    if (c->at == c->n) {
        return CMI_MATCH_PARTIAL;
    }
    if (c->text[c->at] == '{') {
        return CMI_MATCH_YES; /* V3.1, of a function that is called "function" */
    }
    found = take_name(c, &newline, &head->name_at, &head->name_bytes);
    if (found != CMI_MATCH_YES) {
        return found;
    }
    cmi_match fence_found = cmi_markup_take(c, &fence);
    head->fenced = fence_found == CMI_MATCH_YES;
    head->arguments_at = c->at;
    return fence_found == CMI_MATCH_PARTIAL ? CMI_MATCH_PARTIAL : CMI_MATCH_YES;
}
