/* fabric/local/memory.c - own regions, the peers' regions, and rkeys; see local_internal.h.
 *
 * Regions are announced to every peer when they are made or the peer comes, with their files, so
 * that opening one needs no answer of anybody. A socket keeps the order of what is said, so an rkey
 * that has reached a peer by way of this fabric comes after its announcement. */
#include "fabric/local/local_internal.h"

#include <string.h>

#include "base/log.h"

/* ---- own regions ---- */

static cmi_local_region *find_region(const cmi_local_fabric *f, cmi_region_id id)
{
    if (id.idx >= f->base.opt.n_regions || id.gen == 0) {
        return NULL;
    }
    cmi_local_region *region = &f->regions[id.idx];
    return region->gen == id.gen && region->serial != 0 ? region : NULL;
}

static cmi_local_region *find_free_region(const cmi_local_fabric *f, cmi_error *err)
{
    for (uint32_t i = 0; i < f->base.opt.n_regions; i++) {
        if (f->regions[i].serial == 0) {
            return &f->regions[i];
        }
    }
    cmi_error_set(err, CMI_ERR_NO_CAPACITY, "fabric %s: more than %u regions", f->name,
                  f->base.opt.n_regions);
    return NULL;
}

static cmi_region_id enter_region(cmi_local_fabric *f, cmi_local_region *region, cmi_share *share)
{
    region->share = share;
    region->serial = ++f->last_serial;
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        if (f->endpoints[i].state == ENDPOINT_OPEN) {
            cmi_local_announce(f, &f->endpoints[i]);
        }
    }
    return (cmi_region_id){.idx = (uint32_t)(region - f->regions), .gen = region->gen};
}

cmi_status cmi_local_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                           cmi_region_id *region_out, cmi_error *err)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_region *region = find_free_region(f, err);
    if (region == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    cmi_share *share;
    cmi_status st = cmi_share_create(&share, n_bytes, what, err);
    if (st == CMI_OK) {
        *region_out = enter_region(f, region, share);
    }
    return st;
}

cmi_status cmi_local_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                              cmi_region_id *region_out, cmi_error *err)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_region *region = find_free_region(f, err);
    if (region == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    cmi_share *share;
    cmi_status st = cmi_share_wrap(&share, memory, n_bytes, err);
    if (st == CMI_OK) {
        *region_out = enter_region(f, region, share);
    }
    return st;
}

/* A peer that reads so little that this does not get through does not hear of it at all. */
static void tell_revoke(cmi_local_fabric *f, uint64_t serial)
{
    cmi_local_news news = {.kind = LOCAL_REVOKE, .serial = serial};
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        cmi_local_endpoint *ep = &f->endpoints[i];
        if (ep->state == ENDPOINT_OPEN && ep->told_serial >= serial &&
            cmi_local_tell(ep, &news, NULL, 0) != CMI_OK) {
            cmi_local_lose(f, ep, CMI_ERR_PEER);
        }
    }
}

void cmi_local_deregister(cmi_fabric *fabric, cmi_region_id id)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_region *region = find_region(f, id);
    if (region == NULL) {
        return;
    }
    tell_revoke(f, region->serial);
    cmi_share_revoke(region->share);
    cmi_share_release(region->share);
    region->share = NULL;
    region->serial = 0;
    region->gen = region->gen == UINT32_MAX ? 1 : region->gen + 1;
}

void *cmi_local_region_memory(cmi_fabric *fabric, cmi_region_id id)
{
    const cmi_local_region *region = find_region(cmi_local_of(fabric), id);
    return region == NULL ? NULL : region->share->bytes;
}

static cmi_local_region_news describe(const cmi_local_region *region)
{
    return (cmi_local_region_news){
        .serial = region->serial, .n_bytes = region->share->n_bytes, .token = region->share->token};
}

cmi_status cmi_local_get_rkey(cmi_fabric *fabric, cmi_region_id id, cmi_rkey *rkey_out)
{
    const cmi_local_fabric *f = cmi_local_of(fabric);
    const cmi_local_region *region = find_region(f, id);
    if (region == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    cmi_local_rkey rkey = {.fabric = f->id, .region = describe(region)};
    *rkey_out = (cmi_rkey){.n_bytes = sizeof rkey};
    memcpy(rkey_out->bytes, &rkey, sizeof rkey);
    return CMI_OK;
}

/* The region with the lowest serial above told_serial. */
static const cmi_local_region *find_untold(const cmi_local_fabric *f, uint64_t told_serial)
{
    const cmi_local_region *found = NULL;
    for (uint32_t i = 0; i < f->base.opt.n_regions; i++) {
        const cmi_local_region *region = &f->regions[i];
        if (region->serial > told_serial && (found == NULL || region->serial < found->serial)) {
            found = region;
        }
    }
    return found;
}

void cmi_local_announce(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    while (ep->told_serial < f->last_serial) {
        const cmi_local_region *region = find_untold(f, ep->told_serial);
        if (region == NULL) {
            ep->told_serial = f->last_serial;
            return;
        }
        cmi_local_news news = {.kind = LOCAL_REGION, .region = describe(region)};
        if (cmi_local_tell(ep, &news, &region->share->fd, region->share->is_file) != CMI_OK) {
            return; /* tried again when sockets are looked at, where a broken one is noticed */
        }
        ep->told_serial = region->serial;
    }
}

/* ---- the peers' regions ---- */

static cmi_local_remote *find_serial(const cmi_local_fabric *f, const cmi_local_endpoint *ep,
                                     uint64_t serial)
{
    uint32_t idx = cmi_local_endpoint_idx(f, ep);
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        if (f->remotes[i].endpoint == idx && f->remotes[i].serial == serial) {
            return &f->remotes[i];
        }
    }
    return NULL;
}

static cmi_local_remote *find_free_remote(const cmi_local_fabric *f)
{
    for (uint32_t i = 0; i < f->base.opt.n_remotes; i++) {
        if (f->remotes[i].endpoint == CMI_LOCAL_NONE) {
            return &f->remotes[i];
        }
    }
    return NULL;
}

static void free_remote(cmi_local_remote *remote)
{
    cmi_share_release(remote->share);
    remote->share = NULL;
    remote->endpoint = CMI_LOCAL_NONE;
    remote->gen = remote->gen == UINT32_MAX ? 1 : remote->gen + 1;
}

void cmi_local_hear_region(cmi_local_fabric *f, cmi_local_endpoint *ep,
                           const cmi_local_region_news *news, int fd)
{
    ep->heard_serial = news->serial;
    cmi_local_remote *remote = find_free_remote(f);
    if (remote == NULL) {
        if (!f->is_remotes_full) {
            cmi_log(CMI_LOG_WARN,
                    "fabric %s: its peers have more than %u regions; \"%s\" has one "
                    "that cannot be reached",
                    f->name, f->base.opt.n_remotes, ep->peer_name);
        }
        f->is_remotes_full = true;
        return;
    }
    cmi_share *share = NULL;
    cmi_status st = cmi_share_open(&share, &news->token, fd, news->n_bytes);
    if (st != CMI_OK && st != CMI_ERR_UNSUPPORTED) {
        cmi_log(CMI_LOG_WARN, "fabric %s: cannot map %llu bytes of \"%s\": %s", f->name,
                (unsigned long long)news->n_bytes, ep->peer_name, cmi_status_text(st));
        return;
    }
    remote->endpoint = cmi_local_endpoint_idx(f, ep);
    remote->serial = news->serial;
    remote->token = news->token;
    remote->n_bytes = news->n_bytes;
    remote->share = share;
}

void cmi_local_hear_revoke(cmi_local_fabric *f, const cmi_local_endpoint *ep, uint64_t serial)
{
    cmi_local_remote *remote = find_serial(f, ep, serial);
    if (remote != NULL) {
        free_remote(remote);
    }
}

void cmi_local_forget_remotes(cmi_local_fabric *f, const cmi_local_endpoint *ep)
{
    uint32_t idx = cmi_local_endpoint_idx(f, ep);
    for (uint32_t i = 0; i < f->base.opt.n_remotes && ep->heard_serial > 0; i++) {
        if (f->remotes[i].endpoint == idx) {
            free_remote(&f->remotes[i]);
        }
    }
}

/* ---- rkeys ---- */

static cmi_status why_unknown(const cmi_local_fabric *f, const cmi_local_endpoint *ep,
                              uint64_t serial)
{
    bool may_come = serial > ep->heard_serial || f->is_remotes_full;
    return may_come ? CMI_ERR_NO_CAPACITY : CMI_ERR_NOT_FOUND;
}

cmi_status cmi_local_open_rkey(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_rkey *rkey,
                               cmi_remote_id *remote_out)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_endpoint *ep = cmi_local_find_endpoint(f, id);
    cmi_local_rkey opened;
    if (rkey->n_bytes != sizeof opened) {
        return CMI_ERR_BAD_DATA;
    }
    memcpy(&opened, rkey->bytes, sizeof opened);
    if (ep != NULL && ep->state == ENDPOINT_OPEN && opened.region.serial > ep->heard_serial) {
        cmi_local_read_socket(f, ep); /* may lose it */
        ep = cmi_local_find_endpoint(f, id);
    }
    if (ep == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (ep->state != ENDPOINT_OPEN) {
        return ep->state == ENDPOINT_LOST ? ep->status : CMI_ERR_NO_CAPACITY;
    }
    if (memcmp(&opened.fabric, &ep->peer, sizeof ep->peer) != 0) {
        return CMI_ERR_NOT_FOUND;
    }
    const cmi_local_remote *remote = find_serial(f, ep, opened.region.serial);
    if (remote == NULL) {
        return why_unknown(f, ep, opened.region.serial);
    }
    if (memcmp(&remote->token, &opened.region.token, sizeof remote->token) != 0) {
        return CMI_ERR_NOT_FOUND;
    }
    if (remote->share == NULL) {
        return CMI_ERR_UNSUPPORTED;
    }
    *remote_out = (cmi_remote_id){.idx = (uint32_t)(remote - f->remotes), .gen = remote->gen};
    return CMI_OK;
}
