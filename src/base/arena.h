/* base/arena.h - many small allocations that end together, under a limit named at the start.
 *
 * There is no free of one allocation: cmi_arena_deinit ends them all. One owner; not thread-safe,
 * but what lies in a finished arena may be read by any thread. */
#ifndef CMI_BASE_ARENA_H
#define CMI_BASE_ARENA_H

#include "base/compiler.h"

typedef struct cmi_arena_block cmi_arena_block;

typedef struct cmi_arena {
    cmi_arena_block *blocks; /* newest first */
    char *at;                /* the free part of the newest block is [at, end) */
    char *end;
    size_t used; /* bytes handed out, rounding included */
    size_t max;  /* bytes, the limit of used */
} cmi_arena;

void cmi_arena_init(cmi_arena *a, size_t max_bytes);
void cmi_arena_deinit(cmi_arena *a); /* NULL or zeroed is fine */

/* n_bytes zeroed, aligned for any type. NULL, and no change, when the limit would be passed. */
CMI_NODISCARD void *cmi_arena_alloc(cmi_arena *a, size_t n_bytes);

#endif
