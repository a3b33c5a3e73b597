/* fabric/ucx/table.c - endpoints and links from taking to freeing, and the events; see
 * ucx_internal.h. */
#include "fabric/ucx/ucx_internal.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

cmi_ucx_link *cmi_ucx_find_link(const cmi_ucx_fabric *f, cmi_endpoint_id id)
{
    if (id.idx >= f->base.opt.n_endpoints || id.gen == 0) {
        return NULL;
    }
    const cmi_ucx_endpoint *ep = &f->endpoints[id.idx];
    return ep->gen == id.gen && ep->link != CMI_UCX_NONE ? &f->links[ep->link] : NULL;
}

uint32_t cmi_ucx_link_idx(const cmi_ucx_fabric *f, const cmi_ucx_link *link)
{
    return (uint32_t)(link - f->links);
}

/* ---- taking and freeing ---- */

bool cmi_ucx_may_have_room(const cmi_ucx_fabric *f)
{
    return f->free_endpoint != CMI_UCX_NONE;
}

cmi_ucx_link *cmi_ucx_take_link(cmi_ucx_fabric *f)
{
    if (f->free_endpoint == CMI_UCX_NONE || f->free_link == CMI_UCX_NONE) {
        return NULL;
    }
    uint32_t ep_idx = f->free_endpoint, idx = f->free_link;
    cmi_ucx_endpoint *ep = &f->endpoints[ep_idx];
    cmi_ucx_link *link = &f->links[idx];
    f->free_endpoint = ep->next;
    f->free_link = link->next;
    f->n_endpoints_used = CMI_MAX(f->n_endpoints_used, ep_idx + 1);
    f->n_links_used = CMI_MAX(f->n_links_used, idx + 1);
    const bool was_forbidden = cmi_alloc_forbid(false);
    *ep = (cmi_ucx_endpoint){.gen = ep->gen, .link = idx};
    *link = (cmi_ucx_link){.fabric = f,
                           .gen = link->gen,
                           .endpoint = ep_idx,
                           .id = {.idx = ep_idx, .gen = ep->gen},
                           .fd = -1,
                           .control = cmi_alloc(1, sizeof(cmi_ucx_control)),
                           .first_op = CMI_UCX_NONE,
                           .last_op = CMI_UCX_NONE,
                           .first_held = CMI_UCX_NONE,
                           .last_held = CMI_UCX_NONE};
    (void)cmi_alloc_forbid(was_forbidden);
    return link;
}

static void drop_events(cmi_ucx_fabric *f, uint32_t idx)
{
    cmi_ucx_endpoint *ep = &f->endpoints[idx];
    uint32_t before = CMI_UCX_NONE;
    for (uint32_t at = f->first_event_endpoint; at != CMI_UCX_NONE;
         before = at, at = f->endpoints[at].next_event) {
        if (at != idx) {
            continue;
        }
        if (before == CMI_UCX_NONE) {
            f->first_event_endpoint = ep->next_event;
        } else {
            f->endpoints[before].next_event = ep->next_event;
        }
        if (f->last_event_endpoint == idx) {
            f->last_event_endpoint = before;
        }
        return;
    }
}

void cmi_ucx_free_endpoint(cmi_ucx_fabric *f, cmi_ucx_link *link)
{
    uint32_t idx = link->endpoint;
    cmi_ucx_endpoint *ep = &f->endpoints[idx];
    drop_events(f, idx);
    ep->gen = ep->gen == UINT32_MAX ? 1 : ep->gen + 1;
    ep->link = CMI_UCX_NONE;
    ep->next = f->free_endpoint;
    f->free_endpoint = idx;
    link->endpoint = CMI_UCX_NONE;
}

void cmi_ucx_free_link(cmi_ucx_fabric *f, cmi_ucx_link *link)
{
    cmi_ucx_free_rings(link);
    const bool was_forbidden = cmi_alloc_forbid(false);
    cmi_free(link->control);
    (void)cmi_alloc_forbid(was_forbidden);
    uint32_t gen = link->gen == UINT32_MAX ? 1 : link->gen + 1;
    *link = (cmi_ucx_link){
        .fabric = f, .gen = gen, .endpoint = CMI_UCX_NONE, .fd = -1, .next = f->free_link};
    f->free_link = cmi_ucx_link_idx(f, link);
}

/* ---- events ---- */

static void add_event(cmi_ucx_fabric *f, uint32_t idx, bool is_open)
{
    cmi_ucx_endpoint *ep = &f->endpoints[idx];
    bool is_listed = ep->has_open_event || ep->has_lost_event;
    ep->has_open_event |= is_open;
    ep->has_lost_event |= !is_open;
    if (is_listed) {
        return;
    }
    ep->next_event = CMI_UCX_NONE;
    if (f->first_event_endpoint == CMI_UCX_NONE) {
        f->first_event_endpoint = idx;
    } else {
        f->endpoints[f->last_event_endpoint].next_event = idx;
    }
    f->last_event_endpoint = idx;
}

void cmi_ucx_add_open_event(cmi_ucx_fabric *f, const cmi_ucx_link *link)
{
    add_event(f, link->endpoint, true);
}

void cmi_ucx_add_lost_event(cmi_ucx_fabric *f, const cmi_ucx_link *link)
{
    add_event(f, link->endpoint, false);
}

static void poll_endpoint(cmi_ucx_fabric *f, cmi_fabric_event *event_out)
{
    cmi_ucx_endpoint *ep = &f->endpoints[f->first_event_endpoint];
    const cmi_ucx_link *link = &f->links[ep->link];
    *event_out = (cmi_fabric_event){.endpoint = link->id, .is_incoming = link->is_incoming};
    if (ep->has_open_event) {
        ep->has_open_event = false;
        ep->is_shown = true;
        event_out->kind = CMI_EVENT_OPEN;
    } else {
        ep->has_lost_event = false;
        event_out->kind = CMI_EVENT_LOST;
        event_out->status = link->status;
    }
    if (!ep->has_lost_event) {
        f->first_event_endpoint = ep->next_event;
        if (f->first_event_endpoint == CMI_UCX_NONE) {
            f->last_event_endpoint = CMI_UCX_NONE;
        }
    }
}

bool cmi_ucx_poll(cmi_fabric *fabric, cmi_fabric_event *event_out)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    if (cmi_ucx_poll_op(f, event_out)) {
        return true;
    }
    if (f->first_event_endpoint != CMI_UCX_NONE) {
        poll_endpoint(f, event_out);
        return true;
    }
    return false;
}

static cmi_status describe_status(const cmi_ucx_link *link)
{
    if (link->state == LINK_ENDED) {
        return link->status;
    }
    return link->state == LINK_OPEN ? CMI_OK : CMI_IN_PROGRESS;
}

cmi_status cmi_ucx_get_info(const cmi_fabric *fabric, cmi_endpoint_id id,
                            cmi_endpoint_info *info_out)
{
    const cmi_ucx_link *link = cmi_ucx_find_link(cmi_ucx_of(fabric), id);
    if (link == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    *info_out = (cmi_endpoint_info){.status = describe_status(link),
                                    .is_incoming = link->is_incoming,
                                    .message_bytes = link->message_bytes,
                                    .n_ops = link->n_ops};
    memcpy(info_out->peer_name, link->peer_name, sizeof info_out->peer_name);
    return CMI_OK;
}
