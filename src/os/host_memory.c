#include "os/host_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    DEFAULT_HUGE_PAGE = 2 << 20,
    MAX_HUGE_PAGE = 1 << 30,
    /* newer than the C library's headers may be */
    LINUX_MADV_POPULATE_READ = 22,
    LINUX_MADV_POPULATE_WRITE = 23,
    LINUX_MADV_COLLAPSE = 25,
};

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

/* ---- blocks ---- */

static const char huge_page_size_path[] = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
static const char huge_page_mode_path[] = "/sys/kernel/mm/transparent_hugepage/enabled";

size_t cmi_host_memory_huge_page(void)
{
    uint64_t n_bytes = read_number(huge_page_size_path, "");
    bool is_usable = n_bytes <= MAX_HUGE_PAGE && n_bytes > 0 && (n_bytes & (n_bytes - 1)) == 0;
    return is_usable ? n_bytes : DEFAULT_HUGE_PAGE;
}

/* Maps n_bytes at a multiple of alignment by mapping more and giving both ends back. */
static uint8_t *map_aligned(size_t n_bytes, size_t alignment)
{
    size_t slack = n_bytes < alignment ? 0 : alignment;
    if (n_bytes > SIZE_MAX - slack) {
        errno = ENOMEM;
        return NULL;
    }
    uint8_t *mapped = mmap(NULL, n_bytes + slack, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED || slack == 0) {
        return mapped == MAP_FAILED ? NULL : mapped;
    }
    size_t before = CMI_ROUND_UP((uintptr_t)mapped, alignment) - (uintptr_t)mapped;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t used = before + CMI_ROUND_UP(n_bytes, page);
    size_t whole = CMI_ROUND_UP(n_bytes + slack, page);
    if (before > 0) {
        munmap(mapped, before);
    }
    if (whole > used) {
        munmap(mapped + used, whole - used);
    }
    return mapped + before;
}

cmi_status cmi_host_memory_map(void **block_out, size_t n_bytes, const char *what, cmi_error *err)
{
    void *block = map_aligned(CMI_MAX(n_bytes, (size_t)1), cmi_host_memory_huge_page());
    if (block == NULL) {
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

cmi_status cmi_host_memory_map_file(void **block_out, int fd, size_t n_bytes, size_t alignment,
                                    bool writable, const char *what, cmi_error *err)
{
    void *place = map_aligned(n_bytes, CMI_MAX(alignment, cmi_host_memory_huge_page()));
    void *block = MAP_FAILED;
    if (place != NULL) {
        block = mmap(place, n_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                     MAP_SHARED | MAP_FIXED, fd, 0);
    }
    if (block == MAP_FAILED) {
        int cause = errno;
        cmi_host_memory_unmap(place, n_bytes);
        return cmi_error_set(err, CMI_ERR_NO_MEMORY, "cannot map %s (%zu bytes): %s", what, n_bytes,
                             strerror(cause));
    }
    madvise(block, n_bytes, MADV_HUGEPAGE);
    *block_out = block;
    return CMI_OK;
}

void cmi_host_memory_touch(void *block, size_t n_bytes)
{
    if (madvise(block, n_bytes, LINUX_MADV_POPULATE_WRITE) == 0) {
        return;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    volatile uint8_t *bytes = block;
    for (size_t at = 0; at < n_bytes; at += page) {
        bytes[at] = bytes[at];
    }
}

void cmi_host_memory_populate(const void *block, size_t n_bytes)
{
    madvise((void *)(uintptr_t)block, n_bytes, LINUX_MADV_POPULATE_READ);
}

/* ---- huge pages ---- */

void cmi_host_memory_collapse(void *block, size_t n_bytes)
{
    size_t huge = cmi_host_memory_huge_page();
    uintptr_t begin = CMI_ROUND_UP((uintptr_t)block, huge);
    uintptr_t end = ((uintptr_t)block + n_bytes) / huge * huge;
    for (uintptr_t at = begin; at < end; at += huge) {
        /* One at a time: the call stops at the first that fails. */
        madvise((void *)at, huge, LINUX_MADV_COLLAPSE);
    }
}

uint64_t cmi_host_memory_huge_bytes(const void *block, size_t n_bytes)
{
    static const char *const counters[] = {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:",
                                           "Shared_Hugetlb:", "Private_Hugetlb:"};
    FILE *f = fopen("/proc/self/smaps", "re");
    if (f == NULL) {
        return 0;
    }
    uintptr_t begin = (uintptr_t)block;
    bool is_inside = false;
    uint64_t huge = 0;
    char line[512];
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long long first, end, kib;
        if (sscanf(line, "%llx-%llx ", &first, &end) == 2) {
            is_inside = first < begin + n_bytes && end > begin;
        }
        for (size_t i = 0; is_inside && i < CMI_LEN(counters); i++) {
            size_t n = strlen(counters[i]);
            if (strncmp(line, counters[i], n) == 0 && sscanf(line + n, " %llu", &kib) == 1) {
                huge += kib * 1024;
            }
        }
    }
    fclose(f);
    return CMI_MIN(huge, n_bytes); /* the kernel may have joined the block to its neighbours */
}

const char *cmi_host_memory_huge_advice(void)
{
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1) {
        return "transparent huge pages were disabled for this process by what started it";
    }
    char line[128] = "[never]";
    FILE *f = fopen(huge_page_mode_path, "re");
    if (f != NULL) {
        if (fgets(line, sizeof line, f) == NULL) {
            line[0] = '\0';
        }
        fclose(f);
    }
    return strstr(line, "[never]") != NULL
               ? "transparent huge pages are off on this host; as root: echo madvise > "
                 "/sys/kernel/mm/transparent_hugepage/enabled"
               : "the kernel found no free ones; as root: echo 1 > /proc/sys/vm/compact_memory, "
                 "and "
                 "start again";
}
