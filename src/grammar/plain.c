/* grammar/plain.c - how many plain characters a state takes whichever they are.
 *
 * That is what most tokens are made of and what strings are made for; see vocab_internal.h. */
#include "base/alloc.h"
#include "grammar/grammar_internal.h"

/* The state that all bytes of lo .. hi lead to; CMI_NO_STATE when they differ or none leads. */
static uint16_t common_next(const cmi_grammar *g, uint16_t state, unsigned lo, unsigned hi)
{
    uint16_t to = cmi_grammar_next(g, state, (uint8_t)lo);
    for (unsigned byte = lo + 1; byte <= hi; byte++) {
        if (cmi_grammar_next(g, state, (uint8_t)byte) != to) {
            return CMI_NO_STATE;
        }
    }
    return to;
}

/* Behind leading bytes lo .. hi: a byte of first .. last and n_more of any continuation lead to
 * `to`, on one path. */
static bool leads_to(const cmi_grammar *g, uint16_t state, unsigned lo, unsigned hi, unsigned first,
                     unsigned last, int n_more, uint16_t to)
{
    for (unsigned byte = lo; byte <= hi; byte++) {
        uint16_t at = cmi_grammar_next(g, state, (uint8_t)byte);
        at = at == CMI_NO_STATE ? at : common_next(g, at, first, last);
        for (int i = 0; i < n_more && at != CMI_NO_STATE; i++) {
            at = common_next(g, at, 0x80, 0xBF);
        }
        if (at != to) {
            return false;
        }
    }
    return true;
}

/* The state behind any one plain character. */
static uint16_t plain_next(const cmi_grammar *g, uint16_t state)
{
    uint16_t to = common_next(g, state, '#', '[');
    bool same = to != CMI_NO_STATE && common_next(g, state, ' ', '!') == to &&
                common_next(g, state, ']', 0x7F) == to &&
                leads_to(g, state, 0xC2, 0xDF, 0x80, 0xBF, 0, to) &&
                leads_to(g, state, 0xE0, 0xE0, 0xA0, 0xBF, 1, to) &&
                leads_to(g, state, 0xE1, 0xEC, 0x80, 0xBF, 1, to) &&
                leads_to(g, state, 0xED, 0xED, 0x80, 0x9F, 1, to) &&
                leads_to(g, state, 0xEE, 0xEF, 0x80, 0xBF, 1, to) &&
                leads_to(g, state, 0xF0, 0xF0, 0x90, 0xBF, 2, to) &&
                leads_to(g, state, 0xF1, 0xF3, 0x80, 0xBF, 2, to) &&
                leads_to(g, state, 0xF4, 0xF4, 0x80, 0x8F, 2, to);
    return same && g->need[to] == 0 ? to : CMI_NO_STATE;
}

static bool takes_no_plain(const cmi_grammar *g, uint16_t state)
{
    for (unsigned byte = ' '; byte <= 0xF4; byte++) {
        bool begins = byte < 0x80 ? byte != '"' && byte != '\\' : byte >= 0xC2;
        if (begins && cmi_grammar_next(g, state, (uint8_t)byte) != CMI_NO_STATE) {
            return false;
        }
    }
    return true;
}

/* The run of a state whose successor has this run. */
static uint8_t one_more(uint8_t run)
{
    return run < CMI_RUN_MAX ? (uint8_t)(run + 1) : run == CMI_RUN_COUNTED ? CMI_RUN_UNKNOWN : run;
}

/* The run of a state without a plain successor other than itself. */
static uint8_t last_run(const cmi_grammar *g, uint16_t state, uint16_t next)
{
    if ((g->flags[state] & CMI_STATE_CALLS) != 0) {
        return CMI_RUN_UNKNOWN;
    }
    if (g->counter[state] != 0) {
        bool quoted = g->counters[g->counter[state]].special == '"';
        return next == state && quoted ? CMI_RUN_COUNTED : CMI_RUN_UNKNOWN;
    }
    if (next == state) {
        return CMI_RUN_UNLIMITED;
    }
    return takes_no_plain(g, state) ? 0 : CMI_RUN_UNKNOWN;
}

/* Follows plain successors to a known run, then goes back along the way. */
static void find_run(cmi_grammar *g, uint16_t state, uint16_t *way, bool *known)
{
    uint32_t n = 0;
    uint8_t run = CMI_RUN_UNLIMITED; /* of a way that comes back to itself, */
    bool open = true;                /* perhaps through an accepting state */
    for (uint16_t at = state;; n++) {
        if (known[at]) {
            if (g->plain_run[at] != CMI_RUN_MAX + 1) {
                run = g->plain_run[at];
                open = (g->flags[at] & CMI_STATE_PLAIN_OPEN) != 0;
            }
            break;
        }
        known[at] = true;
        g->plain_run[at] = CMI_RUN_MAX + 1; /* on the way */
        way[n] = at;
        uint16_t next = plain_next(g, at);
        bool ends = next == CMI_NO_STATE || next == at || g->counter[at] != 0 ||
                    (g->flags[at] & CMI_STATE_CALLS) != 0;
        if (ends) {
            run = g->plain_run[at] = last_run(g, at, next);
            open = (g->flags[at] & CMI_STATE_ACCEPT) != 0;
            g->flags[at] |= open ? CMI_STATE_PLAIN_OPEN : 0;
            break;
        }
        at = next;
    }
    while (n > 0) {
        uint16_t at = way[--n];
        run = g->plain_run[at] = one_more(run);
        open = open || (g->flags[at] & CMI_STATE_ACCEPT) != 0;
        g->flags[at] |= open ? CMI_STATE_PLAIN_OPEN : 0;
    }
}

void cmi_grammar_find_plain_runs(cmi_grammar *g)
{
    uint16_t *way = cmi_alloc(g->n_states, sizeof *way);
    bool *known = cmi_alloc(g->n_states, sizeof *known);
    g->plain_run = cmi_alloc(g->n_states, sizeof *g->plain_run);
    for (uint32_t state = 0; state < g->n_states; state++) {
        find_run(g, (uint16_t)state, way, known);
    }
    cmi_free(way);
    cmi_free(known);
}
