/* engine/kv_receiver.c - the decode side of a hand-over: asks prefill instances, and checks what
 * they have put.
 *
 * Thread: its own, which owns the fabric; the engine's leaves commands under the lock. */
#include "engine/kv_receiver.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "os/clock.h"
#include "policy/routing.h"

enum {
    DEFAULT_PATIENCE_NS = 2000000000, /* 15 of them */
    RETRY_NS = 50000000,              /* between attempts to connect */
    ASK_AGAIN_NS = 5000000,           /* after a prefill instance had no room */
    MAX_DAMAGED = 3,                  /* transfers, then the request ends with an error */
    CONNECT_NS = 1000000000,
    LONG_SLEEP_NS = 100000000,
    SHORT_SLEEP_NS = 20000, /* while a signal is about to be seen */
};

typedef struct receive_seat {
    cmi_receive_state state;
    uint64_t transfer; /* of the last ask; 0: none */
    uint32_t peer;
    uint32_t n_pages, n_bytes, n_tokens;
    uint64_t word_before; /* of the ask */
    uint64_t retry_ns;    /* not to be asked for before */
    uint64_t deadline_ns; /* for somebody to be asked */
    uint32_t n_damaged;   /* transfers of this ask */
    bool is_done;         /* the peer has said so; its signal follows */
    bool is_told;         /* the peer, that it was dropped */
} receive_seat;

typedef struct prefill_peer {
    char address[CMI_FABRIC_MAX_ADDRESS + 1];
    cmi_endpoint_id endpoint;
    bool is_connecting;
    uint64_t retry_ns;
} prefill_peer;

typedef struct command {
    uint32_t seat;
    bool is_drop;
} command;

struct cmi_kv_receiver {
    cmi_fabric *fabric;
    uint64_t patience_ns;
    cmi_region_id pages_region, boxes_region;
    uint8_t *pages, *boxes;
    cmi_engine *engine;
    cmi_handover_box box;
    cmi_handover_shape shape;
    uint32_t n_seats;
    pthread_t thread;
    bool has_thread;
    /* the thread's */
    receive_seat *seats;
    uint64_t n_transfers;
    prefill_peer peers[CMI_HANDOVER_MAX_PEERS];
    cmi_prefill_load loads[CMI_HANDOVER_MAX_PEERS];
    uint32_t n_peers;
    command *taken; /* [2 * n_seats] */
    cmi_handover_message message;

    pthread_mutex_t lock; /* guards everything below */
    command *commands;    /* [2 * n_seats]: an ask and a drop of each at most */
    uint32_t n_commands;
    bool stopping;
    cmi_handover_stats stats;
};

/* ---- seats -------------------------------------------------------------------------------------
 */

static uint8_t *box_of(const cmi_kv_receiver *r, uint32_t seat)
{
    return r->boxes + seat * r->box.n_bytes;
}

static const _Atomic uint64_t *word_of(const cmi_kv_receiver *r, uint32_t seat)
{
    return (const _Atomic uint64_t *)box_of(r, seat);
}

static void move_on(receive_seat *seat, cmi_receive_event event)
{
    seat->state = cmi_receive_next_state(seat->state, event);
    assert(seat->state != CMI_RECEIVE_N_STATES);
}

/* The seat is nobody else's any more. The engine is told if the ask is over with that; otherwise
 * somebody else is to be asked, or it ends with `failure`. */
static void leave_peer(cmi_kv_receiver *r, uint32_t seat_idx, cmi_receive_event event,
                       cmi_status failure)
{
    receive_seat *seat = &r->seats[seat_idx];
    const bool was_dropped = seat->state == CMI_RECEIVE_LEAVING;
    r->loads[seat->peer].n_tokens -= seat->n_tokens;
    seat->transfer = 0;
    move_on(seat, event);
    if (seat->state == CMI_RECEIVE_IDLE) {
        cmi_engine_received(r->engine, seat_idx, was_dropped ? CMI_ERR_CANCELLED : CMI_OK);
    } else if (failure != CMI_OK) {
        move_on(seat, CMI_RECEIVE_DROP);
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
    receive_seat *seat = &r->seats[seat_idx];
    uint32_t peer = cmi_route_prefill(r->loads, r->n_peers);
    if (peer == CMI_ROUTE_NONE) {
        return false;
    }
    cmi_handover_note note = {.kind = CMI_HANDOVER_ASK,
                              .seat = seat_idx,
                              .transfer = r->n_transfers + 1,
                              .n_pages = seat->n_pages,
                              .n_bytes = seat->n_bytes};
    seat->word_before = cmi_word_load(word_of(r, seat_idx));
    if (send_note(r, peer, &note) != CMI_OK) {
        return false;
    }
    seat->transfer = ++r->n_transfers;
    seat->peer = peer;
    seat->is_done = seat->is_told = false;
    r->loads[peer].n_tokens += seat->n_tokens;
    move_on(seat, CMI_RECEIVE_SENT);
    pthread_mutex_lock(&r->lock);
    r->stats.n_asked++;
    pthread_mutex_unlock(&r->lock);
    return true;
}

static void ask_for_all(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        receive_seat *seat = &r->seats[i];
        if (seat->state != CMI_RECEIVE_WAITING) {
            continue;
        }
        const uint64_t now_ns = cmi_fabric_now_ns(r->fabric);
        if ((now_ns < seat->retry_ns || !ask(r, i)) && now_ns >= seat->deadline_ns) {
            move_on(seat, CMI_RECEIVE_DROP);
            cmi_engine_received(r->engine, i, CMI_ERR_PEER);
        }
    }
}

static void drop(cmi_kv_receiver *r, uint32_t seat_idx)
{
    receive_seat *seat = &r->seats[seat_idx];
    if (seat->state == CMI_RECEIVE_IDLE) {
        return; /* its result is on the way to the engine */
    }
    move_on(seat, CMI_RECEIVE_DROP);
    if (seat->state == CMI_RECEIVE_IDLE) {
        cmi_engine_received(r->engine, seat_idx, CMI_ERR_CANCELLED);
    }
}

/* A drop is told as soon as the ring has room; until then the transfer goes on in vain. */
static void tell_drops(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        receive_seat *seat = &r->seats[i];
        if (seat->state == CMI_RECEIVE_LEAVING && !seat->is_told) {
            cmi_handover_note note = {.kind = CMI_HANDOVER_CANCEL, .transfer = seat->transfer};
            seat->is_told = send_note(r, seat->peer, &note) == CMI_OK;
        }
    }
}

/* ---- what arrives ------------------------------------------------------------------------------
 */

static bool is_intact(cmi_kv_receiver *r, uint32_t seat_idx)
{
    const receive_seat *seat = &r->seats[seat_idx];
    const uint8_t *box = box_of(r, seat_idx);
    const cmi_handover_record *record = cmi_kv_receiver_record(r, seat_idx);
    const uint32_t *checksums = (const uint32_t *)(box + r->box.checksums_at);
    const uint32_t *page_ids = (const uint32_t *)(box + r->box.order_at);
    if (record->transfer != seat->transfer || record->n_pages != seat->n_pages ||
        record->n_drafts > CMI_MAX_DRAFTS || record->first.n_top > CMI_MAX_TOP_LOGPROBS ||
        record->first.token_id >= r->shape.vocab_size) {
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

static void arrive(cmi_kv_receiver *r, uint32_t seat_idx)
{
    receive_seat *seat = &r->seats[seat_idx];
    const bool is_wanted = seat->state == CMI_RECEIVE_ASKED;
    const bool ok = is_wanted && is_intact(r, seat_idx);
    pthread_mutex_lock(&r->lock);
    r->stats.n_arrived++;
    r->stats.n_damaged += is_wanted && !ok ? 1 : 0;
    r->stats.n_bytes +=
        (uint64_t)cmi_kv_receiver_record(r, seat_idx)->n_pages * r->shape.page_bytes;
    pthread_mutex_unlock(&r->lock);
    if (is_wanted && !ok) {
        cmi_log(CMI_LOG_WARN, "KV from %s is damaged, the prompt is computed again",
                r->peers[seat->peer].address);
    }
    seat->n_damaged += is_wanted && !ok ? 1 : 0;
    leave_peer(r, seat_idx, ok ? CMI_RECEIVE_ARRIVED : CMI_RECEIVE_DAMAGED,
               seat->n_damaged < MAX_DAMAGED ? CMI_OK : CMI_ERR_BAD_DATA);
}

/* Seats whose peer has said that it is done. Returns whether a signal is still to come. */
static bool look_at_words(cmi_kv_receiver *r)
{
    bool is_due = false;
    for (uint32_t i = 0; i < r->n_seats; i++) {
        receive_seat *seat = &r->seats[i];
        if (seat->transfer == 0 || !seat->is_done) {
            continue;
        }
        if (cmi_word_load(word_of(r, i)) != seat->word_before) {
            arrive(r, i);
        } else {
            is_due = true;
        }
    }
    return is_due;
}

static uint32_t find_seat(const cmi_kv_receiver *r, uint64_t transfer)
{
    for (uint32_t i = 0; i < r->n_seats; i++) {
        if (transfer != 0 && r->seats[i].transfer == transfer) {
            return i;
        }
    }
    return UINT32_MAX;
}

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
    uint32_t seat = find_seat(r, note->transfer);
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
        leave_peer(r, seat, CMI_RECEIVE_ENDED,
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

static void receive_messages(cmi_kv_receiver *r)
{
    cmi_endpoint_id from;
    size_t n_bytes;
    while (cmi_fabric_receive(r->fabric, &from, &r->message, &n_bytes)) {
        uint32_t peer = find_peer(r, from);
        if (peer == UINT32_MAX || !cmi_handover_message_is_good(&r->message, n_bytes)) {
            continue;
        }
        if (r->message.kind == CMI_HANDOVER_PROMPT_EVENT) {
            uint32_t seat = find_seat(r, r->message.event.transfer);
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
            if (cmi_word_load(word_of(r, i)) != r->seats[i].word_before) {
                arrive(r, i);
            } else {
                leave_peer(r, i, CMI_RECEIVE_LOST, CMI_OK);
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
    r->peers[peer].is_connecting = false;
    r->peers[peer].retry_ns = cmi_fabric_after_ns(r->fabric, RETRY_NS);
    cmi_endpoint_close(r->fabric, r->peers[peer].endpoint);
    r->peers[peer].endpoint = (cmi_endpoint_id){0};
}

static void poll_events(cmi_kv_receiver *r)
{
    cmi_fabric_event event;
    while (cmi_fabric_poll(r->fabric, &event)) {
        uint32_t peer = find_peer(r, event.endpoint);
        if (peer == UINT32_MAX) {
            cmi_endpoint_close(r->fabric, event.endpoint); /* nobody connects to this side */
        } else if (event.kind == CMI_EVENT_OPEN) {
            say_hello(r, peer);
        } else if (event.kind == CMI_EVENT_LOST) {
            receive_messages(r); /* those that it sent before */
            lose_peer(r, peer);
        }
    }
}

static void connect_peers(cmi_kv_receiver *r)
{
    for (uint32_t i = 0; i < r->n_peers; i++) {
        prefill_peer *peer = &r->peers[i];
        if (!peer->is_connecting && cmi_fabric_now_ns(r->fabric) >= peer->retry_ns) {
            cmi_status st =
                cmi_fabric_connect(r->fabric, peer->address,
                                   cmi_fabric_after_ns(r->fabric, CONNECT_NS), &peer->endpoint);
            peer->is_connecting = st == CMI_OK;
            peer->retry_ns = cmi_fabric_after_ns(r->fabric, RETRY_NS);
        }
    }
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static bool take_commands(cmi_kv_receiver *r)
{
    pthread_mutex_lock(&r->lock);
    uint32_t n = r->n_commands;
    memcpy(r->taken, r->commands, n * sizeof *r->taken);
    r->n_commands = 0;
    bool goes_on = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t seat = r->taken[i].seat;
        if (r->taken[i].is_drop) {
            drop(r, seat);
        } else {
            move_on(&r->seats[seat], CMI_RECEIVE_ASK);
            r->seats[seat].deadline_ns = cmi_fabric_after_ns(r->fabric, r->patience_ns);
            r->seats[seat].retry_ns = 0;
            r->seats[seat].n_damaged = 0;
        }
    }
    return goes_on;
}

static uint64_t sleep_ns(const cmi_kv_receiver *r, bool is_due)
{
    if (is_due) {
        return SHORT_SLEEP_NS;
    }
    uint64_t ns = LONG_SLEEP_NS;
    for (uint32_t i = 0; i < r->n_peers; i++) {
        ns = r->loads[i].is_open ? ns : RETRY_NS;
    }
    for (uint32_t i = 0; i < r->n_seats; i++) {
        ns = r->seats[i].state == CMI_RECEIVE_WAITING ? ASK_AGAIN_NS : ns;
    }
    return ns;
}

static void *receiver_main(void *arg)
{
    cmi_kv_receiver *r = arg;
    while (take_commands(r)) {
        connect_peers(r);
        bool more = cmi_fabric_progress(r->fabric);
        receive_messages(r);
        poll_events(r);
        bool is_due = look_at_words(r);
        ask_for_all(r);
        tell_drops(r);
        if (!more) {
            cmi_fabric_sleep(r->fabric, cmi_fabric_after_ns(r->fabric, sleep_ns(r, is_due)));
        }
    }
    return NULL;
}

static void give_command(cmi_kv_receiver *r, uint32_t seat, bool is_drop)
{
    pthread_mutex_lock(&r->lock);
    assert(r->n_commands < 2 * r->n_seats);
    r->commands[r->n_commands++] = (command){.seat = seat, .is_drop = is_drop};
    pthread_mutex_unlock(&r->lock);
    cmi_fabric_wake(r->fabric);
}

/* ---- the engine's calls ------------------------------------------------------------------------
 */

void cmi_kv_receiver_ask(cmi_kv_receiver *r, uint32_t seat_idx, const cmi_request *request,
                         const cmi_page_id *pages, uint32_t n_pages)
{
    receive_seat *seat = &r->seats[seat_idx]; /* idle: the thread does not look at it */
    uint8_t *order = box_of(r, seat_idx) + r->box.order_at;
    uint32_t *page_ids = (uint32_t *)order;
    for (uint32_t i = 0; i < n_pages; i++) {
        page_ids[i] = pages[i].idx;
    }
    memcpy(order + cmi_handover_request_at(n_pages), request, request->n_bytes);
    seat->n_pages = n_pages;
    seat->n_bytes = request->n_bytes;
    seat->n_tokens = request->n_prompt_tokens;
    give_command(r, seat_idx, false);
}

void cmi_kv_receiver_drop(cmi_kv_receiver *r, uint32_t seat)
{
    give_command(r, seat, true);
}

const cmi_handover_record *cmi_kv_receiver_record(const cmi_kv_receiver *r, uint32_t seat)
{
    return (const cmi_handover_record *)(box_of(r, seat) + r->box.record_at);
}

void cmi_kv_receiver_stats(cmi_kv_receiver *r, cmi_handover_stats *stats_out)
{
    pthread_mutex_lock(&r->lock);
    *stats_out = r->stats;
    pthread_mutex_unlock(&r->lock);
}

/* ---- life --------------------------------------------------------------------------------------
 */

cmi_status cmi_kv_receiver_create(cmi_kv_receiver **receiver_out, const cmi_handover_options *opt,
                                  cmi_error *err)
{
    cmi_kv_receiver *r = cmi_alloc(1, sizeof *r);
    r->patience_ns = opt->patience_ns > 0 ? opt->patience_ns : UINT64_C(15) * DEFAULT_PATIENCE_NS;
    pthread_mutex_init(&r->lock, NULL);
    cmi_fabric_options fabric = cmi_handover_fabric_options(opt);
    cmi_status st = cmi_fabric_create_local(&r->fabric, &fabric, err);
    if (st != CMI_OK) {
        cmi_kv_receiver_destroy(r);
        return st;
    }
    *receiver_out = r;
    return CMI_OK;
}

void cmi_kv_receiver_destroy(cmi_kv_receiver *r)
{
    if (r == NULL) {
        return;
    }
    assert(!r->has_thread);
    cmi_fabric_destroy(r->fabric);
    pthread_mutex_destroy(&r->lock);
    cmi_free(r);
}

cmi_status cmi_kv_receiver_memory(void *receiver, size_t n_bytes, void **memory_out, cmi_error *err)
{
    cmi_kv_receiver *r = receiver;
    cmi_status st = cmi_fabric_alloc(r->fabric, n_bytes, "KV pages", &r->pages_region, err);
    if (st == CMI_OK) {
        *memory_out = r->pages = cmi_region_memory(r->fabric, r->pages_region);
    }
    return st;
}

cmi_status cmi_kv_receiver_add_peer(cmi_kv_receiver *r, const char *address, cmi_error *err)
{
    if (r->n_peers == CMI_HANDOVER_MAX_PEERS || strlen(address) > CMI_FABRIC_MAX_ADDRESS) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s cannot be a prefill instance's address",
                             address);
    }
    memcpy(r->peers[r->n_peers++].address, address, strlen(address) + 1);
    return CMI_OK;
}

cmi_status cmi_kv_receiver_start(cmi_kv_receiver *r, cmi_engine *engine, cmi_error *err)
{
    const cmi_instance *in = engine->instance;
    assert(r->pages == in->kv_pool.base);
    r->engine = engine;
    r->n_seats = in->max_num_seqs;
    r->box = cmi_handover_box_make(&in->kv_pool.layout, in->max_model_len);
    r->shape = cmi_handover_shape_make(in, &engine->content_model);
    cmi_status st = cmi_fabric_alloc(r->fabric, r->n_seats * r->box.n_bytes, "hand-over boxes",
                                     &r->boxes_region, err);
    if (st != CMI_OK) {
        return st;
    }
    r->boxes = cmi_region_memory(r->fabric, r->boxes_region);
    r->seats = cmi_alloc(r->n_seats, sizeof *r->seats);
    r->commands = cmi_alloc(2 * (size_t)r->n_seats, sizeof *r->commands);
    r->taken = cmi_alloc(2 * (size_t)r->n_seats, sizeof *r->taken);
    int rc = pthread_create(&r->thread, NULL, receiver_main, r);
    r->has_thread = rc == 0;
    return rc == 0 ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_IO, "cannot start the receiver's thread: %s",
                                   strerror(rc));
}

void cmi_kv_receiver_stop(cmi_kv_receiver *r)
{
    if (r->has_thread) {
        pthread_mutex_lock(&r->lock);
        r->stopping = true;
        pthread_mutex_unlock(&r->lock);
        cmi_fabric_wake(r->fabric);
        pthread_join(r->thread, NULL);
        r->has_thread = false;
    }
    for (uint32_t i = 0; i < r->n_peers; i++) {
        cmi_endpoint_close(r->fabric, r->peers[i].endpoint);
    }
    cmi_free(r->taken);
    cmi_free(r->commands);
    cmi_free(r->seats);
    r->seats = NULL;
    r->commands = r->taken = NULL;
}
