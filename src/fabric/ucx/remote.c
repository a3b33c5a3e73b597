/* fabric/ucx/remote.c - the peers' regions: what was heard of them, and their rkeys opened. See
 * memory.c for who says what when. */
#include "fabric/ucx/ucx_internal.h"

#include <string.h>

#include "base/log.h"

/* ---- which there are ---- */

cmi_ucx_remote *cmi_ucx_find_remote(const cmi_ucx_fabric *f, const cmi_ucx_link *link,
                                    cmi_remote_id id)
{
    if (id.idx >= f->base.opt.n_remotes || id.gen == 0) {
        return NULL;
    }
    cmi_ucx_remote *remote = &f->remotes[id.idx];
    bool is_it = remote->gen == id.gen && remote->link == cmi_ucx_link_idx(f, link) &&
                 !remote->is_revoked && remote->rkey != NULL;
    return is_it ? remote : NULL;
}

static cmi_ucx_remote *find_serial(const cmi_ucx_link *link, uint64_t serial)
{
    const cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = cmi_ucx_link_idx(f, link);
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        cmi_ucx_remote *remote = &f->remotes[i];
        if (remote->link == idx && remote->serial == serial && !remote->is_revoked) {
            return remote;
        }
    }
    return NULL;
}

static cmi_ucx_remote *add_serial(cmi_ucx_link *link, uint64_t serial)
{
    cmi_ucx_fabric *f = link->fabric;
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        cmi_ucx_remote *remote = &f->remotes[i];
        if (remote->link == CMI_UCX_NONE) {
            *remote = (cmi_ucx_remote){
                .gen = remote->gen, .link = cmi_ucx_link_idx(f, link), .serial = serial};
            return remote;
        }
    }
    if (!f->is_remotes_full) {
        cmi_log(CMI_LOG_WARN,
                "fabric %s: its peers have more than %u regions; \"%s\" has one "
                "that cannot be reached",
                f->name, f->base.opt.n_remotes, link->peer_name);
    }
    f->is_remotes_full = true;
    return NULL;
}

static void free_remote(cmi_ucx_remote *remote)
{
    if (remote->rkey != NULL) {
        ucp_rkey_destroy(remote->rkey);
    }
    uint32_t gen = remote->gen == UINT32_MAX ? 1 : remote->gen + 1;
    *remote = (cmi_ucx_remote){.gen = gen, .link = CMI_UCX_NONE};
}

void cmi_ucx_hear_region(cmi_ucx_link *link, uint64_t serial)
{
    link->heard_serial = CMI_MAX(link->heard_serial, serial);
    if (find_serial(link, serial) == NULL) {
        (void)add_serial(link, serial);
    }
}

static void revoke_done(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    (void)st; /* a failure ends the link */
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    link->n_revoking--;
    cmi_ucx_stir(link);
}

void cmi_ucx_hear_revoke(cmi_ucx_link *link, uint64_t serial, uint64_t seq)
{
    link->heard_serial = CMI_MAX(link->heard_serial, serial);
    cmi_ucx_remote *remote = find_serial(link, serial);
    if (remote != NULL && remote->rkey == NULL) {
        free_remote(remote);
    } else if (remote != NULL) {
        remote->is_revoked = true;
    }
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = revoke_done,
                                 .user_data = link};
    if (UCS_PTR_IS_PTR(ucp_ep_flush_nbx(link->ep, &param))) {
        link->n_revoking++;
        cmi_ucx_count_pending(link, 1);
    }
    link->revoke_heard = seq;
    link->owes_revoked = true;
    cmi_ucx_stir(link);
}

static void free_revoked(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = cmi_ucx_link_idx(f, link);
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        if (f->remotes[i].link == idx && f->remotes[i].is_revoked) {
            free_remote(&f->remotes[i]);
        }
    }
}

void cmi_ucx_run_revoked(cmi_ucx_link *link)
{
    if (!link->owes_revoked || link->n_revoking > 0 || link->state != LINK_OPEN) {
        return;
    }
    cmi_ucx_news news = {.kind = UCX_REVOKED, .revoke.seq = link->revoke_heard};
    if (cmi_ucx_tell(link, &news) == CMI_OK) {
        link->owes_revoked = false;
        free_revoked(link);
    } else {
        cmi_ucx_stir(link);
    }
}

void cmi_ucx_forget_remotes(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    uint32_t idx = cmi_ucx_link_idx(f, link);
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        if (f->remotes[i].link == idx) {
            free_remote(&f->remotes[i]);
        }
    }
}

/* ---- rkeys ---- */

static cmi_status open_known(cmi_ucx_link *link, const cmi_ucx_rkey *rkey, const uint8_t *packed,
                             cmi_ucx_remote *remote)
{
    ucs_status_t st = ucp_ep_rkey_unpack(link->ep, packed, &remote->rkey);
    if (st != UCS_OK) {
        remote->rkey = NULL;
        return st == UCS_ERR_NO_MEMORY ? CMI_ERR_NO_MEMORY : CMI_ERR_UNSUPPORTED;
    }
    void *mapped;
    remote->is_carried =
        !link->has_rdma && ucp_rkey_ptr(remote->rkey, rkey->address, &mapped) != UCS_OK;
    remote->address = rkey->address;
    remote->n_bytes = rkey->n_bytes;
    return CMI_OK;
}

/* The news of a later region may still be on the control connection. */
static cmi_status find_or_add(cmi_ucx_link *link, uint64_t serial, cmi_ucx_remote **remote_out)
{
    *remote_out = find_serial(link, serial);
    if (*remote_out != NULL) {
        return CMI_OK;
    }
    if (serial <= link->heard_serial) {
        return link->fabric->is_remotes_full ? CMI_ERR_NO_CAPACITY : CMI_ERR_NOT_FOUND;
    }
    *remote_out = add_serial(link, serial);
    return *remote_out == NULL ? CMI_ERR_NO_CAPACITY : CMI_OK;
}

cmi_status cmi_ucx_open_rkey(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_rkey *rkey,
                             cmi_remote_id *remote_out)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_link *link = cmi_ucx_find_link(f, id);
    cmi_ucx_rkey opened;
    uint8_t packed[CMI_UCX_MAX_PACKED];
    if (!cmi_ucx_rkey_read(rkey, &opened, packed)) {
        return CMI_ERR_BAD_DATA;
    }
    if (link == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (link->state != LINK_OPEN) {
        return link->state == LINK_ENDED ? link->status : CMI_ERR_NO_CAPACITY;
    }
    cmi_ucx_read_control(link); /* it may have been revoked; may lose the link */
    if (link->state != LINK_OPEN) {
        return link->status;
    }
    if (memcmp(&opened.fabric, &link->peer, sizeof link->peer) != 0) {
        return CMI_ERR_NOT_FOUND;
    }
    cmi_ucx_remote *remote;
    cmi_status st = find_or_add(link, opened.serial, &remote);
    if (st == CMI_OK && remote->rkey == NULL) {
        st = open_known(link, &opened, packed, remote);
    }
    if (st == CMI_OK) {
        *remote_out = (cmi_remote_id){.idx = (uint32_t)(remote - f->remotes), .gen = remote->gen};
    }
    return st;
}
