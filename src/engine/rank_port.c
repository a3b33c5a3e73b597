#include "engine/rank_port.h"

#include <assert.h>
#include <pthread.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/link_wire.h"

/* Between two words of the load; and what a rank computes for others alone is news, too. */
static const uint64_t LOAD_NS = 5000000, IDLE_NS = 1000000000;

struct cmi_rank_port {
    cmi_fabric *fabric;
    cmi_engine *engine;
    uint32_t max_running, max_model_len;
    pthread_t thread;
    bool has_thread;
    _Atomic bool stopping;
    cmi_endpoint_id router; /* zeroed: none */
    bool has_router;
    uint8_t in[CMI_LINK_MESSAGE_BYTES], out[CMI_LINK_MESSAGE_BYTES];
    size_t n_out; /* of a message that found no room yet; 0: none */
    /* the request that comes in pieces */
    uint8_t *request;
    uint64_t max_request_bytes;
    uint64_t number;
    uint32_t n_received;
    uint64_t *numbers; /* [max_numbers] of requests that the engine has */
    uint32_t n_numbers, max_numbers;
    uint64_t n_taken;
    bool has_news; /* of the load */
    uint64_t load_due_ns;
};

void cmi_link_fabric_options(cmi_fabric_options *opt, uint32_t n_peers)
{
    cmi_fabric_options_default(opt);
    opt->version = cmi_link_build();
    opt->n_endpoints = 2 * n_peers + 4;
    opt->n_remotes = opt->n_endpoints * opt->n_regions;
    opt->message_bytes = CMI_LINK_MESSAGE_BYTES;
    opt->ring_bytes = 8 * CMI_LINK_MESSAGE_BYTES;
}

cmi_status cmi_rank_port_create(cmi_rank_port **port_out, cmi_fabric *fabric, cmi_error *err)
{
    if (cmi_fabric_address(fabric)[0] == '\0') {
        return cmi_error_set(err, CMI_ERR_INVALID, "a port's fabric has no address");
    }
    cmi_rank_port *port = cmi_alloc(1, sizeof *port);
    port->fabric = fabric;
    *port_out = port;
    return CMI_OK;
}

void cmi_rank_port_notify(void *port)
{
    cmi_fabric_wake(((cmi_rank_port *)port)->fabric);
}

/* ---- sending ---- */

/* What has been written into out goes, now or later; nothing else is written meanwhile. */
static void send_out(cmi_rank_port *port, size_t n_bytes)
{
    port->n_out = n_bytes;
    if (port->n_out > 0) {
        cmi_status st = cmi_endpoint_send(port->fabric, port->router, port->out, port->n_out);
        port->n_out = st == CMI_ERR_NO_CAPACITY ? n_bytes : 0; /* of a lost one an event tells */
    }
}

static void say_hello(cmi_rank_port *port)
{
    cmi_engine_info info;
    cmi_engine_info_get(port->engine, &info);
    const cmi_link_hello hello = {.build = cmi_link_build(),
                                  .vocab_size = info.vocab_size,
                                  .max_model_len = info.max_model_len,
                                  .max_running = port->max_running,
                                  .n_kv_pages = info.n_kv_pages,
                                  .kv_page_tokens = info.kv_page_tokens,
                                  .max_drafts = info.max_drafts};
    send_out(port, cmi_link_write_hello(port->out, &hello));
}

static void refuse(cmi_rank_port *port, uint64_t number, cmi_status st)
{
    const cmi_link_refusal refusal = {number, (int32_t)st};
    send_out(port, cmi_link_write_refusal(port->out, &refusal));
}

static void send_load(cmi_rank_port *port)
{
    cmi_link_load load;
    memset(&load, 0, sizeof load); /* bytes between fields are sent, too */
    cmi_engine_peek(port->engine, &load.load, &load.queue);
    cmi_engine_stats_get(port->engine, &load.stats);
    load.n_taken = port->n_taken;
    port->load_due_ns = cmi_fabric_after_ns(port->fabric, LOAD_NS);
    port->has_news = false;
    send_out(port, cmi_link_write_load(port->out, &load));
}

/* ---- requests ---- */

static uint32_t find_number(const cmi_rank_port *port, uint64_t number)
{
    uint32_t i = 0;
    while (i < port->n_numbers && port->numbers[i] != number) {
        i++;
    }
    return i;
}

static void offer(cmi_rank_port *port, uint32_t n_bytes)
{
    cmi_error err = {0};
    cmi_request *request = (cmi_request *)(void *)port->request;
    port->n_taken++;
    port->has_news = true;
    cmi_status st = cmi_request_check(request, n_bytes, &err);
    if (st == CMI_OK) {
        st = port->n_numbers < port->max_numbers ? CMI_OK : CMI_ERR_NO_CAPACITY;
    }
    if (st == CMI_OK) {
        request->request_id = port->number;
        st = cmi_engine_submit(port->engine, request, &err);
    }
    if (st == CMI_OK) {
        port->numbers[port->n_numbers++] = port->number;
    } else {
        refuse(port, port->number, st);
    }
}

/* False: the router does not keep to the rules. */
static bool take_piece(cmi_rank_port *port, const cmi_link_piece *piece)
{
    const bool is_first = piece->offset == 0;
    if (piece->total_bytes < sizeof(cmi_request) ||
        (!is_first && (piece->number != port->number || piece->offset != port->n_received))) {
        return false;
    }
    port->number = piece->number;
    port->n_received = piece->offset + piece->n_bytes;
    if (piece->total_bytes <= port->max_request_bytes) {
        memcpy(port->request + piece->offset, piece->bytes, piece->n_bytes);
    }
    if (port->n_received == piece->total_bytes) {
        port->n_received = 0;
        if (piece->total_bytes <= port->max_request_bytes) {
            offer(port, piece->total_bytes);
        } else {
            port->n_taken++;
            refuse(port, piece->number, CMI_ERR_TOO_LARGE);
        }
    }
    return true;
}

static bool hear(cmi_rank_port *port, size_t n_bytes)
{
    cmi_frame frame;
    cmi_link_piece piece;
    uint64_t number;
    if (cmi_frame_read(port->in, n_bytes, &frame) != CMI_OK) {
        return false;
    }
    switch (frame.type) {
    case CMI_LINK_REQUEST:
        return cmi_link_read_piece(&frame, &piece) && take_piece(port, &piece);
    case CMI_LINK_CANCEL:
        if (!cmi_link_read_number(&frame, &number)) {
            return false;
        }
        cmi_engine_cancel(port->engine, number);
        return true;
    case CMI_LINK_FLUSH:
        cmi_engine_flush_prefix_cache(port->engine);
        return true;
    default:
        return false;
    }
}

/* ---- the router comes and goes ---- */

static void lose_router(cmi_rank_port *port)
{
    cmi_endpoint_close(port->fabric, port->router);
    port->has_router = false;
    port->n_out = 0;
    port->n_received = 0;
    for (uint32_t i = 0; i < port->n_numbers; i++) {
        cmi_engine_cancel(port->engine, port->numbers[i]);
    }
}

static void hear_event(cmi_rank_port *port, const cmi_fabric_event *event)
{
    const bool is_router = port->has_router && event->endpoint.idx == port->router.idx &&
                           event->endpoint.gen == port->router.gen;
    if (event->kind == CMI_EVENT_OPEN && !port->has_router) {
        port->router = event->endpoint;
        port->has_router = true;
        port->n_taken = 0;
        port->has_news = true;
        say_hello(port);
    } else if (event->kind == CMI_EVENT_OPEN) {
        cmi_log(CMI_LOG_WARN, "a second router is turned away");
        cmi_endpoint_close(port->fabric, event->endpoint);
    } else if (event->kind == CMI_EVENT_LOST && is_router) {
        lose_router(port);
    } else if (event->kind == CMI_EVENT_LOST) {
        cmi_endpoint_close(port->fabric, event->endpoint);
    }
}

/* ---- getting on ---- */

static void forget_ended(cmi_rank_port *port, const cmi_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t at = events[i].type == CMI_EVENT_FINISHED
                                ? find_number(port, events[i].request_id)
                                : port->n_numbers;
        if (at < port->n_numbers) {
            port->numbers[at] = port->numbers[--port->n_numbers];
        }
    }
}

static void pass_events_on(cmi_rank_port *port)
{
    cmi_event events[CMI_LINK_MAX_EVENTS];
    size_t n;
    while (port->n_out == 0 &&
           (n = cmi_engine_poll(port->engine, events, CMI_LINK_MAX_EVENTS)) > 0) {
        forget_ended(port, events, n);
        port->has_news = true;
        if (port->has_router) {
            send_out(port, cmi_link_write_events(port->out, events, n));
        }
    }
}

static void hear_messages(cmi_rank_port *port)
{
    cmi_endpoint_id from;
    size_t n_bytes;
    while (port->n_out == 0 && cmi_fabric_receive(port->fabric, &from, port->in, &n_bytes)) {
        const bool is_router =
            port->has_router && from.idx == port->router.idx && from.gen == port->router.gen;
        if (is_router && !hear(port, n_bytes)) {
            cmi_log(CMI_LOG_WARN, "the router does not keep to the protocol: its link is ended");
            lose_router(port);
        }
    }
}

static void *port_main(void *arg)
{
    cmi_rank_port *port = arg;
    while (!port->stopping) {
        cmi_fabric_event event;
        (void)cmi_fabric_progress(port->fabric);
        while (cmi_fabric_poll(port->fabric, &event)) {
            hear_event(port, &event);
        }
        send_out(port, port->n_out);
        hear_messages(port);
        pass_events_on(port);
        const uint64_t now_ns = cmi_fabric_now_ns(port->fabric);
        port->has_news |= now_ns >= port->load_due_ns + IDLE_NS - LOAD_NS;
        const bool tells = port->has_router && port->has_news;
        if (tells && port->n_out == 0 && now_ns >= port->load_due_ns) {
            send_load(port);
        }
        cmi_fabric_sleep(port->fabric, tells && now_ns < port->load_due_ns
                                           ? port->load_due_ns
                                           : cmi_fabric_after_ns(port->fabric, IDLE_NS));
    }
    return NULL;
}

cmi_status cmi_rank_port_start(cmi_rank_port *port, cmi_engine *engine, uint32_t max_running,
                               cmi_error *err)
{
    cmi_engine_info info;
    cmi_engine_info_get(engine, &info);
    port->engine = engine;
    port->max_running = max_running;
    port->max_numbers = info.max_queued_requests + max_running;
    port->numbers = cmi_alloc(port->max_numbers, sizeof *port->numbers);
    port->max_request_bytes = cmi_request_max_bytes(info.max_model_len);
    port->request = cmi_alloc(1, port->max_request_bytes);
    int rc = pthread_create(&port->thread, NULL, port_main, port);
    port->has_thread = rc == 0;
    return rc == 0 ? CMI_OK : cmi_error_set(err, CMI_ERR_IO, "cannot start a port's thread");
}

void cmi_rank_port_destroy(cmi_rank_port *port)
{
    if (port == NULL) {
        return;
    }
    port->stopping = true;
    cmi_fabric_wake(port->fabric);
    if (port->has_thread) {
        pthread_join(port->thread, NULL);
    }
    cmi_fabric_destroy(port->fabric);
    cmi_free(port->request);
    cmi_free(port->numbers);
    cmi_free(port);
}
