/* engine/kv_pool.h - the pages of latent KV, and which of them are free.
 *
 * Sized once; a page costs physical memory when it is first written. Thread: the engine's. */
#ifndef CMI_ENGINE_KV_POOL_H
#define CMI_ENGINE_KV_POOL_H

#include "model/kv_layout.h"

typedef struct cmi_kv_pool {
    cmi_kv_layout layout;
    void *base; /* n_pages * layout.page_bytes */
    bool owns_base;
    uint32_t *free_stack; /* the n_free free pages; the last one goes out first */
    bool *is_used;        /* [n_pages], catches a double release */
    uint32_t n_pages;
    uint32_t n_free;
} cmi_kv_pool;

/* Pages of so many tokens of a sequence. */
static inline uint32_t cmi_kv_pages_for(uint32_t n_tokens)
{
    return CMI_DIV_UP(n_tokens, (uint32_t)CMI_KV_PAGE_TOKENS);
}

/* n_pages >= 1. memory: of n_pages pages, zeroed, which outlives the pool; NULL: the pool maps its
 * own. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_kv_pool_init(cmi_kv_pool *pool, const cmi_kv_layout *layout,
                                          uint32_t n_pages, void *memory, cmi_error *err);
void cmi_kv_pool_deinit(
    cmi_kv_pool *pool); /* NULL or zeroed is fine; asserts that no page is used */

/* Takes n pages or none. CMI_ERR_NO_CAPACITY: fewer are free. */
CMI_NODISCARD cmi_status cmi_kv_pool_acquire(cmi_kv_pool *pool, uint32_t n, uint32_t *page_ids_out);
void cmi_kv_pool_release(cmi_kv_pool *pool, uint32_t n, const uint32_t *page_ids);

#endif
