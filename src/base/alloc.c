#include "base/alloc.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CMI_NORETURN void out_of_memory(size_t n, size_t size)
{
    fprintf(stderr, "cminfer: out of memory (%zu x %zu bytes wanted)\n", n, size);
    abort();
}

static _Thread_local bool is_forbidden;

bool cmi_alloc_forbid(bool forbid)
{
    const bool was = is_forbidden;
    is_forbidden = forbid;
    return was;
}

static void check_allowed(void)
{
    if (is_forbidden) {
        fprintf(stderr, "cminfer: memory is allocated or released in the middle of a step\n");
        abort();
    }
}

void *cmi_try_alloc(size_t n, size_t size)
{
    check_allowed();
    if (n == 0 || size == 0) {
        n = size = 1; /* a unique pointer, so that NULL always means failure */
    }
    return calloc(n, size);
}

void *cmi_alloc(size_t n, size_t size)
{
    void *p = cmi_try_alloc(n, size);
    if (p == NULL) {
        out_of_memory(n, size);
    }
    return p;
}

void *cmi_realloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    check_allowed();
    if (__builtin_mul_overflow(n, size, &bytes)) {
        out_of_memory(n, size);
    }
    void *q = realloc(p, bytes == 0 ? 1 : bytes);
    if (q == NULL) {
        out_of_memory(n, size);
    }
    return q;
}

void *cmi_alloc_aligned(size_t n_bytes, size_t alignment)
{
    void *p;
    check_allowed();
    if (posix_memalign(&p, alignment, CMI_MAX(n_bytes, (size_t)1)) != 0) {
        out_of_memory(1, n_bytes);
    }
    memset(p, 0, n_bytes);
    return p;
}

char *cmi_strndup(const char *s, size_t n)
{
    char *copy = cmi_alloc(n + 1, 1);
    if (n > 0) {
        memcpy(copy, s, n);
    }
    return copy;
}

void cmi_free(void *p)
{
    if (p != NULL) {
        check_allowed();
    }
    free(p);
}

void cmi_alloc_trim(void)
{
#ifdef __GLIBC__ /* others do so by themselves */
    malloc_trim(0);
#endif
}
