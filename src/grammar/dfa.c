/* grammar/dfa.c - the deterministic form of a rule, by the subset construction.
 *
 * A state is a set of NFA states. Only those that matter are kept in it (with an edge that is not
 * empty, accepting, or counting), so that sets which behave alike are the same more often. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "grammar/build_internal.h"

typedef struct subset {
    uint32_t at, n; /* in the pool, ascending */
} subset;

typedef struct subsets {
    cmi_build *b;
    uint32_t accept;
    uint32_t base; /* of sets[0] in b->states */
    subset *sets;
    uint32_t n_sets, cap_sets;
    uint32_t *pool;
    uint32_t n_pool, cap_pool;
    uint32_t *slots; /* index of a set plus one, by hash */
    uint32_t n_slots;
    uint32_t *seen; /* [NFA states] the last epoch that met it */
    uint32_t epoch;
    uint32_t *stack;   /* [NFA states] */
    uint32_t *members; /* [NFA states] of the set that is being collected */
    uint32_t n_members;
    cmi_nfa_edge *byte_edges; /* of the set that is being expanded */
    uint32_t n_byte_edges, cap_byte_edges;
    cmi_nfa_edge *call_edges;
    uint32_t n_call_edges, cap_call_edges;
} subsets;

static bool matters(const subsets *s, uint32_t state)
{
    const cmi_nfa *nfa = &s->b->nfa;
    if (state == s->accept || nfa->counters[state] != 0) {
        return true;
    }
    for (uint32_t e = nfa->first[state]; e != UINT32_MAX; e = nfa->edges[e].next) {
        if (nfa->edges[e].kind == CMI_EDGE_BYTES || nfa->edges[e].kind == CMI_EDGE_CALL) {
            return true;
        }
    }
    return false;
}

/* Adds what can be reached from state by empty edges to the members. */
static void collect(subsets *s, uint32_t state)
{
    const cmi_nfa *nfa = &s->b->nfa;
    uint32_t n_stack = 0, n_steps = 0;
    if (s->seen[state] != s->epoch) {
        s->seen[state] = s->epoch;
        s->stack[n_stack++] = state;
    }
    while (n_stack > 0) {
        uint32_t at = s->stack[--n_stack];
        if (matters(s, at)) {
            s->members[s->n_members++] = at;
        }
        for (uint32_t e = nfa->first[at]; e != UINT32_MAX; e = nfa->edges[e].next, n_steps++) {
            uint32_t to = nfa->edges[e].to;
            if (nfa->edges[e].kind == CMI_EDGE_EMPTY && s->seen[to] != s->epoch) {
                s->seen[to] = s->epoch;
                s->stack[n_stack++] = to;
            }
        }
    }
    (void)!cmi_build_work(s->b, n_steps);
}

static void begin_collecting(subsets *s)
{
    s->n_members = 0;
    s->epoch++;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The slot that holds the members, or the free one for them. */
static uint32_t *find_slot(const subsets *s, const uint32_t *members, uint32_t n)
{
    uint64_t at = cmi_hash_bytes(members, n * sizeof *members);
    for (;; at++) {
        uint32_t *slot = &s->slots[at & (s->n_slots - 1)];
        if (*slot == 0) {
            return slot;
        }
        const subset *set = &s->sets[*slot - 1];
        if (set->n == n && memcmp(s->pool + set->at, members, n * sizeof *members) == 0) {
            return slot;
        }
    }
}

static void grow_slots(subsets *s)
{
    cmi_free(s->slots);
    s->n_slots = s->n_slots == 0 ? 64 : s->n_slots * 2;
    s->slots = cmi_alloc(s->n_slots, sizeof *s->slots);
    for (uint32_t i = 0; i < s->n_sets; i++) {
        *find_slot(s, s->pool + s->sets[i].at, s->sets[i].n) = i + 1;
    }
}

static void append_set(subsets *s)
{
    cmi_build *b = s->b;
    s->sets = cmi_build_grow(s->sets, s->n_sets, &s->cap_sets, sizeof *s->sets);
    s->sets[s->n_sets++] = (subset){s->n_pool, s->n_members};
    b->states = cmi_build_grow(b->states, b->n_states, &b->cap_states, sizeof *b->states);
    cmi_dfa_state *state = &b->states[b->n_states++];
    *state = (cmi_dfa_state){0};
    for (uint32_t i = 0; i < s->n_members; i++) {
        s->pool = cmi_build_grow(s->pool, s->n_pool, &s->cap_pool, sizeof *s->pool);
        s->pool[s->n_pool++] = s->members[i];
        state->accept = state->accept || s->members[i] == s->accept;
        uint16_t counter = b->nfa.counters[s->members[i]];
        state->counter = counter != 0 ? counter : state->counter;
    }
}

/* The state in b->states of the collected members. */
static uint16_t intern(subsets *s)
{
    qsort(s->members, s->n_members, sizeof *s->members, compare_u32);
    if (s->n_sets * 2 >= s->n_slots) {
        grow_slots(s);
    }
    uint32_t *slot = find_slot(s, s->members, s->n_members);
    if (*slot == 0) {
        if (s->b->n_states >= s->b->max_states || s->n_pool + s->n_members > CMI_DFA_MAX_SETS ||
            s->b->n_edges >= CMI_DFA_MAX_EDGES) {
            cmi_build_fail(s->b, CMI_ERR_TOO_LARGE, "the grammar is too large: over %u states",
                           s->b->n_states);
            return 0;
        }
        append_set(s);
        *slot = s->n_sets;
    }
    return (uint16_t)(s->base + *slot - 1);
}

static int compare_calls(const void *a, const void *b)
{
    const cmi_nfa_edge *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

static void gather_edges(subsets *s, uint32_t set)
{
    const cmi_nfa *nfa = &s->b->nfa;
    s->n_byte_edges = s->n_call_edges = 0;
    for (uint32_t i = 0; i < s->sets[set].n; i++) {
        uint32_t from = s->pool[s->sets[set].at + i];
        for (uint32_t e = nfa->first[from]; e != UINT32_MAX; e = nfa->edges[e].next) {
            if (nfa->edges[e].kind == CMI_EDGE_BYTES) {
                s->byte_edges = cmi_build_grow(s->byte_edges, s->n_byte_edges, &s->cap_byte_edges,
                                               sizeof *s->byte_edges);
                s->byte_edges[s->n_byte_edges++] = nfa->edges[e];
            } else if (nfa->edges[e].kind == CMI_EDGE_CALL) {
                s->call_edges = cmi_build_grow(s->call_edges, s->n_call_edges, &s->cap_call_edges,
                                               sizeof *s->call_edges);
                s->call_edges[s->n_call_edges++] = nfa->edges[e];
            }
        }
    }
    if (s->n_call_edges > 1) {
        qsort(s->call_edges, s->n_call_edges, sizeof *s->call_edges, compare_calls);
    }
}

static void append_edge(cmi_build *b, uint32_t state, uint8_t lo, uint8_t hi, uint16_t to)
{
    cmi_dfa_state *from = &b->states[state];
    if (from->n_edges > 0 && b->edges[b->n_edges - 1].to == to &&
        b->edges[b->n_edges - 1].hi + 1 == lo) {
        b->edges[b->n_edges - 1].hi = hi;
        return;
    }
    b->edges = cmi_build_grow(b->edges, b->n_edges, &b->cap_edges, sizeof *b->edges);
    b->edges[b->n_edges++] = (cmi_dfa_edge){.to = to, .lo = lo, .hi = hi};
    from->n_edges++;
}

static void expand_bytes(subsets *s, uint32_t state)
{
    cmi_build *b = s->b;
    bool cut[257] = {false};
    for (uint32_t i = 0; i < s->n_byte_edges; i++) {
        cut[s->byte_edges[i].lo] = cut[s->byte_edges[i].hi + 1] = true;
    }
    b->states[state].edges = b->n_edges;
    for (uint32_t lo = 0; lo < 256;) {
        uint32_t end = lo + 1;
        while (end < 256 && !cut[end]) {
            end++;
        }
        begin_collecting(s);
        for (uint32_t i = 0; i < s->n_byte_edges; i++) {
            if (s->byte_edges[i].lo <= lo && lo <= s->byte_edges[i].hi) {
                collect(s, s->byte_edges[i].to);
            }
        }
        if (!cmi_build_work(b, s->n_byte_edges + s->n_members)) {
            return;
        }
        if (s->n_members > 0) {
            uint16_t to = intern(s);
            append_edge(b, state, (uint8_t)lo, (uint8_t)(end - 1), to);
        }
        lo = end;
    }
}

static void expand_calls(subsets *s, uint32_t state)
{
    cmi_build *b = s->b;
    b->states[state].calls = b->n_calls;
    for (uint32_t i = 0; i < s->n_call_edges;) {
        uint16_t rule = s->call_edges[i].value;
        begin_collecting(s);
        for (; i < s->n_call_edges && s->call_edges[i].value == rule; i++) {
            collect(s, s->call_edges[i].to);
        }
        if (!cmi_build_work(b, s->n_members)) {
            return;
        }
        uint16_t next = intern(s);
        b->calls = cmi_build_grow(b->calls, b->n_calls, &b->cap_calls, sizeof *b->calls);
        b->calls[b->n_calls++] = (cmi_dfa_call){.rule = rule, .next = next};
        b->states[state].n_calls++;
    }
}

uint32_t cmi_dfa_build(cmi_build *b, uint32_t start, uint32_t accept)
{
    uint32_t n = b->nfa.n_states;
    subsets s = {.b = b, .accept = accept, .base = b->n_states};
    if (b->status != CMI_OK) {
        return 0;
    }
    s.seen = cmi_alloc(n, sizeof *s.seen);
    s.stack = cmi_alloc(n, sizeof *s.stack);
    s.members = cmi_alloc(n, sizeof *s.members);
    begin_collecting(&s);
    collect(&s, start);
    intern(&s);
    for (uint32_t i = 0; i < s.n_sets && b->status == CMI_OK; i++) {
        gather_edges(&s, i);
        expand_bytes(&s, s.base + i);
        expand_calls(&s, s.base + i);
    }
    cmi_free(s.sets);
    cmi_free(s.pool);
    cmi_free(s.slots);
    cmi_free(s.seen);
    cmi_free(s.stack);
    cmi_free(s.members);
    cmi_free(s.byte_edges);
    cmi_free(s.call_edges);
    return s.base;
}
