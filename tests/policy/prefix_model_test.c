/* Random calls to pages and prefix cache, and after each of them all that there is compared with a
 * model (prefix_model.h): no page is owned twice, none is lost, no count is off, and evictions are
 * those that a search over everything would choose. */
#include "tests/test.h"

#include "base/alloc.h"
#include "base/rng.h"
#include "tests/policy/prefix_model.h"

enum { N_OPERATIONS = 100000 };

static uint32_t draw(world *w, uint32_t n)
{
    uint32_t words[4];
    cmi_philox4x32(w->seed, w->n_draws++, 0, words);
    return (uint32_t)((uint64_t)words[0] * n >> 32);
}

/* ---- calls ---- */

static cmi_block_id tip_of(const world *w, const sequence *s)
{
    return s->n_held == 0 ? CMI_BLOCK_NONE : w->nodes[s->path[s->n_held - 1]].id;
}

static void choose_path(world *w, sequence *s)
{
    int base = (int)draw(w, N_SPACES) * NODES_A_TREE, width = BRANCHES, at = 0;
    s->n_path = 1 + (int)draw(w, DEPTH);
    for (int depth = 0; depth < s->n_path; depth++) {
        at = at * BRANCHES + (int)draw(w, BRANCHES);
        s->path[depth] = base + width - BRANCHES + at;
        width *= BRANCHES;
    }
}

static void check_account(world *w, const sequence *s, const cmi_prefix_account *a, int n_usable,
                          int n_found)
{
    uint64_t sum = a->used, evicted = 0;
    for (size_t i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        sum += a->lost[i];
    }
    EXPECT(w, sum == a->prompt);
    EXPECT(w, a->used == (uint64_t)n_found * CMI_CONTENT_BLOCK_TOKENS && a->available == a->used);
    EXPECT(w, a->looked_up == (uint64_t)n_usable * CMI_CONTENT_BLOCK_TOKENS);
    bool knows_space = false;
    for (int i = 0; i < N_NODES; i++) {
        knows_space |= w->nodes[i].is_cached && i / NODES_A_TREE == s->path[0] / NODES_A_TREE;
    }
    for (int i = n_found; i < n_usable; i++) {
        evicted += w->ghosts[s->path[i] % N_KEY_SLOTS] == s->path[i];
    }
    EXPECT(w, a->lost[CMI_PREFIX_LOSS_EVICTED] == evicted * CMI_CONTENT_BLOCK_TOKENS);
    EXPECT(w, (a->lost[CMI_PREFIX_LOSS_OTHER_NAMESPACE] > 0) ==
                  (!knows_space && model_n_cached(w) > 0 && n_usable > n_found + (int)evicted));
}

/* A request comes: it looks its prompt up and takes the pages of the rest, or waits. */
static void start(world *w, sequence *s)
{
    cmi_content_key keys[DEPTH];
    cmi_page_id pages[DEPTH * CMI_BLOCK_PAGES];
    choose_path(w, s);
    for (int i = 0; i < s->n_path; i++) {
        keys[i] = w->nodes[s->path[i]].key;
    }
    uint32_t prompt_tokens =
        (uint32_t)s->n_path * CMI_CONTENT_BLOCK_TOKENS + draw(w, CMI_CONTENT_BLOCK_TOKENS);
    uint32_t n_usable = cmi_prefix_usable_blocks(prompt_tokens);
    cmi_prefix_query query = {.keys = keys,
                              .n_keys = (uint32_t)s->n_path,
                              .prompt_tokens = prompt_tokens,
                              .space_tag = (uint64_t)(s->path[0] / NODES_A_TREE) + 1};
    cmi_prefix_hit hit;
    cmi_prefix_cache_lookup(w->cache, &query, &hit, pages);
    s->n_held = 0;
    while (s->n_held < (int)n_usable && w->nodes[s->path[s->n_held]].is_cached) {
        const model_node *n = &w->nodes[s->path[s->n_held]];
        EXPECT(w, s->n_held < (int)hit.n_blocks);
        EXPECT(w, memcmp(pages + s->n_held * CMI_BLOCK_PAGES, n->pages, sizeof n->pages) == 0);
        model_hold(w, s->path[s->n_held++]);
    }
    EXPECT(w, hit.n_blocks == (uint32_t)s->n_held);
    EXPECT(w, hit.tip.idx == tip_of(w, s).idx && hit.tip.gen == tip_of(w, s).gen);
    check_account(w, s, &hit.account, (int)n_usable, s->n_held);

    uint32_t n = (uint32_t)(s->n_path - s->n_held) * CMI_BLOCK_PAGES;
    int n_before = model_n_free(w);
    bool can = (int)n <= n_before + CMI_BLOCK_PAGES * model_n_idle(w);
    s->owner = ++w->n_owners;
    cmi_status st = cmi_prefix_cache_acquire_pages(w->cache, w->now_ns, s->owner, n, s->pages);
    while (can && model_n_free(w) < (int)n && model_n_idle(w) > 0) {
        model_evict(w);
    }
    can = can && model_n_free(w) >= (int)n;
    EXPECT(w, st == (can ? CMI_OK : CMI_ERR_NO_CAPACITY));
    if (can) {
        model_acquired(w, s->pages, n);
        s->n_pages = (int)n;
        s->is_running = true;
        s->is_refused = false;
    } else {
        cmi_prefix_cache_release(w->cache, w->now_ns, hit.tip);
        model_release(w, s->path, s->n_held);
    }
}

/* The next block of the prompt is full. */
static void insert(world *w, sequence *s)
{
    if (s->n_held == s->n_path || s->is_refused) {
        return;
    }
    int node = s->path[s->n_held];
    model_node *n = &w->nodes[node];
    cmi_prefix_block block = {.key = n->key,
                              .space_tag = (uint64_t)(node / NODES_A_TREE) + 1,
                              .parent = tip_of(w, s),
                              .owner = s->owner};
    memcpy(block.pages, s->pages, sizeof block.pages);
    cmi_prefix_inserted got;
    cmi_status st = cmi_prefix_cache_insert(w->cache, w->now_ns, &block, &got);
    if (n->is_cached) {
        EXPECT(w, st == CMI_OK && got.is_duplicate && got.tip.idx == n->id.idx);
        EXPECT(w, memcmp(got.pages, n->pages, sizeof got.pages) == 0);
        model_hold(w, node);
        for (int i = 0; i < CMI_BLOCK_PAGES; i++) {
            model_unref(w, block.pages[i]);
        }
        w->stats.n_duplicates++;
    } else if (model_n_cached(w) == N_BLOCKS && model_n_idle(w) == 0) {
        EXPECT(w, st == CMI_ERR_NO_CAPACITY);
        s->is_refused = true;
        w->stats.n_refused++;
        return;
    } else {
        if (model_n_cached(w) == N_BLOCKS) {
            model_evict(w);
        }
        EXPECT(w, st == CMI_OK && !got.is_duplicate && got.tip.idx < N_BLOCKS);
        EXPECT(w, memcmp(got.pages, block.pages, sizeof got.pages) == 0);
        n->is_cached = true;
        n->holders = 1;
        n->id = got.tip;
        memcpy(n->pages, got.pages, sizeof n->pages);
        for (int i = 0; i < CMI_BLOCK_PAGES; i++) {
            w->pages[got.pages[i].idx].holders = 2;
            w->pages[got.pages[i].idx].is_sealed = true;
        }
        w->stats.n_inserted++;
    }
    s->n_held++;
    s->n_pages -= CMI_BLOCK_PAGES;
    memmove(s->pages, s->pages + CMI_BLOCK_PAGES, (size_t)s->n_pages * sizeof *s->pages);
}

static void end(world *w, sequence *s)
{
    cmi_page_pool_release(w->pool, s->owner, (uint32_t)s->n_pages, s->pages);
    for (int i = 0; i < s->n_pages; i++) {
        model_unref(w, s->pages[i]);
    }
    cmi_prefix_cache_release(w->cache, w->now_ns, tip_of(w, s));
    model_release(w, s->path, s->n_held);
    s->is_running = false;
}

/* Another choice of the same prompt: it shares the blocks and has no pages of its own yet. */
static void fork_sequence(world *w, const sequence *s, sequence *to)
{
    if (to->is_running) {
        return;
    }
    *to = *s;
    to->owner = ++w->n_owners;
    to->n_pages = 0;
    to->n_path = s->n_held;
    cmi_prefix_cache_hold(w->cache, tip_of(w, s));
    for (int i = 0; i < s->n_held; i++) {
        model_hold(w, s->path[i]);
    }
}

static void lease(world *w)
{
    cmi_page_id id = w->pages[draw(w, N_PAGES)].id;
    model_page *p = &w->pages[id.idx];
    uint64_t for_ns = draw(w, 2 * LEASE_MAX_NS);
    cmi_status st = cmi_page_pool_lease(w->pool, id, w->now_ns, for_ns);
    EXPECT(w, st == (p->holders > 0 ? CMI_OK : CMI_ERR_NOT_FOUND));
    if (st == CMI_OK) {
        p->n_leases = w->now_ns >= p->lease_end_ns ? 1 : p->n_leases + 1;
        uint64_t end_ns = w->now_ns + CMI_MIN(for_ns, (uint64_t)LEASE_MAX_NS);
        p->lease_end_ns = CMI_MAX(p->lease_end_ns, end_ns);
    }
}

static void lease_end(world *w)
{
    cmi_page_id id = w->pages[draw(w, N_PAGES)].id;
    model_page *p = &w->pages[id.idx];
    cmi_status st = cmi_page_pool_lease_end(w->pool, id);
    EXPECT(w, st == (p->n_leases > 0 ? CMI_OK : CMI_ERR_NOT_FOUND));
    if (st == CMI_OK && --p->n_leases == 0) {
        p->lease_end_ns = 0;
    }
}

static void expire(world *w)
{
    uint32_t n = 0;
    for (int i = 0; i < N_PAGES; i++) {
        model_page *p = &w->pages[i];
        if (p->holders == 0 && p->n_leases > 0 && w->now_ns >= p->lease_end_ns) {
            p->n_leases = 0;
            p->lease_end_ns = 0;
            n++;
        }
    }
    EXPECT(w, cmi_page_pool_expire(w->pool, w->now_ns) == n);
}

static void hold_page(world *w)
{
    model_page *p = &w->pages[draw(w, N_PAGES)];
    if (w->n_extra < N_EXTRA && p->holders > 0 && p->is_sealed) {
        cmi_page_pool_ref(w->pool, p->id);
        p->holders++;
        w->extra[w->n_extra++] = p->id;
    }
}

static void let_page_go(world *w)
{
    if (w->n_extra > 0) {
        cmi_page_pool_unref(w->pool, w->extra[--w->n_extra]);
        model_unref(w, w->extra[w->n_extra]);
    }
}

static void evict(world *w)
{
    uint32_t n = draw(w, 4);
    uint32_t want = CMI_MIN(n, (uint32_t)model_n_idle(w));
    EXPECT(w, cmi_prefix_cache_evict(w->cache, w->now_ns, n) == want);
    for (uint32_t i = 0; i < want; i++) {
        model_evict(w);
    }
}

static void operate(world *w)
{
    sequence *s = &w->sequences[draw(w, N_SEQUENCES)];
    w->now_ns += draw(w, 4);
    uint32_t what = draw(w, 100);
    if (what < 50) {
        if (!s->is_running) {
            start(w, s);
        } else if (draw(w, 4) > 0) {
            insert(w, s);
        } else {
            end(w, s);
        }
    } else if (what < 60) {
        if (s->is_running) {
            fork_sequence(w, s, &w->sequences[draw(w, N_SEQUENCES)]);
        }
    } else if (what < 72) {
        lease(w);
    } else if (what < 78) {
        lease_end(w);
    } else if (what < 86) {
        expire(w);
    } else if (what < 90) {
        hold_page(w);
    } else if (what < 98) {
        let_page_go(w);
    } else {
        evict(w);
    }
}

/* ---- the test ---- */

static void make_world(world *w, uint64_t seed)
{
    const cmi_page_pool_options pool_opt = {.n_pages = N_PAGES, .lease_max_ns = LEASE_MAX_NS};
    const cmi_prefix_cache_options cache_opt = {.n_blocks = N_BLOCKS};
    size_t pool_bytes = cmi_page_pool_bytes(&pool_opt);
    size_t cache_bytes = cmi_prefix_cache_bytes(&cache_opt);
    *w = (world){.seed = seed};
    model_init(w);
    assert_int_equal(cmi_page_pool_init(&w->pool, cmi_alloc_aligned(pool_bytes, CMI_CACHE_LINE),
                                        pool_bytes, &pool_opt),
                     CMI_OK);
    assert_int_equal(cmi_prefix_cache_init(&w->cache,
                                           cmi_alloc_aligned(cache_bytes, CMI_CACHE_LINE),
                                           cache_bytes, w->pool, &cache_opt),
                     CMI_OK);
}

static void end_world(world *w)
{
    for (int i = 0; i < N_SEQUENCES; i++) {
        if (w->sequences[i].is_running) {
            end(w, &w->sequences[i]);
        }
    }
    while (w->n_extra > 0) {
        let_page_go(w);
    }
    cmi_prefix_cache_deinit(w->cache);
    cmi_page_pool_expire(w->pool, UINT64_MAX);
    EXPECT(w, cmi_page_pool_count(w->pool, CMI_PAGE_FREE) == N_PAGES);
    EXPECT(w, cmi_page_pool_check(w->pool));
    cmi_page_pool_deinit(w->pool);
    cmi_free(w->cache);
    cmi_free(w->pool);
}

static void random_calls_do_what_the_model_does(void **state)
{
    (void)state;
    static world w;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        make_world(&w, seed);
        for (w.step = 0; w.step < N_OPERATIONS; w.step++) {
            operate(&w);
            model_compare_pages(&w);
            model_compare_blocks(&w);
            EXPECT(&w, cmi_page_pool_check(w.pool));
            EXPECT(&w, cmi_prefix_cache_check(w.cache));
        }
        EXPECT(&w, w.stats.n_duplicates > 300 && w.stats.n_refused > 100);
        end_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_calls_do_what_the_model_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
