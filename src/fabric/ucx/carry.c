/* fabric/ucx/carry.c - puts and gets by active messages; see ucx_internal.h.
 *
 * Puts go in pieces, one after the other, until UCX keeps one back. All are numbered in the order
 * in which UCX was given them, so a signal waits only until UCX has the last piece of every put
 * before it. A get is asked for, and comes in pieces, which the peer's progress sends
 * straight from the region. Of each link so many are under way as the peer has places for; others
 * wait in the list of operations. */
#include "fabric/ucx/ucx_internal.h"

#include <stdio.h>
#include <string.h>

/* What UCX copies at once into one TCP segment of its own: for longer ones it keeps the bytes, and
 * when a peer dies then, UCX 1.13 counts their completion twice and ends the process. */
enum { PIECE_BYTES = 8000 };

/* UCX has no call that says so. What is not found is carried, which works everywhere. */
void cmi_ucx_look_at_lanes(cmi_ucx_link *link)
{
    char text[8192] = ""; /* lanes come first */
    FILE *out = fmemopen(text, sizeof text - 1, "w");
    if (out != NULL) {
        ucp_ep_print_info(link->ep, out);
        fclose(out);
    }
    link->has_rdma = strstr(text, ":rc_") != NULL || strstr(text, ":dc_") != NULL;
}

static cmi_ucx_am next_am(cmi_ucx_link *link, cmi_ucx_am_kind kind)
{
    return (cmi_ucx_am){
        .link = link->peer_link, .kind = kind, .cookie = link->peer_cookie, .seq = ++link->seq_out};
}

static void note_pending(cmi_ucx_link *link, bool *is_pending)
{
    *is_pending = true;
    cmi_ucx_count_pending(link, 1);
}

static cmi_ucx_link *link_of(const cmi_ucx_op *op)
{
    return &op->fabric->links[op->link];
}

/* ---- puts ---- */

static bool is_ungiven(const cmi_ucx_op *op)
{
    return op->is_carried && op->transfer.kind == CMI_OP_PUT && op->n_moved < op->transfer.n_bytes;
}

static void piece_given(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_op *op = arg;
    cmi_ucx_link *link = link_of(op);
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    cmi_status mapped = cmi_ucx_settle_request(link, op, st);
    if (mapped != CMI_OK || !is_ungiven(op)) {
        cmi_ucx_end_op(link, op, mapped);
    }
    cmi_ucx_stir(link);
}

/* Until UCX keeps a piece back. */
static void give_pieces(cmi_ucx_link *link, cmi_ucx_op *op)
{
    const cmi_transfer *t = &op->transfer;
    cmi_status st = CMI_OK;
    while (st == CMI_OK && op->n_moved < t->n_bytes) {
        const size_t n = CMI_MIN(t->n_bytes - op->n_moved, (size_t)PIECE_BYTES);
        const uint8_t *from = (const uint8_t *)t->local + op->n_moved;
        op->am.data.am = next_am(link, UCX_AM_PUT);
        op->am.data.offset = t->remote.offset + op->n_moved;
        link->signal_seq = link->seq_out;
        op->n_moved += n;
        ucs_status_ptr_t request = cmi_ucx_send_am(link, &op->am.data, from, n, piece_given, op);
        if (UCS_PTR_IS_PTR(request)) {
            note_pending(link, &op->is_pending);
            return;
        }
        st = cmi_ucx_settle_request(link, op, UCS_PTR_RAW_STATUS(request));
    }
    cmi_ucx_end_op(link, op, st);
}

/* Not from a callback: what is sent there overtakes what UCX keeps back. */
static void give_puts(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    for (uint32_t at = link->first_op, next; at != CMI_UCX_NONE; at = next) {
        cmi_ucx_op *op = &f->ops[at];
        next = op->next;
        if (is_ungiven(op)) {
            if (!op->is_pending) {
                give_pieces(link, op);
            }
            if (op->is_pending) {
                return;
            }
        }
    }
    link->has_ungiven = false;
}

bool cmi_ucx_is_given(const cmi_ucx_link *link, const cmi_ucx_op *op)
{
    const cmi_ucx_fabric *f = link->fabric;
    for (const cmi_ucx_op *at = &f->ops[link->first_op]; at != op; at = &f->ops[at->next]) {
        if (is_ungiven(at)) {
            return false;
        }
    }
    return true;
}

cmi_status cmi_ucx_take_put(cmi_ucx_link *link, const cmi_ucx_am_view *view)
{
    uint8_t *to =
        cmi_ucx_find_bytes(link->fabric, view->data.to, view->data.offset, view->n_message);
    if (to != NULL) { /* else it was deregistered since it was sent */
        memcpy(to, view->message, view->n_message);
    }
    return CMI_OK;
}

/* ---- gets, where the bytes are wanted ---- */

static void end_get(cmi_ucx_link *link, cmi_ucx_op *op, cmi_status st)
{
    op->status = st;
    op->is_over = true;
    if (!op->is_pending) { /* an answer may be there before UCX says that the question went */
        link->n_asked--;
        cmi_ucx_end_op(link, op, st);
    }
    cmi_ucx_stir(link);
}

static void asked(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_op *op = arg;
    cmi_ucx_link *link = link_of(op);
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    cmi_status mapped = cmi_ucx_settle_request(link, op, st);
    if (mapped != CMI_OK || op->is_over) {
        end_get(link, op, mapped != CMI_OK ? mapped : op->status);
    }
}

static void ask(cmi_ucx_link *link, cmi_ucx_op *op)
{
    const cmi_transfer *t = &op->transfer;
    const uint64_t idx = (uint64_t)(op - link->fabric->ops);
    op->is_asked = true;
    link->n_asked++;
    op->am.get = (cmi_ucx_am_get){.am = next_am(link, UCX_AM_GET),
                                  .serial = link->fabric->remotes[t->remote.id.idx].serial,
                                  .offset = t->remote.offset,
                                  .n_bytes = t->n_bytes,
                                  .op = idx | (uint64_t)op->gen << 32};
    ucs_status_ptr_t request =
        cmi_ucx_send_am(link, NULL, &op->am.get, sizeof op->am.get, asked, op);
    if (UCS_PTR_IS_PTR(request)) {
        note_pending(link, &op->is_pending);
        return;
    }
    cmi_status st = cmi_ucx_settle_request(link, op, UCS_PTR_RAW_STATUS(request));
    if (st != CMI_OK) {
        end_get(link, op, st);
    }
}

static void ask_for_more(cmi_ucx_link *link)
{
    cmi_ucx_fabric *f = link->fabric;
    link->has_unasked = false;
    for (uint32_t at = link->first_op, next; at != CMI_UCX_NONE; at = next) {
        cmi_ucx_op *op = &f->ops[at];
        next = op->next;
        if (!op->is_carried || op->transfer.kind != CMI_OP_GET || op->is_asked) {
            continue;
        }
        if (link->n_asked == CMI_UCX_N_SERVED) {
            link->has_unasked = true;
            return;
        }
        if (cmi_ucx_find_remote(f, link, op->transfer.remote.id) == NULL) {
            cmi_ucx_end_op(link, op, CMI_ERR_NOT_FOUND);
        } else {
            ask(link, op);
        }
    }
}

cmi_status cmi_ucx_take_got(cmi_ucx_link *link, const cmi_ucx_am_view *view)
{
    cmi_ucx_fabric *f = link->fabric;
    const uint32_t idx = (uint32_t)view->data.to, gen = (uint32_t)(view->data.to >> 32);
    cmi_ucx_op *op = idx < f->base.opt.n_ops ? &f->ops[idx] : NULL;
    if (op == NULL || op->gen != gen || op->state != OP_UNDER_WAY || !op->is_asked || op->is_over ||
        link_of(op) != link) {
        return CMI_ERR_BAD_DATA; /* gets end by their last piece, or with the link */
    }
    const cmi_transfer *t = &op->transfer;
    if (view->data.status != CMI_OK) {
        end_get(link, op, (cmi_status)view->data.status);
        return CMI_OK;
    }
    if (view->data.offset != op->n_moved || view->n_message > t->n_bytes - op->n_moved) {
        return CMI_ERR_BAD_DATA;
    }
    memcpy((uint8_t *)t->local + op->n_moved, view->message, view->n_message);
    op->n_moved += view->n_message;
    if (op->n_moved == t->n_bytes) {
        end_get(link, op, CMI_OK);
    }
    return CMI_OK;
}

/* ---- gets, where the bytes are ---- */

cmi_status cmi_ucx_take_get(cmi_ucx_link *link, const cmi_ucx_am_get *get)
{
    for (uint32_t i = 0; i < CMI_UCX_N_SERVED; i++) {
        cmi_ucx_served *s = &link->served[i];
        if (s->n_left == 0 && !s->is_pending) {
            *s = (cmi_ucx_served){.link = link,
                                  .n_left = get->n_bytes,
                                  .serial = get->serial,
                                  .from = get->offset,
                                  .am.to = get->op};
            link->has_served = true;
            cmi_ucx_stir(link);
            return CMI_OK;
        }
    }
    return CMI_ERR_BAD_DATA; /* it knows how many places there are */
}

static void served(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_served *s = arg;
    ucp_request_free(request);
    cmi_ucx_count_pending(s->link, -1);
    s->is_pending = false;
    s->am.offset += PIECE_BYTES; /* counts only if more is to come */
    s->link->has_ucx_failed |= st != UCS_OK;
    cmi_ucx_stir(s->link);
}

static void serve(cmi_ucx_link *link, cmi_ucx_served *s)
{
    while (s->n_left > 0 && !s->is_pending) {
        const uint8_t *bytes = cmi_ucx_find_bytes(link->fabric, s->serial, s->from, s->n_left);
        const size_t n = bytes == NULL ? 0 : CMI_MIN(s->n_left, (uint64_t)PIECE_BYTES);
        s->am.am = next_am(link, UCX_AM_GOT);
        s->am.status = bytes == NULL ? CMI_ERR_NOT_FOUND : CMI_OK;
        ucs_status_ptr_t request = cmi_ucx_send_am(link, &s->am, bytes, n, served, s);
        s->n_left = bytes == NULL ? 0 : s->n_left - n;
        s->from += n;
        if (UCS_PTR_IS_PTR(request)) {
            note_pending(link, &s->is_pending);
        } else {
            link->has_ucx_failed |= UCS_PTR_RAW_STATUS(request) != UCS_OK;
            s->am.offset += PIECE_BYTES;
        }
    }
}

bool cmi_ucx_is_serving(const cmi_ucx_link *link, uint64_t serial)
{
    for (uint32_t i = 0; i < CMI_UCX_N_SERVED; i++) {
        if (link->served[i].is_pending && link->served[i].serial == serial) {
            return true;
        }
    }
    return false;
}

/* ---- both ---- */

void cmi_ucx_carry(cmi_ucx_link *link, cmi_ucx_op *op)
{
    op->is_carried = true;
    if (op->transfer.kind == CMI_OP_GET) {
        link->has_unasked = true;
        cmi_ucx_stir(link);
        return;
    }
    const cmi_ucx_remote *remote = &link->fabric->remotes[op->transfer.remote.id.idx];
    op->am.data = (cmi_ucx_am_data){.to = remote->serial};
    if (!link->has_ungiven) {
        link->has_ungiven = true;
        give_puts(link);
    }
}

void cmi_ucx_run_carried(cmi_ucx_link *link)
{
    if (link->has_ungiven) {
        give_puts(link);
    }
    if (link->has_unasked) {
        ask_for_more(link);
    }
    if (!link->has_served) {
        return;
    }
    link->has_served = false;
    for (uint32_t i = 0; i < CMI_UCX_N_SERVED; i++) {
        serve(link, &link->served[i]);
        link->has_served |= link->served[i].n_left > 0;
    }
}
