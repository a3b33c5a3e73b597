/* engine/router_links.c - the router's thread: links to ranks, requests to them, events from them.
 *
 * It takes the lock for all that other threads look at, and lets go of it before it pushes an
 * event, which may wait. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/router_internal.h"
#include "os/clock.h"
#include "policy/admission.h"

static const uint64_t SECOND = 1000000000, MS = 1000000, US_NS = 1000;
static const uint64_t REDIAL_NS = 100000000, FULL_NS = 20000000;

static uint64_t number_of(const cmi_router *r, uint32_t idx)
{
    return (uint64_t)r->slots[idx].attempt << 32 | idx;
}

static cmi_endpoint_id nothing(void)
{
    return (cmi_endpoint_id){0};
}

/* ---- the end of requests ---- */

/* With what all events of a request repeat. A rank's clock is not ours: what it says is turned into
 * how long ago that was. */
static void complete(const cmi_router_slot *slot, cmi_event *event)
{
    event->version = CMI_MESSAGE_VERSION;
    event->request_id = slot->request->request_id;
    event->submitted_ns = slot->submitted_ns;
    event->started_ns = slot->started_ns;
    event->first_token_ns = slot->first_token_ns;
    event->now_ns = cmi_clock_monotonic_ns();
}

/* Its slot is free, then its last event comes. Without the lock. */
static void finish(cmi_router *r, uint32_t idx, cmi_event event)
{
    cmi_router_slot *slot = &r->slots[idx];
    complete(slot, &event);
    pthread_mutex_lock(&r->lock);
    const cmi_router_slot over = *slot;
    slot->request = NULL;
    slot->output = NULL;
    slot->rank = CMI_ROUTER_NOBODY;
    r->free_slots[r->n_free_slots++] = idx;
    pthread_mutex_unlock(&r->lock);
    cmi_free(over.request);
    cmi_free(over.output);
    (void)cmi_event_ring_push(&r->ring, &event);
}

static void finish_here(cmi_router *r, uint32_t idx, cmi_finish_reason reason, cmi_status st)
{
    const cmi_router_slot *slot = &r->slots[idx];
    const cmi_event event = {.type = CMI_EVENT_FINISHED,
                             .finish_reason = reason,
                             .status = (int32_t)st,
                             .n_prompt_tokens = slot->request->n_prompt_tokens,
                             .n_output_tokens = slot->n_output};
    finish(r, idx, event);
}

/* ---- links come and go ---- */

static void abandon(cmi_router *r, cmi_router_link *link)
{
    cmi_endpoint_close(r->fabric, link->endpoint);
    link->endpoint = nothing();
    link->redial_ns = cmi_fabric_after_ns(r->fabric, REDIAL_NS);
    link->owes_flush = false;
    cmi_free(link->sending);
    link->sending = NULL;
    link->to_send = (cmi_router_queue){0};
}

/* Its requests wait for another rank, before those that have come since. */
static void lose(cmi_router *r, cmi_router_link *link)
{
    const uint32_t rank = (uint32_t)(link - r->links);
    const bool was_up = link->state == CMI_ROUTER_UP;
    uint32_t n_moved = 0;
    pthread_mutex_lock(&r->lock);
    abandon(r, link);
    link->state = CMI_ROUTER_AWAY;
    if (was_up) {
        cmi_engine_stats_add(&link->counted, &link->told.stats);
        r->stats.n_open--;
        r->stats.n_lost++;
    }
    link->told = (cmi_link_load){0};
    for (uint32_t i = 0; i < r->n_slots && was_up; i++) {
        cmi_router_slot *slot = &r->slots[i];
        if (slot->request != NULL && slot->rank == rank) {
            slot->rank = CMI_ROUTER_NOBODY;
            slot->attempt++;
            slot->unplaced_ns = cmi_clock_monotonic_ns();
            r->n_cancelled += slot->is_cancelled ? 1 : 0; /* it ends here now */
            slot->is_cancel_told = false;
            cmi_router_queue_push(r, &r->unplaced, i);
            n_moved++;
        }
    }
    r->stats.n_moved += n_moved;
    pthread_mutex_unlock(&r->lock);
    if (was_up) {
        cmi_log(CMI_LOG_WARN, "rank %u is lost; %u of its requests go on elsewhere", rank, n_moved);
    }
}

static void redial(cmi_router *r, cmi_router_link *link)
{
    cmi_endpoint_id endpoint;
    const uint64_t until_ns = cmi_fabric_after_ns(r->fabric, 60 * SECOND);
    if (cmi_fabric_connect(r->fabric, link->address, until_ns, &endpoint) == CMI_OK) {
        link->endpoint = endpoint;
        pthread_mutex_lock(&r->lock);
        link->state = CMI_ROUTER_CONNECTING;
        pthread_mutex_unlock(&r->lock);
    } else {
        link->redial_ns = cmi_fabric_after_ns(r->fabric, SECOND);
    }
}

static cmi_router_link *find_link(cmi_router *r, cmi_endpoint_id endpoint)
{
    for (uint32_t i = 0; i < r->n_ranks; i++) {
        cmi_router_link *link = &r->links[i];
        if (link->state != CMI_ROUTER_AWAY && link->endpoint.idx == endpoint.idx &&
            link->endpoint.gen == endpoint.gen) {
            return link;
        }
    }
    return NULL;
}

static void hear_fabric(cmi_router *r)
{
    cmi_fabric_event event;
    while (cmi_fabric_poll(r->fabric, &event)) {
        cmi_router_link *link = find_link(r, event.endpoint);
        if (event.kind == CMI_EVENT_LOST && link != NULL) {
            lose(r, link);
        } else if (event.kind != CMI_EVENT_DONE && link == NULL) {
            cmi_endpoint_close(r->fabric, event.endpoint); /* nobody calls a router */
        }
    }
}

/* ---- what ranks say ---- */

static bool hear_hello(cmi_router *r, cmi_router_link *link, const cmi_frame *frame)
{
    cmi_link_hello hello;
    if (link->state != CMI_ROUTER_CONNECTING || !cmi_link_read_hello(frame, &hello) ||
        hello.build != cmi_link_build()) {
        return false;
    }
    pthread_mutex_lock(&r->lock);
    const bool is_alike = !r->has_info || (r->info.vocab_size == hello.vocab_size &&
                                           r->info.max_model_len == hello.max_model_len);
    if (is_alike) {
        r->info = r->has_info ? r->info : hello;
        r->has_info = true;
        link->state = CMI_ROUTER_UP;
        link->hello = hello;
        link->told = (cmi_link_load){0};
        link->n_given = 0;
        link->full_until_ns = 0;
        r->stats.n_open++;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return is_alike;
}

/* The slot that a number is of, if the link's rank has it. Others fill free slots meanwhile. */
static uint32_t slot_of(cmi_router *r, const cmi_router_link *link, uint64_t number)
{
    const uint32_t idx = (uint32_t)number;
    pthread_mutex_lock(&r->lock);
    const bool is_known = idx < r->n_slots && r->slots[idx].request != NULL &&
                          r->slots[idx].attempt == (uint32_t)(number >> 32) &&
                          r->slots[idx].rank == (uint32_t)(link - r->links);
    pthread_mutex_unlock(&r->lock);
    return is_known ? idx : CMI_ROUTER_NOBODY;
}

static bool is_being_sent(const cmi_router *r, uint32_t idx)
{
    const cmi_router_queue *queue = &r->links[r->slots[idx].rank].to_send;
    for (uint32_t at = queue->first, k = 0; k < queue->n; at = r->slots[at].next, k++) {
        if (at == idx) {
            return true;
        }
    }
    return false;
}

/* A rank that ends does not end its requests. */
static bool is_left_over(cmi_router *r, const cmi_router_slot *slot, const cmi_event *said)
{
    pthread_mutex_lock(&r->lock);
    const bool is_wanted = !slot->is_cancelled && !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return is_wanted && said->finish_reason == CMI_FINISH_ABORT;
}

static void send_elsewhere(cmi_router *r, uint32_t idx)
{
    cmi_router_slot *slot = &r->slots[idx];
    pthread_mutex_lock(&r->lock);
    slot->rank = CMI_ROUTER_NOBODY;
    slot->attempt++;
    slot->unplaced_ns = cmi_clock_monotonic_ns();
    r->n_cancelled += slot->is_cancelled ? 1 : 0;
    slot->is_cancel_told = false;
    cmi_router_queue_push(r, &r->unplaced, idx);
    pthread_mutex_unlock(&r->lock);
}

static uint64_t moment(const cmi_event *event, uint64_t then_ns, uint64_t now_ns)
{
    const uint64_t ago_ns = event->now_ns >= then_ns ? event->now_ns - then_ns : 0;
    return then_ns == 0 ? 0 : now_ns - CMI_MIN(ago_ns, now_ns);
}

/* False: no rank says such a thing. */
static bool take_event(cmi_router *r, uint32_t idx, const cmi_event *said)
{
    cmi_router_slot *slot = &r->slots[idx];
    cmi_event event = *said;
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    if (slot->started_ns == 0) {
        slot->started_ns = moment(said, said->started_ns, now_ns);
    }
    if (slot->first_token_ns == 0) {
        slot->first_token_ns = moment(said, said->first_token_ns, now_ns);
    }
    switch (said->type) {
    case CMI_EVENT_PROMPT_TOKEN:
        slot->n_prompt_events++;
        break;
    case CMI_EVENT_TOKEN:
        if (said->index != slot->n_output || slot->n_output == slot->max_output) {
            return false;
        }
        slot->output[slot->n_output++] = said->token_id;
        break;
    default:
        if (is_being_sent(r, idx)) {
            return false;
        }
        if (is_left_over(r, slot, said)) {
            send_elsewhere(r, idx);
        } else {
            finish(r, idx, event);
        }
        return true;
    }
    complete(slot, &event);
    (void)cmi_event_ring_push(&r->ring, &event);
    return true;
}

static bool hear_events(cmi_router *r, const cmi_router_link *link, const cmi_frame *frame)
{
    cmi_event events[CMI_LINK_MAX_EVENTS];
    size_t n;
    bool is_good = cmi_link_read_events(frame, events, &n);
    for (size_t i = 0; is_good && i < n; i++) {
        const uint32_t idx = slot_of(r, link, events[i].request_id);
        is_good = idx == CMI_ROUTER_NOBODY || take_event(r, idx, &events[i]);
    }
    return is_good;
}

static bool hear_refusal(cmi_router *r, cmi_router_link *link, const cmi_frame *frame)
{
    cmi_link_refusal refusal;
    if (!cmi_link_read_refusal(frame, &refusal)) {
        return false;
    }
    const uint32_t idx = slot_of(r, link, refusal.number);
    if (idx != CMI_ROUTER_NOBODY && is_being_sent(r, idx)) {
        return false;
    }
    if (idx != CMI_ROUTER_NOBODY && refusal.status == CMI_ERR_NO_CAPACITY) {
        pthread_mutex_lock(&r->lock);
        link->full_until_ns = cmi_fabric_after_ns(r->fabric, FULL_NS);
        pthread_mutex_unlock(&r->lock);
        send_elsewhere(r, idx);
    } else if (idx != CMI_ROUTER_NOBODY) {
        finish_here(r, idx, CMI_FINISH_ERROR, (cmi_status)refusal.status);
    }
    return true;
}

static bool hear_load(cmi_router *r, cmi_router_link *link, const cmi_frame *frame)
{
    cmi_link_load load;
    if (!cmi_link_read_load(frame, &load) || load.n_taken > link->n_given) {
        return false;
    }
    pthread_mutex_lock(&r->lock);
    link->told = load;
    pthread_mutex_unlock(&r->lock);
    return true;
}

static bool hear(cmi_router *r, cmi_router_link *link, size_t n_bytes)
{
    cmi_frame frame;
    if (cmi_frame_read(r->in, n_bytes, &frame) != CMI_OK) {
        return false;
    }
    if (link->state == CMI_ROUTER_CONNECTING || frame.type == CMI_LINK_HELLO) {
        return frame.type == CMI_LINK_HELLO && hear_hello(r, link, &frame);
    }
    switch (frame.type) {
    case CMI_LINK_EVENTS:
        return hear_events(r, link, &frame);
    case CMI_LINK_REFUSED:
        return hear_refusal(r, link, &frame);
    case CMI_LINK_LOAD:
        return hear_load(r, link, &frame);
    default:
        return false;
    }
}

static void hear_messages(cmi_router *r)
{
    cmi_endpoint_id from;
    size_t n_bytes;
    while (cmi_fabric_receive(r->fabric, &from, r->in, &n_bytes)) {
        cmi_router_link *link = find_link(r, from);
        if (link != NULL && !hear(r, link, n_bytes)) {
            cmi_log(CMI_LOG_WARN, "rank %u does not keep to the protocol, or is of another build",
                    (uint32_t)(link - r->links));
            lose(r, link);
        }
    }
}

/* ---- what is said to them ---- */

/* As it is to be sent now: behind its tokens so far, older, and with its number. */
static cmi_request *prepare(const cmi_router *r, uint32_t idx)
{
    const cmi_router_slot *slot = &r->slots[idx];
    cmi_request *request =
        cmi_request_with_output(slot->request, slot->output, slot->n_output, slot->n_prompt_events);
    const uint64_t age_us =
        request->age_us + (cmi_clock_monotonic_ns() - slot->submitted_ns) / US_NS;
    request->request_id = number_of(r, idx);
    request->age_us = (uint32_t)CMI_MIN(age_us, (uint64_t)UINT32_MAX);
    request->ttft_target_us = slot->n_output > 0 ? 0 : request->ttft_target_us; /* it was kept */
    return request;
}

/* True: it is gone, whole or with its link. False: there is no room for more now. */
static bool send_request(cmi_router *r, cmi_router_link *link, uint32_t idx)
{
    cmi_status st = CMI_OK;
    if (link->sending == NULL) {
        link->sending = prepare(r, idx);
        link->n_sent_bytes = 0;
    }
    while (st == CMI_OK && link->n_sent_bytes < link->sending->n_bytes) {
        const uint32_t n_left = link->sending->n_bytes - link->n_sent_bytes;
        const cmi_link_piece piece = {.number = link->sending->request_id,
                                      .total_bytes = link->sending->n_bytes,
                                      .offset = link->n_sent_bytes,
                                      .bytes = (const uint8_t *)link->sending + link->n_sent_bytes,
                                      .n_bytes = CMI_MIN(n_left, (uint32_t)CMI_LINK_PIECE_BYTES)};
        const size_t n_bytes = cmi_link_write_piece(r->out, &piece);
        st = cmi_endpoint_send(r->fabric, link->endpoint, r->out, n_bytes);
        link->n_sent_bytes += st == CMI_OK ? piece.n_bytes : 0;
    }
    if (st == CMI_OK) {
        cmi_free(link->sending);
        link->sending = NULL;
    }
    return st == CMI_OK; /* of a lost link an event tells */
}

static void send_flush(cmi_router *r, cmi_router_link *link)
{
    if (link->owes_flush) {
        const size_t n = cmi_link_write_number(r->out, CMI_LINK_FLUSH, 0);
        link->owes_flush =
            cmi_endpoint_send(r->fabric, link->endpoint, r->out, n) == CMI_ERR_NO_CAPACITY;
    }
}

static void send_to(cmi_router *r, cmi_router_link *link)
{
    if (link->sending == NULL) {
        send_flush(r, link);
    }
    while (link->to_send.n > 0 && send_request(r, link, link->to_send.first)) {
        cmi_router_queue_remove(r, &link->to_send, link->to_send.first);
    }
}

/* ---- placing ---- */

/* Locked. */
static void place(cmi_router *r)
{
    cmi_rank_load loads[CMI_ROUTER_MAX_RANKS];
    const uint64_t now_ns = cmi_fabric_now_ns(r->fabric);
    while (r->unplaced.n > 0) {
        const uint32_t idx = r->unplaced.first;
        cmi_router_slot *slot = &r->slots[idx];
        cmi_router_loads(r, now_ns, loads);
        const uint32_t rank = cmi_route_rank(loads, r->n_ranks, slot->n_pages, r->turn++);
        if (rank == CMI_ROUTE_NONE) {
            return;
        }
        cmi_router_link *link = &r->links[rank];
        cmi_router_queue_remove(r, &r->unplaced, idx);
        slot->rank = rank;
        link->gifts[link->n_given++ % CMI_ROUTER_GIFTS] =
            (cmi_router_gift){slot->request->n_prompt_tokens, slot->n_pages};
        cmi_router_queue_push(r, &link->to_send, idx);
    }
}

/* Those that no rank has end at once; of the others their rank is told. Returns how many end; what
 * could not be told yet is looked at again. Locked. */
static uint32_t take_cancels(cmi_router *r)
{
    uint32_t n_ended = 0;
    r->owes_cancels = false;
    if (r->n_cancelled == 0) {
        return 0;
    }
    r->n_cancelled = 0;
    for (uint32_t i = 0; i < r->n_slots; i++) {
        cmi_router_slot *slot = &r->slots[i];
        if (slot->request == NULL || !slot->is_cancelled || slot->is_cancel_told) {
            continue;
        }
        if (slot->rank == CMI_ROUTER_NOBODY) {
            cmi_router_queue_remove(r, &r->unplaced, i);
            r->ended[n_ended++] = i;
            continue;
        }
        const size_t n = cmi_link_write_number(r->out, CMI_LINK_CANCEL, number_of(r, i));
        slot->is_cancel_told =
            !is_being_sent(r, i) && cmi_endpoint_send(r->fabric, r->links[slot->rank].endpoint,
                                                      r->out, n) != CMI_ERR_NO_CAPACITY;
        r->n_cancelled += slot->is_cancel_told ? 0 : 1;
    }
    r->owes_cancels = r->n_cancelled > 0;
    return n_ended;
}

/* Ends those that no rank has and whose time is up, or for whom nobody was there for too long.
 * *due_ns becomes no later than the next such end. */
static void end_late(cmi_router *r, uint64_t *due_ns)
{
    const uint64_t now_ns = cmi_clock_monotonic_ns();
    for (uint32_t at = r->unplaced.first, n = r->unplaced.n, next; n > 0; n--, at = next) {
        const cmi_router_slot *slot = &r->slots[at];
        const cmi_request *request = slot->request;
        const cmi_expiry expiry = cmi_admission_expiry(
            slot->submitted_ns - request->age_us * US_NS, request->timeout_ms * MS,
            request->ttft_target_us * US_NS, slot->started_ns > 0);
        const uint64_t patience_ns = slot->unplaced_ns + r->patience_ns;
        next = slot->next;
        if (now_ns >= CMI_MIN(expiry.at_ns, patience_ns)) {
            pthread_mutex_lock(&r->lock);
            cmi_router_queue_remove(r, &r->unplaced, at);
            pthread_mutex_unlock(&r->lock);
            finish_here(r, at, CMI_FINISH_ERROR,
                        now_ns < expiry.at_ns ? CMI_ERR_PEER
                        : expiry.is_timeout   ? CMI_ERR_TIMEOUT
                                              : CMI_ERR_NO_CAPACITY);
        } else {
            *due_ns = CMI_MIN(*due_ns, CMI_MIN(expiry.at_ns, patience_ns));
        }
    }
}

/* ---- getting on ---- */

/* What other threads have left. False: the router stops. */
static bool take_work(cmi_router *r)
{
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < r->n_inbox; i++) {
        cmi_router_queue_push(r, &r->unplaced, r->inbox[i]);
    }
    r->n_inbox = 0;
    const uint32_t n_ended = take_cancels(r);
    place(r);
    for (uint32_t i = 0; i < r->n_ranks && r->flush_asked; i++) {
        r->links[i].owes_flush = r->links[i].state == CMI_ROUTER_UP;
    }
    r->flush_asked = false;
    const bool goes_on = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    for (uint32_t i = 0; i < n_ended; i++) {
        finish_here(r, r->ended[i], CMI_FINISH_ABORT, CMI_OK);
    }
    return goes_on;
}

static void end_all(cmi_router *r)
{
    for (uint32_t i = 0; i < r->n_slots; i++) {
        if (r->slots[i].request != NULL) {
            finish_here(r, i, CMI_FINISH_ABORT, CMI_OK);
        }
    }
}

void *cmi_router_main(void *arg)
{
    cmi_router *r = arg;
    while (take_work(r)) {
        uint64_t due_ns = cmi_fabric_after_ns(r->fabric, SECOND);
        for (uint32_t i = 0; i < r->n_ranks; i++) {
            cmi_router_link *link = &r->links[i];
            if (link->state == CMI_ROUTER_UP) {
                send_to(r, link);
            } else if (link->state == CMI_ROUTER_AWAY) {
                if (cmi_fabric_now_ns(r->fabric) >= link->redial_ns) {
                    redial(r, link);
                }
                due_ns = CMI_MIN(due_ns, link->redial_ns);
            }
        }
        if (r->unplaced.n > 0 || r->owes_cancels) {
            due_ns = CMI_MIN(due_ns, cmi_fabric_after_ns(r->fabric, FULL_NS));
        }
        end_late(r, &due_ns);
        const uint32_t n_unplaced = r->unplaced.n;
        (void)cmi_fabric_progress(r->fabric);
        hear_messages(r); /* what a lost rank has said is gone with its endpoint */
        hear_fabric(r);
        hear_messages(r);
        if (r->unplaced.n <= n_unplaced) { /* else some have lost their rank */
            cmi_fabric_sleep(r->fabric, due_ns);
        }
    }
    end_all(r);
    return NULL;
}
