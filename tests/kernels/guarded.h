/* tests/kernels/guarded.h - arrays that end right before a page that cannot be touched.
 *
 * A kernel that reads or writes one byte past the end dies with SIGSEGV; what it writes before the
 * beginning is found when the array is released. Not thread-safe. */
#ifndef CMI_TESTS_KERNELS_GUARDED_H
#define CMI_TESTS_KERNELS_GUARDED_H

#include "base/compiler.h"

enum { GUARDED_MAX = 12 };

typedef struct guarded_array {
    unsigned char *map;
    size_t map_bytes;
    unsigned char *data;
} guarded_array;

typedef struct guarded {
    guarded_array arrays[GUARDED_MAX];
    size_t n_arrays;
} guarded;

/* n_bytes of any value, aligned to nothing but what the size implies. Fails the test when there is
 * no memory or more than GUARDED_MAX arrays are wanted. */
void *guarded_alloc(guarded *g, size_t n_bytes);

/* Releases all arrays; fails the test if something was written before one of them. */
void guarded_release(guarded *g);

#endif
