#include "fabric/fault.h"

#include <string.h>

#include "base/alloc.h"
#include "fabric/fault_internal.h"

/* ---- calls that go through ---- */

static cmi_status alloc(cmi_fabric *fabric, size_t n_bytes, const char *what,
                        cmi_region_id *region_out, cmi_error *err)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->alloc(inner, n_bytes, what, region_out, err);
}

static cmi_status register_memory(cmi_fabric *fabric, void *memory, size_t n_bytes,
                                  cmi_region_id *region_out, cmi_error *err)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->register_memory(inner, memory, n_bytes, region_out, err);
}

static void deregister(cmi_fabric *fabric, cmi_region_id region)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    inner->backend->deregister(inner, region);
}

static void *region_memory(cmi_fabric *fabric, cmi_region_id region)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->region_memory(inner, region);
}

static cmi_status get_rkey(cmi_fabric *fabric, cmi_region_id region, cmi_rkey *rkey_out)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->get_rkey(inner, region, rkey_out);
}

static cmi_status listen_at(cmi_fabric *fabric, const char *address, cmi_error *err)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->listen(inner, address, err);
}

static const char *get_address(const cmi_fabric *fabric)
{
    const cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->address(inner);
}

static cmi_status connect_to(cmi_fabric *fabric, const char *address, uint64_t deadline_ns,
                             cmi_endpoint_id *endpoint_out)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->connect(inner, address, deadline_ns, endpoint_out);
}

static cmi_status open_rkey(cmi_fabric *fabric, cmi_endpoint_id endpoint, const cmi_rkey *rkey,
                            cmi_remote_id *remote_out)
{
    cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->open_rkey(inner, endpoint, rkey, remote_out);
}

static cmi_status check(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                        const cmi_transfer *transfer)
{
    const cmi_fabric *inner = cmi_fault_of(fabric)->inner;
    return inner->backend->check(inner, endpoint, transfer);
}

/* ---- endpoints ---- */

static void drop_events(cmi_fault_fabric *f, cmi_endpoint_id endpoint)
{
    uint64_t n_places = 2 * (uint64_t)f->base.opt.n_endpoints;
    uint64_t kept = f->n_events_out;
    for (uint64_t i = f->n_events_out; i < f->n_events_in; i++) {
        cmi_fabric_event event = f->events[i % n_places];
        if (event.endpoint.idx != endpoint.idx || event.endpoint.gen != endpoint.gen) {
            f->events[kept++ % n_places] = event;
        }
    }
    f->n_events_in = kept;
}

static void close_endpoint(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_endpoint_info info;
    if (f->inner->backend->get_info(f->inner, endpoint, &info) != CMI_OK) {
        return;
    }
    cmi_fault_take_inner_events(f);
    cmi_fault_end_held(f, endpoint, CMI_ERR_CANCELLED);
    f->inner->backend->close(f->inner, endpoint);
    cmi_fault_take_inner_events(f);
    drop_events(f, endpoint);
}

static void drop(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    f->counts.n_dropped++;
    f->inner->backend->drop(f->inner, endpoint);
}

static cmi_status get_info(const cmi_fabric *fabric, cmi_endpoint_id endpoint,
                           cmi_endpoint_info *info_out)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_status st = f->inner->backend->get_info(f->inner, endpoint, info_out);
    if (st == CMI_OK) {
        info_out->n_ops = cmi_fault_endpoint_of(f, endpoint)->n_ops;
    }
    return st;
}

static cmi_status take_failure(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_status st = f->inner->backend->take_failure(f->inner, endpoint);
    if (st == CMI_OK) {
        cmi_fault_endpoint *ep = cmi_fault_endpoint_of(f, endpoint);
        st = ep->failure;
        ep->failure = CMI_OK;
    }
    return st;
}

static bool is_settled(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    return cmi_fault_endpoint_of(f, endpoint)->n_ops == 0 &&
           f->inner->backend->is_settled(f->inner, endpoint);
}

/* ---- messages ---- */

static cmi_status send_message(cmi_fabric *fabric, cmi_endpoint_id endpoint, const void *message,
                               size_t n_bytes)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    bool is_corrupted, fails;
    cmi_endpoint_info info;
    cmi_status st = f->inner->backend->get_info(f->inner, endpoint, &info);
    if (st == CMI_OK && info.status == CMI_OK) {
        st = cmi_fault_judge(f, endpoint, &is_corrupted, &fails);
    } else {
        is_corrupted = fails = false;
    }
    if (st != CMI_OK) {
        return st;
    }
    if (fails) {
        f->counts.n_failed++;
        return f->opt.fail_status;
    }
    if (is_corrupted && n_bytes <= f->base.opt.message_bytes) {
        f->counts.n_corrupted++;
        memcpy(f->message, message, n_bytes);
        f->message[cmi_fault_random(f, n_bytes)] ^= (uint8_t)(1u << cmi_fault_random(f, 8));
        message = f->message;
    }
    return f->inner->backend->send(f->inner, endpoint, message, n_bytes);
}

/* Not before the endpoint's OPEN was polled here, too. */
static bool receive(cmi_fabric *fabric, cmi_endpoint_id *endpoint_out, void *buffer,
                    size_t *n_bytes_out)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    return f->n_events_in == f->n_events_out &&
           f->inner->backend->receive(f->inner, endpoint_out, buffer, n_bytes_out);
}

/* ---- getting on ---- */

static bool progress(cmi_fabric *fabric, uint64_t now_ns)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_fault_take_inner_events(f);
    bool is_moving = cmi_fault_run(f, now_ns);
    is_moving |= f->inner->backend->progress(f->inner, now_ns);
    cmi_fault_take_inner_events(f);
    return is_moving || cmi_fault_next_due_ns(f) <= now_ns;
}

static bool poll_event(cmi_fabric *fabric, cmi_fabric_event *event_out)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_fault_take_inner_events(f);
    if (cmi_fault_poll_done(f, event_out)) {
        return true;
    }
    if (f->n_events_in == f->n_events_out) {
        return false;
    }
    *event_out = f->events[f->n_events_out++ % (2 * (uint64_t)f->base.opt.n_endpoints)];
    return true;
}

static void sleep_until(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    uint64_t due_ns = cmi_fault_next_due_ns(f);
    f->inner->backend->sleep(f->inner, CMI_MIN(deadline_ns, due_ns), wait);
    atomic_store(&f->inner->is_woken, false); /* the wrapper's own flag is looked at behind this */
    cmi_fault_take_inner_events(f);
}

static bool is_busy(cmi_fabric *fabric)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    return f->n_events_in != f->n_events_out || cmi_fault_has_done(f) ||
           f->inner->backend->is_busy(f->inner);
}

static void wake(cmi_fabric *fabric)
{
    cmi_fabric_wake(cmi_fault_of(fabric)->inner);
}

static void destroy(cmi_fabric *fabric)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    cmi_fabric_destroy(f->inner);
    cmi_free(f->ops);
    cmi_free(f->endpoints);
    cmi_free(f->events);
    cmi_free(f->message);
    cmi_free(f);
}

static const cmi_fabric_backend backend = {
    .destroy = destroy,
    .alloc = alloc,
    .register_memory = register_memory,
    .deregister = deregister,
    .region_memory = region_memory,
    .get_rkey = get_rkey,
    .listen = listen_at,
    .address = get_address,
    .connect = connect_to,
    .close = close_endpoint,
    .drop = drop,
    .get_info = get_info,
    .open_rkey = open_rkey,
    .check = check,
    .begin = cmi_fault_begin,
    .take_failure = take_failure,
    .is_settled = is_settled,
    .send = send_message,
    .receive = receive,
    .progress = progress,
    .poll = poll_event,
    .sleep = sleep_until,
    .is_busy = is_busy,
    .wake = wake,
};

/* ---- making ---- */

cmi_status cmi_fabric_wrap_faults(cmi_fabric **fabric_out, cmi_fabric *inner,
                                  const cmi_fault_options *opt, cmi_error *err)
{
    if (opt->n_ops == 0 || opt->n_ops > 1 << 16 || opt->min_delay_ns > opt->max_delay_ns) {
        return cmi_error_set(err, CMI_ERR_INVALID, "faults: n_ops or delays are out of range");
    }
    cmi_fault_fabric *f = cmi_alloc(1, sizeof *f);
    f->base.backend = &backend;
    f->base.opt = inner->opt;
    f->inner = inner;
    f->opt = *opt;
    f->ops = cmi_alloc(opt->n_ops, sizeof *f->ops);
    for (uint32_t i = 0; i < opt->n_ops; i++) {
        f->ops[i].gen = 1;
    }
    f->endpoints = cmi_alloc(inner->opt.n_endpoints, sizeof *f->endpoints);
    f->events = cmi_alloc(2 * (size_t)inner->opt.n_endpoints, sizeof *f->events);
    f->message = cmi_alloc(inner->opt.message_bytes, 1);
    *fabric_out = &f->base;
    return CMI_OK;
}

void cmi_fault_set(cmi_fabric *fabric, const cmi_fault_options *opt)
{
    cmi_fault_fabric *f = cmi_fault_of(fabric);
    uint32_t n_ops = f->opt.n_ops;
    uint64_t seed = f->opt.seed;
    f->opt = *opt;
    f->opt.n_ops = n_ops;
    f->opt.seed = seed;
    f->counts = (cmi_fault_counts){0};
}

void cmi_fault_drop(cmi_fabric *fabric, cmi_endpoint_id endpoint)
{
    drop(fabric, endpoint);
}

void cmi_fault_get_counts(const cmi_fabric *fabric, cmi_fault_counts *counts_out)
{
    *counts_out = cmi_fault_of(fabric)->counts;
}
