/* os/shared_block_internal.h - the files of a shared block and their locks (shared_block_files.c),
 * on which shared_block.c opens, makes and closes. */
#ifndef CMI_OS_SHARED_BLOCK_INTERNAL_H
#define CMI_OS_SHARED_BLOCK_INTERNAL_H

#include <stdatomic.h>
#include <sys/types.h>

#include "os/shared_block.h"

enum {
    CMI_SHARED_OPEN_BYTE = 0, /* of the lock file: held while opening, making, closing */
    CMI_SHARED_USER_BYTE = 1, /* held by every user */
    CMI_SHARED_PATH_BYTES = 512,
};

/* The content of a lock file. A maker writes it in place; the others read copies. */
typedef struct cmi_shared_control {
    char magic[16];
    uint64_t data_inode; /* of the complete block; 0: there is none */
    int64_t maker_pid;
    _Atomic uint64_t reserved_bytes;
    _Atomic uint64_t done_bytes, total_bytes;
    _Atomic uint64_t n_beats;
    uint64_t key_bytes;
    char key[];
} cmi_shared_control;

struct cmi_shared_block {
    cmi_shared_block_options opt; /* key is not kept */
    char lock_path[CMI_SHARED_PATH_BYTES], data_path[CMI_SHARED_PATH_BYTES];
    int lock_fd, data_fd; /* -1: not open */
    bool is_hugetlbfs;
    size_t unit;                 /* bytes of a page of the file system */
    cmi_shared_control *control; /* mapped, maker only */
    size_t control_bytes;
    uint8_t *bytes; /* mapped; NULL: not yet */
    size_t map_bytes;
    bool is_inside; /* holds byte 1 */
    bool is_maker;
    bool is_published;
};

/* Looks at the directory and fills in paths and sizes. */
CMI_NODISCARD cmi_status cmi_shared_files_find(cmi_shared_block *b, cmi_error *err);

/* Opens the lock file, waits for byte 0 as long as a maker gets on, and takes byte 1. */
CMI_NODISCARD cmi_status cmi_shared_files_enter(cmi_shared_block *b, cmi_error *err);

/* After enter: gives byte 1 back. The last one out removes both files. */
void cmi_shared_files_leave(cmi_shared_block *b);

/* Removes all blocks in the directory that nobody has open, but for this one. */
void cmi_shared_files_sweep(const cmi_shared_block *b);

/* F_RDLCK, F_WRLCK or F_UNLCK of one byte, without waiting. False: another has it. */
bool cmi_shared_set_lock(int fd, short type, int byte);
bool cmi_shared_is_locked_by_others(int fd, int byte);

/* fd is a file of our own that nobody else can write. */
bool cmi_shared_is_ours(int fd);

/* "PATH: cannot WHAT: " and errno's text. */
cmi_status cmi_shared_file_error(cmi_error *err, const char *what, const char *path);

#endif
