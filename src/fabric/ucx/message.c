/* fabric/ucx/message.c - active messages: signals, messages, and notes of room and receipt.
 *
 * The receiver has a ring for each link (local/ring.h, in memory of its own), and the sender counts
 * what is in it by the same rule. Room that has come about is told when the sender waits for it, or
 * half of the ring is free again. */
#include "fabric/ucx/ucx_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

enum { HEAD_BYTES = 8 }; /* of a record, as in ring.c */

static uint64_t record_bytes(uint64_t n_bytes)
{
    return HEAD_BYTES + CMI_ROUND_UP(n_bytes, (uint64_t)8);
}

/* ---- rings ---- */

/* That a peer comes or goes is not part of the step in which its owner hears of it; so in table.c,
 * too. */
void cmi_ucx_make_rings(cmi_ucx_link *link)
{
    link->ring_bytes = CMI_MIN(link->hello.ring_bytes, link->challenge.ring_bytes);
    link->message_bytes = CMI_MIN(link->hello.message_bytes, link->challenge.message_bytes);
    /* a record of the ring has at least 16 bytes, what is sent of it at most 16 more */
    link->stage_bytes = 2 * (size_t)link->ring_bytes + sizeof(cmi_ucx_am);
    const bool was_forbidden = cmi_alloc_forbid(false);
    link->ring_memory = cmi_alloc_aligned(cmi_ring_shared_bytes(link->ring_bytes), CMI_CACHE_LINE);
    link->stage = cmi_alloc(link->stage_bytes, 1);
    (void)cmi_alloc_forbid(was_forbidden);
    cmi_ring_init(&link->in, link->ring_memory, link->ring_bytes, link->message_bytes);
    cmi_ring_init(&link->in_writer, link->ring_memory, link->ring_bytes, link->message_bytes);
}

void cmi_ucx_free_rings(cmi_ucx_link *link)
{
    const bool was_forbidden = cmi_alloc_forbid(false);
    cmi_free(link->ring_memory);
    cmi_free(link->stage);
    (void)cmi_alloc_forbid(was_forbidden);
    link->ring_memory = link->stage = NULL;
}

/* ---- out ---- */

ucs_status_ptr_t cmi_ucx_send_am(cmi_ucx_link *link, const cmi_ucx_am_data *header,
                                 const void *bytes, size_t n, ucp_send_nbx_callback_t done,
                                 void *arg)
{
    ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                 UCP_OP_ATTR_FIELD_USER_DATA |
                                                 UCP_OP_ATTR_FIELD_FLAGS,
                                 .flags = UCP_AM_SEND_FLAG_EAGER,
                                 .cb.send = done,
                                 .user_data = arg};
    return ucp_am_send_nbx(link->ep, CMI_UCX_AM_ID, header, header == NULL ? 0 : sizeof *header,
                           bytes, n, &param);
}

static void fail_of_ucx(cmi_ucx_link *link)
{
    link->has_ucx_failed = true;
    cmi_ucx_stir(link);
}

static void note_done(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    link->is_noting = false;
    if (st != UCS_OK) {
        fail_of_ucx(link);
    }
    cmi_ucx_stir(link);
}

void cmi_ucx_send_note(cmi_ucx_link *link)
{
    uint64_t flags = (link->wants_room ? CMI_UCX_WANTS_ROOM : 0) |
                     (link->wants_ack ? (uint64_t)CMI_UCX_WANTS_ACK : 0);
    link->synced = link->wants_ack ? link->seq_out : link->synced;
    link->wants_room = link->wants_ack = link->owes_ack = false;
    link->peer_wants_room &= link->told_head == link->in.at;
    link->told_head = link->in.at;
    link->note = (cmi_ucx_am_note){
        .am = {.link = link->peer_link, .kind = UCX_AM_NOTE, .cookie = link->peer_cookie},
        .acked = link->seq_in,
        .head = link->in.at,
        .flags = flags};
    ucs_status_ptr_t request =
        cmi_ucx_send_am(link, NULL, &link->note, sizeof link->note, note_done, link);
    if (UCS_PTR_IS_PTR(request)) {
        link->is_noting = true;
        cmi_ucx_count_pending(link, 1);
    } else if (UCS_PTR_RAW_STATUS(request) != UCS_OK) {
        fail_of_ucx(link);
    }
}

void cmi_ucx_run_notes(cmi_ucx_link *link)
{
    uint64_t untold = link->in.at - link->told_head;
    bool is_due = link->wants_room || link->wants_ack || link->owes_ack ||
                  (link->peer_wants_room && untold > 0) || untold >= link->ring_bytes / 2;
    if (is_due && !link->is_noting && link->state == LINK_OPEN) {
        cmi_ucx_send_note(link);
    }
}

static void message_done(void *request, ucs_status_t st, void *arg)
{
    cmi_ucx_link *link = arg;
    ucp_request_free(request);
    cmi_ucx_count_pending(link, -1);
    if (--link->n_sending == 0) {
        link->n_staged = 0;
        link->has_room = true;
    }
    if (st != UCS_OK) {
        fail_of_ucx(link);
    }
    cmi_ucx_stir(link);
}

static bool has_room_for(cmi_ucx_link *link, size_t n_bytes)
{
    uint64_t used = link->out_tail - link->out_head;
    if (record_bytes(n_bytes) > link->ring_bytes - used) {
        link->wants_room = !link->is_blocked || link->has_room; /* not asked for yet */
        link->has_room = false;
        cmi_ucx_run_notes(link);
        used = link->out_tail - link->out_head;
    }
    return record_bytes(n_bytes) <= link->ring_bytes - used &&
           sizeof(cmi_ucx_am) + n_bytes <= link->stage_bytes - link->n_staged;
}

static cmi_status send_staged(cmi_ucx_link *link, const void *message, size_t n_bytes)
{
    cmi_ucx_am am = {.link = link->peer_link,
                     .kind = UCX_AM_MESSAGE,
                     .cookie = link->peer_cookie,
                     .seq = ++link->seq_out};
    uint8_t *staged = link->stage + link->n_staged;
    memcpy(staged, &am, sizeof am);
    memcpy(staged + sizeof am, message, n_bytes);
    link->out_tail += record_bytes(n_bytes);
    ucs_status_ptr_t request =
        cmi_ucx_send_am(link, NULL, staged, sizeof am + n_bytes, message_done, link);
    if (UCS_PTR_IS_PTR(request)) {
        link->n_staged += CMI_ROUND_UP(sizeof am + n_bytes, (size_t)8);
        link->n_sending++;
        cmi_ucx_count_pending(link, 1);
    } else if (UCS_PTR_RAW_STATUS(request) != UCS_OK) {
        fail_of_ucx(link); /* it will be lost: as if the peer had died with the message */
    }
    return CMI_OK;
}

cmi_status cmi_ucx_send(cmi_fabric *fabric, cmi_endpoint_id id, const void *message, size_t n_bytes)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    cmi_ucx_link *link = cmi_ucx_find_link(f, id);
    if (link == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    if (link->state != LINK_OPEN) {
        return link->state == LINK_ENDED ? link->status : CMI_ERR_NO_CAPACITY;
    }
    if (n_bytes > link->message_bytes) {
        return CMI_ERR_TOO_LARGE;
    }
    link->is_blocked = !has_room_for(link, n_bytes);
    return link->is_blocked ? CMI_ERR_NO_CAPACITY : send_staged(link, message, n_bytes);
}

bool cmi_ucx_has_room(const cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        const cmi_ucx_link *link = &f->links[i];
        if (link->state == LINK_OPEN && link->is_blocked && link->has_room) {
            return true;
        }
    }
    return false;
}

/* ---- in ---- */

static void take_signal(cmi_ucx_link *link, const cmi_ucx_am_signal *signal)
{
    _Atomic uint64_t *word = cmi_ucx_find_word(link->fabric, signal->serial, signal->offset);
    if (word == NULL) {
        return; /* deregistered since it was sent */
    }
    if (signal->signal == CMI_SIGNAL_ADD) {
        atomic_fetch_add(word, signal->operand);
        return;
    }
    uint64_t old = atomic_load(word);
    while (old < signal->operand && !atomic_compare_exchange_weak(word, &old, signal->operand)) {
    }
}

static cmi_status take_note(cmi_ucx_link *link, const cmi_ucx_am_note *note)
{
    if (note->acked > link->seq_out || note->head > link->out_tail) {
        return CMI_ERR_BAD_DATA;
    }
    link->acked = CMI_MAX(link->acked, note->acked);
    link->has_room |= note->head > link->out_head;
    link->out_head = CMI_MAX(link->out_head, note->head);
    link->peer_wants_room |= (note->flags & CMI_UCX_WANTS_ROOM) != 0;
    link->owes_ack |= (note->flags & CMI_UCX_WANTS_ACK) != 0;
    cmi_ucx_stir(link);
    return CMI_OK;
}

static cmi_status take_message(cmi_ucx_link *link, const cmi_ucx_am_view *view)
{
    if (view->n_message > link->message_bytes) {
        return CMI_ERR_BAD_DATA;
    }
    cmi_status st = cmi_ring_write(&link->in_writer, view->message, (uint32_t)view->n_message);
    return st == CMI_OK ? CMI_OK : CMI_ERR_BAD_DATA;
}

static cmi_status take(cmi_ucx_link *link, const cmi_ucx_am_view *view)
{
    if (view->am.kind == UCX_AM_NOTE) {
        return take_note(link, &view->note);
    }
    if (view->am.seq != link->seq_in + 1) {
        return CMI_ERR_BAD_DATA;
    }
    link->seq_in = view->am.seq;
    if (link->has_heard_bye) {
        cmi_ucx_stir(link);
    }
    switch (view->am.kind) {
    case UCX_AM_SIGNAL:
        take_signal(link, &view->signal);
        return CMI_OK;
    case UCX_AM_PUT:
        return cmi_ucx_take_put(link, view);
    case UCX_AM_GET:
        return cmi_ucx_take_get(link, &view->get);
    case UCX_AM_GOT:
        return cmi_ucx_take_got(link, view);
    default:
        return take_message(link, view);
    }
}

static ucs_status_t hear_am(void *arg, const void *header, size_t header_bytes, void *data,
                            size_t n_bytes, const ucp_am_recv_param_t *param)
{
    cmi_ucx_fabric *f = arg;
    cmi_ucx_am_view view;
    bool is_here = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
    if (!is_here || !cmi_ucx_am_read(header, header_bytes, data, n_bytes, &view) ||
        view.am.link >= f->n_links) {
        return UCS_OK;
    }
    cmi_ucx_link *link = &f->links[view.am.link];
    bool is_live = link->state == LINK_WIRES || link->state == LINK_OPEN;
    if (!is_live || view.am.cookie != link->cookie || link->trouble != CMI_OK) {
        return UCS_OK; /* of a stranger, or late */
    }
    cmi_status st = take(link, &view);
    if (st != CMI_OK) {
        cmi_log(CMI_LOG_ERROR, "fabric %s: nonsense or disorder in the active messages of \"%s\"",
                f->name, link->peer_name);
        link->trouble = st;
        cmi_ucx_stir(link);
    }
    return UCS_OK;
}

cmi_status cmi_ucx_set_am_handler(cmi_ucx_fabric *f)
{
    ucp_am_handler_param_t param = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = CMI_UCX_AM_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = hear_am,
        .arg = f};
    return cmi_ucx_status(ucp_worker_set_am_recv_handler(f->worker, &param));
}

static bool receive_from(cmi_ucx_fabric *f, cmi_ucx_endpoint *ep, void *buffer, size_t *n_bytes_out)
{
    if (ep->link == CMI_UCX_NONE || !ep->is_shown) {
        return false;
    }
    cmi_ucx_link *link = &f->links[ep->link];
    bool was_wanted;
    if (link->ring_memory == NULL ||
        cmi_ring_read(&link->in, buffer, n_bytes_out, &was_wanted) != CMI_OK) {
        return false;
    }
    cmi_ucx_run_notes(link);
    return true;
}

bool cmi_ucx_receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                     size_t *n_bytes_out)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        uint32_t idx = f->next_to_receive;
        f->next_to_receive = idx + 1 >= f->n_endpoints_used ? 0 : idx + 1;
        if (receive_from(f, &f->endpoints[idx], buffer, n_bytes_out)) {
            *endpoint_out = (cmi_endpoint_id){.idx = idx, .gen = f->endpoints[idx].gen};
            return true;
        }
    }
    return false;
}

bool cmi_ucx_has_message(const cmi_ucx_fabric *f)
{
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        const cmi_ucx_endpoint *ep = &f->endpoints[i];
        if (ep->link != CMI_UCX_NONE && ep->is_shown && f->links[ep->link].ring_memory != NULL &&
            cmi_ring_has_message(&f->links[ep->link].in)) {
            return true;
        }
    }
    return false;
}
