#include "os/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/host_memory.h"

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static cmi_status map(void **bytes_out, int fd, size_t n_bytes, const char *what, cmi_error *err)
{
    size_t page = page_bytes();
    return cmi_host_memory_map_file(bytes_out, fd, CMI_ROUND_UP(n_bytes, page), page, true, what,
                                    err);
}

/* The kernel does not refuse what it has not got: it would take everything first, and then kill. */
static int reserve(int fd, size_t n_bytes)
{
    if (n_bytes > cmi_host_memory_available()) {
        errno = ENOMEM;
        return -1;
    }
    while (fallocate(fd, 0, 0, (off_t)n_bytes) != 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return 0;
}

cmi_status cmi_memory_file_create(int *fd_out, void **bytes_out, size_t n_bytes, const char *what,
                                  cmi_error *err)
{
    size_t page = page_bytes();
    if (n_bytes == 0 || n_bytes > SIZE_MAX / 4) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s: %zu bytes cannot be shared", what, n_bytes);
    }
    int fd = memfd_create("cminfer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)CMI_ROUND_UP(n_bytes, page)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        reserve(fd, n_bytes) != 0) {
        cmi_status st =
            cmi_error_set(err, CMI_ERR_NO_MEMORY, "no shared memory for %s (%zu bytes): %s", what,
                          n_bytes, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return st;
    }
    cmi_status st = map(bytes_out, fd, n_bytes, what, err);
    if (st != CMI_OK) {
        close(fd);
        return st;
    }
    *fd_out = fd;
    return CMI_OK;
}

cmi_status cmi_memory_file_map(void **bytes_out, int fd, size_t n_bytes, const char *what,
                               cmi_error *err)
{
    struct stat info;
    int seals = fcntl(fd, F_GET_SEALS);
    bool is_ours = n_bytes > 0 && n_bytes <= SIZE_MAX / 4 && seals >= 0 &&
                   (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &info) == 0 &&
                   (uint64_t)info.st_size >= n_bytes;
    if (!is_ours) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA, "%s: not shared memory of %zu bytes", what,
                             n_bytes);
    }
    return map(bytes_out, fd, n_bytes, what, err);
}

void cmi_memory_file_unmap(void *bytes, size_t n_bytes)
{
    if (bytes != NULL) {
        cmi_host_memory_unmap(bytes, CMI_ROUND_UP(n_bytes, page_bytes()));
    }
}
