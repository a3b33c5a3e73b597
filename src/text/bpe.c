/* The symbols of a piece are a linked list in an array, one for each byte at first; a merge keeps
 * the left one and unlinks the right one. A heap orders the pairs by (rank, position). A pair that
 * a merge has changed leaves its entry behind; such an entry is known by its rank, which is no
 * longer the one that the symbol has. Every merge adds at most two entries and takes one, so the
 * heap never holds more than two for each byte. */
#include "text/bpe.h"

#include "base/alloc.h"

#define NO_RANK UINT32_MAX
#define NO_SYMBOL UINT32_MAX

typedef struct cmi_bpe_symbol {
    uint32_t id;
    uint32_t prev, next; /* NO_SYMBOL at the ends */
    uint32_t rank;       /* of the pair with the next symbol; NO_RANK: no such merge, or unlinked */
} cmi_bpe_symbol;

typedef struct pair_heap {
    uint64_t *items; /* rank << 32 | position; no item is less than the one at its half index */
    size_t n;
} pair_heap;

void cmi_bpe_deinit(cmi_bpe *bpe)
{
    if (bpe != NULL) {
        cmi_pair_map_deinit(&bpe->ranks);
        cmi_strmap_deinit(&bpe->vocabulary);
        cmi_free(bpe->merged_ids);
        bpe->merged_ids = NULL;
    }
}

void cmi_bpe_scratch_deinit(cmi_bpe_scratch *scratch)
{
    if (scratch != NULL) {
        cmi_free(scratch->symbols);
        cmi_free(scratch->heap);
        *scratch = (cmi_bpe_scratch){0};
    }
}

static bool scratch_reserve(cmi_bpe_scratch *scratch, size_t n)
{
    if (n <= scratch->cap) {
        return true;
    }
    size_t cap = CMI_MAX(n, scratch->cap * 2);
    cmi_bpe_scratch_deinit(scratch);
    scratch->symbols = cmi_try_alloc(cap, sizeof *scratch->symbols);
    scratch->heap = cmi_try_alloc(cap, 2 * sizeof *scratch->heap);
    if (scratch->symbols == NULL || scratch->heap == NULL) {
        cmi_bpe_scratch_deinit(scratch);
        return false;
    }
    scratch->cap = cap;
    return true;
}

static void sift_down(pair_heap *heap, size_t at)
{
    uint64_t item = heap->items[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->n) {
            break;
        }
        if (child + 1 < heap->n && heap->items[child + 1] < heap->items[child]) {
            child++;
        }
        if (heap->items[child] >= item) {
            break;
        }
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = item;
}

static void heap_push(pair_heap *heap, uint64_t item)
{
    size_t at = heap->n++;
    while (at > 0 && heap->items[(at - 1) / 2] > item) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = item;
}

static uint64_t heap_pop(pair_heap *heap)
{
    uint64_t least = heap->items[0];
    heap->items[0] = heap->items[--heap->n];
    if (heap->n > 0) {
        sift_down(heap, 0);
    }
    return least;
}

/* Looks up the merge of symbol `at` with the one behind it and puts it on the heap. */
static void update_pair(const cmi_bpe *bpe, cmi_bpe_symbol *symbols, pair_heap *heap, uint32_t at)
{
    cmi_bpe_symbol *left = &symbols[at];
    left->rank = NO_RANK;
    if (left->next != NO_SYMBOL) {
        uint64_t pair = cmi_bpe_pair(left->id, symbols[left->next].id);
        left->rank = cmi_pair_map_get(&bpe->ranks, pair, NO_RANK);
    }
    if (left->rank != NO_RANK) {
        heap_push(heap, (uint64_t)left->rank << 32 | at);
    }
}

static void merge_pair(const cmi_bpe *bpe, cmi_bpe_symbol *symbols, pair_heap *heap, uint32_t at)
{
    cmi_bpe_symbol *left = &symbols[at];
    cmi_bpe_symbol *right = &symbols[left->next];
    left->id = bpe->merged_ids[left->rank];
    left->next = right->next;
    right->rank = NO_RANK;
    if (left->next != NO_SYMBOL) {
        symbols[left->next].prev = at;
    }
    if (left->prev != NO_SYMBOL) {
        update_pair(bpe, symbols, heap, left->prev);
    }
    update_pair(bpe, symbols, heap, at);
}

/* One symbol for each byte that has a token; returns how many. */
static uint32_t start_symbols(const cmi_bpe *bpe, cmi_bpe_symbol *symbols, const char *piece,
                              size_t n_bytes)
{
    uint32_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        uint32_t id = bpe->byte_ids[(unsigned char)piece[i]];
        if (id != CMI_BPE_NO_ID) {
            symbols[n] = (cmi_bpe_symbol){id, n - 1, n + 1, NO_RANK};
            n++;
        }
    }
    if (n > 0) {
        symbols[0].prev = NO_SYMBOL;
        symbols[n - 1].next = NO_SYMBOL;
    }
    return n;
}

bool cmi_bpe_encode(const cmi_bpe *bpe, cmi_bpe_scratch *scratch, const char *piece, size_t n_bytes,
                    cmi_ids *ids_out)
{
    uint32_t whole;
    if (bpe->whole_pieces_first && cmi_strmap_get(&bpe->vocabulary, piece, n_bytes, &whole)) {
        cmi_ids_push(ids_out, whole);
        return true;
    }
    if (!scratch_reserve(scratch, n_bytes)) {
        return false;
    }
    cmi_bpe_symbol *symbols = scratch->symbols;
    pair_heap heap = {scratch->heap, 0};
    uint32_t n = start_symbols(bpe, symbols, piece, n_bytes);
    for (uint32_t i = 0; i < n; i++) {
        update_pair(bpe, symbols, &heap, i);
    }
    while (heap.n > 0) {
        uint64_t least = heap_pop(&heap);
        uint32_t at = (uint32_t)least;
        if (symbols[at].rank == least >> 32) {
            merge_pair(bpe, symbols, &heap, at);
        }
    }
    for (uint32_t at = n > 0 ? 0 : NO_SYMBOL; at != NO_SYMBOL; at = symbols[at].next) {
        cmi_ids_push(ids_out, symbols[at].id);
    }
    return true;
}
