/* engine/kv_sender_pages.c - a transfer's way: fetch the request, put what is final, close. */
#include <assert.h>
#include <string.h>

#include "base/crc32c.h"
#include "engine/engine_internal.h"
#include "engine/kv_sender_internal.h"

void cmi_send_move_on(cmi_send *send, cmi_send_event event)
{
    send->state = cmi_send_next_state(send->state, event);
    assert(send->state != CMI_SEND_N_STATES);
}

cmi_send *cmi_send_find(cmi_kv_sender *s, uint64_t id)
{
    uint32_t idx = (uint32_t)id;
    if (idx >= s->n_sends) {
        return NULL;
    }
    cmi_send *send = &s->sends[idx];
    bool is_it = send->state != CMI_SEND_FREE && send->generation == (uint32_t)(id >> 32);
    return is_it ? send : NULL;
}

static cmi_remote in_box(const cmi_kv_sender *s, const cmi_send *send, uint64_t at)
{
    return (cmi_remote){.id = send->boxes, .offset = send->seat * s->box.n_bytes + at};
}

/* ---- ending ------------------------------------------------------------------------------------
 */

void cmi_send_end_early(cmi_send *send, cmi_status why)
{
    const cmi_send_state before = send->state;
    cmi_send_move_on(send, CMI_SEND_STOP);
    if (send->state == CMI_SEND_LEAVING && before != CMI_SEND_LEAVING) {
        send->end = why;
        send->is_flushing = before == CMI_SEND_FETCHING; /* the fetch's end is as good */
    }
}

/* Nothing of ours is touched any more. */
static void end_in_engine(cmi_kv_sender *s, cmi_send *send)
{
    cmi_send_move_on(send, CMI_SEND_FLUSHED);
    if (send->is_in_engine) {
        cmi_engine_cancel(s->engine, cmi_send_id(s, send));
    }
}

/* Puts take bytes from here until a flush has ended. */
static bool flush(cmi_kv_sender *s, cmi_send *send)
{
    if (send->is_flushing) {
        return false;
    }
    send->op.tag = cmi_send_id(s, send);
    cmi_status st = cmi_endpoint_flush(s->fabric, send->endpoint, &send->op);
    if (st == CMI_ERR_NO_CAPACITY) {
        return true;
    }
    if (st == CMI_OK) {
        send->is_flushing = true;
    } else {
        end_in_engine(s, send); /* a lost endpoint has no operations left */
    }
    return false;
}

/* Says so if the transfer ended early, then it is no more. */
static bool free_when_told(cmi_kv_sender *s, cmi_send *send)
{
    if (send->is_in_engine) {
        return false; /* FINISHED wakes us */
    }
    if (send->end != CMI_OK) {
        cmi_handover_note note = {
            .kind = CMI_HANDOVER_ENDED, .transfer = send->transfer, .status = (int32_t)send->end};
        if (cmi_endpoint_send(s->fabric, send->endpoint, &note, sizeof note) ==
            CMI_ERR_NO_CAPACITY) {
            return true;
        }
    }
    cmi_send_move_on(send, CMI_SEND_OVER);
    return false;
}

/* ---- the request -------------------------------------------------------------------------------
 */

/* A request of another process: nothing in it is believed. Its targets and its time are the decode
 * side's to watch, which has admitted it. */
static cmi_status submit(cmi_kv_sender *s, cmi_send *send)
{
    cmi_request *request = (cmi_request *)(send->order + cmi_handover_request_at(send->n_pages));
    cmi_error err = {0};
    cmi_status st = cmi_request_check(request, send->n_bytes, &err);
    if (st == CMI_OK) {
        request->request_id = cmi_send_id(s, send);
        request->ttft_target_us = request->tpot_target_us = 0;
        request->timeout_ms = request->age_us = 0;
        send->n_events_due =
            (request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0 ? request->n_prompt_tokens : 0;
        st = cmi_engine_submit(s->engine, request, &err);
    }
    return st;
}

static void on_fetched(cmi_kv_sender *s, cmi_send *send, cmi_status st)
{
    if (st == CMI_OK) {
        st = submit(s, send);
    }
    if (st == CMI_OK) {
        send->is_in_engine = true;
        cmi_send_move_on(send, CMI_SEND_FETCHED);
    } else {
        cmi_send_end_early(send, st);
        end_in_engine(s, send);
    }
}

void cmi_send_on_done(cmi_kv_sender *s, cmi_send *send, cmi_status st)
{
    if (send->state == CMI_SEND_FETCHING) {
        on_fetched(s, send, st);
    } else if (send->state == CMI_SEND_LEAVING || send->state == CMI_SEND_CLOSING) {
        end_in_engine(s, send);
    }
}

/* ---- pages -------------------------------------------------------------------------------------
 */

typedef struct progress {
    uint32_t n_ready, n_step, n_layers_done;
    bool is_complete;
} progress;

static progress look(cmi_kv_sender *s, cmi_send *send)
{
    pthread_mutex_lock(&s->lock);
    progress p = {
        .n_ready = send->n_ready, .n_step = send->n_step, .is_complete = send->is_complete};
    pthread_mutex_unlock(&s->lock);
    /* After the lock: the step that n_step is of has set it to 0 before. */
    p.n_layers_done = atomic_load_explicit(&s->n_layers_done, memory_order_acquire);
    return p;
}

static cmi_status put_slice(cmi_kv_sender *s, cmi_send *send)
{
    const uint64_t n_bytes = s->shape.layer_bytes;
    const uint32_t *there = (const uint32_t *)send->order;
    const uint64_t layer_at = send->layer * n_bytes;
    const uint8_t *slice = s->pages + send->source[send->page] * s->shape.page_bytes + layer_at;
    cmi_remote to = {.id = send->pages,
                     .offset = there[send->page] * s->shape.page_bytes + layer_at};
    cmi_status st = cmi_endpoint_put(s->fabric, send->endpoint, slice, to, n_bytes, NULL);
    if (st == CMI_OK) {
        send->checksums[send->page * s->shape.n_layers + send->layer] =
            cmi_crc32c(0, slice, n_bytes);
    }
    return st;
}

/* The slices of the range that are final. CMI_OK: all that there are now. */
static cmi_status put_range(cmi_kv_sender *s, cmi_send *send, uint32_t n_layers)
{
    while (send->layer < n_layers) {
        cmi_status st = put_slice(s, send);
        if (st != CMI_OK) {
            return st;
        }
        if (++send->page == send->range_end) {
            send->page = send->n_sent;
            send->layer++;
        }
    }
    return CMI_OK;
}

/* CMI_OK: nothing more is final. */
static cmi_status put_pages(cmi_kv_sender *s, cmi_send *send, const progress *p)
{
    for (;;) {
        if (send->range_end == send->n_sent) {
            uint32_t end = p->n_ready > send->n_sent ? p->n_ready : p->n_step;
            if (end <= send->n_sent) {
                return CMI_OK;
            }
            send->range_end = end;
            send->page = send->n_sent;
            send->layer = 0;
        }
        const uint32_t n_layers =
            send->range_end <= p->n_ready ? s->shape.n_layers : p->n_layers_done;
        cmi_status st = put_range(s, send, n_layers);
        if (st != CMI_OK || send->layer < s->shape.n_layers) {
            return st;
        }
        send->n_sent = send->range_end;
    }
}

/* Messages keep their order, so that DONE comes behind the prompt's events. */
static bool has_events_to_send(const cmi_kv_sender *s, const cmi_send *send)
{
    return send->n_events < send->n_events_due ||
           (s->pending.kind != 0 && s->pending.transfer == send->transfer);
}

/* What follows the last page: each step once. */
static cmi_status put_tail(cmi_kv_sender *s, cmi_send *send)
{
    const size_t n_checksums = (size_t)send->record.n_pages * s->shape.n_layers;
    cmi_handover_note note = {.kind = CMI_HANDOVER_DONE, .transfer = send->transfer};
    switch (send->tail) {
    case CMI_SEND_TAIL_CHECKSUMS:
        return cmi_endpoint_put(s->fabric, send->endpoint, send->checksums,
                                in_box(s, send, s->box.checksums_at),
                                n_checksums * sizeof *send->checksums, NULL);
    case CMI_SEND_TAIL_RECORD:
        send->record.checksum =
            cmi_handover_record_checksum(&send->record, send->checksums, n_checksums);
        return cmi_endpoint_put(s->fabric, send->endpoint, &send->record,
                                in_box(s, send, s->box.record_at), sizeof send->record, NULL);
    case CMI_SEND_TAIL_SIGNAL:
        return cmi_endpoint_signal(s->fabric, send->endpoint, in_box(s, send, 0), CMI_SIGNAL_ADD, 1,
                                   NULL);
    default:
        return has_events_to_send(s, send)
                   ? CMI_ERR_NO_CAPACITY
                   : cmi_endpoint_send(s->fabric, send->endpoint, &note, sizeof note);
    }
}

static cmi_status run(cmi_kv_sender *s, cmi_send *send, bool *goes_on_out)
{
    const progress p = look(s, send);
    cmi_status st = put_pages(s, send, &p);
    *goes_on_out = p.n_step > p.n_ready; /* a step runs */
    while (st == CMI_OK && p.is_complete && send->n_sent == send->record.n_pages &&
           send->tail != CMI_SEND_TAIL_DONE) {
        st = put_tail(s, send);
        send->tail += st == CMI_OK ? 1 : 0;
    }
    return st;
}

bool cmi_send_advance(cmi_kv_sender *s, cmi_send *send)
{
    bool again = false;
    if (send->state == CMI_SEND_RUNNING) {
        cmi_status st = run(s, send, &again);
        if (send->tail == CMI_SEND_TAIL_DONE) {
            cmi_send_move_on(send, CMI_SEND_PUT_ALL);
        } else if (st == CMI_ERR_NO_CAPACITY) {
            again = true;
        } else if (st != CMI_OK) {
            cmi_send_end_early(send, CMI_ERR_PEER);
        }
    }
    if (send->state == CMI_SEND_CLOSING || send->state == CMI_SEND_LEAVING) {
        again = flush(s, send) || again;
    }
    if (send->state == CMI_SEND_ENDING) {
        again = free_when_told(s, send) || again;
    }
    return again;
}
