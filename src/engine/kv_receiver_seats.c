/* engine/kv_receiver_seats.c - a transfer's way on the decode side: ask, check what was put, or ask
 * somebody else. */
#include <assert.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/kv_receiver_internal.h"

enum {
    ASK_AGAIN_NS = 5000000, /* after a prefill instance had no room */
    MAX_DAMAGED = 3,        /* transfers, then the request ends with an error */
};

/* ---- seats -------------------------------------------------------------------------------------
 */

/* The seat is nobody else's any more. The engine is told if the ask is over with that; otherwise
 * somebody else is to be asked, or it ends with `failure`. */
void cmi_receive_leave_peer(cmi_kv_receiver *r, uint32_t seat_idx, cmi_receive_event event,
                            cmi_status failure)
{
    cmi_receive_seat *seat = &r->seats[seat_idx];
    const bool was_dropped = seat->state == CMI_RECEIVE_LEAVING;
    r->loads[seat->peer].n_tokens -= seat->n_tokens;
    seat->transfer = 0;
    cmi_receive_move_on(seat, event);
    if (seat->state == CMI_RECEIVE_IDLE) {
        cmi_engine_received(r->engine, seat_idx, was_dropped ? CMI_ERR_CANCELLED : CMI_OK);
    } else if (failure != CMI_OK) {
        cmi_receive_move_on(seat, CMI_RECEIVE_DROP);
        cmi_engine_received(r->engine, seat_idx, failure);
    } else if (event == CMI_RECEIVE_ENDED) {
        seat->retry_ns = cmi_fabric_after_ns(r->fabric, ASK_AGAIN_NS);
    } else {
        seat->deadline_ns = cmi_fabric_after_ns(r->fabric, r->patience_ns);
    }
}

/* ---- asking ------------------------------------------------------------------------------------
 */

static cmi_status send_note(cmi_kv_receiver *r, uint32_t peer, const cmi_handover_note *note)
{
    return cmi_endpoint_send(r->fabric, r->peers[peer].endpoint, note, sizeof *note);
}

/* False: nobody can be asked now. */
static bool ask(cmi_kv_receiver *r, uint32_t seat_idx)
{
    cmi_receive_seat *seat = &r->seats[seat_idx];
    uint32_t peer = cmi_route_prefill(r->loads, r->n_peers);
    if (peer == CMI_ROUTE_NONE) {
        return false;
    }
    cmi_handover_note note = {.kind = CMI_HANDOVER_ASK,
                              .seat = seat_idx,
                              .transfer = r->n_transfers + 1,
                              .n_pages = seat->n_pages,
                              .n_bytes = seat->n_bytes};
    seat->word_before = cmi_word_load(cmi_receive_word(r, seat_idx));
    if (send_note(r, peer, &note) != CMI_OK) {
        return false;
    }
    seat->transfer = ++r->n_transfers;
    seat->peer = peer;
    seat->is_done = seat->is_told = false;
    r->loads[peer].n_tokens += seat->n_tokens;
    cmi_receive_move_on(seat, CMI_RECEIVE_SENT);
    pthread_mutex_lock(&r->lock);
    r->stats.n_asked++;
    pthread_mutex_unlock(&r->lock);
    return true;
}

void cmi_receive_ask_all(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        cmi_receive_seat *seat = &r->seats[i];
        if (seat->state != CMI_RECEIVE_WAITING) {
            continue;
        }
        const uint64_t now_ns = cmi_fabric_now_ns(r->fabric);
        if ((now_ns < seat->retry_ns || !ask(r, i)) && now_ns >= seat->deadline_ns) {
            cmi_receive_move_on(seat, CMI_RECEIVE_DROP);
            cmi_engine_received(r->engine, i, CMI_ERR_PEER);
        }
    }
}

void cmi_receive_drop(cmi_kv_receiver *r, uint32_t seat_idx)
{
    cmi_receive_seat *seat = &r->seats[seat_idx];
    if (seat->state == CMI_RECEIVE_IDLE) {
        return; /* its result is on the way to the engine */
    }
    cmi_receive_move_on(seat, CMI_RECEIVE_DROP);
    if (seat->state == CMI_RECEIVE_IDLE) {
        cmi_engine_received(r->engine, seat_idx, CMI_ERR_CANCELLED);
    }
}

/* A drop is told as soon as the ring has room; until then the transfer goes on in vain. */
void cmi_receive_tell_drops(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        cmi_receive_seat *seat = &r->seats[i];
        if (seat->state == CMI_RECEIVE_LEAVING && !seat->is_told) {
            cmi_handover_note note = {.kind = CMI_HANDOVER_CANCEL, .transfer = seat->transfer};
            seat->is_told = send_note(r, seat->peer, &note) == CMI_OK;
        }
    }
}

/* ---- what arrives ------------------------------------------------------------------------------
 */

/* The record is this transfer's, whole, and says what can be. */
static bool is_record_good(const cmi_kv_receiver *r, const cmi_receive_seat *seat,
                           const cmi_handover_record *record, const uint32_t *checksums)
{
    if (record->transfer != seat->transfer || record->n_pages != seat->n_pages ||
        record->n_drafts > CMI_MAX_DRAFTS || record->first.n_top > CMI_MAX_TOP_LOGPROBS ||
        record->first.token_id >= r->shape.vocab_size) {
        return false;
    }
    for (uint32_t i = 0; i < record->n_drafts; i++) {
        if (record->drafts[i] >= r->shape.vocab_size) {
            return false;
        }
    }
    return record->checksum == cmi_handover_record_checksum(
                                   record, checksums, (size_t)record->n_pages * r->shape.n_layers);
}

static bool is_intact(cmi_kv_receiver *r, uint32_t seat_idx)
{
    const cmi_receive_seat *seat = &r->seats[seat_idx];
    const uint8_t *box = cmi_receive_box(r, seat_idx);
    const cmi_handover_record *record = cmi_kv_receiver_record(r, seat_idx);
    const uint32_t *checksums = (const uint32_t *)(box + r->box.checksums_at);
    const uint32_t *page_ids = (const uint32_t *)(box + r->box.order_at);
    if (!is_record_good(r, seat, record, checksums)) {
        return false;
    }
    for (uint32_t page = 0; page < record->n_pages; page++) {
        const uint8_t *bytes = r->pages + page_ids[page] * r->shape.page_bytes;
        for (uint32_t layer = 0; layer < r->shape.n_layers; layer++) {
            if (*checksums++ !=
                cmi_crc32c(0, bytes + layer * r->shape.layer_bytes, r->shape.layer_bytes)) {
                return false;
            }
        }
    }
    return true;
}

void cmi_receive_arrive(cmi_kv_receiver *r, uint32_t seat_idx)
{
    cmi_receive_seat *seat = &r->seats[seat_idx];
    const bool is_wanted = seat->state == CMI_RECEIVE_ASKED;
    const bool ok = is_wanted && is_intact(r, seat_idx);
    pthread_mutex_lock(&r->lock);
    r->stats.n_arrived++;
    r->stats.n_damaged += is_wanted && !ok ? 1 : 0;
    r->stats.n_bytes += ok ? seat->n_pages * r->shape.page_bytes : 0;
    pthread_mutex_unlock(&r->lock);
    if (is_wanted && !ok) {
        cmi_log(CMI_LOG_WARN, "KV from %s is damaged, the prompt is computed again",
                r->peers[seat->peer].address);
    }
    seat->n_damaged += is_wanted && !ok ? 1 : 0;
    cmi_receive_leave_peer(r, seat_idx, ok ? CMI_RECEIVE_ARRIVED : CMI_RECEIVE_DAMAGED,
                           seat->n_damaged < MAX_DAMAGED ? CMI_OK : CMI_ERR_BAD_DATA);
}

/* Seats whose peer has said that it is done. Returns whether a signal is still to come. */
bool cmi_receive_look_at_words(cmi_kv_receiver *r)
{
    bool is_due = false;
    for (uint32_t i = 0; i < r->n_seats; i++) {
        cmi_receive_seat *seat = &r->seats[i];
        if (seat->transfer == 0 || !seat->is_done) {
            continue;
        }
        if (cmi_word_load(cmi_receive_word(r, i)) != seat->word_before) {
            cmi_receive_arrive(r, i);
        } else {
            is_due = true;
        }
    }
    return is_due;
}

uint32_t cmi_receive_find(const cmi_kv_receiver *r, uint64_t transfer)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        if (transfer != 0 && r->seats[i].transfer == transfer) {
            return i;
        }
    }
    return UINT32_MAX;
}
