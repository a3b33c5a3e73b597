/* policy/prefix_cache_internal.h - the tables under the prefix cache; prefix_table.c keeps them,
 * prefix_cache.c decides. */
#ifndef CMI_POLICY_PREFIX_CACHE_INTERNAL_H
#define CMI_POLICY_PREFIX_CACHE_INTERNAL_H

#include "policy/prefix_cache.h"

#define CMI_PREFIX_NONE UINT32_MAX /* no block */

typedef struct cmi_cached_block {
    cmi_content_key key;
    uint64_t space_tag;
    uint64_t last_use_ns;
    cmi_page_id pages[CMI_BLOCK_PAGES];
    uint32_t gen; /* counts its lives; of the present one while is_cached */
    uint32_t parent;
    uint32_t depth;
    uint32_t refs;
    uint32_t n_children;
    uint32_t next, prev; /* idle blocks: the younger, the older; free places: next only */
    bool is_cached;
} cmi_cached_block;

struct cmi_prefix_cache {
    cmi_page_pool *pool;
    cmi_cached_block *blocks; /* [n_blocks] */
    uint64_t *ghosts;         /* [n_slots] a part of the key evicted last at this slot; 0: none */
    uint32_t *index;          /* [n_slots] block of a key, open addressing; NONE: free */
    uint32_t *space_counts;   /* [n_slots] cached blocks of the namespaces that share a slot */
    uint32_t n_blocks;
    uint32_t n_slots; /* a power of two, at least 2 * n_blocks */
    uint32_t first_free;
    uint32_t oldest, youngest; /* idle blocks */
    uint64_t now_ns;           /* the last time that was told */
    cmi_prefix_cache_stats stats;
};

/* Sets the tables up; the pointers and sizes are there. */
void cmi_prefix_table_init(cmi_prefix_cache *cache);

/* The cached block of a key; NONE. */
uint32_t cmi_prefix_table_find(const cmi_prefix_cache *cache, const cmi_content_key *key);

/* Puts a block into a free place, with one holder. NONE: there is none. */
uint32_t cmi_prefix_table_add(cmi_prefix_cache *cache, const cmi_prefix_block *block);

/* The reverse; the block is not in the list of idle ones. Its pages are the caller's business. */
void cmi_prefix_table_remove(cmi_prefix_cache *cache, uint32_t idx);

/* The list of idle blocks. */
void cmi_prefix_table_push_idle(cmi_prefix_cache *cache, uint32_t idx); /* as the youngest */
void cmi_prefix_table_take_idle(cmi_prefix_cache *cache, uint32_t idx);

/* Why a block that is not there is not. */
cmi_prefix_loss cmi_prefix_table_miss(const cmi_prefix_cache *cache, const cmi_content_key *key,
                                      uint64_t space_tag);

#endif
