#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* newer than the C library's headers may be */
enum { LINUX_MADV_POPULATE_READ = 22 };

static cmi_status open_regular(int *fd_out, cmi_file_id *id_out, const char *path, cmi_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cmi_status st = errno == ENOENT ? CMI_ERR_NOT_FOUND : CMI_ERR_IO;
        return cmi_error_set(err, st, "%s: %s", path, strerror(errno));
    }
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return cmi_error_set(err, CMI_ERR_IO, "%s: not a regular file", path);
    }
    *fd_out = fd;
    *id_out = (cmi_file_id){.device = info.st_dev,
                            .inode = info.st_ino,
                            .n_bytes = (uint64_t)info.st_size,
                            .modified_s = (uint64_t)info.st_mtim.tv_sec,
                            .modified_ns = (uint64_t)info.st_mtim.tv_nsec};
    return CMI_OK;
}

static cmi_status read_all(cmi_buf *out, int fd, const char *path, cmi_error *err)
{
    for (;;) {
        char chunk[65536];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0) {
            return CMI_OK;
        }
        if (n < 0 && errno != EINTR) {
            return cmi_error_set(err, CMI_ERR_IO, "%s: %s", path, strerror(errno));
        }
        if (n > 0 && !cmi_buf_append(out, chunk, (size_t)n)) {
            return cmi_error_set(err, CMI_ERR_TOO_LARGE, "%s: larger than the limit of %zu bytes",
                                 path, out->max);
        }
    }
}

cmi_status cmi_file_read(cmi_buf *out, const char *path, size_t max_bytes, cmi_error *err)
{
    cmi_buf_init(out, max_bytes);
    int fd = -1;
    cmi_file_id id = {0};
    cmi_status st = open_regular(&fd, &id, path, err);
    if (st != CMI_OK) {
        return st;
    }
    if (id.n_bytes > max_bytes) {
        st = cmi_error_set(err, CMI_ERR_TOO_LARGE, "%s: larger than the limit of %zu bytes", path,
                           max_bytes);
    } else {
        st = read_all(out, fd, path, err);
    }
    close(fd);
    return st;
}

cmi_status cmi_file_map_open(cmi_file_map *map_out, const char *path, cmi_error *err)
{
    int fd = -1;
    cmi_file_id id = {0};
    cmi_status st = open_regular(&fd, &id, path, err);
    if (st != CMI_OK) {
        return st;
    }
    void *data = NULL;
    if (id.n_bytes > 0) {
        data = mmap(NULL, id.n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    close(fd);
    if (data == MAP_FAILED) {
        return cmi_error_set(err, CMI_ERR_IO, "%s: cannot map %llu bytes: %s", path,
                             (unsigned long long)id.n_bytes, strerror(errno));
    }
    *map_out = (cmi_file_map){data, id.n_bytes, id};
    return CMI_OK;
}

void cmi_file_map_close(cmi_file_map *map)
{
    if (map != NULL && map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->n_bytes);
        *map = (cmi_file_map){0};
    }
}

cmi_status cmi_file_map_fetch(const cmi_file_map *map, size_t offset, size_t n, cmi_error *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = offset / page * page;
    if (n > 0 &&
        madvise((void *)(uintptr_t)(map->data + begin), offset + n - begin,
                LINUX_MADV_POPULATE_READ) != 0 &&
        (errno == EFAULT || errno == EHWPOISON)) {
        return cmi_error_set(err, CMI_ERR_IO,
                             "bytes %zu to %zu cannot be read (any more): the device fails, or the "
                             "file was changed",
                             offset, offset + n - 1);
    }
    return CMI_OK;
}

void cmi_file_map_release(const cmi_file_map *map, size_t offset, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = CMI_ROUND_UP(offset, page);
    size_t end = (offset + n) / page * page;
    if (begin < end) {
        madvise((void *)(uintptr_t)(map->data + begin), end - begin, MADV_DONTNEED);
    }
}

bool cmi_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}
