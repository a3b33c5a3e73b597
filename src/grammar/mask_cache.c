/* grammar/mask_cache.c - masks that are made while compiling, for states whose walk is long.
 *
 * What encloses such a state is not known then. Tokens that stay inside the state's rule are
 * decided; where a token reaches the rule's end, its node is noted, and its subtree is walked when
 * the mask is used, from whatever encloses the state there. */
#include <string.h>

#include "base/alloc.h"
#include "grammar/mask_internal.h"

enum { MIN_VISITED = 300 }; /* below, a walk takes about as long as joining two masks */

typedef struct maker {
    cmi_grammar *g;
    cmi_walk *w;
    uint64_t work, max_work; /* nodes visited */
    uint32_t max_caches;
    uint32_t cap_caches, cap_resumes;
} maker;

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

static void keep_resumes(maker *m)
{
    cmi_grammar *g = m->g;
    uint32_t n = m->w->n_resumes;
    if (g->n_resumes + n > m->cap_resumes) {
        m->cap_resumes = (g->n_resumes + n) * 2;
        g->resumes = cmi_realloc(g->resumes, m->cap_resumes, sizeof *g->resumes);
    }
    if (n > 0) {
        memcpy(g->resumes + g->n_resumes, m->w->resumes, n * sizeof *g->resumes);
    }
    g->n_resumes += n;
}

static void keep_mask(maker *m, uint16_t state)
{
    cmi_grammar *g = m->g;
    const cmi_walk *w = m->w;
    uint32_t n_words = w->vocab->n_words;
    if (g->n_caches == m->cap_caches) {
        m->cap_caches = CMI_MIN(m->cap_caches * 2 + 8, m->max_caches);
        g->caches = cmi_realloc(g->caches, m->cap_caches, sizeof *g->caches);
        g->cached_masks =
            cmi_realloc(g->cached_masks, (size_t)m->cap_caches * n_words, sizeof *g->cached_masks);
    }
    g->caches[g->n_caches] = (cmi_mask_cache){.resumes = g->n_resumes,
                                              .n_resumes = w->n_resumes,
                                              .counter = w->stacks.base_counter,
                                              .height = w->stacks.base_height,
                                              .odd = w->trie == &w->vocab->odd};
    memcpy(g->cached_masks + (size_t)g->n_caches * n_words, w->mask, n_words * sizeof *w->mask);
    g->cache_of[state] = (uint16_t)g->n_caches++;
    keep_resumes(m);
}

/* Strings of any characters come first: they are what most answers are made of, and quickly made.
 * What an expression wants can take many states, each a long walk. */
static void make_masks(maker *m, bool of_runs)
{
    const cmi_grammar *g = m->g;
    for (uint32_t state = 0; state < g->n_states; state++) {
        if (g->n_caches == m->max_caches || m->work >= m->max_work) {
            return;
        }
        if (g->need[state] != UINT8_MAX && (g->plain_run[state] != CMI_RUN_UNKNOWN) == of_runs) {
            walk_state(m->w, (uint16_t)state);
            m->work += m->w->n_visited;
            if (m->w->n_visited >= MIN_VISITED) {
                keep_mask(m, (uint16_t)state);
            }
        }
    }
}

void cmi_grammar_make_caches(cmi_grammar *g, uint32_t max_bytes, uint32_t max_work)
{
    const cmi_vocab *v = g->vocab;
    cmi_walk *w = cmi_alloc(1, sizeof *w);
    size_t mask_bytes = v->n_words * sizeof *w->mask + sizeof *g->caches;
    maker m = {.g = g,
               .w = w,
               .max_work = max_work,
               .max_caches = (uint32_t)CMI_MIN(max_bytes / mask_bytes, (size_t)CMI_NO_CACHE)};
    w->vocab = v;
    w->stacks.grammar = g;
    w->mask = cmi_alloc(v->n_words, sizeof *w->mask);
    w->resumes = cmi_alloc(v->all.n_nodes, sizeof *w->resumes);
    g->cache_of = cmi_alloc(g->n_states, sizeof *g->cache_of);
    for (uint32_t state = 0; state < g->n_states; state++) {
        g->cache_of[state] = CMI_NO_CACHE;
    }
    make_masks(&m, true);
    make_masks(&m, false);
    cmi_free(w->mask);
    cmi_free(w->resumes);
    cmi_free(w);
}
