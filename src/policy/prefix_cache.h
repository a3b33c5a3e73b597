/* policy/prefix_cache.h - prompt blocks that sequences share without copying.
 *
 * A block is 128 prompt tokens in two sealed pages under a content key. Blocks form trees: a
 * block's parent is the block of the tokens before it. A sequence holds the chain from a first
 * block to its tip by one id, the tip's; that is a reference to each block and page of the chain.
 *
 * Blocks that nobody holds are idle: they stay until their pages or their place are wanted. The one
 * that was let go longest ago is evicted first, and of a chain let go at once the deepest. Whoever
 * holds or lets go a block does so with its ancestors, so a block is never idle under a held child
 * nor before an idle one: the oldest idle block has no children, and a cached block's parent is
 * cached.
 *
 * Accounting is in tokens of prompts: each is used, or lost for one named reason.
 *
 * Pure: no I/O, no clock, no allocation after init; equal calls give equal results. Time comes from
 * the caller and never goes back. Thread: belongs to the engine's thread. */
#ifndef CMI_POLICY_PREFIX_CACHE_H
#define CMI_POLICY_PREFIX_CACHE_H

#include "policy/content_key.h"
#include "policy/page_pool.h"

enum {
    CMI_BLOCK_PAGES = CMI_CONTENT_BLOCK_TOKENS / CMI_PAGE_TOKENS,
    CMI_PREFIX_CACHE_BLOCKS_MAX = CMI_PAGE_POOL_PAGES_MAX / 2,
};

typedef struct cmi_prefix_cache cmi_prefix_cache;

/* A block in one of its lives. idx is also the slot that the caller keeps for the hidden state of
 * the block's last position, which the MTP layer's next slot needs: 0 .. n_blocks - 1. */
typedef struct cmi_block_id {
    uint32_t idx;
    uint32_t gen;
} cmi_block_id;

/* The empty chain. */
#define CMI_BLOCK_NONE ((cmi_block_id){UINT32_MAX, 0})

static inline bool cmi_block_is_none(cmi_block_id id)
{
    return id.idx == UINT32_MAX;
}

typedef struct cmi_prefix_cache_options {
    uint32_t n_blocks; /* at most so many; 0: nothing is cached. <= CMI_PREFIX_CACHE_BLOCKS_MAX */
} cmi_prefix_cache_options;

/* Why a prompt token is computed although a cache could have saved that:
 *   not_cached       the block was never here, or long ago
 *   evicted          it was here not long ago
 *   other_namespace  the cache has blocks, but none of this namespace
 *   partial_block    the token is behind the last full block
 *   last_token       it is in the full block that holds the last token, whose logits are wanted
 *   disabled         by an option, or by the request
 *   prompt_logits    the logits of all positions are wanted
 *   no_pages         the block was found elsewhere, without room here to load it
 *   load_failed      whoever had it did not deliver in time
 *   corrupt          its checksum said no */
#define CMI_PREFIX_LOSS_TABLE(X)                                                                   \
    X(CMI_PREFIX_LOSS_NOT_CACHED, "not_cached")                                                    \
    X(CMI_PREFIX_LOSS_EVICTED, "evicted")                                                          \
    X(CMI_PREFIX_LOSS_OTHER_NAMESPACE, "other_namespace")                                          \
    X(CMI_PREFIX_LOSS_PARTIAL_BLOCK, "partial_block")                                              \
    X(CMI_PREFIX_LOSS_LAST_TOKEN, "last_token")                                                    \
    X(CMI_PREFIX_LOSS_DISABLED, "disabled")                                                        \
    X(CMI_PREFIX_LOSS_PROMPT_LOGITS, "prompt_logits")                                              \
    X(CMI_PREFIX_LOSS_NO_PAGES, "no_pages")                                                        \
    X(CMI_PREFIX_LOSS_LOAD_FAILED, "load_failed")                                                  \
    X(CMI_PREFIX_LOSS_CORRUPT, "corrupt")

typedef enum cmi_prefix_loss {
#define CMI_PREFIX_LOSS_ENUM(name, text) name,
    CMI_PREFIX_LOSS_TABLE(CMI_PREFIX_LOSS_ENUM)
#undef CMI_PREFIX_LOSS_ENUM
        CMI_PREFIX_N_LOSSES,
} cmi_prefix_loss;

/* "not_cached", ...: static text, for metrics. */
const char *cmi_prefix_loss_name(cmi_prefix_loss loss);

/* Where the tokens of one prompt, or of many, went. prompt == used + the sum of lost. */
typedef struct cmi_prefix_account {
    uint64_t prompt;    /* tokens */
    uint64_t looked_up; /* in blocks that the cache was asked for */
    uint64_t available; /* in blocks that this cache had */
    uint64_t loaded;    /* in blocks that were brought from elsewhere */
    uint64_t used;      /* not computed: <= available + loaded */
    uint64_t lost[CMI_PREFIX_N_LOSSES];
} cmi_prefix_account;

/* n_blocks that lookup missed (not_cached, evicted or other_namespace) were brought from elsewhere:
 * lost -> loaded, used. */
void cmi_prefix_account_load(cmi_prefix_account *account, uint32_t n_blocks);

/* n_blocks that lookup missed were elsewhere, but did not get here for this reason. */
void cmi_prefix_account_blame(cmi_prefix_account *account, uint32_t n_blocks,
                              cmi_prefix_loss reason);

/* n_blocks of the used ones are computed after all: used -> lost. */
void cmi_prefix_account_drop(cmi_prefix_account *account, uint32_t n_blocks,
                             cmi_prefix_loss reason);

void cmi_prefix_account_add(cmi_prefix_account *total, const cmi_prefix_account *one);

/* Blocks of a prompt that a cache can save: full ones that do not hold the last token. */
static inline uint32_t cmi_prefix_usable_blocks(uint32_t prompt_tokens)
{
    return prompt_tokens == 0 ? 0 : (prompt_tokens - 1) / CMI_CONTENT_BLOCK_TOKENS;
}

/* ---- life ---- */

/* Bytes of memory that a cache needs; 0: an option is out of range. About 200 a block. */
size_t cmi_prefix_cache_bytes(const cmi_prefix_cache_options *opt);

/* Builds a cache over pool, which must outlive it, in memory as cmi_page_pool_init has it. */
CMI_NODISCARD cmi_status cmi_prefix_cache_init(cmi_prefix_cache **cache_out, void *memory,
                                               size_t n_bytes, cmi_page_pool *pool,
                                               const cmi_prefix_cache_options *opt);

/* Gives all pages back. NULL is fine; asserts that nobody holds a block. */
void cmi_prefix_cache_deinit(cmi_prefix_cache *cache);

/* ---- a sequence's way ---- */

typedef struct cmi_prefix_query {
    const cmi_content_key *keys; /* [n_keys], of the prompt's blocks from the first on; at least
                                    cmi_prefix_usable_blocks of them, where the cache is asked */
    uint32_t n_keys;
    uint32_t prompt_tokens;
    uint64_t space_tag; /* of the keys' namespace */
    bool is_skipped;    /* do not look: all is lost for skip_reason */
    cmi_prefix_loss skip_reason;
} cmi_prefix_query;

typedef struct cmi_prefix_hit {
    cmi_block_id tip;  /* held: release it in the end. CMI_BLOCK_NONE: nothing was found */
    uint32_t n_blocks; /* of the chain */
    cmi_prefix_account account;
} cmi_prefix_hit;

/* Finds and holds the longest cached chain that the prompt can use. pages_out: [n_keys *
 * CMI_BLOCK_PAGES]; the first n_blocks * CMI_BLOCK_PAGES are set, in the order of positions.
 * O(keys). The account is not added up anywhere: a request that cannot start now asks again later.
 */
void cmi_prefix_cache_lookup(cmi_prefix_cache *cache, const cmi_prefix_query *query,
                             cmi_prefix_hit *hit_out, cmi_page_id *pages_out);

/* How many blocks lookup would find, without holding any. O(keys). */
uint32_t cmi_prefix_cache_probe(const cmi_prefix_cache *cache, const cmi_content_key *keys,
                                uint32_t n_keys);

/* Another holder of the chain that ends in tip (NONE is fine). O(chain). */
void cmi_prefix_cache_hold(cmi_prefix_cache *cache, cmi_block_id tip);

/* Lets a chain go (NONE is fine); blocks without holder are idle from now on. O(chain). */
void cmi_prefix_cache_release(cmi_prefix_cache *cache, uint64_t now_ns, cmi_block_id tip);

typedef struct cmi_prefix_block {
    cmi_content_key key;
    uint64_t space_tag;
    cmi_block_id parent; /* the tip that the sequence holds; NONE: this is a first block */
    uint64_t owner;      /* of the pages */
    cmi_page_id pages[CMI_BLOCK_PAGES]; /* filling, full, with their checksums */
} cmi_prefix_block;

typedef struct cmi_prefix_inserted {
    cmi_block_id tip;
    cmi_page_id pages[CMI_BLOCK_PAGES];
    bool is_duplicate;
} cmi_prefix_inserted;

/* Gives a full block to the cache. The sequence's hold moves from block->parent to the new tip, and
 * the pages, sealed, belong to the chain: they go with cmi_prefix_cache_release and not on their
 * own. The caller then writes the hidden state of the last position into slot tip.idx.
 *
 * is_duplicate: somebody was faster, the bytes are the same. The sequence holds that block, whose
 * pages it must read from now on; its own are released and the slot is written already.
 *
 * Evicts an idle block when the table is full. CMI_ERR_NO_CAPACITY: all are held (or n_blocks is
 * 0). Nothing changed then: the pages stay the sequence's own, and so do all that follow, since a
 * block needs its parent here. O(1). */
CMI_NODISCARD cmi_status cmi_prefix_cache_insert(cmi_prefix_cache *cache, uint64_t now_ns,
                                                 const cmi_prefix_block *block,
                                                 cmi_prefix_inserted *inserted_out);

/* ---- room ---- */

/* Takes n pages for owner or none, evicting idle blocks as needed and none if that cannot help.
 * CMI_ERR_NO_CAPACITY: too few are free or idle. (Evicted pages that somebody else holds, or a peer
 * leases, are not free at once: with such, idle blocks may be gone in vain.) O(n). */
CMI_NODISCARD cmi_status cmi_prefix_cache_acquire_pages(cmi_prefix_cache *cache, uint64_t now_ns,
                                                        uint64_t owner, uint32_t n,
                                                        cmi_page_id *ids_out);

/* Pages that acquire_pages can count on: free ones and those of idle blocks. */
uint32_t cmi_prefix_cache_room(const cmi_prefix_cache *cache);

/* Evicts the n_blocks oldest idle blocks, or all; returns how many. UINT32_MAX empties the cache
 * but for what is held. O(n_blocks). */
uint32_t cmi_prefix_cache_evict(cmi_prefix_cache *cache, uint64_t now_ns, uint32_t n_blocks);

/* ---- looking ---- */

typedef struct cmi_prefix_cache_stats {
    uint32_t n_blocks;     /* cached now */
    uint32_t n_idle;       /* of them, held by nobody */
    uint64_t n_inserted;   /* since init */
    uint64_t n_duplicates; /* inserts that found the block there */
    uint64_t n_refused;    /* inserts without room */
    uint64_t n_evicted;
    uint64_t last_idle_ns; /* how long the last evicted block had been idle */
} cmi_prefix_cache_stats;

cmi_prefix_cache_stats cmi_prefix_cache_get_stats(const cmi_prefix_cache *cache);

typedef struct cmi_block_info {
    cmi_content_key key;
    cmi_block_id parent;
    cmi_page_id pages[CMI_BLOCK_PAGES];
    uint32_t depth;       /* 0: a first block */
    uint32_t refs;        /* holds that go through it */
    uint32_t n_children;  /* cached */
    uint64_t last_use_ns; /* when the last holder let it go or it was inserted */
} cmi_block_info;

/* False, and *info_out untouched, when id does not name a cached block. */
bool cmi_prefix_cache_info(const cmi_prefix_cache *cache, cmi_block_id id,
                           cmi_block_info *info_out);

/* The index finds exactly the cached blocks; counts, lists, parents and pages agree. For tests and
 * fault hunting. O(n_blocks). */
bool cmi_prefix_cache_check(const cmi_prefix_cache *cache);

#endif
