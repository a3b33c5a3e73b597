#include "os/host_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* The number behind name at the beginning of a line, UINT64_MAX when there is none ("max" in cgroup
 * files reads as that too). name "": the number that the file begins with. */
static uint64_t read_number(const char *path, const char *name)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return UINT64_MAX;
    }
    char line[128];
    size_t n_name = strlen(name);
    unsigned long long value = UINT64_MAX;
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, name, n_name) == 0 && sscanf(line + n_name, " %llu", &value) == 1) {
            break;
        }
    }
    fclose(f);
    return value;
}

/* What the cgroup lets the process take. Its use counts the page cache, which the kernel gives up
 * under pressure: after a model has been downloaded that is most of it. */
static uint64_t cgroup_left(void)
{
    uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    static const char *const cached[] = {"inactive_file ", "active_file "};
    for (size_t i = 0; i < CMI_LEN(cached); i++) {
        uint64_t n_bytes = read_number("/sys/fs/cgroup/memory.stat", cached[i]);
        used -= n_bytes == UINT64_MAX ? 0 : CMI_MIN(n_bytes, used);
    }
    return used < limit ? limit - used : 0;
}

uint64_t cmi_host_memory_available(void)
{
    uint64_t kib = read_number("/proc/meminfo", "MemAvailable:");
    uint64_t host = kib == UINT64_MAX ? UINT64_MAX : kib * 1024;
    uint64_t left = cgroup_left();
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
