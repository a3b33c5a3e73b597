/* os/host_memory.h - how much memory there is, and large blocks of it. */
#ifndef CMI_OS_HOST_MEMORY_H
#define CMI_OS_HOST_MEMORY_H

#include "base/error.h"

/* Bytes that this process may still take without swapping: the kernel's MemAvailable, or what the
 * cgroup leaves if that is less. UINT64_MAX when neither can be read. */
uint64_t cmi_host_memory_available(void);

/* Zeroed pages for weights, KV and scratch, with transparent huge pages asked for. Blocks of a huge
 * page and more begin at one, smaller ones at a page. Physical memory is taken on first write. what
 * names the block in the error line. */
CMI_NODISCARD cmi_status cmi_host_memory_map(void **block_out, size_t n_bytes, const char *what,
                                             cmi_error *err);
void cmi_host_memory_unmap(void *block, size_t n_bytes); /* NULL is fine */

/* Maps the first n_bytes of a file, shared with others, at a multiple of alignment and of what huge
 * pages need. alignment is a power of two and divides n_bytes; the pages of the file system have as
 * many bytes. */
CMI_NODISCARD cmi_status cmi_host_memory_map_file(void **block_out, int fd, size_t n_bytes,
                                                  size_t alignment, bool writable, const char *what,
                                                  cmi_error *err);

/* Takes the memory of n_bytes of a writable block now, where the calling thread's policy says
 * (os/topology.h), without changing it. block begins at a page. Any thread. */
void cmi_host_memory_touch(void *block, size_t n_bytes);

/* Makes the pages of a mapped file known to this process now instead of on first touch. Best
 * effort, needs Linux 5.14. Any thread. */
void cmi_host_memory_populate(const void *block, size_t n_bytes);

/* Bytes of a huge page of this host; a power of two. */
size_t cmi_host_memory_huge_page(void);

/* Asks the kernel (Linux 6.1) to move n_bytes that have been written into huge pages at once, where
 * they are not. Needs no privilege, and works on private memory and memory file systems also where
 * they get none by themselves. Costs a copy. What cannot be moved stays as it is. Any thread. */
void cmi_host_memory_collapse(void *block, size_t n_bytes);

/* How many bytes of a mapped block lie in huge pages now, by the kernel's own count. Reads
 * /proc/self/smaps: for once after loading. */
uint64_t cmi_host_memory_huge_bytes(const void *block, size_t n_bytes);

/* What an operator can do when blocks lie in small pages: one line, without a full stop. */
const char *cmi_host_memory_huge_advice(void);

#endif
