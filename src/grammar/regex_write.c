/* grammar/regex_write.c - a regular expression as part of a rule's automaton.
 *
 * It is written with an edge for a character first. Then each such edge is spelled in bytes: once,
 * or, where the number of characters is limited beyond what the expression says, once for each
 * count of characters so far. */
#include "grammar/regex_parse_internal.h"

/* ---- With an edge for a character ---- */

static void write_node(cmi_regex *r, uint32_t node, uint32_t from, uint32_t to);

static void write_repeat(cmi_regex *r, const cmi_regex_node *n, uint32_t from, uint32_t to)
{
    cmi_build *b = r->b;
    for (uint32_t i = 0; i < n->min && b->status == CMI_OK; i++) {
        uint32_t next = cmi_nfa_state(b);
        write_node(r, n->first, from, next);
        from = next;
    }
    if (n->max == CMI_UNBOUNDED) {
        uint32_t loop = cmi_nfa_state(b), back = cmi_nfa_state(b);
        cmi_nfa_empty(b, from, loop);
        write_node(r, n->first, loop, back);
        cmi_nfa_empty(b, back, loop);
        cmi_nfa_empty(b, loop, to);
        return;
    }
    for (uint32_t i = n->min; i < n->max && b->status == CMI_OK; i++) {
        uint32_t next = cmi_nfa_state(b);
        cmi_nfa_empty(b, from, to);
        write_node(r, n->first, from, next);
        from = next;
    }
    cmi_nfa_empty(b, from, to);
}

static void write_node(cmi_regex *r, uint32_t node, uint32_t from, uint32_t to)
{
    cmi_build *b = r->b;
    const cmi_regex_node *n = &r->nodes[node];
    if (b->status != CMI_OK) {
        return;
    }
    switch (n->kind) {
    case CMI_REGEX_SET:
        cmi_nfa_edge_add(b, from,
                         (cmi_nfa_edge){.to = to, .kind = CMI_EDGE_SET, .value = (uint16_t)n->set});
        return;
    case CMI_REGEX_REPEAT:
        write_repeat(r, n, from, to);
        return;
    case CMI_REGEX_ALT:
        for (uint32_t c = n->first; c != CMI_REGEX_NONE; c = r->nodes[c].next) {
            write_node(r, c, from, to);
        }
        return;
    case CMI_REGEX_CAT:
        for (uint32_t c = n->first; c != CMI_REGEX_NONE; c = r->nodes[c].next) {
            uint32_t next = cmi_nfa_state(b);
            write_node(r, c, from, next);
            from = next;
        }
        break;
    default:
        break;
    }
    cmi_nfa_empty(b, from, to);
}

/* ---- Spelled in bytes ---- */

/* Fewest and most characters; most is CMI_UNBOUNDED from CMI_REGEX_MAX_BYTES^2 on or so. */
static void count_chars(const cmi_regex *r, uint32_t node, uint64_t *min, uint64_t *max)
{
    const cmi_regex_node *n = &r->nodes[node];
    *min = *max = n->kind == CMI_REGEX_SET;
    bool first = true;
    for (uint32_t c = n->first; c != CMI_REGEX_NONE; c = r->nodes[c].next, first = false) {
        uint64_t lo, hi;
        count_chars(r, c, &lo, &hi);
        if (n->kind == CMI_REGEX_REPEAT) {
            *min = lo * n->min;
            *max = n->max == CMI_UNBOUNDED && hi > 0 ? CMI_UNBOUNDED : hi * n->max;
        } else if (n->kind == CMI_REGEX_CAT) {
            *min += lo;
            *max += hi;
        } else {
            *min = first ? lo : CMI_MIN(*min, lo);
            *max = CMI_MAX(*max, hi);
        }
    }
    *min = CMI_MIN(*min, (uint64_t)CMI_UNBOUNDED);
    *max = CMI_MIN(*max, (uint64_t)CMI_UNBOUNDED);
}

typedef struct spelling_pass {
    cmi_regex *r;
    cmi_spelling spelling;
    uint32_t first, n; /* the states written with an edge for a character */
    uint32_t min, max;
    uint32_t copies; /* behind them: `copies` times n states, one copy for each count */
} spelling_pass;

/* The state with this count of characters so far. */
static uint32_t copy_of(const spelling_pass *s, uint32_t state, uint32_t count)
{
    return s->first + s->n * (1 + count) + (state - s->first);
}

static void spell_state(const spelling_pass *s, uint32_t state, uint32_t count)
{
    cmi_build *b = s->r->b;
    uint32_t more = s->max == CMI_UNBOUNDED ? CMI_MIN(count + 1, s->min) : count + 1;
    for (uint32_t e = b->nfa.first[state]; e != UINT32_MAX; e = b->nfa.edges[e].next) {
        cmi_nfa_edge edge = b->nfa.edges[e];
        if (edge.kind == CMI_EDGE_EMPTY) {
            cmi_nfa_empty(b, copy_of(s, state, count), copy_of(s, edge.to, count));
        } else if (edge.kind == CMI_EDGE_SET && more < s->copies) {
            cmi_charset_write(b, &s->r->sets[edge.value], s->spelling, copy_of(s, state, count),
                              copy_of(s, edge.to, more));
        }
    }
}

/* The first state written with characters is its start, the second its end. */
static void spell(spelling_pass *s, uint32_t from, uint32_t to)
{
    cmi_build *b = s->r->b;
    s->n = b->nfa.n_states - s->first;
    s->copies = s->max == CMI_UNBOUNDED ? s->min + 1 : s->max + 1;
    if ((uint64_t)s->copies * s->n > CMI_NFA_MAX_STATES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE,
                       "%s: too large together with the limits of the string's length", s->r->what);
    }
    for (uint64_t i = 0; b->status == CMI_OK && i < (uint64_t)s->copies * s->n; i++) {
        cmi_nfa_state(b);
    }
    for (uint32_t count = 0; b->status == CMI_OK && count < s->copies; count++) {
        for (uint32_t i = 0; b->status == CMI_OK && i < s->n; i++) {
            spell_state(s, s->first + i, count);
        }
        if (b->status == CMI_OK && count >= s->min) {
            cmi_nfa_empty(b, copy_of(s, s->first + 1, count), to);
        }
    }
    if (b->status == CMI_OK) {
        cmi_nfa_empty(b, from, copy_of(s, s->first, 0));
    }
}

static void write_root(cmi_regex *r, uint32_t root, spelling_pass *s, uint32_t from, uint32_t to)
{
    uint64_t shortest, longest;
    count_chars(r, root, &shortest, &longest);
    if (shortest >= s->min) {
        s->min = 0;
    }
    if (longest <= s->max) {
        s->max = CMI_UNBOUNDED;
    }
    if (s->min != CMI_UNBOUNDED) {
        s->first = cmi_nfa_state(r->b);
        uint32_t end = cmi_nfa_state(r->b);
        write_node(r, root, s->first, end);
        spell(s, from, to);
    }
}

void cmi_regex_write(cmi_build *b, const char *what, const char *expression, size_t n_bytes,
                     cmi_spelling spelling, uint32_t min, uint32_t max, uint32_t from, uint32_t to)
{
    if (n_bytes > CMI_REGEX_MAX_BYTES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "%s: an expression of %zu bytes, at most %d", what,
                       n_bytes, CMI_REGEX_MAX_BYTES);
        return;
    }
    cmi_regex r = {
        .b = b, .what = what, .begin = expression, .p = expression, .end = expression + n_bytes};
    uint32_t root = cmi_regex_parse(&r);
    if (b->status == CMI_OK) {
        spelling_pass s = {.r = &r, .spelling = spelling, .min = min, .max = max};
        write_root(&r, root, &s, from, to);
    }
    cmi_regex_deinit(&r);
}
