/* engine/kv_sender.c - the prefill side of a hand-over: its thread, its life, and what the engine
 * tells it. A transfer's way is in kv_sender_pages.c, connections in kv_sender_peers.c.
 *
 * Thread: its own, which owns the fabric and takes the engine's events; the engine's writes what
 * the lock guards. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/engine_internal.h"
#include "engine/kv_sender_internal.h"
#include "fabric/fault.h"

enum {
    LONG_SLEEP_NS = 100000000,
    /* While a step makes slices final, or a ring is full. The end of a step wakes the thread, so
     * this delays no hand-over; looking every 100 us took 7 % of a processor. */
    SHORT_SLEEP_NS = 1000000,

};

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
            cmi_send_free(send);
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
        cmi_send_poll_fabric(s);
        cmi_send_poll_messages(s);
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
    if (st == CMI_OK && opt->faults != NULL) {
        st = cmi_fabric_wrap_faults(&s->fabric, s->fabric, opt->faults, err);
    }
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
        cmi_send_free(&s->sends[s->active[i]]);
    }
    s->n_active = 0;
    cmi_free(s->in_step);
    cmi_free(s->active);
    cmi_free(s->sends);
    s->in_step = s->active = NULL;
    s->sends = NULL;
}
