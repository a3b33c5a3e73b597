/* grammar/mask_cache.c - masks that are made while compiling, for states whose walk is long.
 *
 * What encloses such a state is not known then. Tokens that stay inside the state's rule are
 * decided; where a token reaches the rule's end, its node is noted, and its subtree is walked when
 * the mask is used, from whatever encloses the state there. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "grammar/mask_internal.h"

enum { MIN_VISITED = 300 }; /* below, a walk takes about as long as joining two masks */

typedef struct candidate {
    uint32_t n_visited;
    uint16_t state;
} candidate;

static void walk_state(cmi_walk *w, uint16_t state)
{
    w->n_visited = w->n_resumes = 0;
    w->frames_at[0] = 0;
    w->stacks.base_counter = w->stacks.base_height = 0;
    memset(w->mask, 0, w->vocab->n_words * sizeof *w->mask);
    if (w->stacks.grammar->plain_run[state] == CMI_RUN_COUNTED) {
        w->stacks.base_counter = w->stacks.grammar->counter[state];
    }
    cmi_walk_item(w, (cmi_matcher_frame){.state = state, .parent = CMI_UNKNOWN_FRAME});
}

static int compare_candidates(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    int order = (x->n_visited < y->n_visited) - (x->n_visited > y->n_visited);
    return order != 0 ? order : (x->state > y->state) - (x->state < y->state);
}

/* The states worth a mask, the longest walks first. */
static uint32_t find_candidates(cmi_walk *w, candidate *found, uint32_t max_work)
{
    const cmi_grammar *g = w->stacks.grammar;
    uint64_t work = 0;
    uint32_t n = 0;
    for (uint32_t state = 0; state < g->n_states && work < max_work; state++) {
        if (g->need[state] == UINT8_MAX) {
            continue;
        }
        walk_state(w, (uint16_t)state);
        work += w->n_visited + 1;
        if (w->n_visited >= MIN_VISITED) {
            found[n++] = (candidate){.n_visited = w->n_visited, .state = (uint16_t)state};
        }
    }
    qsort(found, n, sizeof *found, compare_candidates);
    return n;
}

static void make_cache(cmi_grammar *g, cmi_walk *w, uint16_t state, uint32_t *cap_resumes)
{
    walk_state(w, state);
    cmi_mask_cache *cache = &g->caches[g->n_caches];
    *cache = (cmi_mask_cache){.resumes = g->n_resumes,
                              .n_resumes = w->n_resumes,
                              .state = state,
                              .counter = w->stacks.base_counter,
                              .height = w->stacks.base_height,
                              .odd = w->trie == &w->vocab->odd};
    if (g->n_resumes + w->n_resumes > *cap_resumes) {
        *cap_resumes = (g->n_resumes + w->n_resumes) * 2;
        g->resumes = cmi_realloc(g->resumes, *cap_resumes, sizeof *g->resumes);
    }
    if (w->n_resumes > 0) {
        memcpy(g->resumes + g->n_resumes, w->resumes, w->n_resumes * sizeof *g->resumes);
    }
    g->n_resumes += w->n_resumes;
    memcpy(g->cached_masks + (size_t)g->n_caches * w->vocab->n_words, w->mask,
           w->vocab->n_words * sizeof *w->mask);
    g->cache_of[state] = (uint16_t)g->n_caches++;
}

void cmi_grammar_make_caches(cmi_grammar *g, uint32_t max_bytes, uint32_t max_work)
{
    const cmi_vocab *v = g->vocab;
    cmi_walk *w = cmi_alloc(1, sizeof *w);
    candidate *found = cmi_alloc(g->n_states, sizeof *found);
    w->vocab = v;
    w->stacks.grammar = g;
    w->mask = cmi_alloc(v->n_words, sizeof *w->mask);
    w->resumes = cmi_alloc(v->all.n_nodes, sizeof *w->resumes);
    uint32_t n = find_candidates(w, found, max_work), cap_resumes = 0;
    size_t mask_bytes = v->n_words * sizeof *w->mask + sizeof *g->caches;
    n = (uint32_t)CMI_MIN((size_t)n, max_bytes / mask_bytes);
    g->cache_of = cmi_alloc(g->n_states, sizeof *g->cache_of);
    g->caches = cmi_alloc(n, sizeof *g->caches);
    g->cached_masks = cmi_alloc((size_t)n * v->n_words, sizeof *g->cached_masks);
    for (uint32_t state = 0; state < g->n_states; state++) {
        g->cache_of[state] = CMI_NO_CACHE;
    }
    for (uint32_t i = 0; i < n; i++) {
        make_cache(g, w, found[i].state, &cap_resumes);
    }
    cmi_free(found);
    cmi_free(w->mask);
    cmi_free(w->resumes);
    cmi_free(w);
}
