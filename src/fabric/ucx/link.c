/* fabric/ucx/link.c - a UCX endpoint from its making until UCX has let go; see ucx_internal.h. */
#include "fabric/ucx/ucx_internal.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const uint64_t LEAVE_NS = 1000000000u; /* how long a farewell may take */
static const uint64_t CAUSE_NS = 50000000u;   /* from UCX's trouble to what the connection says */

cmi_status cmi_ucx_status(ucs_status_t st)
{
    switch (st) {
    case UCS_OK:
        return CMI_OK;
    case UCS_INPROGRESS:
        return CMI_IN_PROGRESS;
    case UCS_ERR_NO_MEMORY:
        return CMI_ERR_NO_MEMORY;
    default:
        return CMI_ERR_PEER;
    }
}

/* ---- making ---- */

static void hear_failure(void *arg, ucp_ep_h ep, ucs_status_t st)
{
    cmi_ucx_link *link = arg;
    (void)ep;
    (void)st;
    link->has_ucx_failed = true;
    cmi_ucx_stir(link);
}

static void wired(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    link->is_wired = st == UCS_OK;
    link->has_ucx_failed |= st != UCS_OK;
    cmi_ucx_stir(link);
}

cmi_status cmi_ucx_wire(cmi_ucx_link *link, const cmi_ucx_entrance *entrance)
{
    ucp_ep_params_t param = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                           UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                                           UCP_EP_PARAM_FIELD_ERR_HANDLER,
                             .address = (const ucp_address_t *)(const void *)entrance->worker,
                             .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                             .err_handler = {.cb = hear_failure, .arg = link}};
    link->peer_cookie = entrance->cookie;
    link->peer_link = entrance->link;
    if (ucp_ep_create(link->fabric->worker, &param, &link->ep) != UCS_OK) {
        link->ep = NULL;
        return CMI_ERR_PEER;
    }
    link->state = LINK_WIRES;
    link->revoke_acked = link->fabric->last_revoke_seq;
    cmi_ucx_send_note(link); /* so that there is something to flush: lanes connect when used */
    ucp_request_param_t flush = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = wired,
                                 .user_data = link};
    ucs_status_ptr_t request = ucp_ep_flush_nbx(link->ep, &flush);
    if (UCS_PTR_IS_PTR(request)) {
        cmi_ucx_count_pending(link, 1);
    } else {
        link->is_wired = UCS_PTR_RAW_STATUS(request) == UCS_OK;
        link->has_ucx_failed |= !link->is_wired;
    }
    cmi_ucx_stir(link);
    return CMI_OK;
}

static void run_wiring(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    if (link->is_wired && !link->has_told_wired) {
        cmi_ucx_announce(link);
        cmi_ucx_news news = {.kind = UCX_WIRED, .serial = f->last_serial};
        link->has_told_wired =
            link->told_serial == f->last_serial && cmi_ucx_tell(link, &news) == CMI_OK;
    }
    if (link->has_told_wired && link->has_heard_wired) {
        link->state = LINK_OPEN;
        cmi_ucx_look_at_lanes(link);
        link->beat_ns = cmi_fabric_now_ns(&f->base);
        cmi_ucx_add_open_event(f, link);
        cmi_ucx_announce(link);
    }
}

/* ---- ending ---- */

static void hang_up(cmi_ucx_link *link)
{
    if (link->fd >= 0) {
        cmi_watch_remove(&link->fabric->watch, link->fd);
        close(link->fd);
        link->fd = -1;
    }
}

static void closed(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    (void)st;
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    link->is_closing = false;
    cmi_ucx_stir(link);
}

/* Everything that UCX has of the link comes back soon. */
static void break_ucx(cmi_ucx_link *link)
{
    if (link->ep == NULL) {
        return;
    }
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = UCP_EP_CLOSE_FLAG_FORCE,
                                 .cb.send = closed,
                                 .user_data = link};
    ucp_ep_h ep = link->ep;
    link->ep = NULL;
    if (UCS_PTR_IS_PTR(ucp_ep_close_nbx(ep, &param))) {
        link->is_closing = true;
        cmi_ucx_count_pending(link, 1);
    }
}

void cmi_ucx_lose(cmi_ucx_link *link, cmi_status why)
{
    cmi_ucx_fabric *f = link->fabric;
    if (link->state == LINK_FREE || link->state >= LINK_LEAVES) {
        return;
    }
    bool was_open = link->state == LINK_OPEN;
    link->state = LINK_ENDED;
    link->status = why;
    hang_up(link);
    break_ucx(link);
    cmi_ucx_end_ops(link);
    cmi_ucx_stir(link);
    if (link->is_incoming && !was_open) {
        cmi_log(CMI_LOG_WARN, "fabric %s: a connection from \"%s\" came to nothing: %s", f->name,
                link->peer_name, cmi_status_text(why));
        cmi_ucx_free_endpoint(f, link);
        return;
    }
    if (was_open && why != CMI_ERR_CLOSED) {
        cmi_log(CMI_LOG_WARN, "fabric %s: lost its peer \"%s\": %s", f->name, link->peer_name,
                cmi_status_text(why));
    }
    cmi_ucx_add_lost_event(f, link);
}

void cmi_ucx_drop(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_ucx_link *link = cmi_ucx_find_link(cmi_ucx_of(fabric), id);
    if (link != NULL) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    }
}

static void flushed(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    (void)st;
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    link->is_wired = false; /* of a link that leaves: UCX has sent all */
    cmi_ucx_stir(link);
}

/* Says how many messages are to be waited for, and lets UCX send them. */
static void leave(cmi_ucx_link *link)
{
    cmi_ucx_news bye = {.kind = UCX_BYE, .n_numbered = link->seq_out};
    ucp_request_param_t param = {.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = flushed,
                                 .user_data = link};
    link->state = LINK_LEAVES;
    link->deadline_ns = cmi_fabric_after_ns(&link->fabric->base, LEAVE_NS);
    (void)cmi_ucx_tell(link, &bye); /* without it the peer takes us for dead */
    if (UCS_PTR_IS_PTR(ucp_ep_flush_nbx(link->ep, &param))) {
        cmi_ucx_count_pending(link, 1);
    } else {
        link->is_wired = false;
    }
}

void cmi_ucx_close(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_link *link = cmi_ucx_find_link(f, id);
    if (link == NULL) {
        return;
    }
    cmi_ucx_free_endpoint(f, link);
    if (link->state != LINK_ENDED) {
        link->status = CMI_ERR_CANCELLED;
        if (link->state == LINK_OPEN) {
            leave(link);
        } else {
            link->state = LINK_ENDED;
            hang_up(link);
            break_ucx(link);
        }
        cmi_ucx_end_ops(link);
    }
    cmi_ucx_stir(link);
}

/* ---- acting on what was noted ---- */

static void run_open(cmi_ucx_link *link, uint64_t now_ns)
{
    if (link->has_ucx_failed && link->trouble_ns == 0) {
        link->trouble_ns = now_ns;
        cmi_ucx_read_control(link); /* a farewell may be the cause */
        if (link->state != LINK_OPEN) {
            return;
        }
    }
    bool has_all = link->seq_in >= link->bye_seq || link->has_ucx_failed ||
                   now_ns - CMI_MIN(now_ns, link->bye_ns) >= LEAVE_NS;
    if (link->trouble != CMI_OK) {
        cmi_ucx_lose(link, link->trouble);
    } else if (link->has_heard_bye && has_all) {
        cmi_ucx_lose(link, CMI_ERR_CLOSED);
    } else if (link->has_ucx_failed && now_ns - CMI_MIN(now_ns, link->trouble_ns) >= CAUSE_NS) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    } else {
        cmi_ucx_run_carried(link);
        cmi_ucx_run_ops(link);
        cmi_ucx_run_revoked(link);
        cmi_ucx_run_notes(link);
    }
}

static void run_leaving(cmi_ucx_link *link, uint64_t now_ns)
{
    bool is_over = now_ns >= link->deadline_ns || link->has_ucx_failed;
    if (is_over || (!link->is_wired && link->fd < 0)) {
        link->state = LINK_ENDED;
        hang_up(link);
        break_ucx(link);
    }
}

/* UCX has let go of what it had: buffers, rkeys, and when nobody has a handle, the link. */
static void run_ended(cmi_ucx_link *link)
{
    if (link->n_pending > 0) {
        return;
    }
    if (!link->has_let_go) {
        link->has_let_go = true;
        cmi_ucx_forget_remotes(link);
    }
    if (link->endpoint == CMI_UCX_NONE && link->first_op == CMI_UCX_NONE) {
        cmi_ucx_free_link(link->fabric, link);
    }
}

void cmi_ucx_run_link(cmi_ucx_link *link, uint64_t now_ns)
{
    link->is_stirred = false;
    if (link->state == LINK_WIRES) {
        run_wiring(link); /* first: a peer that was open may have left by now */
    }
    if (link->state == LINK_WIRES && (link->has_ucx_failed || link->trouble != CMI_OK)) {
        cmi_ucx_lose(link, CMI_ERR_PEER);
    }
    if (link->state == LINK_OPEN) {
        run_open(link, now_ns);
    }
    if (link->state == LINK_LEAVES) {
        run_leaving(link, now_ns);
    }
    if (link->state == LINK_ENDED) {
        run_ended(link);
    }
}

void cmi_ucx_run_links(cmi_ucx_fabric *f, uint64_t now_ns)
{
    f->is_stirred = false;
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        if (f->links[i].is_stirred) {
            cmi_ucx_run_link(&f->links[i], now_ns);
        }
    }
    cmi_ucx_bury_regions(f);
}
