/* fabric/ucx/sleep.c - progress, and how a fabric without work waits; see ucx_internal.h.
 *
 * A sleeper arms UCX's descriptor, which UCX refuses while it has something to do, and waits for it
 * beside the connections and the bell. Shared memory rings that descriptor for active messages, and
 * so for signals; for what UCX itself has under way (a full queue of a peer's) it may not, so there
 * a sleep is short. */
#include "fabric/ucx/ucx_internal.h"

#include "base/log.h"

enum {
    LOOK_NS = 1000000,           /* between two looks at the connections: each costs system calls */
    LONGEST_SLEEP_NS = 50000000, /* the price of a wake-up that UCX's transports have missed */
    CALLS_PER_LOOK = 4096,       /* where the clock stands still */
    MAX_READY = 64,              /* connections a look takes on */
    MAX_ROUNDS = 16,             /* of UCX's progress in one of ours */
    BEATS_PER_HUNG = 4,
};

/* ---- looking at the connections ---- */

enum { KIND_BITS = 2 };

uint64_t cmi_ucx_watch_key(const cmi_ucx_link *link, uint32_t kind)
{
    if (link == NULL) {
        return kind;
    }
    return (uint64_t)link->gen << 32 | (uint64_t)cmi_ucx_link_idx(link->fabric, link) << KIND_BITS |
           kind;
}

static void hear(cmi_ucx_fabric *f, uint64_t key)
{
    uint32_t kind = key & ((1u << KIND_BITS) - 1);
    if (kind == CMI_UCX_WATCH_LISTENER) {
        cmi_ucx_accept(f);
    } else if (kind == CMI_UCX_WATCH_LINK) {
        cmi_ucx_link *link = &f->links[(uint32_t)key >> KIND_BITS];
        if (link->gen == (uint32_t)(key >> 32) && link->state != LINK_FREE) {
            cmi_ucx_read_control(link);
        }
    }
}

static bool is_after(uint64_t now_ns, uint64_t begin_ns, uint64_t ns)
{
    return now_ns - CMI_MIN(begin_ns, now_ns) >= ns;
}

static void look_at_link(cmi_ucx_link *link, uint64_t now_ns)
{
    uint64_t hung_after_ns = link->fabric->base.opt.hung_after_ns;
    if (link->state == LINK_FREE) {
        return;
    }
    cmi_ucx_send_rest(link);
    if (link->state == LINK_DIALS) {
        cmi_ucx_finish_dial(link);
    }
    if (link->state < LINK_OPEN && now_ns >= link->deadline_ns) {
        cmi_ucx_lose(link, CMI_ERR_TIMEOUT);
    }
    if (link->state == LINK_OPEN) {
        cmi_ucx_announce(link);
        if (link->peer_hung_ns != 0 &&
            is_after(now_ns, link->told_beat_ns, link->peer_hung_ns / BEATS_PER_HUNG)) {
            cmi_ucx_news beat = {.kind = UCX_BEAT};
            (void)cmi_ucx_tell(link, &beat); /* a full connection says as much */
        }
        if (hung_after_ns != 0 && is_after(now_ns, link->beat_ns, hung_after_ns)) {
            cmi_ucx_lose(link, CMI_ERR_PEER);
        }
    }
    cmi_ucx_run_link(link, now_ns);
}

void cmi_ucx_look(cmi_ucx_fabric *f, uint64_t now_ns)
{
    f->look_ns = now_ns;
    f->n_since_look = 0;
    uint64_t keys[MAX_READY];
    size_t n = cmi_watch_ready(&f->watch, keys, MAX_READY);
    for (size_t i = 0; i < n; i++) {
        hear(f, keys[i]);
    }
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        look_at_link(&f->links[i], now_ns);
    }
    cmi_ucx_bury_regions(f);
}

bool cmi_ucx_progress(cmi_fabric *fabric, uint64_t now_ns)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    bool is_moving = false;
    for (int i = 0; i < MAX_ROUNDS && ucp_worker_progress(f->worker) != 0; i++) {
        is_moving = true;
    }
    f->n_since_look++;
    if (now_ns - f->look_ns >= LOOK_NS || f->n_since_look >= CALLS_PER_LOOK) {
        cmi_ucx_look(f, now_ns);
    }
    if (f->is_stirred) {
        cmi_ucx_run_links(f, now_ns);
    }
    return is_moving;
}

/* ---- sleeping ---- */

bool cmi_ucx_is_busy(cmi_fabric *fabric)
{
    const cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    return f->first_done != CMI_UCX_NONE || f->first_event_endpoint != CMI_UCX_NONE ||
           cmi_ucx_has_message(f) || cmi_ucx_has_room(f);
}

static bool has_cause(cmi_ucx_fabric *f, const cmi_wait *wait)
{
    if (f->is_stirred) {
        return true;
    }
    return wait != NULL ? cmi_wait_is_over(wait)
                        : atomic_load(&f->base.is_woken) || cmi_ucx_is_busy(&f->base);
}

static uint64_t next_beat_ns(uint64_t now_ns, uint64_t hung_after_ns)
{
    return hung_after_ns == 0 ? UINT64_MAX : now_ns + hung_after_ns / BEATS_PER_HUNG;
}

/* Something here moves without a sign from outside. */
static bool is_restless(const cmi_ucx_link *link)
{
    return link->state == LINK_DIALS || link->state == LINK_LEAVES || link->has_heard_bye ||
           link->has_ucx_failed || link->control->n_out > 0 ||
           (link->state == LINK_OPEN && link->told_serial < link->fabric->last_serial);
}

/* When something here has its time. */
static uint64_t next_due_ns(const cmi_ucx_fabric *f, uint64_t deadline_ns, uint64_t now_ns)
{
    bool is_short = f->n_pending > 0 || f->n_dying > 0;
    uint64_t due_ns = CMI_MIN(deadline_ns, now_ns + (is_short ? LOOK_NS : LONGEST_SLEEP_NS));
    due_ns = CMI_MIN(due_ns, next_beat_ns(now_ns, f->base.opt.hung_after_ns));
    for (uint32_t i = 0; i < f->n_links_used; i++) {
        const cmi_ucx_link *link = &f->links[i];
        if (link->state == LINK_FREE || link->state == LINK_ENDED) {
            continue;
        }
        if (is_restless(link)) {
            due_ns = CMI_MIN(due_ns, now_ns + LOOK_NS);
        }
        if (link->state < LINK_OPEN) {
            due_ns = CMI_MIN(due_ns, link->deadline_ns);
        } else {
            due_ns = CMI_MIN(due_ns, next_beat_ns(now_ns, link->peer_hung_ns));
        }
    }
    return due_ns;
}

void cmi_ucx_sleep(cmi_fabric *fabric, uint64_t deadline_ns, const cmi_wait *wait)
{
    cmi_ucx_fabric *f = cmi_ucx_of(fabric);
    uint64_t now_ns = cmi_fabric_now_ns(fabric);
    uint64_t until_ns = next_due_ns(f, deadline_ns, now_ns);
    if (until_ns > now_ns && !has_cause(f, wait) && ucp_worker_arm(f->worker) == UCS_OK) {
        cmi_watch_sleep(&f->watch, until_ns - now_ns);
    }
    cmi_ucx_look(f, cmi_fabric_now_ns(fabric));
}

void cmi_ucx_wake(cmi_fabric *fabric)
{
    cmi_watch_ring(cmi_ucx_of(fabric)->watch.bell_fd);
}
