/* os/memory_file.h - memory that a process can share by handing on a descriptor.
 *
 * It has no name: when the last process that maps it or holds its descriptor has ended, however it
 * ended, the memory is free again. Its size is sealed, so that no holder can cut it under the
 * others' feet. Any thread. */
#ifndef CMI_OS_MEMORY_FILE_H
#define CMI_OS_MEMORY_FILE_H

#include "base/error.h"

/* Makes and maps n_bytes (> 0) of zeros, aligned as blocks of os/host_memory.h are. Physical memory
 * is taken now, where the calling thread's policy says, so that writing cannot fail. what names the
 * memory in the error line. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_memory_file_create(int *fd_out, void **bytes_out, size_t n_bytes,
                                                const char *what, cmi_error *err);

/* Maps what another process has made with n_bytes; fd may be closed afterwards.
 * CMI_ERR_BAD_DATA: fd is something else. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_memory_file_map(void **bytes_out, int fd, size_t n_bytes,
                                             const char *what, cmi_error *err);

void cmi_memory_file_unmap(void *bytes, size_t n_bytes); /* NULL is fine */

#endif
