#include "fabric/local/share.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/memory_file.h"
#include "os/random.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cmi_share *shares; /* of this process, under the lock */

/* That a peer comes or goes is not part of the step in which its owner hears of it. */
static cmi_share *new_share(size_t n_bytes)
{
    const bool was_forbidden = cmi_alloc_forbid(false);
    cmi_share *share = cmi_alloc(1, sizeof *share);
    (void)cmi_alloc_forbid(was_forbidden);
    share->n_bytes = n_bytes;
    share->fd = -1;
    share->process = getpid();
    atomic_init(&share->n_holders, 1);
    return share;
}

static void list_share(cmi_share *share)
{
    pthread_mutex_lock(&lock);
    share->is_listed = true;
    share->next = shares;
    shares = share;
    pthread_mutex_unlock(&lock);
}

static cmi_status make_token(cmi_share_token *token_out, cmi_error *err)
{
    if (!cmi_random_bytes(token_out, sizeof *token_out)) {
        return cmi_error_set(err, CMI_ERR_IO, "fabric: the kernel has no randomness");
    }
    return CMI_OK;
}

cmi_status cmi_share_create(cmi_share **share_out, size_t n_bytes, const char *what, cmi_error *err)
{
    cmi_share_token token;
    int fd = -1;
    void *bytes = NULL;
    cmi_status st = make_token(&token, err);
    if (st == CMI_OK) {
        st = cmi_memory_file_create(&fd, &bytes, n_bytes, what, err);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_share *share = new_share(n_bytes);
    share->token = token;
    share->fd = fd;
    share->bytes = bytes;
    share->is_file = true;
    list_share(share);
    *share_out = share;
    return CMI_OK;
}

cmi_status cmi_share_wrap(cmi_share **share_out, void *memory, size_t n_bytes, cmi_error *err)
{
    cmi_share_token token;
    cmi_status st = make_token(&token, err);
    if (st != CMI_OK) {
        return st;
    }
    cmi_share *share = new_share(n_bytes);
    share->token = token;
    share->bytes = memory;
    list_share(share);
    *share_out = share;
    return CMI_OK;
}

/* After a fork the list has shares of the parent. Their files are mapped here as well. */
static cmi_share *find_share(const cmi_share_token *token, uint64_t n_bytes)
{
    pthread_mutex_lock(&lock);
    cmi_share *share = shares;
    while (share != NULL && memcmp(&share->token, token, sizeof *token) != 0) {
        share = share->next;
    }
    bool is_usable = share != NULL && share->n_bytes == n_bytes &&
                     (share->is_file || share->process == getpid());
    if (is_usable) {
        atomic_fetch_add_explicit(&share->n_holders, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&lock);
    return is_usable ? share : NULL;
}

cmi_status cmi_share_open(cmi_share **share_out, const cmi_share_token *token, int fd,
                          uint64_t n_bytes)
{
    cmi_share *share = find_share(token, n_bytes);
    if (share != NULL) {
        *share_out = share;
        return CMI_OK;
    }
    if (fd < 0) {
        return CMI_ERR_UNSUPPORTED;
    }
    void *bytes = NULL;
    cmi_status st = cmi_memory_file_map(&bytes, fd, n_bytes, "a peer's region", NULL);
    if (st != CMI_OK) {
        return st;
    }
    share = new_share(n_bytes);
    share->token = *token;
    share->bytes = bytes;
    share->is_file = true;
    *share_out = share;
    return CMI_OK;
}

/* Called with the lock held. */
static void unlist_share(cmi_share *share)
{
    cmi_share **link = &shares;
    while (*link != share) {
        link = &(*link)->next;
    }
    *link = share->next;
}

void cmi_share_release(cmi_share *share)
{
    if (share == NULL) {
        return;
    }
    /* Under the lock, so that nobody finds a share whose last holder is leaving. */
    pthread_mutex_lock(&lock);
    bool is_last = atomic_fetch_sub_explicit(&share->n_holders, 1, memory_order_acq_rel) == 1;
    if (is_last && share->is_listed) {
        unlist_share(share);
    }
    pthread_mutex_unlock(&lock);
    if (!is_last) {
        return;
    }
    if (share->is_file) {
        cmi_memory_file_unmap(share->bytes, share->n_bytes);
    }
    if (share->fd >= 0) {
        close(share->fd);
    }
    const bool was_forbidden = cmi_alloc_forbid(false);
    cmi_free(share);
    (void)cmi_alloc_forbid(was_forbidden);
}

void cmi_share_revoke(cmi_share *share)
{
    if (share->is_file) {
        return;
    }
    atomic_fetch_or_explicit(&share->n_inside, CMI_SHARE_REVOKED, memory_order_acq_rel);
    while (atomic_load_explicit(&share->n_inside, memory_order_acquire) != CMI_SHARE_REVOKED) {
        sched_yield();
    }
}
