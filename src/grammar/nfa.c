/* grammar/nfa.c - the automaton of the rule that is being written. */
#include <string.h>

#include "base/alloc.h"
#include "grammar/build_internal.h"

void cmi_nfa_reset(cmi_nfa *nfa)
{
    nfa->n_states = nfa->n_edges = 0;
    for (size_t i = 0; i < CMI_NFA_MEMO; i++) {
        nfa->memo[i].state = UINT32_MAX;
    }
}

void cmi_nfa_deinit(cmi_nfa *nfa)
{
    cmi_free(nfa->first);
    cmi_free(nfa->counters);
    cmi_free(nfa->edges);
}

uint32_t cmi_nfa_state(cmi_build *b)
{
    cmi_nfa *nfa = &b->nfa;
    if (nfa->n_states == CMI_NFA_MAX_STATES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "the grammar is too large: over %d positions",
                       CMI_NFA_MAX_STATES);
    }
    if (!cmi_build_work(b, 1)) {
        return 0;
    }
    uint32_t cap = nfa->cap_states;
    nfa->first = cmi_build_grow(nfa->first, nfa->n_states, &cap, sizeof *nfa->first);
    nfa->counters =
        cmi_build_grow(nfa->counters, nfa->n_states, &nfa->cap_states, sizeof *nfa->counters);
    nfa->first[nfa->n_states] = UINT32_MAX;
    nfa->counters[nfa->n_states] = 0;
    return nfa->n_states++;
}

void cmi_nfa_edge_add(cmi_build *b, uint32_t from, cmi_nfa_edge edge)
{
    cmi_nfa *nfa = &b->nfa;
    if (nfa->n_edges == CMI_NFA_MAX_EDGES) {
        cmi_build_fail(b, CMI_ERR_TOO_LARGE, "the grammar is too large: over %d edges",
                       CMI_NFA_MAX_EDGES);
    }
    if (!cmi_build_work(b, 1)) {
        return;
    }
    nfa->edges = cmi_build_grow(nfa->edges, nfa->n_edges, &nfa->cap_edges, sizeof *nfa->edges);
    edge.next = nfa->first[from];
    nfa->edges[nfa->n_edges] = edge;
    nfa->first[from] = nfa->n_edges++;
}

void cmi_nfa_empty(cmi_build *b, uint32_t from, uint32_t to)
{
    cmi_nfa_edge_add(b, from, (cmi_nfa_edge){.to = to, .kind = CMI_EDGE_EMPTY});
}

void cmi_nfa_bytes(cmi_build *b, uint32_t from, uint32_t to, uint8_t lo, uint8_t hi)
{
    cmi_nfa_edge_add(b, from, (cmi_nfa_edge){.to = to, .kind = CMI_EDGE_BYTES, .lo = lo, .hi = hi});
}

void cmi_nfa_byte(cmi_build *b, uint32_t from, uint32_t to, char byte)
{
    cmi_nfa_bytes(b, from, to, (uint8_t)byte, (uint8_t)byte);
}

void cmi_nfa_call(cmi_build *b, uint32_t from, uint32_t to, uint32_t rule)
{
    cmi_nfa_edge_add(b, from,
                     (cmi_nfa_edge){.to = to, .kind = CMI_EDGE_CALL, .value = (uint16_t)rule});
}

void cmi_nfa_literal(cmi_build *b, uint32_t from, uint32_t to, const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        uint32_t next = i + 1 == n_bytes ? to : cmi_nfa_state(b);
        cmi_nfa_byte(b, from, next, bytes[i]);
        from = next;
    }
    if (n_bytes == 0) {
        cmi_nfa_empty(b, from, to);
    }
}

/* A state whose only edge is lo .. hi to `to`: the one made before, if it is remembered. */
static uint32_t suffix_state(cmi_build *b, uint32_t to, uint8_t lo, uint8_t hi)
{
    uint32_t slot = (to * 31u + lo * 7u + hi) % CMI_NFA_MEMO;
    cmi_nfa_memo *memo = &b->nfa.memo[slot];
    if (memo->state == UINT32_MAX || memo->to != to || memo->lo != lo || memo->hi != hi) {
        *memo = (cmi_nfa_memo){.state = cmi_nfa_state(b), .to = to, .lo = lo, .hi = hi};
        cmi_nfa_bytes(b, memo->state, to, lo, hi);
    }
    return memo->state;
}

void cmi_nfa_sequence(cmi_build *b, uint32_t from, uint32_t to, const uint8_t *lo,
                      const uint8_t *hi, size_t n)
{
    for (size_t i = n - 1; i > 0; i--) {
        to = suffix_state(b, to, lo[i], hi[i]);
    }
    cmi_nfa_bytes(b, from, to, lo[0], hi[0]);
}
