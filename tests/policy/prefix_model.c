#include "tests/policy/prefix_model.h"

/* ---- what is done ---- */

static bool model_is_free(const model_page *p)
{
    return p->holders == 0 && p->n_leases == 0;
}

int model_n_free(const world *w)
{
    int n = 0;
    for (int i = 0; i < N_PAGES; i++) {
        n += model_is_free(&w->pages[i]);
    }
    return n;
}

void model_acquired(world *w, const cmi_page_id *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        model_page *p = &w->pages[ids[i].idx];
        EXPECT(w, ids[i].idx < N_PAGES && model_is_free(p));
        EXPECT(w, ids[i].gen == p->id.gen + 1);
        *p = (model_page){.holders = 1, .id = ids[i]};
    }
}

void model_unref(world *w, cmi_page_id id)
{
    model_page *p = &w->pages[id.idx];
    EXPECT(w, p->holders > 0);
    p->holders--;
}

int model_n_idle(const world *w)
{
    int n = 0;
    for (int i = 0; i < N_NODES; i++) {
        n += w->nodes[i].is_cached && w->nodes[i].holders == 0;
    }
    return n;
}

int model_n_cached(const world *w)
{
    int n = 0;
    for (int i = 0; i < N_NODES; i++) {
        n += w->nodes[i].is_cached;
    }
    return n;
}

void model_evict(world *w)
{
    int victim = NONE;
    for (int i = 0; i < N_NODES; i++) {
        const model_node *n = &w->nodes[i], *v = victim == NONE ? NULL : &w->nodes[victim];
        if (n->is_cached && n->holders == 0 &&
            (v == NULL || n->released < v->released ||
             (n->released == v->released && n->depth > v->depth))) {
            victim = i;
        }
    }
    EXPECT(w, victim != NONE);
    for (int i = 0; i < N_NODES; i++) {
        EXPECT(w, !(w->nodes[i].is_cached && w->nodes[i].parent == victim));
    }
    for (int i = 0; i < CMI_BLOCK_PAGES; i++) {
        model_unref(w, w->nodes[victim].pages[i]);
    }
    w->nodes[victim].is_cached = false;
    w->ghosts[victim % N_KEY_SLOTS] = victim;
    w->stats.n_evicted++;
}

void model_hold(world *w, int node)
{
    w->nodes[node].holders++;
    for (int i = 0; i < CMI_BLOCK_PAGES; i++) {
        w->pages[w->nodes[node].pages[i].idx].holders++;
    }
}

void model_release(world *w, const int *path, int n_held)
{
    w->n_releases++;
    for (int i = 0; i < n_held; i++) {
        model_node *n = &w->nodes[path[i]];
        EXPECT(w, n->holders > 0);
        n->holders--;
        n->released = w->n_releases;
        for (int k = 0; k < CMI_BLOCK_PAGES; k++) {
            model_unref(w, n->pages[k]);
        }
    }
}

void model_init(world *w)
{
    for (int i = 0; i < N_NODES; i++) {
        int at = i % NODES_A_TREE, first = 0, width = BRANCHES, depth = 0;
        while (at >= first + width) {
            first += width;
            width *= BRANCHES;
            depth++;
        }
        model_node *n = &w->nodes[i];
        n->depth = depth;
        n->parent = depth == 0 ? NONE : i - at + first - width / BRANCHES + (at - first) / BRANCHES;
        n->key.bytes[0] = (uint8_t)(i % N_KEY_SLOTS); /* picks the slot */
        n->key.bytes[1] = (uint8_t)(i / N_KEY_SLOTS);
        n->key.bytes[9] = (uint8_t)i; /* tells ghosts apart */
    }
    for (int i = 0; i < N_KEY_SLOTS; i++) {
        w->ghosts[i] = NONE;
    }
    for (uint32_t i = 0; i < N_PAGES; i++) {
        w->pages[i].id.idx = i;
    }
}

/* ---- comparing ---- */

void model_compare_pages(world *w)
{
    int holders[N_PAGES] = {0};
    for (int i = 0; i < N_SEQUENCES; i++) {
        const sequence *s = &w->sequences[i];
        for (int k = 0; s->is_running && k < s->n_held * CMI_BLOCK_PAGES; k++) {
            holders[w->nodes[s->path[k / CMI_BLOCK_PAGES]].pages[k % CMI_BLOCK_PAGES].idx]++;
        }
        for (int k = 0; s->is_running && k < s->n_pages; k++) {
            EXPECT(w, holders[s->pages[k].idx]++ == 0);
        }
    }
    for (int i = 0; i < N_NODES; i++) {
        for (int k = 0; w->nodes[i].is_cached && k < CMI_BLOCK_PAGES; k++) {
            holders[w->nodes[i].pages[k].idx]++;
        }
    }
    for (int i = 0; i < w->n_extra; i++) {
        holders[w->extra[i].idx]++;
    }
    for (uint32_t i = 0; i < N_PAGES; i++) {
        const model_page *p = &w->pages[i];
        cmi_page_info got = cmi_page_pool_info(w->pool, i);
        cmi_page_state state = p->holders == 0 ? p->n_leases > 0 ? CMI_PAGE_LEASED : CMI_PAGE_FREE
                               : p->is_sealed  ? CMI_PAGE_SEALED
                                               : CMI_PAGE_FILLING;
        EXPECT(w, holders[i] == p->holders && got.refs == (uint32_t)holders[i]);
        EXPECT(w, got.state == state && got.gen == p->id.gen);
        EXPECT(w, got.n_leases == (uint32_t)p->n_leases);
        EXPECT(w, cmi_page_pool_is_live(w->pool, p->id) == (p->holders > 0));
        EXPECT(w, !cmi_page_pool_is_live(w->pool, (cmi_page_id){i, p->id.gen - 1}));
    }
    EXPECT(w, (int)cmi_page_pool_count(w->pool, CMI_PAGE_FREE) == model_n_free(w));
}

void model_compare_blocks(world *w)
{
    for (int i = 0; i < N_NODES; i++) {
        const model_node *n = &w->nodes[i];
        cmi_block_info got;
        EXPECT(w, n->id.gen == 0 || cmi_prefix_cache_info(w->cache, n->id, &got) == n->is_cached);
        if (n->is_cached) {
            EXPECT(w, got.refs == (uint32_t)n->holders && got.depth == (uint32_t)n->depth);
            EXPECT(w, cmi_content_key_equal(&got.key, &n->key));
            EXPECT(w, memcmp(got.pages, n->pages, sizeof got.pages) == 0);
            EXPECT(w, n->parent == NONE || w->nodes[n->parent].is_cached);
            EXPECT(w, n->parent == NONE || got.parent.gen == w->nodes[n->parent].id.gen);
        }
    }
    cmi_prefix_cache_stats stats = cmi_prefix_cache_get_stats(w->cache);
    EXPECT(w, stats.n_blocks == (uint32_t)model_n_cached(w));
    EXPECT(w, stats.n_idle == (uint32_t)model_n_idle(w));
    EXPECT(w, stats.n_inserted == w->stats.n_inserted && stats.n_evicted == w->stats.n_evicted);
    EXPECT(w, stats.n_duplicates == w->stats.n_duplicates);
    EXPECT(w, stats.n_refused == w->stats.n_refused);
}
