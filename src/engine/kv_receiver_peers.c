/* engine/kv_receiver_peers.c - the decode side's connections to prefill instances. */
#include <assert.h>

#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/kv_receiver_internal.h"

enum {
    CONNECT_NS = 1000000000,
    RETRY_NS = 50000000, /* between attempts to connect */
};

static void on_note(cmi_kv_receiver *r, uint32_t peer, const cmi_handover_note *note)
{
    if (note->kind == CMI_HANDOVER_WELCOME) {
        r->loads[peer].is_open = note->status == CMI_OK;
        if (note->status != CMI_OK) {
            cmi_log(CMI_LOG_ERROR, "%s serves another model or build: %s", r->peers[peer].address,
                    cmi_status_text((cmi_status)note->status));
        }
        return;
    }
    uint32_t seat = cmi_receive_find(r, note->transfer);
    if (seat == UINT32_MAX || r->seats[seat].peer != peer) {
        return; /* of a transfer that is over */
    }
    if (note->kind == CMI_HANDOVER_DONE) {
        r->seats[seat].is_done = true;
    } else if (note->kind == CMI_HANDOVER_ENDED) {
        pthread_mutex_lock(&r->lock);
        r->stats.n_ended++;
        pthread_mutex_unlock(&r->lock);
        /* Who has no room now may have some soon; what is wrong with the request stays wrong. */
        cmi_receive_leave_peer(r, seat, CMI_RECEIVE_ENDED,
                               note->status == CMI_ERR_INVALID ? CMI_ERR_INVALID : CMI_OK);
    }
}

static uint32_t find_peer(const cmi_kv_receiver *r, cmi_endpoint_id id)
{
    for (uint32_t i = 0; i < r->n_peers; i++) {
        const cmi_endpoint_id *own = &r->peers[i].endpoint;
        if (own->idx == id.idx && own->gen == id.gen) {
            return i;
        }
    }
    return UINT32_MAX;
}

void cmi_receive_poll_messages(cmi_kv_receiver *r)
{
    cmi_endpoint_id from;
    size_t n_bytes;
    while (cmi_fabric_receive(r->fabric, &from, &r->message, &n_bytes)) {
        uint32_t peer = find_peer(r, from);
        if (peer == UINT32_MAX || !cmi_handover_message_is_good(&r->message, n_bytes)) {
            continue;
        }
        if (r->message.kind == CMI_HANDOVER_PROMPT_EVENT) {
            uint32_t seat = cmi_receive_find(r, r->message.event.transfer);
            if (seat != UINT32_MAX && r->seats[seat].state == CMI_RECEIVE_ASKED) {
                cmi_engine_take_prompt_event(r->engine, seat, &r->message.event.event);
            }
        } else {
            on_note(r, peer, &r->message.note);
        }
    }
}

/* ---- peers -------------------------------------------------------------------------------------
 */

static void say_hello(cmi_kv_receiver *r, uint32_t peer)
{
    cmi_handover_hello hello = {
        .kind = CMI_HANDOVER_HELLO, .shape = r->shape, .n_seats = r->n_seats};
    cmi_status st = cmi_region_get_rkey(r->fabric, r->pages_region, &hello.pages);
    assert(st == CMI_OK);
    st = cmi_region_get_rkey(r->fabric, r->boxes_region, &hello.boxes);
    assert(st == CMI_OK);
    /* The first message of an endpoint has room, unless it is lost already, which an event tells.
     */
    st = cmi_endpoint_send(r->fabric, r->peers[peer].endpoint, &hello, sizeof hello);
    (void)st;
}

/* All its transfers go to others. */
static void lose_peer(cmi_kv_receiver *r, uint32_t peer)
{
    uint32_t n_lost = 0;
    for (uint32_t i = 0; i < r->n_seats; i++) {
        if (r->seats[i].transfer != 0 && r->seats[i].peer == peer) {
            n_lost++;
            /* What was signalled before is there. */
            if (cmi_word_load(cmi_receive_word(r, i)) != r->seats[i].word_before) {
                cmi_receive_arrive(r, i);
            } else {
                cmi_receive_leave_peer(r, i, CMI_RECEIVE_LOST, CMI_OK);
            }
        }
    }
    if (r->loads[peer].is_open) {
        cmi_log(CMI_LOG_WARN, "prefill instance %s is gone, %u prompts go to others",
                r->peers[peer].address, n_lost);
    }
    pthread_mutex_lock(&r->lock);
    r->stats.n_lost += n_lost;
    pthread_mutex_unlock(&r->lock);
    r->loads[peer].is_open = false;
    r->peers[peer].has_endpoint = false;
    r->peers[peer].retry_ns = cmi_fabric_after_ns(r->fabric, RETRY_NS);
    cmi_endpoint_close(r->fabric, r->peers[peer].endpoint);
    r->peers[peer].endpoint = (cmi_endpoint_id){0};
}

void cmi_receive_poll_events(cmi_kv_receiver *r)
{
    cmi_fabric_event event;
    while (cmi_fabric_poll(r->fabric, &event)) {
        uint32_t peer = find_peer(r, event.endpoint);
        if (peer == UINT32_MAX) {
            cmi_endpoint_close(r->fabric, event.endpoint); /* nobody connects to this side */
        } else if (event.kind == CMI_EVENT_OPEN) {
            say_hello(r, peer);
        } else if (event.kind == CMI_EVENT_LOST) {
            cmi_receive_poll_messages(r); /* those that it sent before */
            lose_peer(r, peer);
        }
    }
}

void cmi_receive_connect_peers(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_peers; i++) {
        cmi_prefill_peer *peer = &r->peers[i];
        if (!peer->has_endpoint && cmi_fabric_now_ns(r->fabric) >= peer->retry_ns) {
            cmi_status st =
                cmi_fabric_connect(r->fabric, peer->address,
                                   cmi_fabric_after_ns(r->fabric, CONNECT_NS), &peer->endpoint);
            peer->has_endpoint = st == CMI_OK;
            peer->retry_ns = cmi_fabric_after_ns(r->fabric, RETRY_NS);
        }
    }
}
