/* fabric/ucx/memory.c - own regions and their rkeys; see ucx_internal.h.
 *
 * An rkey has all that UCX needs. Peers hear on the control connection of every region (its serial
 * only) and of its end, so that they can tell an rkey of the past from one whose news is on its
 * way (remote.c). A region's memory goes when every peer has flushed what it had under way there
 * and said so. */
#include "fabric/ucx/ucx_internal.h"

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
        return link->revoke_acked < region->revoke_seq || cmi_ucx_is_serving(link, region->serial);
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

uint8_t *cmi_ucx_find_bytes(const cmi_ucx_fabric *f, uint64_t serial, uint64_t offset,
                            uint64_t n_bytes)
{
    for (uint32_t i = 0; i < 2 * f->base.opt.n_regions; i++) {
        const cmi_ucx_region *region = &f->regions[i];
        if (region->state == REGION_LIVE && region->serial == serial) {
            bool is_inside = offset <= region->n_bytes && n_bytes <= region->n_bytes - offset;
            return is_inside ? region->bytes + offset : NULL;
        }
    }
    return NULL;
}

_Atomic uint64_t *cmi_ucx_find_word(const cmi_ucx_fabric *f, uint64_t serial, uint64_t offset)
{
    uint8_t *word = cmi_ucx_find_bytes(f, serial, offset, sizeof(uint64_t));
    bool is_aligned = (uintptr_t)word % sizeof(uint64_t) == 0;
    return is_aligned ? (_Atomic uint64_t *)(void *)word : NULL;
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
