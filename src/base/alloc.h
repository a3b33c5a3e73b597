/* base/alloc.h - heap memory; no other file calls malloc.
 *
 * cmi_alloc and cmi_realloc end the process with one line when the host has no memory left: use
 * them where the size is bounded by a stated limit. cmi_try_alloc is for sizes that come from a
 * file or an option. All memory is released with cmi_free. Any thread. */
#ifndef CMI_BASE_ALLOC_H
#define CMI_BASE_ALLOC_H

#include "base/compiler.h"

/* n items of the given size, zeroed. Never NULL; n or size may be 0. */
CMI_NODISCARD void *cmi_alloc(size_t n, size_t size);

/* Grows or shrinks to n items of the given size, keeping the content; new bytes are not zeroed. */
CMI_NODISCARD void *cmi_realloc(void *p, size_t n, size_t size);

/* As cmi_alloc, but NULL when n * size overflows or there is no memory. */
CMI_NODISCARD void *cmi_try_alloc(size_t n, size_t size);

/* n_bytes zeroed, at an address divisible by alignment (a power of two, at least sizeof(void *)).
 */
CMI_NODISCARD void *cmi_alloc_aligned(size_t n_bytes, size_t alignment);

/* A copy of n bytes with a NUL behind them. */
CMI_NODISCARD char *cmi_strndup(const char *s, size_t n);

void cmi_free(void *p); /* NULL is fine */

/* While it is true, nothing is allocated or released on this thread: who tries ends the process
 * with one line, since he breaks a promise (steps do not allocate). Returns what it was. */
bool cmi_alloc_forbid(bool forbid);

/* Gives the system what is free inside the heap. Takes milliseconds for each GiB of heap: for after
 * an unusually large piece of work only. */
void cmi_alloc_trim(void);

#endif
