#include "tests/test.h"

#include "tests/kernels/guarded.h"

#include <sys/mman.h>
#include <unistd.h>

enum { SLACK_BYTE = 0xA5 };

void *guarded_alloc(guarded *g, size_t n_bytes)
{
    assert_true(g->n_arrays < GUARDED_MAX);
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const size_t used_bytes = CMI_ROUND_UP(n_bytes + 1, page_bytes);
    guarded_array *a = &g->arrays[g->n_arrays++];
    a->map_bytes = used_bytes + 2 * page_bytes;
    a->map = mmap(NULL, a->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(a->map != MAP_FAILED);
    unsigned char *used = a->map + page_bytes;
    assert_int_equal(mprotect(a->map, page_bytes, PROT_NONE), 0);
    assert_int_equal(mprotect(used + used_bytes, page_bytes, PROT_NONE), 0);
    memset(used, SLACK_BYTE, used_bytes);
    a->data = used + used_bytes - n_bytes;
    return a->data;
}

void guarded_release(guarded *g)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < g->n_arrays; i++) {
        guarded_array *a = &g->arrays[i];
        for (unsigned char *p = a->map + page_bytes; p < a->data; p++) {
            assert_int_equal(*p, SLACK_BYTE);
        }
        assert_int_equal(munmap(a->map, a->map_bytes), 0);
    }
    g->n_arrays = 0;
}
