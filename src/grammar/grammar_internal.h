/* grammar/grammar_internal.h - a compiled grammar: flat tables over the states of all rules. */
#ifndef CMI_GRAMMAR_GRAMMAR_INTERNAL_H
#define CMI_GRAMMAR_GRAMMAR_INTERNAL_H

#include "grammar/build_internal.h"
#include "grammar/vocab_internal.h"

#define CMI_NO_STATE UINT16_MAX

enum {
    CMI_STATE_ACCEPT = 1, /* the rule's text may end */
    CMI_STATE_CALLS = 2,
    CMI_STATE_FINAL = 4,      /* it must end: nothing goes on from here */
    CMI_STATE_SIMPLE = 8,     /* bytes only: not accepting, no calls, no count, no frames needed */
    CMI_STATE_PLAIN_OPEN = 16 /* some state of its plain run is accepting */
};

/* How many plain characters, whichever they are, a state takes. All of them lead the same way, and
 * behind the last no plain character can follow. */
enum {
    CMI_RUN_MAX = 200, /* this many or more */
    CMI_RUN_UNLIMITED = 253,
    CMI_RUN_COUNTED = 254, /* as many as its counter says */
    CMI_RUN_UNKNOWN = 255, /* it depends on the characters */
};

typedef struct cmi_grammar_call {
    uint16_t rule, start;
    uint16_t next; /* CMI_NO_STATE: nothing follows, so that nothing need be stacked */
} cmi_grammar_call;

/* Tokens that a state allows whatever encloses it, and where in the tree of tokens its rule has
 * ended, so that the subtree depends on what encloses it. */
typedef struct cmi_mask_cache {
    uint32_t resumes, n_resumes;
    uint16_t counter; /* the base frame's, whose limits must be far; 0: none was met */
    uint8_t height;   /* highest stack above the base that was tried */
    bool odd;         /* resumes are nodes of the tree of odd tokens */
} cmi_mask_cache;

#define CMI_NO_CACHE UINT16_MAX

struct cmi_grammar {
    const cmi_vocab *vocab;
    uint32_t n_states, n_rules, n_counters, n_calls;
    uint32_t n_classes; /* of bytes that all states treat alike */
    uint16_t start;
    uint8_t class_of[256];
    uint16_t *next; /* [n_states][n_classes] or CMI_NO_STATE */
    uint8_t *flags; /* [n_states] */
    uint8_t *need;  /* [n_states] frames that the shortest rest of its rule's text stacks */
    uint8_t *plain_run;
    uint16_t *counter;
    uint32_t *calls_at; /* [n_states + 1] into calls */
    cmi_grammar_call *calls;
    uint32_t (*first)[8]; /* [n_rules] bytes that begin the rule's texts */
    cmi_counter *counters;
    uint16_t *cache_of; /* [n_states] or CMI_NO_CACHE */
    cmi_mask_cache *caches;
    uint32_t *cached_masks; /* [n_caches][vocab words] */
    uint32_t *resumes;
    uint32_t n_caches, n_resumes;
};

static inline uint16_t cmi_grammar_next(const cmi_grammar *g, uint16_t state, uint8_t byte)
{
    return g->next[(size_t)state * g->n_classes + g->class_of[byte]];
}

/* ---- assemble.c ---- */

/* The tables of what b has built; NULL after a failure. */
cmi_grammar *cmi_grammar_assemble(cmi_build *b);

/* ---- need.c ---- */

/* Sets rules[].need and need[states]; UINT8_MAX where nothing finite follows. */
void cmi_build_need(cmi_build *b, uint8_t *need);

/* ---- plain.c ---- */

void cmi_grammar_find_plain_runs(cmi_grammar *g);

/* ---- mask_cache.c ---- */

/* Makes masks beforehand for states whose walk is long, up to max_bytes and visited nodes. */
void cmi_grammar_make_caches(cmi_grammar *g, uint32_t max_bytes, uint32_t max_work);

#endif
