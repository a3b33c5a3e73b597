/* grammar/assemble.c - from built rules to a grammar's tables.
 *
 * Edges and calls that lead to no finite text are left out, so that a matcher never enters a blind
 * alley: whatever it has accepted can be finished. */
#include <string.h>

#include "base/alloc.h"
#include "grammar/grammar_internal.h"

static void find_classes(const cmi_build *b, cmi_grammar *g)
{
    bool cut[257] = {false};
    for (uint32_t s = 0; s < b->n_states; s++) {
        for (uint32_t i = 0; i < b->states[s].n_edges; i++) {
            const cmi_dfa_edge *e = &b->edges[b->states[s].edges + i];
            cut[e->lo] = cut[e->hi + 1] = true;
        }
    }
    uint32_t class = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        class += byte > 0 && cut[byte];
        g->class_of[byte] = (uint8_t) class;
    }
    g->n_classes = class + 1;
}

static void set_edges(const cmi_build *b, cmi_grammar *g, uint32_t state)
{
    const cmi_dfa_state *s = &b->states[state];
    uint16_t *row = g->next + (size_t)state * g->n_classes;
    for (uint32_t i = 0; i < g->n_classes; i++) {
        row[i] = CMI_NO_STATE;
    }
    for (uint32_t i = 0; i < s->n_edges; i++) {
        const cmi_dfa_edge *e = &b->edges[s->edges + i];
        if (g->need[e->to] != UINT8_MAX) {
            for (uint32_t class = g->class_of[e->lo]; class <= g->class_of[e->hi]; class ++) {
                row[class] = e->to;
            }
        }
    }
}

static bool is_final(const cmi_build *b, uint16_t state)
{
    const cmi_dfa_state *s = &b->states[state];
    return s->accept && s->n_edges == 0 && s->n_calls == 0;
}

static void set_calls(const cmi_build *b, cmi_grammar *g, uint32_t state)
{
    const cmi_dfa_state *s = &b->states[state];
    g->calls_at[state] = g->n_calls;
    for (uint32_t i = 0; i < s->n_calls; i++) {
        const cmi_dfa_call *c = &b->calls[s->calls + i];
        if (b->rules[c->rule].need != UINT8_MAX && g->need[c->next] != UINT8_MAX) {
            g->calls[g->n_calls++] =
                (cmi_grammar_call){.rule = c->rule,
                                   .start = b->rules[c->rule].start,
                                   .next = is_final(b, c->next) ? CMI_NO_STATE : c->next};
        }
    }
}

static void set_state(const cmi_build *b, cmi_grammar *g, uint32_t state)
{
    const cmi_dfa_state *s = &b->states[state];
    unsigned flags = s->accept ? CMI_STATE_ACCEPT : 0u;
    set_edges(b, g, state);
    set_calls(b, g, state);
    g->counter[state] = s->counter;
    flags |= g->n_calls > g->calls_at[state] ? CMI_STATE_CALLS : 0u;
    flags |= is_final(b, (uint16_t)state) ? CMI_STATE_FINAL : 0u;
    flags |= flags == 0 && s->counter == 0 && g->need[state] == 0 ? CMI_STATE_SIMPLE : 0u;
    g->flags[state] = (uint8_t)flags;
}

/* The bytes that begin a rule's texts: its own, and those of the rules that it calls first. Those
 * are a few pieces of JSON which begin with bytes, as alternatives are written in place. */
static void find_first(cmi_grammar *g, const cmi_build *b)
{
    for (int round = 0; round < 4; round++) {
        for (uint32_t r = 0; r < b->n_rules; r++) {
            uint16_t start = b->rules[r].start;
            for (uint32_t byte = 0; byte < 256; byte++) {
                if (cmi_grammar_next(g, start, (uint8_t)byte) != CMI_NO_STATE) {
                    g->first[r][byte / 32] |= 1u << byte % 32;
                }
            }
            for (uint32_t c = g->calls_at[start]; c < g->calls_at[start + 1]; c++) {
                for (int word = 0; word < 8; word++) {
                    g->first[r][word] |= g->first[g->calls[c].rule][word];
                }
            }
        }
    }
}

cmi_grammar *cmi_grammar_assemble(cmi_build *b)
{
    if (b->status != CMI_OK) {
        return NULL;
    }
    uint32_t n = b->n_states;
    cmi_grammar *g = cmi_alloc(1, sizeof *g);
    g->need = cmi_alloc(n, sizeof *g->need);
    cmi_build_need(b, g->need);
    if (b->status == CMI_OK && b->rules[0].need > CMI_GRAMMAR_MAX_DEPTH) {
        cmi_build_fail(b, CMI_ERR_BAD_DATA,
                       "no text fits: something required is impossible, or contains itself");
    }
    if (b->status != CMI_OK) {
        cmi_grammar_destroy(g);
        return NULL;
    }
    find_classes(b, g);
    if ((uint64_t)n * g->n_classes > CMI_GRAMMAR_MAX_TABLE) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE,
                       "the grammar is too large: over %u states with %u "
                       "kinds of bytes",
                       n, g->n_classes);
        cmi_grammar_destroy(g);
        return NULL;
    }
    g->n_states = n;
    g->n_rules = b->n_rules;
    g->n_counters = b->n_counters;
    g->start = b->rules[0].start;
    g->next = cmi_alloc((size_t)n * g->n_classes, sizeof *g->next);
    g->flags = cmi_alloc(n, sizeof *g->flags);
    g->counter = cmi_alloc(n, sizeof *g->counter);
    g->calls_at = cmi_alloc(n + 1, sizeof *g->calls_at);
    g->calls = cmi_alloc(b->n_calls, sizeof *g->calls);
    g->first = cmi_alloc(b->n_rules, sizeof *g->first);
    g->counters = cmi_alloc(b->n_counters, sizeof *g->counters);
    memcpy(g->counters, b->counters, b->n_counters * sizeof *g->counters);
    for (uint32_t state = 0; state < n; state++) {
        set_state(b, g, state);
    }
    g->calls_at[n] = g->n_calls;
    find_first(g, b);
    return g;
}

void cmi_grammar_destroy(cmi_grammar *grammar)
{
    if (grammar == NULL) {
        return;
    }
    cmi_free(grammar->next);
    cmi_free(grammar->flags);
    cmi_free(grammar->need);
    cmi_free(grammar->plain_run);
    cmi_free(grammar->counter);
    cmi_free(grammar->calls_at);
    cmi_free(grammar->calls);
    cmi_free(grammar->first);
    cmi_free(grammar->counters);
    cmi_free(grammar->cache_of);
    cmi_free(grammar->caches);
    cmi_free(grammar->cached_masks);
    cmi_free(grammar->resumes);
    cmi_free(grammar);
}

const cmi_vocab *cmi_grammar_vocab(const cmi_grammar *grammar)
{
    return grammar->vocab;
}

uint32_t cmi_grammar_n_states(const cmi_grammar *grammar)
{
    return grammar->n_states;
}

size_t cmi_grammar_n_bytes(const cmi_grammar *grammar)
{
    const cmi_grammar *g = grammar;
    size_t per_state = g->n_classes * sizeof *g->next + sizeof *g->flags + sizeof *g->need +
                       sizeof *g->plain_run + sizeof *g->counter + sizeof *g->calls_at +
                       sizeof *g->cache_of;
    return sizeof *g + g->n_states * per_state + g->n_calls * sizeof *g->calls +
           g->n_rules * sizeof *g->first + g->n_counters * sizeof *g->counters +
           g->n_caches * (sizeof *g->caches + g->vocab->n_words * sizeof *g->cached_masks) +
           g->n_resumes * sizeof *g->resumes;
}
