/* os/host_memory.h - how much memory there is, and large blocks of it. */
#ifndef CMI_OS_HOST_MEMORY_H
#define CMI_OS_HOST_MEMORY_H

#include "base/error.h"

/* Bytes that this process may still take without swapping: the kernel's MemAvailable, or what the
 * cgroup leaves if that is less. UINT64_MAX when neither can be read. */
uint64_t cmi_host_memory_available(void);

/* Zeroed pages for weights and KV, with transparent huge pages asked for, 64-byte aligned (in fact
 * page-aligned). Physical memory is taken on first write. what names the block in the error line.
 */
CMI_NODISCARD cmi_status cmi_host_memory_map(void **block_out, size_t n_bytes, const char *what,
                                             cmi_error *err);
void cmi_host_memory_unmap(void *block, size_t n_bytes); /* NULL is fine */

#endif
