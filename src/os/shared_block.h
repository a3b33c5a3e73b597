/* os/shared_block.h - a large block of bytes that one process of a host makes and others share.
 *
 * The block is a file of a memory file system (tmpfs, hugetlbfs), named by its key: the text of all
 * that the bytes depend on. The first process to open a key makes the bytes; those that come while
 * it does wait, and all others map what is there, read-only. The last one to close removes the
 * file.
 *
 * Beside the block lies a small file of the same name and ".lock". The kernel drops a process's
 * locks when it dies, however it dies, so nothing here can be left locked:
 *
 *   byte 0, for writing   while a process opens, makes or closes the block
 *   byte 1, for reading   by every process that has the block open
 *
 * The file of the block has no name until its bytes are complete: if its maker dies before that,
 * its memory is free again, and the next process that waits becomes the maker. Blocks that nobody
 * has open (all users were killed) are taken up by the next process that wants them, or else
 * removed by the next that opens any block in that directory.
 *
 * Only processes of one user share, and files that another user planted are refused. Thread: one at
 * a time, where nothing else is said. */
#ifndef CMI_OS_SHARED_BLOCK_H
#define CMI_OS_SHARED_BLOCK_H

#include "base/error.h"

#define CMI_SHARED_BLOCK_DEFAULT_DIR "/dev/shm"

enum { CMI_SHARED_BLOCK_MAX_KEY_BYTES = 1 << 20 };

typedef struct cmi_shared_block cmi_shared_block;

/* Called about every tenth of a second while another process makes the block. */
typedef void cmi_shared_block_wait_fn(void *arg, uint64_t done_bytes, uint64_t total_bytes);

typedef struct cmi_shared_block_options {
    const char *dir;  /* where a tmpfs or hugetlbfs is mounted */
    const char *what; /* names the block in error lines */
    const void *key;
    size_t key_bytes;  /* at most CMI_SHARED_BLOCK_MAX_KEY_BYTES */
    uint64_t n_bytes;  /* of the block */
    uint64_t stall_ns; /* a maker that has shown no progress for so long is no longer waited for */
    cmi_shared_block_wait_fn *on_wait; /* NULL: none */
    void *wait_arg;
} cmi_shared_block_options;

/* Opens the block. Where cmi_shared_block_is_maker then, its bytes are zeros without memory behind
 * them: reserve, fill, publish. Else they are complete and read-only.
 * CMI_ERR_INVALID: dir is not of a memory file system. CMI_ERR_NO_MEMORY: no room in it.
 * CMI_ERR_TIMEOUT: the maker is stuck. CMI_ERR_IO: the rest. */
CMI_NODISCARD cmi_status cmi_shared_block_open(cmi_shared_block **block_out,
                                               const cmi_shared_block_options *opt, cmi_error *err);

/* Of a maker that has not published: leaves nothing behind. NULL is fine. */
void cmi_shared_block_close(cmi_shared_block *block);

/* [n_bytes], beginning at a huge page if it is as large as one. */
void *cmi_shared_block_bytes(const cmi_shared_block *block);
bool cmi_shared_block_is_maker(const cmi_shared_block *block);

/* Maker: takes the memory of n_bytes at begin, where the calling thread's policy says
 * (os/topology.h). All must be taken before it is written, so that writing cannot fail. Any thread.
 * CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_shared_block_reserve(cmi_shared_block *block, uint64_t begin,
                                                  uint64_t n_bytes, cmi_error *err);

/* Maker: what those who wait see. */
void cmi_shared_block_progress(cmi_shared_block *block, uint64_t done_bytes, uint64_t total_bytes);
void cmi_shared_block_beat(cmi_shared_block *block); /* still alive; any thread */

/* Maker: the bytes are complete, and from now on read-only here too. */
CMI_NODISCARD cmi_status cmi_shared_block_publish(cmi_shared_block *block, cmi_error *err);

/* Bytes of host memory that the block of this key takes already: n_bytes when it is complete, what
 * its maker has reserved while there is one, n_bytes also on a hugetlbfs, whose pages are set aside
 * for it, and 0 otherwise. A guess: it may change at any moment. */
uint64_t cmi_shared_block_taken_bytes(const cmi_shared_block_options *opt);

#endif
