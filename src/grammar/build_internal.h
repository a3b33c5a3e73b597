/* grammar/build_internal.h - a grammar while it is being compiled.
 *
 * A grammar is a set of rules, each the text of one value. A rule is written as a nondeterministic
 * automaton (NFA) whose edges are bytes and calls of other rules, and made deterministic (DFA) with
 * calls as letters of their own; so what alternatives begin with alike is one path. A call stacks
 * the state to go on with, which is what recursion and nesting need. Rules are asked for by key and
 * written one after the other, so that one NFA exists at a time.
 *
 * Errors stick: after the first, adding does nothing and its line stays. Loops ask cmi_build_work,
 * which is false then, or when the work is over the limit. */
#ifndef CMI_GRAMMAR_BUILD_INTERNAL_H
#define CMI_GRAMMAR_BUILD_INTERNAL_H

#include <jansson.h>

#include "base/strmap.h"
#include "grammar/grammar.h"

enum {
    CMI_NFA_MAX_STATES = 1 << 19,
    CMI_NFA_MAX_EDGES = 1 << 21,
    CMI_DFA_MAX_EDGES = 1 << 21,     /* of all rules together */
    CMI_DFA_MAX_SETS = 1 << 22,      /* NFA states in all states of a rule's DFA */
    CMI_GRAMMAR_MAX_TABLE = 1 << 23, /* states times classes of bytes */
    CMI_NFA_MEMO = 256,
    CMI_BUILD_MAX_RULES = 10000,
    CMI_BUILD_PATH_BYTES = 200,
};

#define CMI_UNBOUNDED UINT32_MAX

typedef enum cmi_edge_kind {
    CMI_EDGE_EMPTY,
    CMI_EDGE_BYTES, /* any byte of lo .. hi */
    CMI_EDGE_CALL,  /* a text of the rule `value` */
    CMI_EDGE_SET,   /* a character of the set `value`; in expressions only (regex.c) */
} cmi_edge_kind;

typedef struct cmi_nfa_edge {
    uint32_t next; /* of the same state, or UINT32_MAX */
    uint32_t to;
    uint16_t value;
    uint8_t kind, lo, hi;
} cmi_nfa_edge;

/* A state with one edge, shared by sequences of bytes that end alike. */
typedef struct cmi_nfa_memo {
    uint32_t state, to;
    uint8_t lo, hi;
} cmi_nfa_memo;

typedef struct cmi_nfa {
    uint32_t *first;    /* [n_states] its newest edge, or UINT32_MAX */
    uint16_t *counters; /* [n_states] what the state counts, or 0 */
    cmi_nfa_edge *edges;
    uint32_t n_states, cap_states, n_edges, cap_edges;
    cmi_nfa_memo memo[CMI_NFA_MEMO];
} cmi_nfa;

typedef struct cmi_dfa_edge {
    uint16_t to;
    uint8_t lo, hi;
} cmi_dfa_edge;

typedef struct cmi_dfa_call {
    uint16_t rule;
    uint16_t next;
} cmi_dfa_call;

typedef struct cmi_dfa_state {
    uint32_t edges, calls; /* first ones; those of a state stand together */
    uint16_t n_edges, n_calls;
    uint16_t counter;
    bool accept;
} cmi_dfa_state;

/* What a state lets pass by the count of its frame. In a string (of characters) the closing quote
 * wants min, everything else begins one more character. In an array (of commas) a comma is one
 * more, and everything else wants min. */
typedef struct cmi_counter {
    uint32_t min, max; /* max may be CMI_UNBOUNDED */
    uint8_t special;   /* '"' or ',' */
} cmi_counter;

typedef struct cmi_build cmi_build;
typedef struct cmi_rule cmi_rule;

/* Writes the rule's NFA between two states. */
typedef void cmi_rule_writer(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to);

struct cmi_rule {
    cmi_rule_writer *write;
    const json_t *schema; /* borrowed */
    const json_t *root;   /* what its references point into, borrowed */
    uint32_t root_id;
    const cmi_grammar_source *source;
    uint32_t min, max;
    char *key;
    char path[CMI_BUILD_PATH_BYTES]; /* where its schema stands */
    uint16_t start;                  /* DFA state */
    uint8_t need;                    /* frames that its shortest text stacks; UINT8_MAX: no text */
};

struct cmi_build {
    cmi_error *err;
    cmi_status status;
    uint32_t work, max_work, max_states;

    cmi_nfa nfa;
    cmi_rule *rules;
    uint32_t n_rules, cap_rules;
    cmi_strmap rule_ids; /* key -> index */

    cmi_dfa_state *states;
    cmi_dfa_edge *edges;
    cmi_dfa_call *calls;
    uint32_t n_states, cap_states, n_edges, cap_edges, n_calls, cap_calls;
    cmi_counter *counters; /* [0] is none */
    uint32_t n_counters, cap_counters;

    const cmi_vocab *vocab;
    json_t *source;     /* the whole source, when it is JSON */
    const json_t *root; /* the schema that references point into, part of source */
    uint32_t root_id;   /* tells the roots of a tree apart, */
    uint32_t n_roots;   /* of which there are so many so far */
    json_t *kept;       /* owns merged schemas */
    char path[CMI_BUILD_PATH_BYTES];
    uint32_t inlined; /* schemas that are being written inside each other */
};

/* ---- build.c ---- */

/* Records the first error. */
CMI_PRINTF(3, 4) void cmi_build_fail(cmi_build *b, cmi_status st, const char *fmt, ...);

/* Counts n steps. False when the build has failed or they are over the limit. */
CMI_NODISCARD bool cmi_build_work(cmi_build *b, uint64_t n);

/* Makes room for one more item of a growing array. */
void *cmi_build_grow(void *items, uint32_t n, uint32_t *cap, size_t item_bytes);

/* The rule known by this key; a new one, to be written later, copies *rule and b->path. */
uint32_t cmi_build_rule(cmi_build *b, const char *key, const cmi_rule *rule);

/* Index for cmi_nfa.counters. */
uint16_t cmi_build_counter(cmi_build *b, uint32_t min, uint32_t max, char special);

/* ---- nfa.c: pieces between two states, which the caller made ---- */

void cmi_nfa_reset(cmi_nfa *nfa);
void cmi_nfa_deinit(cmi_nfa *nfa);
uint32_t cmi_nfa_state(cmi_build *b);
void cmi_nfa_edge_add(cmi_build *b, uint32_t from, cmi_nfa_edge edge);
void cmi_nfa_empty(cmi_build *b, uint32_t from, uint32_t to);
void cmi_nfa_bytes(cmi_build *b, uint32_t from, uint32_t to, uint8_t lo, uint8_t hi);
void cmi_nfa_byte(cmi_build *b, uint32_t from, uint32_t to, char byte);
void cmi_nfa_call(cmi_build *b, uint32_t from, uint32_t to, uint32_t rule);
void cmi_nfa_literal(cmi_build *b, uint32_t from, uint32_t to, const char *bytes, size_t n_bytes);

/* One of lo[i] .. hi[i] for each i < n, n >= 1. Sequences that end alike share states. */
void cmi_nfa_sequence(cmi_build *b, uint32_t from, uint32_t to, const uint8_t *lo,
                      const uint8_t *hi, size_t n);

/* ---- tree.c ---- */

/* The text of the root node of a tree as the grammar's rule. */
void cmi_tree_root_write(cmi_build *b, const cmi_rule *rule, uint32_t from, uint32_t to);

/* ---- dfa.c ---- */

/* Appends the deterministic form of b->nfa to b->states; its start state. */
uint32_t cmi_dfa_build(cmi_build *b, uint32_t start, uint32_t accept);

#endif
