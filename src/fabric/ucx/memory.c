/* fabric/ucx/memory.c - own regions, the peers' regions, and rkeys; see ucx_internal.h.
 *
 * An rkey has all that UCX needs. Peers hear on the control connection of every region (its serial
 * only) and of its end, so that they can tell an rkey of the past from one whose news is on its
 * way. A region's memory goes when every peer has flushed what it had under way there and said so.
 */
#include "fabric/ucx/ucx_internal.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"

static const uint64_t REVOKE_NS = 1000000000u; /* a peer that has not let go by then is lost */
enum { PAGE_BYTES = 4096 };

/* ---- own regions ---- */

static cmi_ucx_region *find_region(const cmi_ucx_fabric *f, cmi_region_id id)
{
    if (id.idx >= 2 * f->base.opt.n_regions || id.gen == 0) {
        return NULL;
    }
    cmi_ucx_region *region = &f->regions[id.idx];
    return region->gen == id.gen && region->state == REGION_LIVE ? region : NULL;
}

static cmi_ucx_region *find_free_region(cmi_ucx_fabric *f, cmi_error *err)
{
    cmi_ucx_bury_regions(f);
    for (uint32_t i = 0; f->n_regions < f->base.opt.n_regions && i < 2 * f->base.opt.n_regions;
         i++) {
        if (f->regions[i].state == REGION_FREE) {
            return &f->regions[i];
        }
    }
    cmi_error_set(err, CMI_ERR_NO_CAPACITY, "fabric %s: more than %u regions", f->name,
                  f->base.opt.n_regions);
    return NULL;
}

static cmi_status map(cmi_ucx_fabric *f, cmi_ucx_region *region, void *memory, size_t n_bytes)
{
    ucp_mem_map_params_t param = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                UCP_MEM_MAP_PARAM_FIELD_FLAGS,
                                  .address = memory,
                                  .length = n_bytes,
                                  .flags = memory == NULL ? UCP_MEM_MAP_ALLOCATE : 0};
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};
    if (ucp_mem_map(f->context, &param, &region->mem) != UCS_OK) {
        return CMI_ERR_NO_MEMORY;
    }
    if (ucp_mem_query(region->mem, &attr) != UCS_OK) {
        ucp_mem_unmap(f->context, region->mem);
        return CMI_ERR_IO;
    }
    region->is_callers = memory != NULL;
    region->bytes = memory == NULL ? attr.address : memory;
    region->n_bytes = n_bytes;
    return CMI_OK;
}

static cmi_region_id enter_region(cmi_ucx_fabric *f, cmi_ucx_region *region)
{
    region->state = REGION_LIVE;
    region->serial = ++f->last_serial;
    f->n_regions++;
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        if (f->links[i].state == LINK_OPEN) {
            cmi_ucx_announce(&f->links[i]);
        }
    }
    return (cmi_region_id){.idx = (uint32_t)(region - f->regions), .gen = region->gen};
}

cmi_status cmi_ucx_alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                         cmi_region_id *region_out, cmi_error *err)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    if (n_bytes == 0 || n_bytes > SIZE_MAX - PAGE_BYTES) {
        return cmi_error_set(err, CMI_ERR_INVALID, "fabric: %zu bytes for %s", n_bytes, what);
    }
    cmi_ucx_region *region = find_free_region(f, err);
    if (region == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    cmi_status st = map(f, region, NULL, CMI_ROUND_UP(n_bytes, (size_t)PAGE_BYTES));
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "fabric %s: UCX has no %zu bytes for %s", f->name, n_bytes,
                             what);
    }
    region->n_bytes = n_bytes;
    memset(region->bytes, 0, n_bytes); /* takes the pages where this thread's policy says */
    *region_out = enter_region(f, region);
    return CMI_OK;
}

cmi_status cmi_ucx_register(cmi_fabric *fabric, void *memory, size_t n_bytes,
                            cmi_region_id *region_out, cmi_error *err)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_region *region = find_free_region(f, err);
    if (region == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    cmi_status st = map(f, region, memory, n_bytes);
    if (st != CMI_OK) {
        return cmi_error_set(err, st, "fabric %s: UCX cannot register %zu bytes", f->name, n_bytes);
    }
    *region_out = enter_region(f, region);
    return CMI_OK;
}

/* ---- their ends ---- */

static bool is_in_reach(const cmi_ucx_link *link, const cmi_ucx_region *region)
{
    if (link->state == LINK_WIRES || link->state == LINK_OPEN) {
        return link->revoke_acked < region->revoke_seq;
    }
    return link->ep != NULL || link->is_closing;
}

static bool is_anybody_in_reach(const cmi_ucx_fabric *f, const cmi_ucx_region *region)
{
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        const cmi_ucx_link *link = &f->links[i];
        if (link->state >= LINK_WIRES && is_in_reach(link, region)) {
            return true;
        }
    }
    return false;
}

static void free_region(cmi_ucx_fabric *f, cmi_ucx_region *region)
{
    f->n_dying -= region->state == REGION_DYING;
    f->n_regions -= region->state == REGION_LIVE;
    ucp_mem_unmap(f->context, region->mem);
    *region = (cmi_ucx_region){.gen = region->gen == UINT32_MAX ? 1 : region->gen + 1};
}

void cmi_ucx_bury_regions(cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; f->n_dying > 0 && i < 2 * f->base.opt.n_regions; i++) {
        cmi_ucx_region *region = &f->regions[i];
        if (region->state == REGION_DYING && !is_anybody_in_reach(f, region)) {
            free_region(f, region);
        }
    }
}

void cmi_ucx_free_regions(cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; f->regions != NULL && i < 2 * f->base.opt.n_regions; i++) {
        if (f->regions[i].state != REGION_FREE) {
            free_region(f, &f->regions[i]);
        }
    }
}

static void tell_revoke(cmi_ucx_fabric *f, const cmi_ucx_region *region)
{
    cmi_ucx_news news = {.kind = UCX_REVOKE,
                         .revoke = {.serial = region->serial, .seq = region->revoke_seq}};
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        cmi_ucx_link *link = &f->links[i];
        bool hears = link->state == LINK_WIRES || link->state == LINK_OPEN;
        if (hears && cmi_ucx_tell(link, &news) != CMI_OK) {
            cmi_ucx_lose(link, CMI_ERR_PEER);
        }
    }
}

static void lose_those_in_reach(cmi_ucx_fabric *f, const cmi_ucx_region *region)
{
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        if (is_in_reach(&f->links[i], region)) { /* those that end are left to it */
            cmi_ucx_lose(&f->links[i], CMI_ERR_PEER);
        }
    }
}

/* The caller may use or free its memory when this returns, so peers are waited for, as long as
 * they may take and once more for UCX to break with those that took longer. */
static void wait_for_peers(cmi_ucx_fabric *f, const cmi_ucx_region *region)
{
    for (int round = 0; round < 2; round++) {
        uint64_t begin_ns = cmi_fabric_now_ns(&f->base);
        while (region->state == REGION_DYING) {
            uint64_t now_ns = cmi_fabric_now_ns(&f->base);
            if (now_ns - begin_ns >= REVOKE_NS) {
                break;
            }
            ucp_worker_progress(f->worker);
            cmi_ucx_look(f, now_ns);
        }
        if (region->state != REGION_DYING) {
            return;
        }
        lose_those_in_reach(f, region);
    }
}

void cmi_ucx_deregister(cmi_fabric *fabric, cmi_region_id id)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_region *region = find_region(f, id);
    if (region == NULL) {
        return;
    }
    region->state = REGION_DYING;
    region->revoke_seq = ++f->last_revoke_seq;
    f->n_regions--;
    f->n_dying++;
    tell_revoke(f, region);
    cmi_ucx_bury_regions(f);
    if (region->is_callers) {
        wait_for_peers(f, region);
    }
}

void *cmi_ucx_region_memory(cmi_fabric *fabric, cmi_region_id id)
{
    const cmi_ucx_region *region = find_region(cmi_ucx_of(fabric), id);
    return region == NULL ? NULL : region->bytes;
}

_Atomic uint64_t *cmi_ucx_find_word(cmi_ucx_fabric *f, uint64_t serial, uint64_t offset)
{
    for (uint32_t i = 0; i < 2 * f->base.opt.n_regions; i++) {
        const cmi_ucx_region *region = &f->regions[i];
        if (region->state == REGION_LIVE && region->serial == serial) {
            bool is_inside = offset <= region->n_bytes && 8 <= region->n_bytes - offset;
            uint8_t *word = region->bytes + offset;
            bool is_aligned = (uintptr_t)word % sizeof(uint64_t) == 0;
            return is_inside && is_aligned ? (_Atomic uint64_t *)(void *)word : NULL;
        }
    }
    return NULL;
}

cmi_status cmi_ucx_get_rkey(cmi_fabric *fabric, cmi_region_id id, cmi_rkey *rkey_out)
{
    const cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    const cmi_ucx_region *region = find_region(f, id);
    void *packed;
    size_t n_packed;
    if (region == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (ucp_rkey_pack(f->context, region->mem, &packed, &n_packed) != UCS_OK) {
        return CMI_ERR_IO;
    }
    cmi_status st = CMI_ERR_TOO_LARGE;
    if (n_packed <= CMI_UCX_MAX_PACKED) {
        cmi_ucx_rkey rkey = {.fabric = f->id,
                             .serial = region->serial,
                             .address = (uintptr_t)region->bytes,
                             .n_bytes = region->n_bytes,
                             .n_packed = (uint32_t)n_packed};
        cmi_ucx_rkey_write(rkey_out, &rkey, packed);
        st = CMI_OK;
    } else {
        cmi_log(CMI_LOG_ERROR,
                "fabric %s: an rkey over all devices has %zu bytes: name fewer in "
                "UCX_NET_DEVICES",
                f->name, n_packed);
    }
    ucp_rkey_buffer_release(packed);
    return st;
}

/* The region with the lowest serial above told_serial. */
static const cmi_ucx_region *find_untold(const cmi_ucx_fabric *f, uint64_t told_serial)
{
    const cmi_ucx_region *found = NULL;
    for (uint32_t i = 0; i < 2 * f->base.opt.n_regions; i++) {
        const cmi_ucx_region *region = &f->regions[i];
        if (region->state == REGION_LIVE && region->serial > told_serial &&
            (found == NULL || region->serial < found->serial)) {
            found = region;
        }
    }
    return found;
}

void cmi_ucx_announce(cmi_ucx_link *link)
{
    const cmi_ucx_fabric *f = link->fabric;
    while (link->told_serial < f->last_serial) {
        const cmi_ucx_region *region = find_untold(f, link->told_serial);
        if (region == NULL) {
            link->told_serial = f->last_serial;
            return;
        }
        cmi_ucx_news news = {.kind = UCX_REGION, .serial = region->serial};
        if (cmi_ucx_tell(link, &news) != CMI_OK) {
            return; /* tried again at the next look, where a broken connection is noticed */
        }
        link->told_serial = region->serial;
    }
}

/* ---- the peers' regions ---- */

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
