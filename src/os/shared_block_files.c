/* os/shared_block_files.c - names, locks and removal; see shared_block.h.
 *
 * Locks are open-file-description locks: they belong to the file opened here, not to the process,
 * so that two blocks in one process exclude each other like two processes.
 *
 * Whoever gets byte 0 must look whether the path still names the file that it has open: the last
 * user may have removed it in the meantime. If not, it starts over. */
#include "os/shared_block_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/strmap.h"
#include "os/clock.h"

enum {
    POLL_NS = 20 * 1000 * 1000,
    POLLS_PER_REPORT = 5,
    POLLS_BEFORE_LOG = 25,
    CLOSE_POLLS = 250,
};

/* ---- locks ---- */

bool cmi_shared_set_lock(int fd, short type, int byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool cmi_shared_is_locked_by_others(int fd, int byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void pause_poll(void)
{
    struct timespec pause = {.tv_nsec = POLL_NS};
    nanosleep(&pause, NULL);
}

/* path still names the file that fd has open. */
static bool is_at(int fd, const char *path)
{
    struct stat open_file, named;
    return fstat(fd, &open_file) == 0 && lstat(path, &named) == 0 &&
           open_file.st_ino == named.st_ino && open_file.st_dev == named.st_dev;
}

/* ---- names ---- */

cmi_status cmi_shared_file_error(cmi_error *err, const char *what, const char *path)
{
    return cmi_error_set(err, errno == ENOSPC ? CMI_ERR_NO_MEMORY : CMI_ERR_IO, "%s: cannot %s: %s",
                         path, what, strerror(errno));
}

static void name_prefix(char *out, size_t size)
{
    snprintf(out, size, "cminfer-%u-", (unsigned)geteuid());
}

static cmi_status make_paths(cmi_shared_block *b, cmi_error *err)
{
    /* The key itself is compared, so a hash that somebody could make collide will do. */
    uint64_t halves[2] = {cmi_hash_bytes(b->opt.key, b->opt.key_bytes), b->opt.n_bytes};
    char prefix[64];
    name_prefix(prefix, sizeof prefix);
    int n = snprintf(b->data_path, sizeof b->data_path, "%s/%s%016" PRIx64 "%016" PRIx64,
                     b->opt.dir, prefix, halves[0], cmi_hash_bytes(halves, sizeof halves));
    if (n < 0 || (size_t)n + sizeof ".lock" > sizeof b->data_path) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%.80s...: the path is too long", b->opt.dir);
    }
    memcpy(b->lock_path, b->data_path, (size_t)n);
    memcpy(b->lock_path + n, ".lock", sizeof ".lock");
    return CMI_OK;
}

static cmi_status look_at_dir(cmi_shared_block *b, cmi_error *err)
{
    struct statfs fs;
    if (statfs(b->opt.dir, &fs) != 0) {
        return cmi_shared_file_error(err, "use the directory", b->opt.dir);
    }
    b->is_hugetlbfs = (uint32_t)fs.f_type == HUGETLBFS_MAGIC;
    if ((uint32_t)fs.f_type != TMPFS_MAGIC && !b->is_hugetlbfs) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "%s: shared %s need a directory in memory: a tmpfs as /dev/shm, or a "
                             "hugetlbfs",
                             b->opt.dir, b->opt.what);
    }
    b->unit = (size_t)fs.f_bsize;
    return CMI_OK;
}

cmi_status cmi_shared_files_find(cmi_shared_block *b, cmi_error *err)
{
    cmi_status st = look_at_dir(b, err);
    if (st == CMI_OK) {
        st = make_paths(b, err);
    }
    b->map_bytes = st == CMI_OK ? CMI_ROUND_UP(CMI_MAX(b->opt.n_bytes, 1u), b->unit) : 0;
    return st;
}

/* A file of our own that nobody else can write. */
bool cmi_shared_is_ours(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid() &&
           (info.st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

static cmi_status open_lock_file(int *fd_out, const char *path, cmi_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        return cmi_shared_file_error(err, "open it", path);
    }
    if (!cmi_shared_is_ours(fd)) {
        close(fd);
        return cmi_error_set(err, CMI_ERR_IO, "%s: is not a file that only this user can write",
                             path);
    }
    *fd_out = fd;
    return CMI_OK;
}

/* ---- removing what nobody uses ---- */

/* Called with byte 0 held. Removes both files if this is the only user or there is none. */
static bool remove_unused(int lock_fd, const char *lock_path, const char *data_path)
{
    if (!is_at(lock_fd, lock_path) ||
        !cmi_shared_set_lock(lock_fd, F_WRLCK, CMI_SHARED_USER_BYTE)) {
        return false;
    }
    bool had_data = unlink(data_path) == 0;
    unlink(lock_path);
    return had_data;
}

static void sweep_one(const char *dir, const char *name)
{
    char data_path[CMI_SHARED_PATH_BYTES], lock_path[CMI_SHARED_PATH_BYTES];
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".lock") == 0) {
        n -= 5;
    }
    snprintf(data_path, sizeof data_path, "%s/%.*s", dir, (int)n, name);
    snprintf(lock_path, sizeof lock_path, "%s/%.*s.lock", dir, (int)n, name);
    int fd = -1;
    if (open_lock_file(&fd, lock_path, NULL) != CMI_OK) {
        return;
    }
    if (cmi_shared_set_lock(fd, F_WRLCK, CMI_SHARED_OPEN_BYTE) &&
        remove_unused(fd, lock_path, data_path)) {
        cmi_log(CMI_LOG_INFO, "removed %s, which no process used any more", data_path);
    }
    close(fd);
}

void cmi_shared_files_sweep(const cmi_shared_block *b)
{
    char prefix[64];
    name_prefix(prefix, sizeof prefix);
    const char *own = strrchr(b->data_path, '/') + 1;
    DIR *dir = opendir(b->opt.dir);
    if (dir == NULL) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            strncmp(entry->d_name, own, strlen(own)) != 0) {
            sweep_one(b->opt.dir, entry->d_name);
        }
    }
    closedir(dir);
}

/* ---- coming and going ---- */

/* Waits for byte 0, as long as the maker that holds it gets on. */
static cmi_status wait_turn(cmi_shared_block *b, cmi_error *err)
{
    uint64_t last_sign = 0;
    uint64_t since_ns = cmi_clock_monotonic_ns();
    for (uint32_t polls = 0; !cmi_shared_set_lock(b->lock_fd, F_WRLCK, CMI_SHARED_OPEN_BYTE);
         polls++) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
            return cmi_shared_file_error(err, "lock it", b->lock_path);
        }
        cmi_shared_control seen = {0};
        ssize_t n = pread(b->lock_fd, &seen, sizeof seen, 0);
        uint64_t sign = n == sizeof seen ? seen.n_beats + seen.done_bytes : 0;
        uint64_t now_ns = cmi_clock_monotonic_ns();
        if (sign != last_sign) {
            last_sign = sign;
            since_ns = now_ns;
        }
        if (now_ns - since_ns >= b->opt.stall_ns) {
            return cmi_error_set(
                err, CMI_ERR_TIMEOUT,
                "%s: process %lld makes the shared %s and has not got on for %" PRIu64
                " s: end it, or do not share",
                b->lock_path, (long long)seen.maker_pid, b->opt.what,
                (now_ns - since_ns) / 1000000000u);
        }
        if (polls == POLLS_BEFORE_LOG) {
            cmi_log(CMI_LOG_INFO, "waiting for process %lld, which makes the shared %s",
                    (long long)seen.maker_pid, b->opt.what);
        }
        if (b->opt.on_wait != NULL && polls % POLLS_PER_REPORT == 0 && seen.total_bytes > 0) {
            b->opt.on_wait(b->opt.wait_arg, seen.done_bytes, seen.total_bytes);
        }
        pause_poll();
    }
    return CMI_OK;
}

cmi_status cmi_shared_files_enter(cmi_shared_block *b, cmi_error *err)
{
    for (;;) {
        cmi_status st = open_lock_file(&b->lock_fd, b->lock_path, err);
        if (st == CMI_OK) {
            st = wait_turn(b, err);
        }
        if (st != CMI_OK) {
            return st;
        }
        if (is_at(b->lock_fd, b->lock_path)) {
            break;
        }
        close(b->lock_fd);
        b->lock_fd = -1;
    }
    if (!cmi_shared_set_lock(b->lock_fd, F_RDLCK, CMI_SHARED_USER_BYTE)) {
        return cmi_shared_file_error(err, "lock it", b->lock_path);
    }
    b->is_inside = true;
    return CMI_OK;
}

/* Where this is not a maker, byte 0 is another's for moments only: of an opener that will be a user
 * and remove the files in its turn, or of another that closes. */
void cmi_shared_files_leave(cmi_shared_block *b)
{
    if (!b->is_inside) {
        return;
    }
    bool has_turn = b->is_maker && !b->is_published;
    for (int polls = 0; !has_turn && polls < CLOSE_POLLS; polls++) {
        has_turn = cmi_shared_set_lock(b->lock_fd, F_WRLCK, CMI_SHARED_OPEN_BYTE);
        if (!has_turn) {
            pause_poll();
        }
    }
    if (has_turn) {
        (void)remove_unused(b->lock_fd, b->lock_path, b->data_path);
    }
}
