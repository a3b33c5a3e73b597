/* fabric/local/table.c - endpoints from taking to freeing, and the events; see local_internal.h. */
#include "fabric/local/local_internal.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

cmi_local_endpoint *cmi_local_find_endpoint(const cmi_local_fabric *f, cmi_endpoint_id id)
{
    if (id.idx >= f->base.opt.n_endpoints || id.gen == 0) {
        return NULL;
    }
    cmi_local_endpoint *ep = &f->endpoints[id.idx];
    return ep->gen == id.gen && ep->state != ENDPOINT_FREE ? ep : NULL;
}

uint32_t cmi_local_endpoint_idx(const cmi_local_fabric *f, const cmi_local_endpoint *ep)
{
    return (uint32_t)(ep - f->endpoints);
}

cmi_endpoint_id cmi_local_endpoint_id(const cmi_local_fabric *f, const cmi_local_endpoint *ep)
{
    return (cmi_endpoint_id){.idx = cmi_local_endpoint_idx(f, ep), .gen = ep->gen};
}

/* ---- taking and freeing ---- */

cmi_local_endpoint *cmi_local_take_endpoint(cmi_local_fabric *f)
{
    if (f->free_endpoint == CMI_LOCAL_NONE) {
        return NULL;
    }
    uint32_t idx = f->free_endpoint;
    cmi_local_endpoint *ep = &f->endpoints[idx];
    f->free_endpoint = ep->next;
    f->n_endpoints_used = CMI_MAX(f->n_endpoints_used, idx + 1);
    *ep = (cmi_local_endpoint){.gen = ep->gen,
                               .fd = -1,
                               .process_fd = -1,
                               .peer_bell_fd = -1,
                               .first_op = CMI_LOCAL_NONE,
                               .last_op = CMI_LOCAL_NONE};
    return ep;
}

static void close_fd(cmi_local_fabric *f, int *fd, bool is_watched)
{
    if (*fd < 0) {
        return;
    }
    if (is_watched) {
        cmi_watch_remove(&f->watch, *fd);
    }
    close(*fd);
    *fd = -1;
}

/* What a lost endpoint needs no more; its rings may still have messages, and somebody may be
 * writing to the peer's memory himself. */
static void hang_up(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    const bool was_forbidden = cmi_alloc_forbid(false); /* a loss is not part of anybody's step */
    close_fd(f, &ep->fd, true);
    close_fd(f, &ep->process_fd, true);
    close_fd(f, &ep->peer_bell_fd, false);
    cmi_share_release(ep->peer_share);
    ep->peer_share = NULL;
    ep->peer_header = NULL;
    f->n_blocked -= ep->is_blocked;
    ep->is_blocked = false;
    (void)cmi_alloc_forbid(was_forbidden);
}

static void drop_events(cmi_local_fabric *f, const cmi_local_endpoint *ep)
{
    uint32_t idx = cmi_local_endpoint_idx(f, ep);
    uint32_t before = CMI_LOCAL_NONE;
    for (uint32_t at = f->first_event_endpoint; at != CMI_LOCAL_NONE;
         before = at, at = f->endpoints[at].next_event) {
        if (at != idx) {
            continue;
        }
        if (before == CMI_LOCAL_NONE) {
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

void cmi_local_free_endpoint(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    drop_events(f, ep);
    hang_up(f, ep);
    cmi_local_forget_remotes(f, ep);
    cmi_share_release(ep->rings_share);
    ep->rings_share = NULL;
    ep->state = ENDPOINT_FREE;
    ep->gen = ep->gen == UINT32_MAX ? 1 : ep->gen + 1;
    ep->next = f->free_endpoint;
    f->free_endpoint = cmi_local_endpoint_idx(f, ep);
}

/* ---- events ---- */

static void add_event(cmi_local_fabric *f, cmi_local_endpoint *ep, bool *event)
{
    bool is_listed = ep->has_open_event || ep->has_lost_event;
    *event = true;
    if (is_listed) {
        return;
    }
    uint32_t idx = cmi_local_endpoint_idx(f, ep);
    ep->next_event = CMI_LOCAL_NONE;
    if (f->first_event_endpoint == CMI_LOCAL_NONE) {
        f->first_event_endpoint = idx;
    } else {
        f->endpoints[f->last_event_endpoint].next_event = idx;
    }
    f->last_event_endpoint = idx;
}

static void poll_endpoint(cmi_local_fabric *f, cmi_fabric_event *event_out)
{
    cmi_local_endpoint *ep = &f->endpoints[f->first_event_endpoint];
    *event_out = (cmi_fabric_event){.endpoint = cmi_local_endpoint_id(f, ep),
                                    .is_incoming = ep->is_incoming};
    if (ep->has_open_event) {
        ep->has_open_event = false;
        ep->is_shown = true;
        event_out->kind = CMI_EVENT_OPEN;
    } else {
        ep->has_lost_event = false;
        event_out->kind = CMI_EVENT_LOST;
        event_out->status = ep->status;
    }
    if (!ep->has_lost_event) {
        f->first_event_endpoint = ep->next_event;
        if (f->first_event_endpoint == CMI_LOCAL_NONE) {
            f->last_event_endpoint = CMI_LOCAL_NONE;
        }
    }
}

static void poll_op(cmi_local_fabric *f, cmi_fabric_event *event_out)
{
    uint32_t idx = f->first_done;
    cmi_local_op *op = &f->ops[idx];
    *event_out = (cmi_fabric_event){.kind = CMI_EVENT_DONE,
                                    .status = op->status,
                                    .endpoint = op->endpoint,
                                    .op = {.idx = idx, .gen = op->gen},
                                    .tag = op->tag};
    f->first_done = op->next;
    if (f->first_done == CMI_LOCAL_NONE) {
        f->last_done = CMI_LOCAL_NONE;
    }
    op->state = OP_FREE;
    op->gen = op->gen == UINT32_MAX ? 1 : op->gen + 1;
    op->next = f->free_op;
    f->free_op = idx;
}

bool cmi_local_poll(cmi_fabric *fabric, cmi_fabric_event *event_out)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    if (f->first_done != CMI_LOCAL_NONE) {
        poll_op(f, event_out);
        return true;
    }
    if (f->first_event_endpoint != CMI_LOCAL_NONE) {
        poll_endpoint(f, event_out);
        return true;
    }
    return false;
}

/* ---- beginnings and ends ---- */

void cmi_local_opened(cmi_local_fabric *f, cmi_local_endpoint *ep)
{
    ep->state = ENDPOINT_OPEN;
    ep->beat_ns = cmi_fabric_now_ns(&f->base);
    add_event(f, ep, &ep->has_open_event);
    cmi_local_announce(f, ep);
}

void cmi_local_lose(cmi_local_fabric *f, cmi_local_endpoint *ep, cmi_status why)
{
    if (ep->state == ENDPOINT_FREE || ep->state == ENDPOINT_LOST) {
        return;
    }
    bool was_open = ep->state == ENDPOINT_OPEN;
    if (ep->is_incoming && !was_open) {
        cmi_log(CMI_LOG_WARN, "fabric %s: a connection from \"%s\" came to nothing: %s", f->name,
                ep->peer_name, cmi_status_text(why));
        cmi_local_free_endpoint(f, ep);
        return;
    }
    if (was_open && why != CMI_ERR_CLOSED) {
        cmi_log(CMI_LOG_WARN, "fabric %s: lost its peer \"%s\": %s", f->name, ep->peer_name,
                cmi_status_text(why));
    }
    ep->state = ENDPOINT_LOST;
    ep->status = why;
    cmi_local_end_ops(f, ep, why);
    hang_up(f, ep);
    add_event(f, ep, &ep->has_lost_event);
}

void cmi_local_close(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_endpoint *ep = cmi_local_find_endpoint(f, id);
    if (ep == NULL) {
        return;
    }
    if (ep->state == ENDPOINT_OPEN) {
        cmi_local_news bye = {.kind = LOCAL_BYE};
        (void)cmi_local_tell(ep, &bye, NULL, 0); /* without it the peer takes us for dead */
    }
    cmi_local_end_ops(f, ep, CMI_ERR_CANCELLED);
    cmi_local_free_endpoint(f, ep);
}

void cmi_local_drop(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    cmi_local_endpoint *ep = cmi_local_find_endpoint(f, id);
    if (ep != NULL) {
        cmi_local_lose(f, ep, CMI_ERR_PEER);
    }
}

static cmi_status describe_status(const cmi_local_endpoint *ep)
{
    if (ep->state == ENDPOINT_LOST) {
        return ep->status;
    }
    return ep->state == ENDPOINT_OPEN ? CMI_OK : CMI_IN_PROGRESS;
}

cmi_status cmi_local_get_info(const cmi_fabric *fabric, cmi_endpoint_id id,
                              cmi_endpoint_info *info_out)
{
    const cmi_local_endpoint *ep = cmi_local_find_endpoint(cmi_local_of(fabric), id);
    if (ep == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    *info_out = (cmi_endpoint_info){.status = describe_status(ep),
                                    .is_incoming = ep->is_incoming,
                                    .message_bytes = ep->out.message_bytes,
                                    .n_ops = ep->n_ops};
    memcpy(info_out->peer_name, ep->peer_name, sizeof info_out->peer_name);
    return CMI_OK;
}
