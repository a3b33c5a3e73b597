#include "policy/page_pool.h"

#include <assert.h>
#include <string.h>

enum { NONE = UINT32_MAX };

typedef struct page {
    uint64_t owner;
    uint64_t lease_end_ns;
    uint32_t gen;
    uint32_t refs;
    uint32_t n_leases;
    uint32_t next, prev; /* free: next only; leased: both */
    uint8_t state;
} page;

struct cmi_page_pool {
    page *pages;
    uint32_t *checksums; /* [n_pages][n_checksums] */
    uint32_t n_pages, n_checksums;
    uint64_t lease_max_ns;
    uint32_t first_free;   /* the last one that was freed goes out first: it may be in the caches */
    uint32_t first_leased; /* the last one that was given up */
    uint32_t counts[CMI_PAGE_N_STATES];
};

/* ---- life ---- */

size_t cmi_page_pool_bytes(const cmi_page_pool_options *opt)
{
    if (opt->n_pages == 0 || opt->n_pages > CMI_PAGE_POOL_PAGES_MAX) {
        return 0;
    }
    return CMI_ROUND_UP(sizeof(cmi_page_pool), CMI_CACHE_LINE) +
           CMI_ROUND_UP(opt->n_pages * sizeof(page), CMI_CACHE_LINE) +
           (size_t)opt->n_pages * opt->n_checksums * sizeof(uint32_t);
}

cmi_status cmi_page_pool_init(cmi_page_pool **pool_out, void *memory, size_t n_bytes,
                              const cmi_page_pool_options *opt)
{
    size_t needed = cmi_page_pool_bytes(opt);
    if (needed == 0 || (uintptr_t)memory % CMI_CACHE_LINE != 0) {
        return CMI_ERR_INVALID;
    }
    if (n_bytes < needed) {
        return CMI_ERR_NO_MEMORY;
    }
    cmi_page_pool *pool = memory;
    uint8_t *at = (uint8_t *)memory + CMI_ROUND_UP(sizeof *pool, CMI_CACHE_LINE);
    *pool = (cmi_page_pool){
        .pages = (page *)(void *)at,
        .checksums =
            (uint32_t *)(void *)(at + CMI_ROUND_UP(opt->n_pages * sizeof(page), CMI_CACHE_LINE)),
        .n_pages = opt->n_pages,
        .n_checksums = opt->n_checksums,
        .lease_max_ns = opt->lease_max_ns,
        .first_free = 0,
        .first_leased = NONE,
    };
    pool->counts[CMI_PAGE_FREE] = opt->n_pages;
    for (uint32_t i = 0; i < opt->n_pages; i++) {
        pool->pages[i] = (page){.next = i + 1 < opt->n_pages ? i + 1 : NONE, .prev = NONE};
    }
    *pool_out = pool;
    return CMI_OK;
}

void cmi_page_pool_deinit(cmi_page_pool *pool)
{
    assert(pool == NULL ||
           (pool->counts[CMI_PAGE_FILLING] == 0 && pool->counts[CMI_PAGE_SEALED] == 0));
}

/* ---- states ---- */

static void set_state(cmi_page_pool *pool, page *p, cmi_page_state state)
{
    pool->counts[p->state]--;
    pool->counts[state]++;
    p->state = (uint8_t)state;
}

static bool is_held(const page *p)
{
    return p->state == CMI_PAGE_FILLING || p->state == CMI_PAGE_SEALED;
}

/* The page of a live id. */
static page *live_page(cmi_page_pool *pool, cmi_page_id id)
{
    assert(cmi_page_pool_is_live(pool, id));
    return &pool->pages[id.idx];
}

static void make_free(cmi_page_pool *pool, page *p)
{
    set_state(pool, p, CMI_PAGE_FREE);
    p->owner = 0;
    p->n_leases = 0;
    p->lease_end_ns = 0;
    p->prev = NONE;
    p->next = pool->first_free;
    pool->first_free = (uint32_t)(p - pool->pages);
}

static void make_leased(cmi_page_pool *pool, page *p)
{
    uint32_t idx = (uint32_t)(p - pool->pages);
    set_state(pool, p, CMI_PAGE_LEASED);
    p->prev = NONE;
    p->next = pool->first_leased;
    if (p->next != NONE) {
        pool->pages[p->next].prev = idx;
    }
    pool->first_leased = idx;
}

static void end_leased(cmi_page_pool *pool, page *p)
{
    if (p->next != NONE) {
        pool->pages[p->next].prev = p->prev;
    }
    if (p->prev != NONE) {
        pool->pages[p->prev].next = p->next;
    } else {
        pool->first_leased = p->next;
    }
    make_free(pool, p);
}

/* ---- holders ---- */

cmi_status cmi_page_pool_acquire(cmi_page_pool *pool, uint64_t owner, uint32_t n,
                                 cmi_page_id *ids_out)
{
    assert(owner != 0);
    if (n > pool->counts[CMI_PAGE_FREE]) {
        return CMI_ERR_NO_CAPACITY;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t idx = pool->first_free;
        page *p = &pool->pages[idx];
        pool->first_free = p->next;
        set_state(pool, p, CMI_PAGE_FILLING);
        p->owner = owner;
        p->refs = 1;
        p->gen += p->gen == UINT32_MAX ? 2 : 1; /* never 0 */
        p->next = NONE;
        memset(pool->checksums + (size_t)idx * pool->n_checksums, 0,
               pool->n_checksums * sizeof *pool->checksums);
        ids_out[i] = (cmi_page_id){idx, p->gen};
    }
    return CMI_OK;
}

void cmi_page_pool_seal(cmi_page_pool *pool, uint64_t owner, cmi_page_id id)
{
    page *p = live_page(pool, id);
    assert(p->state == CMI_PAGE_FILLING && p->owner == owner);
    (void)owner;
    set_state(pool, p, CMI_PAGE_SEALED);
}

void cmi_page_pool_ref(cmi_page_pool *pool, cmi_page_id id)
{
    page *p = live_page(pool, id);
    assert(p->state == CMI_PAGE_SEALED && p->refs < UINT32_MAX);
    p->refs++;
}

void cmi_page_pool_unref(cmi_page_pool *pool, cmi_page_id id)
{
    page *p = live_page(pool, id);
    assert(p->refs > 0);
    if (--p->refs > 0) {
        return;
    }
    if (p->n_leases > 0) {
        make_leased(pool, p);
    } else {
        make_free(pool, p);
    }
}

void cmi_page_pool_release(cmi_page_pool *pool, uint64_t owner, uint32_t n, const cmi_page_id *ids)
{
    for (uint32_t i = n; i-- > 0;) {
        assert(live_page(pool, ids[i])->owner == owner);
        cmi_page_pool_unref(pool, ids[i]);
    }
    (void)owner;
}

/* ---- leases ---- */

cmi_status cmi_page_pool_lease(cmi_page_pool *pool, cmi_page_id id, uint64_t now_ns,
                               uint64_t for_ns)
{
    if (!cmi_page_pool_is_live(pool, id)) {
        return CMI_ERR_NOT_FOUND;
    }
    page *p = &pool->pages[id.idx];
    for_ns = CMI_MIN(for_ns, pool->lease_max_ns);
    uint64_t end_ns = now_ns > UINT64_MAX - for_ns ? UINT64_MAX : now_ns + for_ns;
    if (now_ns >= p->lease_end_ns) {
        p->n_leases = 0; /* those that it had have run out */
    }
    assert(p->n_leases < UINT32_MAX);
    p->n_leases++;
    p->lease_end_ns = CMI_MAX(p->lease_end_ns, end_ns);
    return CMI_OK;
}

cmi_status cmi_page_pool_lease_end(cmi_page_pool *pool, cmi_page_id id)
{
    if (id.idx >= pool->n_pages) {
        return CMI_ERR_NOT_FOUND;
    }
    page *p = &pool->pages[id.idx];
    if (p->gen != id.gen || p->n_leases == 0) {
        return CMI_ERR_NOT_FOUND;
    }
    p->n_leases--;
    if (p->n_leases == 0) {
        p->lease_end_ns = 0;
        if (p->state == CMI_PAGE_LEASED) {
            end_leased(pool, p);
        }
    }
    return CMI_OK;
}

uint32_t cmi_page_pool_expire(cmi_page_pool *pool, uint64_t now_ns)
{
    uint32_t n_freed = 0;
    for (uint32_t idx = pool->first_leased; idx != NONE;) {
        page *p = &pool->pages[idx];
        idx = p->next;
        if (now_ns >= p->lease_end_ns) {
            end_leased(pool, p);
            n_freed++;
        }
    }
    return n_freed;
}

/* ---- looking ---- */

bool cmi_page_pool_is_live(const cmi_page_pool *pool, cmi_page_id id)
{
    return id.idx < pool->n_pages && pool->pages[id.idx].gen == id.gen &&
           is_held(&pool->pages[id.idx]);
}

cmi_page_info cmi_page_pool_info(const cmi_page_pool *pool, uint32_t page_idx)
{
    assert(page_idx < pool->n_pages);
    const page *p = &pool->pages[page_idx];
    return (cmi_page_info){.state = (cmi_page_state)p->state,
                           .gen = p->gen,
                           .refs = p->refs,
                           .n_leases = p->n_leases,
                           .owner = p->owner,
                           .lease_end_ns = p->lease_end_ns};
}

uint32_t *cmi_page_pool_checksums(cmi_page_pool *pool, cmi_page_id id)
{
    (void)live_page(pool, id);
    return pool->checksums + (size_t)id.idx * pool->n_checksums;
}

uint32_t cmi_page_pool_count(const cmi_page_pool *pool, cmi_page_state state)
{
    return pool->counts[state];
}

uint32_t cmi_page_pool_size(const cmi_page_pool *pool)
{
    return pool->n_pages;
}

static bool page_is_sound(const page *p)
{
    switch ((cmi_page_state)p->state) {
    case CMI_PAGE_FREE:
        return p->refs == 0 && p->n_leases == 0 && p->owner == 0;
    case CMI_PAGE_FILLING:
        return p->refs == 1 && p->owner != 0 && p->gen != 0;
    case CMI_PAGE_SEALED:
        return p->refs >= 1 && p->owner != 0 && p->gen != 0;
    case CMI_PAGE_LEASED:
        return p->refs == 0 && p->n_leases > 0 && p->owner != 0 && p->gen != 0;
    default:
        return false;
    }
}

/* The list holds `count` pages, all of this state. A longer one is a cycle, or holds others. */
static bool list_is_sound(const cmi_page_pool *pool, uint32_t first, cmi_page_state state)
{
    uint32_t n = 0, prev = NONE;
    for (uint32_t idx = first; idx != NONE && n <= pool->n_pages; idx = pool->pages[idx].next) {
        const page *p = &pool->pages[idx];
        if (p->state != state || (state == CMI_PAGE_LEASED && p->prev != prev)) {
            return false;
        }
        prev = idx;
        n++;
    }
    return n == pool->counts[state];
}

bool cmi_page_pool_check(const cmi_page_pool *pool)
{
    uint32_t counts[CMI_PAGE_N_STATES] = {0};
    for (uint32_t i = 0; i < pool->n_pages; i++) {
        if (!page_is_sound(&pool->pages[i])) {
            return false;
        }
        counts[pool->pages[i].state]++;
    }
    return memcmp(counts, pool->counts, sizeof counts) == 0 &&
           list_is_sound(pool, pool->first_free, CMI_PAGE_FREE) &&
           list_is_sound(pool, pool->first_leased, CMI_PAGE_LEASED);
}
