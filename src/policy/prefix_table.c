/* policy/prefix_table.c - from keys to blocks, the order of idle blocks, and what is known about
 * keys that are gone; see prefix_cache_internal.h.
 *
 * Keys are a keyed hash, so their own bits spread them over the slots: the first 64 pick one, the
 * next 64 tell ghosts apart. A ghost remembers an evicted key until another is evicted at its slot,
 * and namespaces that share a slot count as one: both only name a loss, so a wrong name once in a
 * while is better than more memory. */
#include "policy/prefix_cache_internal.h"

#include <assert.h>
#include <string.h>

enum { NONE = CMI_PREFIX_NONE };

static uint64_t key_word(const cmi_content_key *key, size_t word)
{
    uint64_t value;
    memcpy(&value, key->bytes + word * sizeof value, sizeof value);
    return value;
}

static uint32_t slot_of_key(const cmi_prefix_cache *cache, const cmi_content_key *key)
{
    return (uint32_t)key_word(key, 0) & (cache->n_slots - 1);
}

/* Never 0, which stands for no ghost. */
static uint64_t ghost_of_key(const cmi_content_key *key)
{
    return key_word(key, 1) | 1;
}

static uint32_t *space_count(const cmi_prefix_cache *cache, uint64_t space_tag)
{
    return &cache->space_counts[space_tag & (cache->n_slots - 1)];
}

void cmi_prefix_table_init(cmi_prefix_cache *cache)
{
    for (uint32_t i = 0; i < cache->n_blocks; i++) {
        cache->blocks[i] = (cmi_cached_block){.next = i + 1 < cache->n_blocks ? i + 1 : NONE};
    }
    for (uint32_t i = 0; i < cache->n_slots; i++) {
        cache->index[i] = NONE;
        cache->ghosts[i] = 0;
        cache->space_counts[i] = 0;
    }
    cache->first_free = cache->n_blocks > 0 ? 0 : NONE;
    cache->oldest = NONE;
    cache->youngest = NONE;
}

/* ---- the index ---- */

/* The slot of the key, or the free one where the search for it ends. */
static uint32_t find_slot(const cmi_prefix_cache *cache, const cmi_content_key *key)
{
    uint32_t slot = slot_of_key(cache, key);
    while (cache->index[slot] != NONE &&
           !cmi_content_key_equal(&cache->blocks[cache->index[slot]].key, key)) {
        slot = (slot + 1) & (cache->n_slots - 1);
    }
    return slot;
}

uint32_t cmi_prefix_table_find(const cmi_prefix_cache *cache, const cmi_content_key *key)
{
    return cache->n_blocks == 0 ? NONE : cache->index[find_slot(cache, key)];
}

/* Empties a slot and moves those behind it up that a search would not find past the hole. */
static void clear_slot(cmi_prefix_cache *cache, uint32_t hole)
{
    const uint32_t mask = cache->n_slots - 1;
    for (uint32_t slot = (hole + 1) & mask; cache->index[slot] != NONE; slot = (slot + 1) & mask) {
        uint32_t home = slot_of_key(cache, &cache->blocks[cache->index[slot]].key);
        if (((slot - home) & mask) >= ((slot - hole) & mask)) {
            cache->index[hole] = cache->index[slot];
            hole = slot;
        }
    }
    cache->index[hole] = NONE;
}

uint32_t cmi_prefix_table_add(cmi_prefix_cache *cache, const cmi_prefix_block *block)
{
    uint32_t idx = cache->first_free;
    if (idx == NONE) {
        return NONE;
    }
    cmi_cached_block *b = &cache->blocks[idx];
    uint32_t parent = block->parent.idx;
    cache->first_free = b->next;
    *b = (cmi_cached_block){
        .key = block->key,
        .space_tag = block->space_tag,
        .last_use_ns = cache->now_ns,
        .gen = b->gen == UINT32_MAX ? 1 : b->gen + 1,
        .parent = parent,
        .depth = parent == NONE ? 0 : cache->blocks[parent].depth + 1,
        .refs = 1,
        .next = NONE,
        .prev = NONE,
        .is_cached = true,
    };
    memcpy(b->pages, block->pages, sizeof b->pages);
    uint32_t slot = find_slot(cache, &b->key);
    assert(cache->index[slot] == NONE);
    cache->index[slot] = idx;
    if (parent != NONE) {
        cache->blocks[parent].n_children++;
    }
    ++*space_count(cache, b->space_tag);
    cache->stats.n_blocks++;
    return idx;
}

void cmi_prefix_table_remove(cmi_prefix_cache *cache, uint32_t idx)
{
    cmi_cached_block *b = &cache->blocks[idx];
    assert(b->is_cached && b->refs == 0 && b->n_children == 0);
    clear_slot(cache, find_slot(cache, &b->key));
    cache->ghosts[slot_of_key(cache, &b->key)] = ghost_of_key(&b->key);
    --*space_count(cache, b->space_tag);
    if (b->parent != NONE) {
        cache->blocks[b->parent].n_children--;
    }
    b->is_cached = false;
    b->next = cache->first_free;
    cache->first_free = idx;
    cache->stats.n_blocks--;
}

/* ---- idle blocks ---- */

void cmi_prefix_table_push_idle(cmi_prefix_cache *cache, uint32_t idx)
{
    cmi_cached_block *b = &cache->blocks[idx];
    b->next = NONE;
    b->prev = cache->youngest;
    if (b->prev != NONE) {
        cache->blocks[b->prev].next = idx;
    } else {
        cache->oldest = idx;
    }
    cache->youngest = idx;
    cache->stats.n_idle++;
}

void cmi_prefix_table_take_idle(cmi_prefix_cache *cache, uint32_t idx)
{
    cmi_cached_block *b = &cache->blocks[idx];
    if (b->prev != NONE) {
        cache->blocks[b->prev].next = b->next;
    } else {
        cache->oldest = b->next;
    }
    if (b->next != NONE) {
        cache->blocks[b->next].prev = b->prev;
    } else {
        cache->youngest = b->prev;
    }
    b->next = NONE;
    b->prev = NONE;
    cache->stats.n_idle--;
}

/* ---- what is not there ---- */

cmi_prefix_loss cmi_prefix_table_miss(const cmi_prefix_cache *cache, const cmi_content_key *key,
                                      uint64_t space_tag)
{
    if (cache->ghosts[slot_of_key(cache, key)] == ghost_of_key(key)) {
        return CMI_PREFIX_LOSS_EVICTED;
    }
    bool knows_others_only = cache->stats.n_blocks > 0 && *space_count(cache, space_tag) == 0;
    return knows_others_only ? CMI_PREFIX_LOSS_OTHER_NAMESPACE : CMI_PREFIX_LOSS_NOT_CACHED;
}

/* ---- checking ---- */

static bool pages_are_sound(const cmi_prefix_cache *cache, const cmi_cached_block *b)
{
    for (uint32_t i = 0; i < CMI_BLOCK_PAGES; i++) {
        if (!cmi_page_pool_is_live(cache->pool, b->pages[i])) {
            return false;
        }
        cmi_page_info page = cmi_page_pool_info(cache->pool, b->pages[i].idx);
        if (page.state != CMI_PAGE_SEALED || page.refs < b->refs + 1) {
            return false;
        }
    }
    return true;
}

static bool block_is_sound(const cmi_prefix_cache *cache, uint32_t idx)
{
    const cmi_cached_block *b = &cache->blocks[idx];
    if (cmi_prefix_table_find(cache, &b->key) != idx || !pages_are_sound(cache, b)) {
        return false;
    }
    if (b->parent == NONE) {
        return b->depth == 0;
    }
    const cmi_cached_block *parent = &cache->blocks[b->parent];
    return parent->is_cached && parent->depth + 1 == b->depth && parent->refs >= b->refs &&
           parent->n_children > 0;
}

/* Idle blocks from the oldest on, each with a link back, and the oldest without children. */
static bool idle_list_is_sound(const cmi_prefix_cache *cache)
{
    uint32_t n = 0, prev = NONE;
    uint64_t last_use_ns = 0;
    for (uint32_t i = cache->oldest; i != NONE && n <= cache->n_blocks; i = cache->blocks[i].next) {
        const cmi_cached_block *b = &cache->blocks[i];
        if (!b->is_cached || b->refs > 0 || b->prev != prev || b->last_use_ns < last_use_ns ||
            (prev == NONE && b->n_children > 0)) {
            return false;
        }
        last_use_ns = b->last_use_ns;
        prev = i;
        n++;
    }
    return n == cache->stats.n_idle && prev == cache->youngest;
}

bool cmi_prefix_cache_check(const cmi_prefix_cache *cache)
{
    uint32_t n_cached = 0, n_idle = 0, n_free = 0, n_indexed = 0;
    uint64_t n_children = 0, n_parents = 0, n_in_spaces = 0;
    for (uint32_t i = 0; i < cache->n_blocks; i++) {
        const cmi_cached_block *b = &cache->blocks[i];
        if (b->is_cached) {
            if (!block_is_sound(cache, i)) {
                return false;
            }
            n_cached++;
            n_idle += b->refs == 0;
            n_children += b->n_children;
            n_parents += b->parent != NONE;
        }
    }
    for (uint32_t i = cache->first_free; i != NONE && n_free <= cache->n_blocks;
         i = cache->blocks[i].next) {
        n_free += !cache->blocks[i].is_cached;
    }
    for (uint32_t i = 0; i < cache->n_slots; i++) {
        n_indexed += cache->index[i] != NONE;
        n_in_spaces += cache->space_counts[i];
    }
    return n_cached == cache->stats.n_blocks && n_cached + n_free == cache->n_blocks &&
           n_indexed == n_cached && n_in_spaces == n_cached && n_children == n_parents &&
           n_idle == cache->stats.n_idle && idle_list_is_sound(cache);
}
