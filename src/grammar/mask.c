/* grammar/mask.c - which tokens may come next.
 *
 * The tree of tokens is walked depth first, as far as the grammar follows. Stacks are alternatives,
 * so each is walked on its own and the masks are joined. Three things keep a walk short: a state
 * that takes any plain characters allows the plain tokens by their number of characters; masks of
 * states whose walk is long are made beforehand (mask_cache.c), where only the tokens that reach
 * the end of the state's rule are left to look at; and everywhere else a grammar refuses most
 * tokens at their first byte. */
#include <string.h>

#include "grammar/mask_internal.h"

static void allow(const cmi_walk *w, uint32_t token)
{
    if (token == CMI_TRIE_NO_TOKEN) {
        return;
    }
    uint32_t id = token & ~CMI_TRIE_SHARED;
    w->mask[id / 32] |= 1u << id % 32;
    while (CMI_UNLIKELY((token & CMI_TRIE_SHARED) != 0)) {
        id = w->vocab->same_bytes[id];
        w->mask[id / 32] |= 1u << id % 32;
        token = w->vocab->same_bytes[id] == CMI_TRIE_NO_TOKEN ? 0 : token;
    }
}

static bool base_has_ended(const cmi_walk *w, uint32_t level)
{
    for (uint32_t i = 0; i < w->n_items[level]; i++) {
        const cmi_matcher_frame *item = &w->items[level][i];
        if (item->parent == CMI_UNKNOWN_FRAME &&
            (w->stacks.grammar->flags[item->state] & CMI_STATE_ACCEPT) != 0) {
            return true;
        }
    }
    return false;
}

/* One byte from what stands at the level above; false when it is refused. */
static bool step_node(cmi_walk *w, uint32_t i, uint32_t level)
{
    const cmi_trie_node *node = &w->trie->nodes[i];
    w->stacks.n_frames = w->frames_at[level - 1];
    w->n_items[level] = cmi_stacks_step(&w->stacks, w->items[level - 1], w->n_items[level - 1],
                                        node->byte, w->items[level]);
    if (w->n_items[level] == 0) {
        return false;
    }
    w->frames_at[level] = w->stacks.n_frames;
    allow(w, node->token);
    if (w->resumes != NULL && node->skip > i + 1 && base_has_ended(w, level)) {
        w->resumes[w->n_resumes++] = i;
    }
    return true;
}

/* The nodes below a single simple item, as long as simple states follow: most of a long walk. */
static void walk_simple(cmi_walk *w, uint32_t begin, uint32_t end, uint32_t depth)
{
    const cmi_trie_node *nodes = w->trie->nodes;
    const cmi_grammar *g = w->stacks.grammar;
    uint32_t top = nodes[begin].depth - depth - 1;
    cmi_matcher_frame item = w->items[top][0];
    uint32_t n_frames = w->frames_at[top];
    w->states[top] = item.state;
    for (uint32_t i = begin; i < end;) {
        const cmi_trie_node *node = &nodes[i];
        uint32_t level = node->depth - depth;
        uint16_t next = cmi_grammar_next(g, w->states[level - 1], node->byte);
        w->n_visited++;
        if (next == CMI_NO_STATE) {
            i = node->skip;
            continue;
        }
        if ((g->flags[next] & CMI_STATE_SIMPLE) != 0) {
            w->states[level] = next;
            allow(w, node->token);
            i++;
            continue;
        }
        item.state = w->states[level - 1];
        w->items[level - 1][0] = item;
        w->n_items[level - 1] = 1;
        w->frames_at[level - 1] = n_frames;
        if (step_node(w, i, level)) {
            cmi_walk_nodes(w, i + 1, node->skip, depth);
        }
        i = node->skip;
    }
}

static bool is_simple(const cmi_walk *w, uint32_t level)
{
    return w->n_items[level] == 1 &&
           (w->stacks.grammar->flags[w->items[level][0].state] & CMI_STATE_SIMPLE) != 0;
}

void cmi_walk_nodes(cmi_walk *w, uint32_t begin, uint32_t end, uint32_t depth)
{
    const cmi_trie_node *nodes = w->trie->nodes;
    if (begin < end && is_simple(w, nodes[begin].depth - depth - 1)) {
        walk_simple(w, begin, end, depth);
        return;
    }
    for (uint32_t i = begin; i < end;) {
        uint32_t level = nodes[i].depth - depth, skip = nodes[i].skip;
        w->n_visited++;
        if (!step_node(w, i, level)) {
            i = skip;
        } else if (skip > i + 1 && is_simple(w, level)) {
            walk_simple(w, i + 1, skip, depth);
            i = skip;
        } else {
            i++;
        }
    }
}

/* How many plain characters the item takes, or CMI_UNBOUNDED; false when that depends on them. */
static bool plain_run(const cmi_walk *w, const cmi_matcher_frame *item, uint32_t *n_chars_out)
{
    const cmi_grammar *g = w->stacks.grammar;
    uint8_t run = g->plain_run[item->state];
    bool open = (g->flags[item->state] & CMI_STATE_PLAIN_OPEN) != 0;
    if (run == CMI_RUN_UNKNOWN || (open && item->parent != CMI_NO_FRAME)) {
        return false;
    }
    *n_chars_out = run < CMI_RUN_MAX ? run : CMI_UNBOUNDED;
    if (run == CMI_RUN_COUNTED && item->parent != CMI_UNKNOWN_FRAME) {
        uint32_t max = g->counters[g->counter[item->state]].max;
        *n_chars_out = max == CMI_UNBOUNDED ? max : max - item->count;
    }
    return true;
}

void cmi_walk_item(cmi_walk *w, cmi_matcher_frame item)
{
    uint32_t n_chars = 0;
    w->trie = &w->vocab->all;
    if (plain_run(w, &item, &n_chars)) {
        const uint32_t *plain = cmi_vocab_plain(w->vocab, n_chars);
        w->trie = &w->vocab->odd;
        for (uint32_t i = 0; i < w->vocab->n_words; i++) {
            w->mask[i] |= plain[i];
        }
    }
    w->items[0][0] = item;
    w->n_items[0] = 1;
    cmi_walk_nodes(w, 0, w->trie->n_nodes, 0);
}

/* ---- Masks made beforehand ---- */

/* They were made for a low stack, and counts far from their limits. */
static bool is_usable(const cmi_grammar *g, const cmi_mask_cache *cache,
                      const cmi_matcher_frame *item)
{
    const cmi_counter *c = &g->counters[cache->counter];
    if (item->height + (uint32_t)cache->height > CMI_GRAMMAR_MAX_DEPTH) {
        return false;
    }
    return cache->counter == 0 ||
           (item->count >= c->min && (c->max == CMI_UNBOUNDED ||
                                      item->count + (uint32_t)CMI_VOCAB_MAX_TOKEN_BYTES <= c->max));
}

static void add_cached(cmi_walk *w, const cmi_mask_cache *cache, cmi_matcher_frame item)
{
    const cmi_grammar *g = w->stacks.grammar;
    const uint32_t *mask = g->cached_masks + (size_t)(cache - g->caches) * w->vocab->n_words;
    for (uint32_t i = 0; i < w->vocab->n_words; i++) {
        w->mask[i] |= mask[i];
    }
    if (item.parent == CMI_NO_FRAME) {
        return; /* nothing can follow the rule's end */
    }
    w->trie = cache->odd ? &w->vocab->odd : &w->vocab->all;
    w->items[0][0] = w->stacks.frames[item.parent];
    w->n_items[0] = 1;
    for (uint32_t i = 0; i < cache->n_resumes; i++) {
        uint32_t node = g->resumes[cache->resumes + i];
        cmi_walk_nodes(w, node + 1, w->trie->nodes[node].skip, w->trie->nodes[node].depth);
    }
}

bool cmi_matcher_mask(const cmi_matcher *m, uint32_t *mask_out)
{
    const cmi_grammar *g = m->grammar;
    cmi_walk w;
    w.vocab = g->vocab;
    w.mask = mask_out;
    w.resumes = NULL;
    w.n_visited = 0;
    w.stacks.grammar = g;
    w.stacks.base_counter = w.stacks.base_height = 0;
    w.frames_at[0] = m->n_frames;
    memcpy(w.stacks.frames, m->frames, m->n_frames * sizeof *m->frames);
    memset(mask_out, 0, w.vocab->n_words * sizeof *mask_out);
    for (uint32_t i = 0; i < m->n_items && !m->ended; i++) {
        uint16_t cache = g->cache_of[m->items[i].state];
        if (cache != CMI_NO_CACHE && is_usable(g, &g->caches[cache], &m->items[i])) {
            add_cached(&w, &g->caches[cache], m->items[i]);
        } else {
            cmi_walk_item(&w, m->items[i]);
        }
    }
    if (!m->ended && cmi_matcher_is_complete(m)) {
        for (uint32_t i = 0; i < w.vocab->n_end_ids; i++) {
            mask_out[w.vocab->end_ids[i] / 32] |= 1u << w.vocab->end_ids[i] % 32;
        }
    }
    uint32_t any = 0;
    for (uint32_t i = 0; i < w.vocab->n_words; i++) {
        any |= mask_out[i];
    }
    return any != 0;
}
