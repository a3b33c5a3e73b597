#include "tests/policy/gang_world.h"

#include <stdlib.h>

#include "base/rng.h"
#include "tests/test.h"

enum {
    N = WORLD_MAX_RANKS,
    MAX_PENDING = 1 << 15,
    MAX_EPOCHS = 1 << 12,
    MAX_BLOWS = 6,
};

static const uint64_t MS = 1000000, PATIENCE_NS = UINT64_C(60000000000);

typedef enum event_kind {
    EV_UP,
    EV_DOWN,
    EV_MESSAGE,
    EV_TICK,
    EV_STOPPED,
    EV_DIAL,
    EV_START
} event_kind;

typedef struct event {
    event_kind kind;
    uint32_t to, from;
    uint64_t process; /* generation that it is for */
    uint64_t link, peer_generation;
    cmi_gang_message message;
} event;

typedef struct heap_item {
    uint64_t at_ns, order;
    uint32_t event;
} heap_item;

typedef struct rank {
    bool is_alive; /* a process is there; left out ones are between two lives */
    uint64_t generation;
    uint64_t acts_in; /* epoch; until it has stopped */
    uint64_t last_epoch;
    uint64_t hangs_until_ns, tick_ns;
    uint64_t slow_stop_ns; /* of the next stop; 0: as usual */
    cmi_gang_machine machine;
    cmi_gang_peer peers[N];
} rank;

typedef struct direction {     /* from one rank to another */
    uint64_t link;             /* which the receiver has; 0: none */
    uint64_t last_ns;          /* when the last thing that is under way arrives */
    uint64_t cut_link, cut_ns; /* of what was sent on that link nothing arrives after that */
} direction;

typedef struct installed {
    uint64_t epoch;
    cmi_gang_set members;
    uint64_t generations[N];
} installed;

static struct {
    uint64_t seed, n_draws, now_ns, n_events, order, n_links;
    uint32_t n, min_ranks, n_blows;
    uint64_t blow_at[MAX_BLOWS];    /* before the n-th event */
    uint64_t last_blow_ns, calm_ns; /* what was struck last has done its work */
    rank ranks[N];
    direction ways[N][N];
    bool is_dialled[N][N];
    uint64_t parted_until_ns;
    uint32_t part; /* bit of those on one side */
    heap_item heap[MAX_PENDING];
    event events[MAX_PENDING];
    uint32_t free[MAX_PENDING], n_free, n_heap;
    installed epochs[MAX_EPOCHS];
    uint32_t n_epochs;
    world_coverage *coverage;
} w;

#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail_msg("seed %llu, %llu ns: %s", (unsigned long long)w.seed,                         \
                     (unsigned long long)w.now_ns, #condition);                                    \
        }                                                                                          \
    } while (0)

/* ---- chance and time ---- */

static uint32_t draw(uint32_t below)
{
    uint32_t out[4];
    cmi_philox4x32(w.seed, w.n_draws++, 0, out);
    return (uint32_t)((uint64_t)out[0] * below >> 32);
}

static bool is_before(const heap_item *a, const heap_item *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void push(uint64_t at_ns, const event *ev)
{
    HOLDS(w.n_free > 0);
    const uint32_t slot = w.free[--w.n_free];
    w.events[slot] = *ev;
    heap_item item = {at_ns, w.order++, slot};
    uint32_t i = w.n_heap++;
    for (; i > 0 && is_before(&item, &w.heap[(i - 1) / 2]); i = (i - 1) / 2) {
        w.heap[i] = w.heap[(i - 1) / 2];
    }
    w.heap[i] = item;
}

static uint64_t pop(event *ev_out)
{
    HOLDS(w.n_heap > 0);
    const heap_item top = w.heap[0], last = w.heap[--w.n_heap];
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < w.n_heap; i = child) {
        if (child + 1 < w.n_heap && is_before(&w.heap[child + 1], &w.heap[child])) {
            child++;
        }
        if (!is_before(&w.heap[child], &last)) {
            break;
        }
        w.heap[i] = w.heap[child];
    }
    w.heap[i] = last;
    *ev_out = w.events[top.event];
    w.free[w.n_free++] = top.event;
    return top.at_ns;
}

/* Even, so that a hanging process wakes at a time of its own. */
static uint64_t soon(void)
{
    static const uint32_t most_us[] = {20, 200, 2000, 30000};
    uint32_t us = most_us[draw(16) == 0 ? 3 : draw(3)];
    return w.now_ns + 2 * (1 + (uint64_t)draw(us * 500));
}

/* ---- links ---- */

static void dial(uint32_t a, uint32_t b, uint64_t at_ns)
{
    const uint32_t low = CMI_MIN(a, b), high = CMI_MAX(a, b);
    if (!w.is_dialled[low][high]) {
        w.is_dialled[low][high] = true;
        push(at_ns, &(event){.kind = EV_DIAL, .to = low, .from = high});
    }
}

/* Both directions keep their order: everything arrives after what was sent before. */
static void send_on(uint32_t from, uint32_t to, event ev)
{
    direction *way = &w.ways[from][to];
    way->last_ns = CMI_MAX(way->last_ns + 2, soon());
    ev.from = from;
    ev.to = to;
    ev.process = w.ranks[to].generation;
    push(way->last_ns, &ev);
}

static bool is_parted(uint32_t a, uint32_t b)
{
    return w.now_ns < w.parted_until_ns && ((w.part >> a ^ w.part >> b) & 1) != 0;
}

static void connect_ranks(uint32_t a, uint32_t b)
{
    w.is_dialled[a][b] = false;
    if (!w.ranks[a].is_alive || !w.ranks[b].is_alive) {
        return; /* who starts dials */
    }
    if (is_parted(a, b)) {
        dial(a, b, w.now_ns + 20 * MS);
        return;
    }
    const uint64_t link = ++w.n_links;
    send_on(a, b, (event){.kind = EV_UP, .link = link, .peer_generation = w.ranks[a].generation});
    send_on(b, a, (event){.kind = EV_UP, .link = link, .peer_generation = w.ranks[b].generation});
}

/* What is under way may arrive yet, or a part of it. */
static void break_way(uint32_t from, uint32_t to, uint64_t link)
{
    direction *way = &w.ways[from][to];
    if (way->cut_link >= link) {
        return;
    }
    way->cut_link = link;
    way->cut_ns = w.now_ns + (draw(2) == 0 ? 0 : (uint64_t)draw(1000000));
    uint64_t down_ns = CMI_MAX(way->cut_ns, soon());
    push(down_ns, &(event){.kind = EV_DOWN,
                           .to = to,
                           .from = from,
                           .link = link,
                           .process = w.ranks[to].generation});
}

static void break_link(uint32_t a, uint32_t b)
{
    const uint64_t link = w.n_links; /* this one, or an older one of the pair */
    if (a != b) {
        break_way(a, b, link);
        break_way(b, a, link);
        dial(a, b, soon() + draw(8) * MS);
    }
}

/* ---- processes ---- */

static void perform(uint32_t slot);

static void start(uint32_t slot)
{
    rank *r = &w.ranks[slot];
    cmi_gang_machine_options opt;
    cmi_gang_machine_options_default(&opt);
    opt.n_slots = w.n;
    opt.self = slot;
    opt.min_ranks = w.min_ranks;
    opt.generation = ++r->generation;
    opt.beat_ns = 200 * MS;
    opt.silent_ns = 800 * MS;
    opt.settle_ns = 300 * MS;
    opt.gather_ns = 1500 * MS;
    opt.join_ns = 20 * MS;
    opt.stop_ns = 1000 * MS;
    r->is_alive = true;
    r->acts_in = r->last_epoch = 0;
    r->hangs_until_ns = 0;
    r->tick_ns = UINT64_MAX;
    HOLDS(cmi_gang_machine_init(&r->machine, r->peers, &opt, w.now_ns));
    for (uint32_t i = 0; i < w.n; i++) {
        w.ways[i][slot].link = 0;
        if (i != slot) {
            dial(i, slot, soon());
        }
    }
    perform(slot);
}

/* Its links break; there is a next life, or not. */
static void end_life(uint32_t slot, bool comes_back)
{
    rank *r = &w.ranks[slot];
    r->is_alive = false;
    r->acts_in = 0;
    for (uint32_t i = 0; i < w.n; i++) {
        break_link(i, slot);
    }
    if (comes_back) {
        push(soon() + draw(30) * draw(30) * MS, &(event){.kind = EV_START, .to = slot});
    }
}

/* ---- what must hold ---- */

static installed *find_epoch(uint64_t epoch)
{
    for (uint32_t i = w.n_epochs; i-- > 0;) {
        if (w.epochs[i].epoch == epoch) {
            return &w.epochs[i];
        }
    }
    HOLDS(w.n_epochs < MAX_EPOCHS);
    w.epochs[w.n_epochs] = (installed){.epoch = epoch};
    return &w.epochs[w.n_epochs++];
}

static void check_view(uint32_t slot)
{
    rank *r = &w.ranks[slot];
    const cmi_gang_machine *m = &r->machine;
    const cmi_gang_set *members = cmi_gang_machine_members(m);
    const uint64_t epoch = cmi_gang_machine_epoch(m);
    HOLDS(cmi_gang_machine_phase(m) == CMI_GANG_READY);
    HOLDS(r->acts_in == 0);
    HOLDS(epoch > r->last_epoch);
    HOLDS(cmi_gang_set_has(members, slot));
    HOLDS(cmi_gang_set_count(members) >= w.min_ranks);
    const uint32_t n_before = w.n_epochs;
    installed *view = find_epoch(epoch);
    if (w.n_epochs > n_before) { /* the first to install it */
        view->members = *members;
        w.coverage->n_views++;
        for (uint32_t i = 0; i < w.n; i++) {
            view->generations[i] = r->peers[i].generation;
        }
    }
    HOLDS(cmi_gang_set_equal(&view->members, members));
    for (uint32_t i = 0; i < w.n; i++) {
        const rank *other = &w.ranks[i];
        if (cmi_gang_set_has(members, i)) {
            HOLDS(view->generations[i] == r->peers[i].generation);
            HOLDS(other->generation != view->generations[i] || other->acts_in == 0 ||
                  other->acts_in >= epoch);
        }
    }
    r->acts_in = r->last_epoch = epoch;
}

/* ---- doing what a machine says ---- */

static void stop_soon(uint32_t slot)
{
    rank *r = &w.ranks[slot];
    HOLDS(cmi_gang_machine_phase(&r->machine) == CMI_GANG_STOPPING);
    uint64_t at_ns = r->slow_stop_ns > 0 ? w.now_ns + r->slow_stop_ns : soon();
    r->slow_stop_ns = 0;
    push(at_ns, &(event){.kind = EV_STOPPED, .to = slot, .process = r->generation});
}

static void live_again(uint32_t slot)
{
    if (cmi_gang_machine_phase(&w.ranks[slot].machine) == CMI_GANG_LEFT_OUT) {
        w.coverage->n_left_out++;
        end_life(slot, true);
    }
}

static void do_action(uint32_t slot, const cmi_gang_action *action)
{
    switch (action->kind) {
    case CMI_GANG_SEND:
        HOLDS(action->slot != slot);
        w.coverage->n_refused += action->message.kind == CMI_GANG_REFUSE;
        if (w.ways[action->slot][slot].link != 0) {
            send_on(slot, action->slot,
                    (event){.kind = EV_MESSAGE,
                            .link = w.ways[action->slot][slot].link,
                            .message = action->message});
        }
        break;
    case CMI_GANG_DROP:
        w.ways[action->slot][slot].link = 0;
        break_link(slot, action->slot);
        break;
    case CMI_GANG_STOP:
        stop_soon(slot);
        break;
    case CMI_GANG_INSTALL:
        check_view(slot);
        break;
    case CMI_GANG_OUT:
        break;
    }
}

static void perform(uint32_t slot)
{
    rank *r = &w.ranks[slot];
    cmi_gang_action action;
    while (cmi_gang_machine_next(&r->machine, &action)) {
        do_action(slot, &action);
    }
    uint64_t due_ns = CMI_MAX(cmi_gang_machine_due_ns(&r->machine), w.now_ns + 1);
    if (due_ns < r->tick_ns) {
        r->tick_ns = due_ns;
        push(due_ns, &(event){.kind = EV_TICK, .to = slot, .process = r->generation});
    }
    live_again(slot);
}

/* ---- events ---- */

static bool is_cut(const event *ev)
{
    const direction *way = &w.ways[ev->from][ev->to];
    return ev->link <= way->cut_link && w.now_ns > way->cut_ns;
}

static void deliver(const event *ev)
{
    rank *r = &w.ranks[ev->to];
    direction *way = &w.ways[ev->from][ev->to];
    switch (ev->kind) {
    case EV_UP:
        if (ev->link > way->link && !is_cut(ev)) {
            way->link = ev->link;
            HOLDS(cmi_gang_machine_link_up(&r->machine, w.now_ns, ev->from, ev->peer_generation));
        }
        break;
    case EV_DOWN:
        if (way->link != 0 && way->link <= ev->link) {
            way->link = 0;
            cmi_gang_machine_link_down(&r->machine, w.now_ns, ev->from);
        }
        dial(ev->to, ev->from, soon() + 2 * MS);
        break;
    case EV_MESSAGE:
        if (ev->link == way->link && !is_cut(ev)) {
            HOLDS(cmi_gang_machine_hear(&r->machine, w.now_ns, ev->from, &ev->message));
        }
        break;
    case EV_TICK:
        r->tick_ns = UINT64_MAX;
        cmi_gang_machine_tick(&r->machine, w.now_ns);
        break;
    case EV_STOPPED:
        r->acts_in = 0;
        cmi_gang_machine_stopped(&r->machine, w.now_ns);
        break;
    case EV_DIAL:
    case EV_START:
        break;
    }
    perform(ev->to);
}

static void happen(const event *ev)
{
    rank *r = &w.ranks[ev->to];
    if (ev->kind == EV_DIAL) {
        connect_ranks(ev->to, ev->from);
    } else if (ev->kind == EV_START) {
        start(ev->to);
    } else if (r->is_alive && r->generation == ev->process) {
        if (w.now_ns < r->hangs_until_ns) {
            push(r->hangs_until_ns, ev);
        } else if (ev->kind != EV_TICK || r->tick_ns <= w.now_ns) {
            deliver(ev);
        }
    }
}

/* ---- blows ---- */

static uint32_t find_victim(world_blow blow)
{
    uint32_t slot = draw(w.n);
    if (blow == BLOW_KILL_LEADER && w.ranks[slot].is_alive) {
        const uint32_t leader = cmi_gang_machine_leader(&w.ranks[slot].machine);
        slot = leader != CMI_GANG_NOBODY ? leader : slot;
    }
    return slot;
}

static void kill_rank(uint32_t slot)
{
    if (w.ranks[slot].is_alive) {
        end_life(slot, draw(4) != 0);
    }
}

static void strike(void)
{
    const world_blow blow = (world_blow)draw(N_BLOWS);
    const uint32_t slot = find_victim(blow), other = draw(w.n);
    rank *r = &w.ranks[slot];
    w.coverage->n_blows[blow]++;
    if (r->is_alive) {
        w.coverage->in_phase[blow][cmi_gang_machine_phase(&r->machine)]++;
    }
    switch (blow) {
    case BLOW_KILL:
    case BLOW_KILL_LEADER:
        kill_rank(slot);
        break;
    case BLOW_KILL_TWO:
        kill_rank(slot);
        kill_rank(other);
        break;
    case BLOW_BREAK:
        break_link(slot, other);
        break;
    case BLOW_PART:
        w.part = draw(1u << w.n);
        w.parted_until_ns = w.now_ns + 1 + draw(3000) * MS;
        for (uint32_t i = 0; i < w.n; i++) {
            for (uint32_t j = 0; j < i; j++) {
                if (is_parted(i, j)) {
                    break_link(i, j);
                }
            }
        }
        break;
    case BLOW_HANG:
        if (r->hangs_until_ns < w.now_ns) { /* not longer, which would mix up what waits */
            r->hangs_until_ns = w.now_ns / 2 * 2 + 1 + draw(2500) * MS;
        }
        break;
    case BLOW_SLOW_TO_STOP:
        r->slow_stop_ns = 1 + draw(3000) * MS;
        break;
    case N_BLOWS:
        break;
    }
    w.last_blow_ns = w.now_ns;
    w.calm_ns = CMI_MAX(w.calm_ns, CMI_MAX(w.now_ns + 40 * MS, w.parted_until_ns));
    w.calm_ns = CMI_MAX(w.calm_ns, r->hangs_until_ns);
}

static void strike_if_due(void)
{
    while (w.n_blows > 0 && w.n_events >= w.blow_at[w.n_blows - 1]) {
        w.n_blows--;
        strike();
    }
}

/* ---- the end ---- */

static bool is_at_rest(void)
{
    cmi_gang_set alive = {{0}};
    uint32_t n_alive = 0;
    uint64_t epoch = 0;
    for (uint32_t i = 0; i < w.n; i++) {
        if (w.ranks[i].is_alive) {
            cmi_gang_set_add(&alive, i);
            n_alive++;
            epoch = cmi_gang_machine_epoch(&w.ranks[i].machine);
        }
    }
    for (uint32_t i = 0; i < w.n; i++) {
        const cmi_gang_machine *m = &w.ranks[i].machine;
        if (!w.ranks[i].is_alive) {
            continue;
        }
        const cmi_gang_phase phase = cmi_gang_machine_phase(m);
        if (n_alive < w.min_ranks ? phase != CMI_GANG_TOO_FEW
                                  : phase != CMI_GANG_READY || cmi_gang_machine_epoch(m) != epoch ||
                                        !cmi_gang_set_equal(cmi_gang_machine_members(m), &alive)) {
            return false;
        }
    }
    return true;
}

static bool is_start_pending(void)
{
    for (uint32_t i = 0; i < w.n_heap; i++) {
        if (w.events[w.heap[i].event].kind == EV_START) {
            return true;
        }
    }
    return false;
}

static void draw_world(void)
{
    w.n = 2 + (draw(8) == 0 ? draw(N - 1) : draw(4));
    w.min_ranks = 1 + draw(w.n);
    w.n_blows = draw(MAX_BLOWS + 1);
    for (uint32_t i = 0; i < w.n_blows; i++) { /* the first comes last */
        w.blow_at[i] = draw(w.n * w.n * 30);
        for (uint32_t j = i; j > 0 && w.blow_at[j - 1] < w.blow_at[j]; j--) {
            const uint64_t later = w.blow_at[j];
            w.blow_at[j] = w.blow_at[j - 1];
            w.blow_at[j - 1] = later;
        }
    }
    for (uint32_t i = 0; i < w.n; i++) {
        w.ranks[i] = (rank){.generation = 0};
        push(2 * (uint64_t)draw(100) * draw(100) * MS / 20, &(event){.kind = EV_START, .to = i});
        for (uint32_t j = 0; j < w.n; j++) {
            w.ways[i][j] = (direction){0};
            w.is_dialled[i][j] = false;
        }
    }
}

static void print_ranks(void)
{
    for (uint32_t i = 0; i < w.n; i++) {
        const rank *r = &w.ranks[i];
        if (!r->is_alive) {
            print_message("rank %u is dead\n", i);
            continue;
        }
        const cmi_gang_peer *self = &r->peers[i];
        print_message("rank %u of generation %llu: phase %d, promised %llx, installed %llx, leader "
                      "%u, flags %u, sees %llx\n",
                      i, (unsigned long long)r->generation, cmi_gang_machine_phase(&r->machine),
                      (unsigned long long)self->promised, (unsigned long long)self->installed,
                      self->leader, self->flags, (unsigned long long)self->sees.words[0]);
    }
}

static void step(void)
{
    event ev;
    strike_if_due();
    w.now_ns = pop(&ev);
    w.n_events++;
    happen(&ev);
    if (w.n_blows == 0 && w.now_ns >= w.last_blow_ns + PATIENCE_NS) {
        print_ranks();
        HOLDS(w.n_blows > 0 /* or they came to no view in time */);
    }
}

/* All is done, all live in one view: no heartbeat changes that. Silence that began before is given
 * its time. */
static void stay_at_rest(void)
{
    uint64_t until_ns = w.now_ns + 2000 * MS;
    w.last_blow_ns = w.now_ns;
    while (w.n_heap > 0 && (w.now_ns < until_ns || !is_at_rest())) {
        step();
    }
    const uint32_t n_epochs = w.n_epochs;
    until_ns = w.now_ns + 2000 * MS;
    while (w.n_heap > 0 && w.now_ns < until_ns) {
        step();
        HOLDS(is_at_rest());
    }
    HOLDS(w.n_epochs == n_epochs);
}

void world_run(uint64_t seed, world_coverage *coverage)
{
    w.seed = seed;
    w.coverage = coverage;
    w.n_draws = w.now_ns = w.n_events = w.order = w.n_links = w.last_blow_ns = 0;
    w.calm_ns = 0;
    w.n_epochs = w.n_heap = 0;
    w.parted_until_ns = 0;
    for (w.n_free = 0; w.n_free < MAX_PENDING; w.n_free++) {
        w.free[w.n_free] = w.n_free;
    }
    draw_world();
    while (w.n_heap > 0 && /* or all are dead */
           (w.n_blows > 0 || w.now_ns < w.calm_ns || !is_at_rest() || is_start_pending())) {
        step();
    }
    HOLDS(is_at_rest());
    coverage->n_events += w.n_events;
    coverage->n_ends++;
    if (w.now_ns > w.calm_ns) {
        coverage->most_ns = CMI_MAX(coverage->most_ns, w.now_ns - w.calm_ns);
    }
    if (seed % 64 == 0) {
        stay_at_rest();
    }
}
