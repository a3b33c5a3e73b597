/* fabric/local/share.h - memory that several fabrics of this host have in hand at once.
 *
 * A share is known by a token. Fabrics of one process find each other's shares by it in a list and
 * use the same pointers; another process maps the share's file. What has no file is memory of a
 * caller, and can be used in its own process only: whoever touches it enters and leaves, so that
 * its owner can revoke it and then knows that nobody touches it. Shares with a file need none of
 * that, for they live as long as somebody holds them.
 *
 * Any thread; the list has a lock, which nothing holds while it waits. */
#ifndef CMI_FABRIC_LOCAL_SHARE_H
#define CMI_FABRIC_LOCAL_SHARE_H

#include <stdatomic.h>

#include "base/error.h"

typedef struct cmi_share_token {
    uint64_t words[2]; /* random */
} cmi_share_token;

typedef struct cmi_share {
    cmi_share_token token;
    uint8_t *bytes;
    uint64_t n_bytes;
    int fd; /* -1: memory of a caller, or of another process, whose file is not needed any more */
    bool is_file;
    bool is_listed;
    int64_t process; /* where bytes is */
    _Atomic uint32_t n_holders;
    _Atomic uint32_t n_inside; /* and the bit CMI_SHARE_REVOKED */
    struct cmi_share *next;
} cmi_share;

static const uint32_t CMI_SHARE_REVOKED = 1u << 31;

/* Zeroed memory with a file; what names it in error lines. CMI_ERR_NO_MEMORY, CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_share_create(cmi_share **share_out, size_t n_bytes, const char *what,
                                          cmi_error *err);

/* Memory of the caller. CMI_ERR_IO: the kernel has no randomness. */
CMI_NODISCARD cmi_status cmi_share_wrap(cmi_share **share_out, void *memory, size_t n_bytes,
                                        cmi_error *err);

/* Finds the share in this process, or maps its file. fd may be closed afterwards, -1: there is no
 * file. CMI_ERR_UNSUPPORTED: it is memory of another process. CMI_ERR_BAD_DATA: not what it should
 * be. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_share_open(cmi_share **share_out, const cmi_share_token *token, int fd,
                                        uint64_t n_bytes);

void cmi_share_release(cmi_share *share); /* NULL is fine */

/* Nobody touches a caller's memory through the share when it returns. Waits for those inside, who
 * are copying a piece. */
void cmi_share_revoke(cmi_share *share);

/* False: revoked. Acquire and release pair with the owner's look in cmi_share_revoke. */
static inline bool cmi_share_enter(cmi_share *share)
{
    if (share->is_file) {
        return true;
    }
    uint32_t old = atomic_fetch_add_explicit(&share->n_inside, 1, memory_order_acquire);
    if ((old & CMI_SHARE_REVOKED) != 0) {
        atomic_fetch_sub_explicit(&share->n_inside, 1, memory_order_relaxed);
        return false;
    }
    return true;
}

static inline void cmi_share_leave(cmi_share *share)
{
    if (!share->is_file) {
        atomic_fetch_sub_explicit(&share->n_inside, 1, memory_order_release);
    }
}

#endif
