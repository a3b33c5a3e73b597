/* engine/kv_sender_peers.c - the prefill side's connections to decode instances, and what those ask
 * for. */
#include <assert.h>

#include "base/alloc.h"
#include "engine/engine_internal.h"
#include "engine/kv_sender_internal.h"

/* ---- connections -------------------------------------------------------------------------------
 */

static cmi_decode_peer *find_peer(cmi_kv_sender *s, cmi_endpoint_id id)
{
    for (size_t i = 0; i < CMI_LEN(s->peers); i++) {
        if (s->peers[i].endpoint.idx == id.idx && s->peers[i].endpoint.gen == id.gen) {
            return &s->peers[i];
        }
    }
    return NULL;
}

static void add_peer(cmi_kv_sender *s, cmi_endpoint_id id)
{
    cmi_decode_peer *free_peer = find_peer(s, (cmi_endpoint_id){0});
    if (free_peer == NULL) {
        cmi_endpoint_close(s->fabric, id);
    } else {
        *free_peer = (cmi_decode_peer){.endpoint = id};
    }
}

static bool is_of(const cmi_send *send, cmi_endpoint_id id)
{
    return send->endpoint.idx == id.idx && send->endpoint.gen == id.gen;
}

static void lose_peer(cmi_kv_sender *s, cmi_endpoint_id id)
{
    cmi_decode_peer *peer = find_peer(s, id);
    for (uint32_t i = 0; i < s->n_active; i++) {
        cmi_send *send = &s->sends[s->active[i]];
        if (is_of(send, id)) {
            cmi_send_end_early(send, CMI_ERR_PEER);
        }
    }
    if (peer != NULL) {
        *peer = (cmi_decode_peer){0};
    }
    cmi_endpoint_close(s->fabric, id);
}

static void on_hello(cmi_kv_sender *s, cmi_decode_peer *peer, const cmi_handover_hello *hello)
{
    cmi_status st =
        cmi_handover_shape_equal(&hello->shape, &s->shape) ? CMI_OK : CMI_ERR_UNSUPPORTED;
    if (st == CMI_OK) {
        st = cmi_endpoint_open_rkey(s->fabric, peer->endpoint, &hello->pages, &peer->pages);
    }
    if (st == CMI_OK) {
        st = cmi_endpoint_open_rkey(s->fabric, peer->endpoint, &hello->boxes, &peer->boxes);
    }
    peer->n_seats = hello->n_seats;
    peer->is_welcome = st == CMI_OK;
    cmi_handover_note note = {.kind = CMI_HANDOVER_WELCOME, .status = (int32_t)st};
    st = cmi_endpoint_send(s->fabric, peer->endpoint, &note, sizeof note);
    (void)st; /* the first message has room, unless the endpoint is lost, which an event tells */
}

/* ---- orders ------------------------------------------------------------------------------------
 */

static cmi_send *take_free_send(cmi_kv_sender *s)
{
    for (uint32_t i = 0; i < s->n_sends; i++) {
        if (s->sends[i].state == CMI_SEND_FREE) {
            s->active[s->n_active++] = i;
            return &s->sends[i];
        }
    }
    return NULL;
}

void cmi_send_free(cmi_send *send)
{
    cmi_free(send->order);
    cmi_free(send->checksums);
    cmi_free(send->source);
    send->order = NULL;
    send->checksums = send->source = NULL;
}

static void refuse(cmi_kv_sender *s, const cmi_decode_peer *peer, uint64_t transfer, cmi_status why)
{
    cmi_handover_note note = {
        .kind = CMI_HANDOVER_ENDED, .transfer = transfer, .status = (int32_t)why};
    if (cmi_endpoint_send(s->fabric, peer->endpoint, &note, sizeof note) != CMI_OK) {
        lose_peer(s, peer->endpoint); /* it must not wait for an answer that cannot be given */
    }
}

static void on_ask(cmi_kv_sender *s, const cmi_decode_peer *peer, const cmi_handover_note *note)
{
    const uint32_t max_len = s->shape.max_model_len;
    const bool is_good = peer->is_welcome && note->seat < peer->n_seats && note->n_pages >= 1 &&
                         note->n_pages <= cmi_kv_pages_for(max_len) && note->n_bytes >= 1 &&
                         note->n_bytes <= cmi_request_max_bytes(max_len);
    cmi_send *send = is_good ? take_free_send(s) : NULL;
    if (send == NULL) {
        refuse(s, peer, note->transfer, is_good ? CMI_ERR_NO_CAPACITY : CMI_ERR_INVALID);
        return;
    }
    const uint64_t order_bytes = cmi_handover_request_at(note->n_pages) + note->n_bytes;
    *send = (cmi_send){.generation = send->generation + 1,
                       .transfer = note->transfer,
                       .endpoint = peer->endpoint,
                       .pages = peer->pages,
                       .boxes = peer->boxes,
                       .seat = note->seat,
                       .n_pages = note->n_pages,
                       .n_bytes = note->n_bytes,
                       .order = cmi_alloc(1, order_bytes),
                       .checksums =
                           cmi_alloc(note->n_pages * (size_t)s->shape.n_layers, sizeof(uint32_t)),
                       .source = cmi_alloc(note->n_pages, sizeof(uint32_t))};
    cmi_send_move_on(send, CMI_SEND_ASKED);
    send->op.tag = cmi_send_id(s, send);
    cmi_remote from = {.id = send->boxes, .offset = send->seat * s->box.n_bytes + s->box.order_at};
    cmi_status st =
        cmi_endpoint_get(s->fabric, send->endpoint, send->order, from, order_bytes, &send->op);
    if (st != CMI_OK) {
        cmi_send_end_early(send, st == CMI_ERR_INVALID ? CMI_ERR_INVALID : CMI_ERR_NO_CAPACITY);
        cmi_send_on_done(s, send, st); /* there is no fetch to wait for */
    }
}

static void on_cancel(cmi_kv_sender *s, cmi_endpoint_id from, uint64_t transfer)
{
    for (uint32_t i = 0; i < s->n_active; i++) {
        cmi_send *send = &s->sends[s->active[i]];
        if (is_of(send, from) && send->transfer == transfer) {
            cmi_send_end_early(send, CMI_ERR_CANCELLED);
        }
    }
}

void cmi_send_poll_messages(cmi_kv_sender *s)
{
    cmi_endpoint_id from;
    size_t n_bytes;
    while (cmi_fabric_receive(s->fabric, &from, &s->message, &n_bytes)) {
        cmi_decode_peer *peer = find_peer(s, from);
        if (peer == NULL || !cmi_handover_message_is_good(&s->message, n_bytes)) {
            continue;
        }
        if (s->message.kind == CMI_HANDOVER_HELLO) {
            on_hello(s, peer, &s->message.hello);
        } else if (s->message.kind == CMI_HANDOVER_ASK) {
            on_ask(s, peer, &s->message.note);
        } else if (s->message.kind == CMI_HANDOVER_CANCEL) {
            on_cancel(s, from, s->message.note.transfer);
        }
    }
}

void cmi_send_poll_fabric(cmi_kv_sender *s)
{
    cmi_fabric_event event;
    while (cmi_fabric_poll(s->fabric, &event)) {
        if (event.kind == CMI_EVENT_OPEN) {
            add_peer(s, event.endpoint);
        } else if (event.kind == CMI_EVENT_LOST) {
            lose_peer(s, event.endpoint);
        } else {
            cmi_send *send = cmi_send_find(s, event.tag);
            if (send != NULL) {
                cmi_send_on_done(s, send, event.status);
            }
        }
    }
}
