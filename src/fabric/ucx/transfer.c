/* fabric/ucx/transfer.c - put, get, signal, flush; see ucx_internal.h.
 *
 * Puts and gets go to UCX at once, or are carried (carry.c). A signal with puts before it waits for
 * a flush of UCX, or until it has all that is carried, and all signals behind it wait too; puts
 * behind it do not. A flush ends when it is the oldest operation, UCX has flushed, and the peer has
 * taken in the signals and what was carried. */
#include "fabric/ucx/ucx_internal.h"

/* ---- what was given ---- */

static cmi_status find_open(const cmi_ucx_fabric *f, cmi_endpoint_id id, cmi_ucx_link **link_out)
{
    cmi_ucx_link *link = cmi_ucx_find_link(f, id);
    *link_out = link;
    if (link == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (CMI_LIKELY(link->state == LINK_OPEN)) {
        return CMI_OK;
    }
    return link->state == LINK_ENDED ? link->status : CMI_ERR_NO_CAPACITY;
}

static cmi_status check_remote(const cmi_ucx_fabric *f, const cmi_ucx_link *link,
                               const cmi_transfer *t)
{
    if (t->kind == CMI_OP_FLUSH) {
        return CMI_OK;
    }
    const cmi_ucx_remote *remote = cmi_ucx_find_remote(f, link, t->remote.id);
    if (remote == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    bool is_inside =
        t->remote.offset <= remote->n_bytes && t->n_bytes <= remote->n_bytes - t->remote.offset;
    return is_inside ? CMI_OK : CMI_ERR_INVALID;
}

cmi_status cmi_ucx_check(const cmi_fabric *fabric, cmi_endpoint_id id, const cmi_transfer *transfer)
{
    const cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_link *link;
    cmi_status st = find_open(f, id, &link);
    return st == CMI_OK ? check_remote(f, link, transfer) : st;
}

static cmi_status take_failure(cmi_ucx_link *link)
{
    cmi_status st = link->failure;
    link->failure = CMI_OK;
    return st;
}

cmi_status cmi_ucx_take_failure(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_ucx_link *link = cmi_ucx_find_link(cmi_ucx_of(fabric), id);
    if (link == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    cmi_status st = take_failure(link);
    return link->state == LINK_ENDED ? link->status : st;
}

/* ---- what UCX says ---- */

static cmi_ucx_link *link_of(cmi_ucx_op *op)
{
    return &op->fabric->links[op->link];
}

cmi_status cmi_ucx_settle_request(cmi_ucx_link *link, cmi_ucx_op *op, ucs_status_t st)
{
    op->is_pending = false;
    if (link->state == LINK_LEAVES || link->state == LINK_ENDED) {
        return link->status;
    }
    cmi_status mapped = cmi_ucx_status(st);
    if (mapped != CMI_OK && link->trouble == CMI_OK) {
        link->has_ucx_failed = true;
        cmi_ucx_stir(link);
    }
    return mapped;
}

static void request_done(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_op *op = arg;
    cmi_ucx_link *link = link_of(op);
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    cmi_status mapped = cmi_ucx_settle_request(link, op, st);
    bool is_waiting = !op->is_flushed &&
                      (op->transfer.kind == CMI_OP_SIGNAL || op->transfer.kind == CMI_OP_FLUSH);
    if (mapped == CMI_OK && is_waiting) {
        op->is_flushed = true;
    } else if (link->first_held != CMI_UCX_NONE && is_waiting &&
               op->transfer.kind == CMI_OP_SIGNAL) {
        op->status = mapped; /* ends when it is its turn, for it is in the list of held ones */
        op->is_flushed = true;
    } else {
        cmi_ucx_end_op(link, op, mapped);
    }
    cmi_ucx_stir(link);
}

/* What a call of UCX's has returned: CMI_IN_PROGRESS when it will call back. */
static cmi_status take_request(cmi_ucx_link *link, cmi_ucx_op *op, ucs_status_ptr_t request)
{
    if (UCS_PTR_IS_PTR(request)) {
        op->is_pending = true;
        cmi_ucx_count_pending(link, 1);
        return CMI_IN_PROGRESS;
    }
    return cmi_ucx_settle_request(link, op, UCS_PTR_RAW_STATUS(request));
}

static ucp_request_param_t param_of(cmi_ucx_op *op)
{
    return (ucp_request_param_t){.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb.send = request_done,
                                 .user_data = op};
}

/* ---- puts and gets ---- */

static void begin_data(cmi_ucx_link *link, cmi_ucx_op *op)
{
    const cmi_transfer *t = &op->transfer;
    const cmi_ucx_remote *remote = &link->fabric->remotes[t->remote.id.idx];
    if (remote->is_carried && t->n_bytes > 0) {
        cmi_ucx_carry(link, op);
        return;
    }
    uint64_t there = remote->address + t->remote.offset;
    ucp_request_param_t param = param_of(op);
    cmi_status st = CMI_OK;
    if (t->n_bytes > 0 && t->kind == CMI_OP_PUT) {
        link->is_dirty = true;
        st = take_request(link, op,
                          ucp_put_nbx(link->ep, t->local, t->n_bytes, there, remote->rkey, &param));
    } else if (t->n_bytes > 0) {
        st = take_request(link, op,
                          ucp_get_nbx(link->ep, t->local, t->n_bytes, there, remote->rkey, &param));
    }
    if (st != CMI_IN_PROGRESS) {
        cmi_ucx_end_op(link, op, st);
    }
}

/* ---- signals ---- */

/* False: its status is not CMI_OK, and it has ended. */
static bool flush_before(cmi_ucx_link *link, cmi_ucx_op *op)
{
    ucp_request_param_t param = param_of(op);
    cmi_status st = take_request(link, op, ucp_ep_flush_nbx(link->ep, &param));
    op->is_flushed = st == CMI_OK;
    if (st != CMI_OK && st != CMI_IN_PROGRESS) {
        cmi_ucx_end_op(link, op, st);
        return false;
    }
    return true;
}

static void send_signal(cmi_ucx_link *link, cmi_ucx_op *op)
{
    if (op->status != CMI_OK) {
        cmi_ucx_end_op(link, op, op->status);
        return;
    }
    const cmi_transfer *t = &op->transfer;
    const cmi_ucx_remote *remote = cmi_ucx_find_remote(link->fabric, link, t->remote.id);
    if (remote == NULL) {
        cmi_ucx_end_op(link, op, CMI_ERR_NOT_FOUND);
        return;
    }
    link->signal_seq = ++link->seq_out;
    op->am.signal = (cmi_ucx_am_signal){.am = {.link = link->peer_link,
                                               .kind = UCX_AM_SIGNAL,
                                               .cookie = link->peer_cookie,
                                               .seq = link->seq_out},
                                        .serial = remote->serial,
                                        .offset = t->remote.offset,
                                        .operand = t->operand,
                                        .signal = t->signal};
    cmi_status st = take_request(
        link, op,
        cmi_ucx_send_am(link, NULL, &op->am.signal, sizeof op->am.signal, request_done, op));
    if (st != CMI_IN_PROGRESS) {
        cmi_ucx_end_op(link, op, st);
    }
}

static void begin_signal(cmi_ucx_link *link, cmi_ucx_op *op)
{
    op->is_flushed = !link->is_dirty;
    if (link->is_dirty) {
        link->is_dirty = false;
        if (!flush_before(link, op)) {
            return;
        }
    }
    if (op->is_flushed && link->first_held == CMI_UCX_NONE && cmi_ucx_is_given(link, op)) {
        send_signal(link, op);
    } else {
        cmi_ucx_hold(link, op);
    }
}

static void run_held(cmi_ucx_link *link)
{
    while (link->first_held != CMI_UCX_NONE) {
        cmi_ucx_op *op = &link->fabric->ops[link->first_held];
        if (!op->is_flushed || !cmi_ucx_is_given(link, op)) {
            return;
        }
        cmi_ucx_unhold(link);
        send_signal(link, op);
    }
}

/* ---- flushes ---- */

/* The oldest operation is a flush that UCX has done: true when it has ended. */
static bool run_flush(cmi_ucx_link *link, cmi_ucx_op *op)
{
    if (!op->has_need) {
        op->has_need = true;
        op->need_acked = link->signal_seq;
    }
    if (link->acked < op->need_acked) {
        if (link->synced < op->need_acked) {
            link->wants_ack = true;
        }
        return false;
    }
    if (op->mark == link->n_given) {
        link->is_unsettled = false;
    }
    cmi_ucx_end_op(link, op, op->is_internal ? CMI_OK : take_failure(link));
    return true;
}

void cmi_ucx_run_ops(cmi_ucx_link *link)
{
    run_held(link);
    while (link->first_op != CMI_UCX_NONE) {
        cmi_ucx_op *op = &link->fabric->ops[link->first_op];
        if (op->transfer.kind != CMI_OP_FLUSH || !op->is_flushed || !run_flush(link, op)) {
            return;
        }
    }
}

static void begin_flush(cmi_ucx_link *link, cmi_ucx_op *op)
{
    op->mark = link->n_given;
    if (flush_before(link, op)) {
        cmi_ucx_run_ops(link);
        cmi_ucx_run_notes(link);
    }
}

bool cmi_ucx_is_settled(cmi_fabric *fabric, cmi_endpoint_id id)
{
    cmi_ucx_link *link = cmi_ucx_find_link(cmi_ucx_of(fabric), id);
    if (link == NULL || link->state != LINK_OPEN) {
        return link == NULL || link->first_op == CMI_UCX_NONE;
    }
    if (link->is_unsettled) {
        cmi_ucx_op *op = cmi_ucx_take_internal_op(link);
        if (op != NULL) {
            begin_flush(link, op);
        }
    }
    return link->first_op == CMI_UCX_NONE && !link->is_unsettled;
}

/* ---- all ---- */

cmi_status cmi_ucx_begin(cmi_fabric *fabric, cmi_endpoint_id id, const cmi_transfer *transfer,
                         cmi_op *user_op)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_link *link;
    cmi_status st = find_open(f, id, &link);
    if (st == CMI_OK) {
        st = check_remote(f, link, transfer);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_ucx_op *op = cmi_ucx_take_op(link, transfer, user_op);
    if (op == NULL) {
        return CMI_ERR_NO_CAPACITY;
    }
    if (transfer->kind == CMI_OP_FLUSH) {
        begin_flush(link, op);
        return CMI_OK;
    }
    link->n_given++;
    link->is_unsettled = true;
    if (transfer->kind == CMI_OP_SIGNAL) {
        begin_signal(link, op);
    } else {
        begin_data(link, op);
    }
    return CMI_OK;
}
