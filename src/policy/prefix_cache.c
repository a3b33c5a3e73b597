/* policy/prefix_cache.c - chains of blocks, and whose turn it is to go; see prefix_cache.h.
 *
 * A hold counts in every block of its chain (refs) and in both pages of each. One count in the tip
 * would do to protect the chain, since a parent is never evicted before its child; but then a block
 * whose last child goes would need its place among the idle ones looked up by time. Walking the
 * chain twice in a request's life is cheap beside computing one token of it, and keeps the order a
 * plain list. */
#include "policy/prefix_cache_internal.h"

#include <assert.h>
#include <string.h>

enum { NONE = CMI_PREFIX_NONE };

/* ---- life ---- */

static uint32_t slots_for(uint32_t n_blocks)
{
    uint32_t n_slots = 16;
    while (n_slots / 2 < n_blocks) {
        n_slots *= 2;
    }
    return n_slots;
}

/* The tables behind the struct, all multiples of 8 bytes but for the last two. */
typedef struct layout {
    size_t blocks, ghosts, index, space_counts, n_bytes;
} layout;

static layout layout_of(const cmi_prefix_cache_options *opt)
{
    size_t n_slots = slots_for(opt->n_blocks);
    layout l = {.blocks = CMI_ROUND_UP(sizeof(cmi_prefix_cache), CMI_CACHE_LINE)};
    l.ghosts = l.blocks + opt->n_blocks * sizeof(cmi_cached_block);
    l.index = l.ghosts + n_slots * sizeof(uint64_t);
    l.space_counts = l.index + n_slots * sizeof(uint32_t);
    l.n_bytes = l.space_counts + n_slots * sizeof(uint32_t);
    return l;
}

size_t cmi_prefix_cache_bytes(const cmi_prefix_cache_options *opt)
{
    return opt->n_blocks > CMI_PREFIX_CACHE_BLOCKS_MAX ? 0 : layout_of(opt).n_bytes;
}

cmi_status cmi_prefix_cache_init(cmi_prefix_cache **cache_out, void *memory, size_t n_bytes,
                                 cmi_page_pool *pool, const cmi_prefix_cache_options *opt)
{
    size_t needed = cmi_prefix_cache_bytes(opt);
    if (needed == 0 || (uintptr_t)memory % CMI_CACHE_LINE != 0) {
        return CMI_ERR_INVALID;
    }
    if (n_bytes < needed) {
        return CMI_ERR_NO_MEMORY;
    }
    layout l = layout_of(opt);
    uint8_t *base = memory;
    cmi_prefix_cache *cache = memory;
    *cache = (cmi_prefix_cache){
        .pool = pool,
        .blocks = (cmi_cached_block *)(void *)(base + l.blocks),
        .ghosts = (uint64_t *)(void *)(base + l.ghosts),
        .index = (uint32_t *)(void *)(base + l.index),
        .space_counts = (uint32_t *)(void *)(base + l.space_counts),
        .n_blocks = opt->n_blocks,
        .n_slots = slots_for(opt->n_blocks),
    };
    cmi_prefix_table_init(cache);
    *cache_out = cache;
    return CMI_OK;
}

void cmi_prefix_cache_deinit(cmi_prefix_cache *cache)
{
    if (cache != NULL) {
        cmi_prefix_cache_evict(cache, cache->now_ns, UINT32_MAX);
        assert(cache->stats.n_blocks == 0);
    }
}

static void tell_time(cmi_prefix_cache *cache, uint64_t now_ns)
{
    assert(now_ns >= cache->now_ns);
    cache->now_ns = now_ns;
}

/* ---- holds ---- */

static bool is_cached(const cmi_prefix_cache *cache, cmi_block_id id)
{
    return id.idx < cache->n_blocks && cache->blocks[id.idx].is_cached &&
           cache->blocks[id.idx].gen == id.gen;
}

static void hold_block(cmi_prefix_cache *cache, uint32_t idx)
{
    cmi_cached_block *b = &cache->blocks[idx];
    if (b->refs == 0) {
        cmi_prefix_table_take_idle(cache, idx);
    }
    assert(b->refs < UINT32_MAX);
    b->refs++;
    for (uint32_t i = 0; i < CMI_BLOCK_PAGES; i++) {
        cmi_page_pool_ref(cache->pool, b->pages[i]);
    }
}

static cmi_block_id id_of(const cmi_prefix_cache *cache, uint32_t idx)
{
    return idx == NONE ? CMI_BLOCK_NONE : (cmi_block_id){idx, cache->blocks[idx].gen};
}

void cmi_prefix_cache_hold(cmi_prefix_cache *cache, cmi_block_id tip)
{
    assert(cmi_block_is_none(tip) || is_cached(cache, tip));
    for (uint32_t idx = tip.idx; idx != NONE; idx = cache->blocks[idx].parent) {
        hold_block(cache, idx);
    }
}

void cmi_prefix_cache_release(cmi_prefix_cache *cache, uint64_t now_ns, cmi_block_id tip)
{
    assert(cmi_block_is_none(tip) || is_cached(cache, tip));
    tell_time(cache, now_ns);
    for (uint32_t idx = tip.idx; idx != NONE; idx = cache->blocks[idx].parent) {
        cmi_cached_block *b = &cache->blocks[idx];
        assert(b->refs > 0);
        b->refs--;
        b->last_use_ns = now_ns;
        for (uint32_t i = CMI_BLOCK_PAGES; i-- > 0;) {
            cmi_page_pool_unref(cache->pool, b->pages[i]);
        }
        if (b->refs == 0) {
            cmi_prefix_table_push_idle(cache, idx);
        }
    }
}

/* ---- lookup ---- */

static void lose(cmi_prefix_account *account, cmi_prefix_loss reason, uint32_t n_blocks)
{
    account->lost[reason] += (uint64_t)n_blocks * CMI_CONTENT_BLOCK_TOKENS;
}

/* Holds the blocks that are there and returns the last one; names the loss of the others. */
static uint32_t walk(cmi_prefix_cache *cache, const cmi_prefix_query *query, uint32_t n_usable,
                     cmi_prefix_hit *hit, cmi_page_id *pages_out)
{
    uint32_t tip = NONE;
    for (uint32_t i = 0; i < n_usable; i++) {
        uint32_t idx = hit->n_blocks == i ? cmi_prefix_table_find(cache, &query->keys[i]) : NONE;
        if (idx == NONE) {
            lose(&hit->account, cmi_prefix_table_miss(cache, &query->keys[i], query->space_tag), 1);
            continue;
        }
        assert(cache->blocks[idx].parent == tip);
        hold_block(cache, idx);
        memcpy(pages_out + (size_t)i * CMI_BLOCK_PAGES, cache->blocks[idx].pages,
               sizeof cache->blocks[idx].pages);
        tip = idx;
        hit->n_blocks++;
    }
    return tip;
}

void cmi_prefix_cache_lookup(cmi_prefix_cache *cache, const cmi_prefix_query *query,
                             cmi_prefix_hit *hit_out, cmi_page_id *pages_out)
{
    cmi_prefix_hit hit = {.tip = CMI_BLOCK_NONE};
    cmi_prefix_account *account = &hit.account;
    uint32_t n_usable = cmi_prefix_usable_blocks(query->prompt_tokens);
    uint32_t rest = query->prompt_tokens - n_usable * CMI_CONTENT_BLOCK_TOKENS;
    account->prompt = query->prompt_tokens;
    account->lost[rest == CMI_CONTENT_BLOCK_TOKENS ? CMI_PREFIX_LOSS_LAST_TOKEN
                                                   : CMI_PREFIX_LOSS_PARTIAL_BLOCK] = rest;
    if (query->is_skipped || cache->n_blocks == 0) {
        lose(account, query->is_skipped ? query->skip_reason : CMI_PREFIX_LOSS_DISABLED, n_usable);
    } else {
        assert(query->n_keys >= n_usable);
        account->looked_up = (uint64_t)n_usable * CMI_CONTENT_BLOCK_TOKENS;
        hit.tip = id_of(cache, walk(cache, query, n_usable, &hit, pages_out));
        account->available = (uint64_t)hit.n_blocks * CMI_CONTENT_BLOCK_TOKENS;
        account->used = account->available;
    }
    *hit_out = hit;
}

uint32_t cmi_prefix_cache_probe(const cmi_prefix_cache *cache, const cmi_content_key *keys,
                                uint32_t n_keys)
{
    uint32_t n_blocks = 0;
    while (n_blocks < n_keys && cmi_prefix_table_find(cache, &keys[n_blocks]) != NONE) {
        n_blocks++;
    }
    return n_blocks;
}

/* ---- room ---- */

static void evict_oldest(cmi_prefix_cache *cache)
{
    uint32_t idx = cache->oldest;
    cmi_cached_block *b = &cache->blocks[idx];
    cmi_prefix_table_take_idle(cache, idx);
    cmi_prefix_table_remove(cache, idx);
    for (uint32_t i = CMI_BLOCK_PAGES; i-- > 0;) {
        cmi_page_pool_unref(cache->pool, b->pages[i]);
    }
    cache->stats.n_evicted++;
    cache->stats.last_idle_ns = cache->now_ns - b->last_use_ns;
}

uint32_t cmi_prefix_cache_evict(cmi_prefix_cache *cache, uint64_t now_ns, uint32_t n_blocks)
{
    uint32_t n = 0;
    tell_time(cache, now_ns);
    for (; n < n_blocks && cache->oldest != NONE; n++) {
        evict_oldest(cache);
    }
    return n;
}

uint32_t cmi_prefix_cache_room(const cmi_prefix_cache *cache)
{
    return cmi_page_pool_count(cache->pool, CMI_PAGE_FREE) + cache->stats.n_idle * CMI_BLOCK_PAGES;
}

cmi_status cmi_prefix_cache_acquire_pages(cmi_prefix_cache *cache, uint64_t now_ns, uint64_t owner,
                                          uint32_t n, cmi_page_id *ids_out)
{
    tell_time(cache, now_ns);
    if (n > cmi_prefix_cache_room(cache)) {
        return CMI_ERR_NO_CAPACITY;
    }
    while (cmi_page_pool_count(cache->pool, CMI_PAGE_FREE) < n && cache->oldest != NONE) {
        evict_oldest(cache);
    }
    return cmi_page_pool_acquire(cache->pool, owner, n, ids_out);
}

/* ---- insert ---- */

/* The block is there already: the sequence moves over to it. */
static void join(cmi_prefix_cache *cache, const cmi_prefix_block *block, uint32_t idx)
{
    assert(cache->blocks[idx].parent == block->parent.idx);
    hold_block(cache, idx);
    cmi_page_pool_release(cache->pool, block->owner, CMI_BLOCK_PAGES, block->pages);
    cache->stats.n_duplicates++;
}

/* The pages get the cache as a second holder. */
static void adopt(cmi_prefix_cache *cache, const cmi_prefix_block *block)
{
    for (uint32_t i = 0; i < CMI_BLOCK_PAGES; i++) {
        cmi_page_pool_seal(cache->pool, block->owner, block->pages[i]);
        cmi_page_pool_ref(cache->pool, block->pages[i]);
    }
    cache->stats.n_inserted++;
}

cmi_status cmi_prefix_cache_insert(cmi_prefix_cache *cache, uint64_t now_ns,
                                   const cmi_prefix_block *block, cmi_prefix_inserted *inserted_out)
{
    assert(cmi_block_is_none(block->parent) ||
           (is_cached(cache, block->parent) && cache->blocks[block->parent.idx].refs > 0));
    tell_time(cache, now_ns);
    uint32_t idx = cmi_prefix_table_find(cache, &block->key);
    bool is_duplicate = idx != NONE;
    if (is_duplicate) {
        join(cache, block, idx);
    } else {
        if (cache->first_free == NONE && cache->oldest != NONE) {
            evict_oldest(cache);
        }
        idx = cmi_prefix_table_add(cache, block);
        if (idx == NONE) {
            cache->stats.n_refused++;
            return CMI_ERR_NO_CAPACITY;
        }
        adopt(cache, block);
    }
    *inserted_out = (cmi_prefix_inserted){.tip = id_of(cache, idx), .is_duplicate = is_duplicate};
    memcpy(inserted_out->pages, cache->blocks[idx].pages, sizeof inserted_out->pages);
    return CMI_OK;
}

/* ---- looking ---- */

cmi_prefix_cache_stats cmi_prefix_cache_get_stats(const cmi_prefix_cache *cache)
{
    return cache->stats;
}

bool cmi_prefix_cache_info(const cmi_prefix_cache *cache, cmi_block_id id, cmi_block_info *info_out)
{
    if (!is_cached(cache, id)) {
        return false;
    }
    const cmi_cached_block *b = &cache->blocks[id.idx];
    *info_out = (cmi_block_info){.key = b->key,
                                 .parent = id_of(cache, b->parent),
                                 .depth = b->depth,
                                 .refs = b->refs,
                                 .n_children = b->n_children,
                                 .last_use_ns = b->last_use_ns};
    memcpy(info_out->pages, b->pages, sizeof info_out->pages);
    return true;
}
