/* grammar/regex_parse.c - see regex_parse_internal.h. By recursive descent; the depth is that of
 * the groups, which CMI_REGEX_MAX_NESTING bounds. */
#include <string.h>

#include "base/alloc.h"
#include "grammar/regex_parse_internal.h"

static uint32_t new_node(cmi_regex *r, cmi_regex_kind kind)
{
    (void)!cmi_build_work(r->b, 1);
    r->nodes = cmi_build_grow(r->nodes, r->n_nodes, &r->cap_nodes, sizeof *r->nodes);
    r->nodes[r->n_nodes] =
        (cmi_regex_node){.kind = kind, .first = CMI_REGEX_NONE, .next = CMI_REGEX_NONE};
    return r->n_nodes++;
}

static cmi_charset *new_set(cmi_regex *r, uint32_t *node_out)
{
    *node_out = new_node(r, CMI_REGEX_SET);
    r->nodes[*node_out].set = r->n_sets;
    r->sets = cmi_build_grow(r->sets, r->n_sets, &r->cap_sets, sizeof *r->sets);
    r->sets[r->n_sets] = (cmi_charset){0};
    return &r->sets[r->n_sets++];
}

static bool next_is(const cmi_regex *r, const char *s)
{
    size_t n = strlen(s);
    return (size_t)(r->end - r->p) >= n && memcmp(r->p, s, n) == 0;
}

static uint32_t parse_alternatives(cmi_regex *r);

/* Behind (?: the kinds of group that only group, or a refusal. */
static void group_prefix(cmi_regex *r)
{
    if (next_is(r, ":")) {
        r->p++;
        return;
    }
    bool named = next_is(r, "P<") || (next_is(r, "<") && !next_is(r, "<=") && !next_is(r, "<!"));
    const char *close = named ? memchr(r->p, '>', (size_t)(r->end - r->p)) : NULL;
    if (close == NULL) {
        cmi_regex_refuse(r, CMI_ERR_UNSUPPORTED,
                         next_is(r, "=") || next_is(r, "!") || next_is(r, "<")
                             ? "look-around is not supported"
                             : "this kind of group is not supported");
        return;
    }
    r->p = close + 1;
}

static uint32_t parse_group(cmi_regex *r)
{
    if (next_is(r, "?")) {
        r->p++;
        group_prefix(r);
    }
    if (++r->nesting > CMI_REGEX_MAX_NESTING) {
        cmi_regex_refuse(r, CMI_ERR_TOO_LARGE, "groups are nested too deep");
        return 0;
    }
    uint32_t node = parse_alternatives(r);
    r->nesting--;
    if (!next_is(r, ")")) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a group without its closing parenthesis");
        return node;
    }
    r->p++;
    return node;
}

static uint32_t parse_atom(cmi_regex *r)
{
    uint32_t node = 0, single;
    uint32_t c = cmi_regex_char(r);
    cmi_charset *set;
    switch (c) {
    case '(':
        return parse_group(r);
    case '^':
        return new_node(r, CMI_REGEX_BEGIN);
    case '$':
        return new_node(r, CMI_REGEX_END);
    case '[':
        set = new_set(r, &node);
        cmi_regex_class(r, set);
        return node;
    case '*':
    case '+':
    case '?':
        r->p--;
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a quantifier with nothing to repeat");
        return 0;
    default:
        set = new_set(r, &node);
        if (c == '\\') {
            cmi_regex_escape(r, set, false, &single);
        } else if (c == '.') {
            cmi_charset_add(set, '\n', '\n');
            cmi_charset_add(set, '\r', '\r');
        } else {
            cmi_charset_add(set, c, c);
        }
        cmi_charset_normalize(set);
        if (c == '.') {
            cmi_charset_negate(set);
        }
        return node;
    }
}

static bool parse_number(const char **p, const char *end, uint32_t *value_out)
{
    const char *begin = *p;
    uint32_t value = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        value = CMI_MIN(value * 10 + (uint32_t)(**p - '0'), 1000000u);
    }
    *value_out = value;
    return *p > begin;
}

/* {n}, {n,} or {n,m}; anything else behind a brace is text, as everywhere. */
static bool parse_braces(cmi_regex *r, uint32_t *min, uint32_t *max)
{
    const char *p = r->p + 1;
    if (!parse_number(&p, r->end, min)) {
        return false;
    }
    *max = *min;
    if (p < r->end && *p == ',') {
        p++;
        if (!parse_number(&p, r->end, max)) {
            *max = CMI_UNBOUNDED;
        }
    }
    if (p == r->end || *p != '}') {
        return false;
    }
    r->p = p + 1;
    return true;
}

static bool parse_quantifier(cmi_regex *r, uint32_t *min, uint32_t *max)
{
    if (r->p == r->end) {
        return false;
    }
    char c = *r->p;
    if (c == '{') {
        return parse_braces(r, min, max);
    }
    if (c != '*' && c != '+' && c != '?') {
        return false;
    }
    r->p++;
    *min = c == '+';
    *max = c == '?' ? 1 : CMI_UNBOUNDED;
    return true;
}

static uint32_t parse_repeated(cmi_regex *r)
{
    uint32_t node = parse_atom(r), min = 0, max = 0;
    if (r->b->status != CMI_OK || !parse_quantifier(r, &min, &max)) {
        return node;
    }
    if (max < min || min > CMI_REGEX_MAX_REPEAT ||
        (max > CMI_REGEX_MAX_REPEAT && max != CMI_UNBOUNDED)) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a quantifier out of order or over 10000");
    }
    if (r->nodes[node].kind == CMI_REGEX_BEGIN || r->nodes[node].kind == CMI_REGEX_END) {
        cmi_regex_refuse(r, CMI_ERR_UNSUPPORTED, "a quantifier on an anchor is not supported");
    }
    if (next_is(r, "?")) { /* lazy: the same texts */
        r->p++;
    }
    if (next_is(r, "+") || next_is(r, "*") || next_is(r, "?")) {
        cmi_regex_refuse(r, CMI_ERR_UNSUPPORTED, "a quantifier on a quantifier is not supported");
    }
    uint32_t repeat = new_node(r, CMI_REGEX_REPEAT);
    r->nodes[repeat].first = node;
    r->nodes[repeat].min = min;
    r->nodes[repeat].max = max;
    return repeat;
}

static uint32_t parse_sequence(cmi_regex *r)
{
    uint32_t cat = new_node(r, CMI_REGEX_CAT), last = CMI_REGEX_NONE;
    while (r->b->status == CMI_OK && r->p < r->end && *r->p != '|' && *r->p != ')') {
        uint32_t node = parse_repeated(r);
        if (last == CMI_REGEX_NONE) {
            r->nodes[cat].first = node;
        } else {
            r->nodes[last].next = node;
        }
        last = node;
    }
    return cat;
}

static uint32_t parse_alternatives(cmi_regex *r)
{
    uint32_t alt = new_node(r, CMI_REGEX_ALT);
    uint32_t last = parse_sequence(r);
    r->nodes[alt].first = last;
    while (r->b->status == CMI_OK && next_is(r, "|")) {
        r->p++;
        uint32_t node = parse_sequence(r);
        r->nodes[last].next = node;
        last = node;
    }
    return alt;
}

/* As the whole text must match, ^ and $ say nothing new at its ends, and nothing matches where they
 * stand elsewhere: that is a mistake, and refused. */
static bool anchors_are_at_ends(const cmi_regex *r, uint32_t node, bool at_begin, bool at_end)
{
    const cmi_regex_node *n = &r->nodes[node];
    if (n->kind == CMI_REGEX_BEGIN || n->kind == CMI_REGEX_END) {
        return n->kind == CMI_REGEX_BEGIN ? at_begin : at_end;
    }
    if (n->kind == CMI_REGEX_REPEAT) {
        at_begin = at_begin && n->max == 1;
        at_end = at_end && n->max == 1;
    }
    bool ok = true;
    for (uint32_t c = n->first; ok && c != CMI_REGEX_NONE; c = r->nodes[c].next) {
        uint32_t next = r->nodes[c].next;
        bool last = next == CMI_REGEX_NONE || r->nodes[next].kind == CMI_REGEX_END;
        ok = anchors_are_at_ends(r, c, at_begin, at_end && (n->kind != CMI_REGEX_CAT || last));
        if (n->kind == CMI_REGEX_CAT && r->nodes[c].kind != CMI_REGEX_BEGIN) {
            at_begin = false;
        }
    }
    return ok;
}

uint32_t cmi_regex_parse(cmi_regex *r)
{
    uint32_t root = parse_alternatives(r);
    if (r->b->status == CMI_OK && r->p < r->end) {
        cmi_regex_refuse(r, CMI_ERR_BAD_DATA, "a closing parenthesis without a group");
    }
    if (r->b->status == CMI_OK && !anchors_are_at_ends(r, root, true, true)) {
        cmi_build_fail(r->b, CMI_ERR_UNSUPPORTED,
                       "%s: ^ and $ are supported at the ends of the expression only", r->what);
    }
    return root;
}

void cmi_regex_deinit(cmi_regex *r)
{
    for (uint32_t i = 0; i < r->n_sets; i++) {
        cmi_charset_deinit(&r->sets[i]);
    }
    cmi_free(r->sets);
    cmi_free(r->nodes);
}
