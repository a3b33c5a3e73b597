/* engine/kv_receiver.c - the decode side of a hand-over: its thread, its life, and what the engine
 * tells it. A transfer's way is in kv_receiver_seats.c, connections in kv_receiver_peers.c.
 *
 * Thread: its own, which owns the fabric; the engine's leaves commands under the lock. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/engine_internal.h"
#include "engine/kv_receiver_internal.h"

enum {
    LONG_SLEEP_NS = 100000000,
    SHORT_SLEEP_NS = 20000,  /* while a signal is about to be seen */
    LOOK_AGAIN_NS = 5000000, /* while somebody is to be connected or asked */
};

static const uint64_t default_patience_ns = 30000000000;

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
            cmi_receive_drop(r, seat);
        } else {
            cmi_receive_move_on(&r->seats[seat], CMI_RECEIVE_ASK);
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
    bool waits = false;
    for (uint32_t i = 0; i < r->n_peers; i++) {
        waits = waits || !r->loads[i].is_open;
    }
    for (uint32_t i = 0; i < r->n_seats; i++) {
        waits = waits || r->seats[i].state == CMI_RECEIVE_WAITING;
    }
    return waits ? LOOK_AGAIN_NS : LONG_SLEEP_NS;
}

static void *receiver_main(void *arg)
{
    cmi_kv_receiver *r = arg;
    while (take_commands(r)) {
        cmi_receive_connect_peers(r);
        bool more = cmi_fabric_progress(r->fabric);
        cmi_receive_poll_messages(r);
        cmi_receive_poll_events(r);
        bool is_due = cmi_receive_look_at_words(r);
        cmi_receive_ask_all(r);
        cmi_receive_tell_drops(r);
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
    r->commands[r->n_commands++] = (cmi_receive_command){.seat = seat, .is_drop = is_drop};
    pthread_mutex_unlock(&r->lock);
    cmi_fabric_wake(r->fabric);
}

/* ---- the engine's calls ------------------------------------------------------------------------
 */

void cmi_kv_receiver_ask(cmi_kv_receiver *r, uint32_t seat_idx, const cmi_request *request,
                         const cmi_page_id *pages, uint32_t n_pages)
{
    cmi_receive_seat *seat = &r->seats[seat_idx]; /* idle: the thread does not look at it */
    uint8_t *order = cmi_receive_box(r, seat_idx) + r->box.order_at;
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
    return (const cmi_handover_record *)(cmi_receive_box(r, seat) + r->box.record_at);
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
    r->patience_ns = opt->patience_ns > 0 ? opt->patience_ns : default_patience_ns;
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
