/* engine/kv_sender.c - the prefill side of a hand-over: its connections, its thread, and what the
 * engine tells it. A transfer's way is in kv_sender_pages.c.
 *
 * Thread: its own, which owns the fabric and takes the engine's events; the engine's writes what
 * the lock guards. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/kv_sender_internal.h"

enum {
    LONG_SLEEP_NS = 100000000,
    SHORT_SLEEP_NS = 100000, /* while a step makes slices final, or a ring is full */

};

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

static void free_send(cmi_send *send)
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

static void receive_messages(cmi_kv_sender *s)
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

static void poll_fabric(cmi_kv_sender *s)
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

/* ---- events of the engine ----------------------------------------------------------------------
 */

/* False: the ring has no room now. */
static bool send_pending(cmi_kv_sender *s)
{
    if (s->pending.kind == 0) {
        return true;
    }
    cmi_status st =
        cmi_endpoint_send(s->fabric, s->pending_endpoint, &s->pending, sizeof s->pending);
    if (st == CMI_ERR_NO_CAPACITY) {
        return false;
    }
    s->pending.kind = 0; /* sent, or the endpoint is lost */
    return true;
}

static void on_prompt_token(cmi_kv_sender *s, cmi_send *send, const cmi_event *event)
{
    send->n_events++;
    s->pending = (cmi_handover_event){
        .kind = CMI_HANDOVER_PROMPT_EVENT, .transfer = send->transfer, .event = *event};
    s->pending_endpoint = send->endpoint;
}

static void on_finished(cmi_send *send)
{
    send->is_in_engine = false;
    if (send->state == CMI_SEND_RUNNING) {
        cmi_send_end_early(send, CMI_ERR_CLOSED); /* the engine stops */
    }
}

/* Takes events as long as what comes of them can be sent. Returns whether some are left. */
static bool take_events(cmi_kv_sender *s)
{
    cmi_event event;
    while (send_pending(s)) {
        if (cmi_engine_poll(s->engine, &event, 1) == 0) {
            return false;
        }
        cmi_send *send = cmi_send_find(s, event.request_id);
        if (send != NULL && event.type == CMI_EVENT_PROMPT_TOKEN) {
            on_prompt_token(s, send, &event);
        } else if (send != NULL && event.type == CMI_EVENT_FINISHED) {
            on_finished(send);
        }
    }
    return true;
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static bool advance_all(cmi_kv_sender *s)
{
    bool again = false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_active; i++) {
        cmi_send *send = &s->sends[s->active[i]];
        again = cmi_send_advance(s, send) || again;
        if (send->state == CMI_SEND_FREE) {
            free_send(send);
        } else {
            s->active[n++] = s->active[i];
        }
    }
    s->n_active = n;
    return again;
}

static bool is_stopping(cmi_kv_sender *s)
{
    pthread_mutex_lock(&s->lock);
    bool stopping = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return stopping;
}

static void *sender_main(void *arg)
{
    cmi_kv_sender *s = arg;
    while (!is_stopping(s)) {
        bool more = cmi_fabric_progress(s->fabric);
        poll_fabric(s);
        receive_messages(s);
        bool again = take_events(s);
        again = advance_all(s) || again;
        if (!more) {
            cmi_fabric_sleep(
                s->fabric, cmi_fabric_after_ns(s->fabric, again ? SHORT_SLEEP_NS : LONG_SLEEP_NS));
        }
    }
    return NULL;
}

/* ---- the engine's calls ------------------------------------------------------------------------
 */

void cmi_kv_sender_step_adds(cmi_kv_sender *s, uint64_t request_id, const uint32_t *page_ids,
                             uint32_t n_pages)
{
    cmi_send *send = &s->sends[(uint32_t)request_id];
    pthread_mutex_lock(&s->lock);
    if (s->n_in_step == 0) {
        atomic_store_explicit(&s->n_layers_done, 0, memory_order_relaxed);
    }
    n_pages = CMI_MIN(n_pages, send->n_pages);
    if (n_pages > send->n_ready) {
        memcpy(send->source + send->n_ready, page_ids + send->n_ready,
               (n_pages - send->n_ready) * sizeof *page_ids);
        send->n_step = n_pages;
    }
    s->in_step[s->n_in_step++] = (uint32_t)request_id;
    pthread_mutex_unlock(&s->lock);
}

void cmi_kv_sender_step_begins(cmi_kv_sender *s)
{
    cmi_fabric_wake(s->fabric);
}

_Atomic uint32_t *cmi_kv_sender_layers_done(cmi_kv_sender *s)
{
    return &s->n_layers_done;
}

void cmi_kv_sender_complete(cmi_kv_sender *s, uint64_t request_id,
                            const cmi_handover_record *record)
{
    cmi_send *send = &s->sends[(uint32_t)request_id];
    pthread_mutex_lock(&s->lock);
    send->record = *record;
    send->record.transfer = send->transfer;
    send->record.n_pages = send->n_step;
    send->is_complete = true;
    pthread_mutex_unlock(&s->lock);
}

void cmi_kv_sender_step_ends(cmi_kv_sender *s)
{
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_in_step; i++) {
        cmi_send *send = &s->sends[s->in_step[i]];
        send->n_ready = CMI_MAX(send->n_ready, send->n_step);
    }
    s->n_in_step = 0;
    pthread_mutex_unlock(&s->lock);
    cmi_fabric_wake(s->fabric);
}

void cmi_kv_sender_wake(cmi_kv_sender *s)
{
    cmi_fabric_wake(s->fabric);
}

/* ---- life --------------------------------------------------------------------------------------
 */

cmi_status cmi_kv_sender_create(cmi_kv_sender **sender_out, const cmi_handover_options *opt,
                                cmi_error *err)
{
    cmi_kv_sender *s = cmi_alloc(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    cmi_fabric_options fabric = cmi_handover_fabric_options(opt);
    cmi_status st = cmi_fabric_create_local(&s->fabric, &fabric, err);
    if (st == CMI_OK) {
        st = cmi_fabric_listen(s->fabric, "local:", err);
    }
    if (st != CMI_OK) {
        cmi_kv_sender_destroy(s);
        return st;
    }
    *sender_out = s;
    return CMI_OK;
}

void cmi_kv_sender_destroy(cmi_kv_sender *s)
{
    if (s == NULL) {
        return;
    }
    assert(!s->has_thread);
    cmi_fabric_destroy(s->fabric);
    pthread_mutex_destroy(&s->lock);
    cmi_free(s);
}

const char *cmi_kv_sender_address(const cmi_kv_sender *s)
{
    return cmi_fabric_address(s->fabric);
}

cmi_status cmi_kv_sender_start(cmi_kv_sender *s, cmi_engine *engine, cmi_error *err)
{
    const cmi_instance *in = engine->instance;
    s->engine = engine;
    s->pages = in->kv_pool.base;
    s->shape = cmi_handover_shape_make(in, &engine->content_model);
    s->box = cmi_handover_box_make(&in->kv_pool.layout, in->max_model_len);
    s->n_sends = engine->n_slots;
    s->sends = cmi_alloc(s->n_sends, sizeof *s->sends);
    s->active = cmi_alloc(s->n_sends, sizeof *s->active);
    s->in_step = cmi_alloc(in->max_num_seqs, sizeof *s->in_step);
    int rc = pthread_create(&s->thread, NULL, sender_main, s);
    s->has_thread = rc == 0;
    return rc == 0 ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_IO, "cannot start the sender's thread: %s",
                                   strerror(rc));
}

void cmi_kv_sender_stop(cmi_kv_sender *s)
{
    if (s->has_thread) {
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_mutex_unlock(&s->lock);
        cmi_fabric_wake(s->fabric);
        pthread_join(s->thread, NULL);
        s->has_thread = false;
    }
    for (size_t i = 0; i < CMI_LEN(s->peers); i++) {
        cmi_endpoint_close(s->fabric, s->peers[i].endpoint);
    }
    for (uint32_t i = 0; i < s->n_active; i++) {
        free_send(&s->sends[s->active[i]]);
    }
    s->n_active = 0;
}
