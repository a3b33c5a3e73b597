/* fabric/local/sleep.c - progress, and how a fabric without work waits; see local_internal.h.
 *
 * Nobody loses a wake-up: the sleeper stores is_sleeping, then looks once more at what it waits
 * for; its peer stores that, then loads is_sleeping. All four are seq_cst, so one of the two sees
 * the other. Sockets need no such care, since the watch itself sees them. */
#include "fabric/local/local_internal.h"

#include <string.h>

enum {
    LOOK_NS = 1000000,     /* between two looks at the sockets: each costs a system call */
    CALLS_PER_LOOK = 4096, /* where the clock stands still */
    MAX_READY = 64,        /* sockets a look takes on */
    BEATS_PER_HUNG = 4,    /* a sleeper wakes to show that it lives */
};

void cmi_local_nudge(const cmi_local_endpoint *ep)
{
    if (ep->peer_header != NULL && atomic_load(&ep->peer_header->is_sleeping) != 0 &&
        atomic_exchange(&ep->peer_header->is_sleeping, 0) != 0) {
        cmi_watch_ring(ep->peer_bell_fd);
    }
}

/* ---- looking at the sockets ---- */

enum { KIND_BITS = 2 };

uint64_t cmi_local_watch_key(const cmi_local_fabric *f, const cmi_local_endpoint *ep, uint32_t kind)
{
    if (ep == NULL) {
        return kind;
    }
    return (uint64_t)ep->gen << 32 | (uint64_t)cmi_local_endpoint_idx(f, ep) << KIND_BITS | kind;
}

static void hear(cmi_local_fabric *f, uint64_t key)
{
    uint32_t kind = key & ((1u << KIND_BITS) - 1);
    if (kind == CMI_LOCAL_WATCH_LISTENER) {
        cmi_local_accept(f);
        return;
    }
    cmi_endpoint_id id = {.idx = (uint32_t)key >> KIND_BITS, .gen = (uint32_t)(key >> 32)};
    cmi_local_endpoint *ep = cmi_local_find_endpoint(f, id);
    if (ep == NULL || ep->fd < 0) {
        return;
    }
    cmi_local_read_socket(f, ep); /* also before the death of its process: it may have said bye */
    if (kind == CMI_LOCAL_WATCH_PROCESS && cmi_local_find_endpoint(f, id) != NULL) {
        cmi_local_lose(f, ep, CMI_ERR_PEER);
    }
}

static void look_at_endpoint(cmi_local_fabric *f, cmi_local_endpoint *ep, uint64_t now_ns)
{
    switch (ep->state) {
    case ENDPOINT_FREE:
    case ENDPOINT_LOST:
        return;
    case ENDPOINT_OPEN:
        break;
    case ENDPOINT_DIALS:
        cmi_local_dial(f, ep);
        /* fall through */
    default:
        if (ep->state != ENDPOINT_LOST && now_ns >= ep->deadline_ns) {
            cmi_local_lose(f, ep, CMI_ERR_TIMEOUT);
        }
        return;
    }
    cmi_local_announce(f, ep);
    uint32_t beats = atomic_load_explicit(&ep->peer_header->n_beats, memory_order_relaxed);
    if (beats != ep->seen_beats) {
        ep->seen_beats = beats;
        ep->beat_ns = now_ns;
    } else if (f->base.opt.hung_after_ns != 0 &&
               now_ns - CMI_MIN(ep->beat_ns, now_ns) >= f->base.opt.hung_after_ns) {
        cmi_local_lose(f, ep, CMI_ERR_PEER);
    }
}

static void look(cmi_local_fabric *f, uint64_t now_ns)
{
    f->look_ns = now_ns;
    f->n_since_look = 0;
    /* relaxed: it only has to change */
    atomic_fetch_add_explicit(&f->header->n_beats, 1, memory_order_relaxed);
    uint64_t keys[MAX_READY];
    size_t n = cmi_watch_ready(&f->watch, keys, MAX_READY);
    for (size_t i = 0; i < n; i++) {
        hear(f, keys[i]);
    }
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        look_at_endpoint(f, &f->endpoints[i], now_ns);
    }
}

bool cmi_local_progress(cmi_fabric *fabric, uint64_t now_ns)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    f->n_since_look++;
    if (now_ns - f->look_ns >= LOOK_NS || f->n_since_look >= CALLS_PER_LOOK) {
        look(f, now_ns);
    }
    if (f->n_queued > 0) {
        cmi_local_run_queues(f);
    }
    return f->n_queued > 0;
}

/* ---- sleeping ---- */

static bool has_message(const cmi_local_fabric *f)
{
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        const cmi_local_endpoint *ep = &f->endpoints[i];
        if (ep->is_shown && ep->state != ENDPOINT_FREE && ep->rings_share != NULL &&
            cmi_ring_has_message(&ep->in)) {
            return true;
        }
    }
    return false;
}

static bool has_room(const cmi_local_fabric *f)
{
    for (uint32_t i = 0; i < f->n_endpoints_used && f->n_blocked > 0; i++) {
        if (f->endpoints[i].is_blocked && cmi_ring_has_moved(&f->endpoints[i].out)) {
            return true;
        }
    }
    return false;
}

bool cmi_local_is_busy(cmi_fabric *fabric)
{
    const cmi_local_fabric *f = cmi_local_of(fabric);
    return f->first_done != CMI_LOCAL_NONE || f->first_event_endpoint != CMI_LOCAL_NONE ||
           has_message(f) || has_room(f);
}

static bool has_cause(cmi_local_fabric *f, const cmi_wait *wait)
{
    if (f->n_queued > 0) {
        return true;
    }
    return wait != NULL ? cmi_wait_is_over(wait)
                        : atomic_load(&f->base.is_woken) || cmi_local_is_busy(&f->base);
}

static uint64_t next_beat_ns(uint64_t now_ns, uint64_t hung_after_ns)
{
    return hung_after_ns == 0 ? UINT64_MAX : now_ns + hung_after_ns / BEATS_PER_HUNG;
}

/* When something here has its time, without a sign from outside. */
static uint64_t next_due_ns(const cmi_local_fabric *f, uint64_t deadline_ns, uint64_t now_ns)
{
    deadline_ns = CMI_MIN(deadline_ns, next_beat_ns(now_ns, f->base.opt.hung_after_ns));
    for (uint32_t i = 0; i < f->n_endpoints_used; i++) {
        const cmi_local_endpoint *ep = &f->endpoints[i];
        if (ep->state == ENDPOINT_OPEN) {
            deadline_ns = CMI_MIN(deadline_ns, next_beat_ns(now_ns, ep->peer_hung_ns));
        }
        if (ep->state == ENDPOINT_DIALS ||
            (ep->state == ENDPOINT_OPEN && ep->told_serial < f->last_serial)) {
            deadline_ns = CMI_MIN(deadline_ns, now_ns + LOOK_NS);
        } else if (ep->state != ENDPOINT_FREE && ep->state < ENDPOINT_OPEN) {
            deadline_ns = CMI_MIN(deadline_ns, ep->deadline_ns);
        }
    }
    return deadline_ns;
}

void cmi_local_sleep(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait)
{
    cmi_local_fabric *f = cmi_local_of(fabric);
    uint64_t now_ns = cmi_fabric_now_ns(fabric);
    uint64_t until_ns = next_due_ns(f, deadline_ns, now_ns);
    atomic_store(&f->header->is_sleeping, 1);
    if (until_ns > now_ns && !has_cause(f, wait)) {
        cmi_watch_sleep(&f->watch, until_ns - now_ns);
    }
    atomic_store(&f->header->is_sleeping, 0);
    look(f, cmi_fabric_now_ns(fabric));
}

void cmi_local_wake(cmi_fabric *fabric)
{
    cmi_watch_ring(cmi_local_of(fabric)->watch.bell_fd);
}
