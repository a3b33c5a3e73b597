#include "os/host_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* First number in a small file, or UINT64_MAX ("max" in cgroup files reads as that too). */
static uint64_t read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long value;
    if (f == NULL) {
        return UINT64_MAX;
    }
    int n = fscanf(f, "%llu", &value);
    fclose(f);
    return n == 1 ? value : UINT64_MAX;
}

static uint64_t mem_available(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    if (f == NULL) {
        return UINT64_MAX;
    }
    char line[128];
    unsigned long long kib = 0;
    bool found = false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        found = sscanf(line, "MemAvailable: %llu kB", &kib) == 1;
    }
    fclose(f);
    return found ? kib * 1024 : UINT64_MAX;
}

uint64_t cmi_host_memory_available(void)
{
    uint64_t host = mem_available();
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max");
    if (limit == UINT64_MAX) {
        return host;
    }
    uint64_t used = read_number("/sys/fs/cgroup/memory.current");
    uint64_t left = used < limit ? limit - used : 0;
    return CMI_MIN(host, left);
}

cmi_status cmi_host_memory_map(void **block_out, size_t n_bytes, const char *what, cmi_error *err)
{
    void *block = mmap(NULL, CMI_MAX(n_bytes, (size_t)1), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "no memory for %s (%zu bytes): %s", what,
                             n_bytes, strerror(errno));
    }
    madvise(block, n_bytes, MADV_HUGEPAGE);
    *block_out = block;
    return CMI_OK;
}

void cmi_host_memory_unmap(void *block, size_t n_bytes)
{
    if (block != NULL) {
        munmap(block, CMI_MAX(n_bytes, (size_t)1));
    }
}
