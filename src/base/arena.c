#include "base/arena.h"

#include "base/alloc.h"

enum {
    ALIGNMENT = 16,
    BLOCK_BYTES_MIN = 8 << 10,
    BLOCK_BYTES_MAX = 1 << 20,
};

struct cmi_arena_block {
    CMI_ALIGNED(ALIGNMENT) cmi_arena_block *next;
    size_t n_bytes;
};

void cmi_arena_init(cmi_arena *a, size_t max_bytes)
{
    *a = (cmi_arena){.max = max_bytes};
}

void cmi_arena_deinit(cmi_arena *a)
{
    if (a == NULL) {
        return;
    }
    while (a->blocks != NULL) {
        cmi_arena_block *next = a->blocks->next;
        cmi_free(a->blocks);
        a->blocks = next;
    }
    *a = (cmi_arena){.max = a->max};
}

/* Blocks double, so that a small arena is small and a large one has few of them. Under ASan each
 * allocation is a block of its own: otherwise an overrun into its neighbour would go unseen. */
static void add_block(cmi_arena *a, size_t n_bytes)
{
    if (!CMI_ASAN) {
        size_t last = a->blocks == NULL ? BLOCK_BYTES_MIN / 2 : a->blocks->n_bytes;
        size_t usual = CMI_MIN(last * 2, (size_t)BLOCK_BYTES_MAX);
        n_bytes = CMI_MAX(n_bytes, usual);
    }
    cmi_arena_block *block = cmi_alloc(1, sizeof *block + n_bytes);
    *block = (cmi_arena_block){.next = a->blocks, .n_bytes = n_bytes};
    a->blocks = block;
    a->at = (char *)(block + 1);
    a->end = a->at + n_bytes;
}

void *cmi_arena_alloc(cmi_arena *a, size_t n_bytes)
{
    if (n_bytes > a->max - a->used) {
        return NULL;
    }
    size_t rounded = CMI_ROUND_UP(CMI_MAX(n_bytes, (size_t)1), (size_t)ALIGNMENT);
    size_t want = CMI_ASAN ? CMI_MAX(n_bytes, (size_t)1) : rounded;
    if (want > (size_t)(a->end - a->at)) {
        add_block(a, want);
    }
    void *p = a->at;
    a->at += want;
    a->used += CMI_MIN(rounded, a->max - a->used);
    return p;
}
