#include "engine/kv_pool.h"

#include <assert.h>

#include "base/alloc.h"
#include "os/host_memory.h"

cmi_status cmi_kv_pool_init(cmi_kv_pool *pool, const cmi_kv_layout *layout, uint32_t n_pages,
                            void *memory, cmi_error *err)
{
    *pool = (cmi_kv_pool){.layout = *layout,
                          .base = memory,
                          .owns_base = memory == NULL,
                          .n_pages = n_pages,
                          .n_free = n_pages};
    cmi_status st = CMI_OK;
    if (memory == NULL) {
        st = cmi_host_memory_map(&pool->base, n_pages * layout->page_bytes, "KV pages", err);
    }
    if (st != CMI_OK) {
        *pool = (cmi_kv_pool){0};
        return st;
    }
    pool->free_stack = cmi_alloc(n_pages, sizeof *pool->free_stack);
    pool->is_used = cmi_alloc(n_pages, sizeof *pool->is_used);
    for (uint32_t i = 0; i < n_pages; i++) {
        pool->free_stack[i] = n_pages - 1 - i; /* low pages first: they are the warm ones */
    }
    return CMI_OK;
}

void cmi_kv_pool_deinit(cmi_kv_pool *pool)
{
    if (pool == NULL || pool->n_pages == 0) {
        return;
    }
    assert(pool->n_free == pool->n_pages);
    if (pool->owns_base) {
        cmi_host_memory_unmap(pool->base, pool->n_pages * pool->layout.page_bytes);
    }
    cmi_free(pool->free_stack);
    cmi_free(pool->is_used);
    *pool = (cmi_kv_pool){0};
}

cmi_status cmi_kv_pool_acquire(cmi_kv_pool *pool, uint32_t n, uint32_t *page_ids_out)
{
    if (n > pool->n_free) {
        return CMI_ERR_NO_CAPACITY;
    }
    for (uint32_t i = 0; i < n; i++) {
        page_ids_out[i] = pool->free_stack[--pool->n_free];
        pool->is_used[page_ids_out[i]] = true;
    }
    return CMI_OK;
}

void cmi_kv_pool_release(cmi_kv_pool *pool, uint32_t n, const uint32_t *page_ids)
{
    for (uint32_t i = n; i-- > 0;) {
        assert(page_ids[i] < pool->n_pages && pool->is_used[page_ids[i]]);
        pool->is_used[page_ids[i]] = false;
        pool->free_stack[pool->n_free++] = page_ids[i];
    }
}
