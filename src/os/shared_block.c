/* os/shared_block.c - see shared_block.h; its files and locks are in shared_block_files.c. */
#include "os/shared_block_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/host_memory.h"

static const char magic[16] = "cminfer share 1";

/* ---- opening ---- */

/* The lock file tells of a complete block of this key. */
static bool has_key(const cmi_shared_block *b, uint64_t *data_inode_out)
{
    size_t n = sizeof(cmi_shared_control) + b->opt.key_bytes;
    cmi_shared_control *c = cmi_alloc(1, n);
    bool ok = pread(b->lock_fd, c, n, 0) == (ssize_t)n &&
              memcmp(c->magic, magic, sizeof magic) == 0 && c->key_bytes == b->opt.key_bytes &&
              memcmp(c->key, b->opt.key, c->key_bytes) == 0 && c->data_inode != 0;
    *data_inode_out = c->data_inode;
    cmi_free(c);
    return ok;
}

static bool open_complete(cmi_shared_block *b)
{
    uint64_t inode;
    struct stat info;
    if (!has_key(b, &inode)) {
        return false;
    }
    b->data_fd = open(b->data_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (b->data_fd >= 0 && cmi_shared_is_ours(b->data_fd) && fstat(b->data_fd, &info) == 0 &&
        info.st_ino == inode && (uint64_t)info.st_size == b->map_bytes) {
        return true;
    }
    if (b->data_fd >= 0) {
        close(b->data_fd);
        b->data_fd = -1;
    }
    return false;
}

static cmi_status map_block(cmi_shared_block *b, bool writable, cmi_error *err)
{
    void *bytes;
    cmi_status st = cmi_host_memory_map_file(&bytes, b->data_fd, b->map_bytes, b->unit, writable,
                                             b->opt.what, err);
    if (st == CMI_OK) {
        b->bytes = bytes;
    }
    return st;
}

static cmi_status start_control(cmi_shared_block *b, cmi_error *err)
{
    b->control_bytes = CMI_ROUND_UP(sizeof(cmi_shared_control) + b->opt.key_bytes, b->unit);
    if (ftruncate(b->lock_fd, (off_t)b->control_bytes) != 0 ||
        fallocate(b->lock_fd, 0, 0, (off_t)b->control_bytes) != 0) {
        return cmi_shared_file_error(err, "write it", b->lock_path);
    }
    cmi_shared_control *c =
        mmap(NULL, b->control_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->lock_fd, 0);
    if (c == MAP_FAILED) {
        return cmi_shared_file_error(err, "map it", b->lock_path);
    }
    b->control = c;
    c->data_inode = 0;
    c->maker_pid = getpid();
    c->done_bytes = c->total_bytes = c->reserved_bytes = 0;
    c->key_bytes = b->opt.key_bytes;
    memcpy(c->key, b->opt.key, b->opt.key_bytes);
    memcpy(c->magic, magic, sizeof magic);
    cmi_shared_block_beat(b);
    return CMI_OK;
}

/* What is at the data's path now is not what the lock file tells of, and goes. */
static cmi_status start_making(cmi_shared_block *b, cmi_error *err)
{
    unlink(b->data_path);
    struct statfs fs;
    if (statfs(b->opt.dir, &fs) != 0) {
        return cmi_shared_file_error(err, "use the directory", b->opt.dir);
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    bool has_limit = fs.f_blocks > 0;
    if (has_limit && free_bytes < b->map_bytes) {
        return cmi_error_set(err, CMI_ERR_NO_MEMORY,
                             "%s: the shared %s need %.2f GiB, %.2f GiB are free there: enlarge it "
                             "(mount -o remount,size=..., docker run --shm-size), or do not share",
                             b->opt.dir, b->opt.what, (double)b->map_bytes / (1 << 30),
                             (double)free_bytes / (1 << 30));
    }
    cmi_status st = start_control(b, err);
    if (st != CMI_OK) {
        return st;
    }
    b->data_fd = open(b->opt.dir, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR);
    if (b->data_fd < 0 || ftruncate(b->data_fd, (off_t)b->map_bytes) != 0) {
        return cmi_shared_file_error(err, "make a file there", b->opt.dir);
    }
    b->is_maker = true;
    return map_block(b, true, err);
}

static cmi_status open_parts(cmi_shared_block *b, cmi_error *err)
{
    cmi_status st = cmi_shared_files_find(b, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_shared_files_sweep(b);
    st = cmi_shared_files_enter(b, err);
    if (st != CMI_OK) {
        return st;
    }
    if (!open_complete(b)) {
        return start_making(b, err);
    }
    st = map_block(b, false, err);
    cmi_shared_set_lock(b->lock_fd, F_UNLCK, CMI_SHARED_OPEN_BYTE);
    return st;
}

cmi_status cmi_shared_block_open(cmi_shared_block **block_out, const cmi_shared_block_options *opt,
                                 cmi_error *err)
{
    if (opt->key_bytes > CMI_SHARED_BLOCK_MAX_KEY_BYTES || opt->n_bytes > SIZE_MAX / 4) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "shared %s: too large", opt->what);
    }
    cmi_shared_block *b = cmi_alloc(1, sizeof *b);
    *b = (cmi_shared_block){.opt = *opt, .lock_fd = -1, .data_fd = -1};
    cmi_status st = open_parts(b, err);
    if (st != CMI_OK) {
        cmi_shared_block_close(b);
        return st;
    }
    b->opt.key = NULL;
    *block_out = b;
    return CMI_OK;
}

/* ---- making ---- */

cmi_status cmi_shared_block_reserve(cmi_shared_block *b, uint64_t begin, uint64_t n_bytes,
                                    cmi_error *err)
{
    while (fallocate(b->data_fd, 0, (off_t)begin, (off_t)n_bytes) != 0) {
        if (errno != EINTR) {
            return cmi_error_set(err, CMI_ERR_NO_MEMORY, "%s: no memory for the shared %s: %s",
                                 b->opt.dir, b->opt.what, strerror(errno));
        }
    }
    atomic_fetch_add_explicit(&b->control->reserved_bytes, n_bytes, memory_order_relaxed);
    cmi_shared_block_beat(b);
    return CMI_OK;
}

void cmi_shared_block_progress(cmi_shared_block *b, uint64_t done_bytes, uint64_t total_bytes)
{
    atomic_store_explicit(&b->control->done_bytes, done_bytes, memory_order_relaxed);
    atomic_store_explicit(&b->control->total_bytes, total_bytes, memory_order_relaxed);
}

void cmi_shared_block_beat(cmi_shared_block *b)
{
    atomic_fetch_add_explicit(&b->control->n_beats, 1, memory_order_relaxed);
}

cmi_status cmi_shared_block_publish(cmi_shared_block *b, cmi_error *err)
{
    struct stat info;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", b->data_fd);
    if (mprotect(b->bytes, b->map_bytes, PROT_READ) != 0 || fstat(b->data_fd, &info) != 0) {
        return cmi_shared_file_error(err, "publish it", b->data_path);
    }
    b->control->data_inode = info.st_ino;
    if (linkat(AT_FDCWD, path, AT_FDCWD, b->data_path, AT_SYMLINK_FOLLOW) != 0) {
        return cmi_shared_file_error(err, "publish it", b->data_path);
    }
    b->is_published = true;
    munmap(b->control, b->control_bytes);
    b->control = NULL;
    cmi_shared_set_lock(b->lock_fd, F_UNLCK, CMI_SHARED_OPEN_BYTE);
    return CMI_OK;
}

/* ---- closing ---- */

void cmi_shared_block_close(cmi_shared_block *b)
{
    if (b == NULL) {
        return;
    }
    if (b->bytes != NULL) {
        munmap(b->bytes, b->map_bytes);
    }
    if (b->control != NULL) {
        munmap(b->control, b->control_bytes);
    }
    if (b->lock_fd >= 0) {
        cmi_shared_files_leave(b);
        close(b->lock_fd);
    }
    if (b->data_fd >= 0) {
        close(b->data_fd);
    }
    cmi_free(b);
}

/* ---- looking ---- */

void *cmi_shared_block_bytes(const cmi_shared_block *b)
{
    return b->bytes;
}

bool cmi_shared_block_is_maker(const cmi_shared_block *b)
{
    return b->is_maker;
}

uint64_t cmi_shared_block_taken_bytes(const cmi_shared_block_options *opt)
{
    cmi_shared_block b = {.opt = *opt, .lock_fd = -1, .data_fd = -1};
    if (cmi_shared_files_find(&b, NULL) != CMI_OK) {
        return 0;
    }
    if (b.is_hugetlbfs) {
        return opt->n_bytes;
    }
    b.lock_fd = open(b.lock_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (b.lock_fd < 0) {
        return 0;
    }
    uint64_t taken = 0;
    cmi_shared_control seen = {0};
    if (cmi_shared_is_ours(b.lock_fd) && open_complete(&b)) {
        taken = opt->n_bytes;
        close(b.data_fd);
    } else if (cmi_shared_is_locked_by_others(b.lock_fd, CMI_SHARED_OPEN_BYTE) &&
               pread(b.lock_fd, &seen, sizeof seen, 0) == sizeof seen) {
        taken = CMI_MIN(seen.reserved_bytes, opt->n_bytes);
    }
    close(b.lock_fd);
    return taken;
}
