#include "engine/rank_balance.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/rank_experts_internal.h"
#include "os/clock.h"
#include "os/priority.h"
#include "policy/expert_load.h"
#include "policy/expert_moves.h"

enum { AGE_SHIFT = 1 };

static const uint64_t COUNTS_NS = 60000000000u; /* for which a rank's counts are waited */

/* Where a rank is with windows and moves. */
typedef enum balance_state {
    BALANCE_OFF,      /* no view, or one with dead ranks */
    BALANCE_COUNTING, /* until the window ends */
    BALANCE_PLANNING, /* the other thread's work */
    BALANCE_LOADING,  /* likewise: what comes to this rank in the round */
    BALANCE_LOADED,   /* until all ranks have loaded */
    BALANCE_SWITCHED, /* until all ranks have switched */
    BALANCE_BROKEN,   /* an expert or counts did not come: nothing moves in this view any more */
} balance_state;

typedef struct peer_progress {
    uint32_t n_counts;             /* frames of the window that is gathered */
    bool is_busy;                  /* it was moving when the window ended */
    uint32_t n_loaded, n_switched; /* rounds of the view */
} peer_progress;

struct cmi_rank_balance {
    cmi_rank_experts *x;
    cmi_ep_rank *rank;
    uint32_t window, n_passes, n_layers, n_experts, n_places;
    balance_state state;
    uint32_t *counts;     /* [n_layers][n_experts] of this rank, in the open window */
    uint32_t *sums;       /* the same of all ranks, in the one that is gathered */
    peer_progress *peers; /* [n_places] */
    uint32_t round;       /* of the view: rounds that are over */
    /* the plan: the other thread's while PLANNING */
    cmi_expert_load load;
    void *load_memory, *placement_work, *moves_work;
    cmi_expert_placement target;
    void *target_memory;
    float *loads;
    cmi_expert_move *moves;   /* [n_layers][n_replicas] */
    uint32_t *n_moves;        /* [n_layers] */
    uint32_t layer;           /* that moves */
    cmi_expert_moving moving; /* of it */
    const cmi_expert_move *round_moves;
    uint32_t n_round_moves;
    cmi_rank_balance_stats stats;
    /* the other thread: while it works, incoming, work_status and what a plan needs are its */
    pthread_t thread;
    bool has_thread;
    sem_t work, done; /* no lock: the other thread could be held up with it, behind this one */
    _Atomic bool is_working;
    bool is_planning, is_ending; /* what the work is */
    cmi_expert_target incoming;  /* slab NULL: nothing comes */
    cmi_status work_status;
    double imbalance, planned; /* of the plan */
};

/* ---- the other thread ---- */

static size_t placed_at(const cmi_rank_balance *b, uint32_t layer)
{
    return (size_t)layer * b->n_experts;
}

static void plan(cmi_rank_balance *b)
{
    double before = 0, after = 0;
    uint32_t n = 0;
    for (uint32_t layer = 0; layer < b->n_layers; layer++) {
        const cmi_expert_placement *now = cmi_rank_experts_placement(b->x, layer);
        b->n_moves[layer] = 0;
        if (!cmi_rank_experts_has_layer(b->x, layer)) {
            continue;
        }
        cmi_expert_load_read(&b->load, layer, b->loads);
        if (cmi_expert_placement_make(&b->target, b->loads, b->placement_work) == CMI_OK) {
            const cmi_expert_balance is = cmi_expert_placement_balance(now, b->loads);
            const cmi_expert_balance will = cmi_expert_placement_balance(&b->target, b->loads);
            before += is.ratio;
            after += will.ratio;
            n++;
            if (will.ratio < 0.97 * is.ratio) { /* else moving costs more than it brings */
                b->n_moves[layer] =
                    cmi_expert_moves_plan(b->moves + (size_t)layer * now->layout.n_replicas, layer,
                                          now, &b->target, b->moves_work);
            }
        }
    }
    b->imbalance = n > 0 ? before / n : 1;
    b->planned = n > 0 ? after / n : 1;
}

static void do_work(cmi_rank_balance *b)
{
    cmi_error err = {0};
    b->work_status = CMI_OK;
    if (b->is_planning) {
        plan(b);
    } else {
        b->work_status = cmi_expert_read(cmi_rank_experts_source(b->x), &b->incoming, &err);
        if (b->work_status != CMI_OK) {
            cmi_log(CMI_LOG_ERROR, "an expert does not come: %s", err.text);
        }
    }
}

/* Passes go on meanwhile, and need the processors more. */
static void *work_main(void *arg)
{
    cmi_rank_balance *b = arg;
    cmi_priority_lower();
    for (;;) {
        while (sem_wait(&b->work) != 0 && errno == EINTR) {
        }
        if (b->is_ending) {
            return NULL;
        }
        do_work(b);
        atomic_store_explicit(&b->is_working, false, memory_order_release);
        sem_post(&b->done);
    }
}

static void begin_work(cmi_rank_balance *b)
{
    while (sem_trywait(&b->done) == 0) { /* of work that nobody waited for */
    }
    b->is_planning = b->state == BALANCE_PLANNING;
    atomic_store_explicit(&b->is_working, true, memory_order_relaxed);
    sem_post(&b->work);
}

static bool is_working(const cmi_rank_balance *b)
{
    return atomic_load_explicit(&b->is_working, memory_order_acquire);
}

static bool is_moving(const cmi_rank_balance *b)
{
    return b->state > BALANCE_COUNTING;
}

/* ---- life ---- */

cmi_status cmi_rank_balance_create(cmi_rank_balance **balance_out, cmi_rank_experts *x,
                                   uint32_t window, cmi_error *err)
{
    cmi_rank_balance *b = cmi_alloc(1, sizeof *b);
    const cmi_expert_layout *layout = &cmi_rank_experts_placement(x, 0)->layout;
    b->x = x;
    b->window = window;
    b->n_layers = cmi_rank_experts_n_layers(x);
    b->n_experts = layout->n_experts;
    b->n_places = layout->n_ranks;
    const size_t n = (size_t)b->n_layers * b->n_experts;
    b->counts = cmi_alloc(n, sizeof *b->counts);
    b->sums = cmi_alloc(n, sizeof *b->sums);
    b->peers = cmi_alloc(b->n_places, sizeof *b->peers);
    b->load_memory = cmi_alloc(1, cmi_expert_load_bytes(b->n_layers, b->n_experts));
    b->placement_work = cmi_alloc(1, cmi_expert_placement_work_bytes(layout));
    b->moves_work = cmi_alloc(1, cmi_expert_moves_work_bytes(layout));
    b->target_memory = cmi_alloc(1, cmi_expert_placement_bytes(layout));
    b->loads = cmi_alloc(b->n_experts, sizeof *b->loads);
    b->moves = cmi_alloc((size_t)b->n_layers * layout->n_replicas, sizeof *b->moves);
    b->n_moves = cmi_alloc(b->n_layers, sizeof *b->n_moves);
    cmi_status st = cmi_expert_placement_init(&b->target, b->target_memory, layout);
    assert(st == CMI_OK);
    sem_init(&b->work, 0, 0);
    sem_init(&b->done, 0, 0);
    int rc = pthread_create(&b->thread, NULL, work_main, b);
    b->has_thread = rc == 0;
    if (rc != 0) {
        cmi_rank_balance_destroy(b);
        return cmi_error_set(err, CMI_ERR_IO, "cannot start a thread: %s", strerror(rc));
    }
    *balance_out = b;
    return CMI_OK;
}

void cmi_rank_balance_destroy(cmi_rank_balance *b)
{
    if (b == NULL) {
        return;
    }
    cmi_rank_balance_stop(b);
    b->is_ending = true;
    sem_post(&b->work);
    if (b->has_thread) {
        pthread_join(b->thread, NULL);
    }
    sem_destroy(&b->done);
    sem_destroy(&b->work);
    cmi_free(b->n_moves);
    cmi_free(b->moves);
    cmi_free(b->loads);
    cmi_free(b->target_memory);
    cmi_free(b->moves_work);
    cmi_free(b->placement_work);
    cmi_free(b->load_memory);
    cmi_free(b->peers);
    cmi_free(b->sums);
    cmi_free(b->counts);
    cmi_free(b);
}

uint32_t *cmi_rank_balance_counts(cmi_rank_balance *b)
{
    return b->counts;
}

void cmi_rank_balance_get_stats(const cmi_rank_balance *b, cmi_rank_balance_stats *stats_out)
{
    *stats_out = b->stats;
    stats_out->is_moving = is_moving(b) && b->state != BALANCE_BROKEN;
}

void cmi_rank_balance_stop(cmi_rank_balance *b)
{
    while (is_working(b)) { /* one expert at most, with this thread's time */
        (void)sem_wait(&b->done);
    }
    if (b->incoming.slab != NULL) {
        cmi_rank_experts_give_slab(b->x, b->incoming.slab);
        b->incoming.slab = NULL;
    }
    b->state = BALANCE_OFF;
}

void cmi_rank_balance_start(cmi_rank_balance *b, cmi_ep_rank *rank)
{
    const size_t n = (size_t)b->n_layers * b->n_experts;
    assert(b->state == BALANCE_OFF && b->incoming.slab == NULL);
    cmi_status st =
        cmi_expert_load_init(&b->load, b->load_memory, b->n_layers, b->n_experts, AGE_SHIFT);
    assert(st == CMI_OK);
    memset(b->counts, 0, n * sizeof *b->counts);
    memset(b->sums, 0, n * sizeof *b->sums);
    memset(b->peers, 0, b->n_places * sizeof *b->peers);
    b->rank = rank;
    b->n_passes = b->round = 0;
    b->state = cmi_ep_rank_n_living(rank) == b->n_places ? BALANCE_COUNTING : BALANCE_OFF;
}

/* ---- windows ---- */

static bool hear_counts(cmi_rank_balance *b, peer_progress *peer, const cmi_frame *frame)
{
    cmi_ep_counts counts;
    if (!cmi_ep_read_counts(frame, &counts) || counts.layer >= b->n_layers ||
        counts.first > b->n_experts || counts.n > b->n_experts - counts.first) {
        return false;
    }
    uint32_t *sums = b->sums + placed_at(b, counts.layer) + counts.first;
    for (uint32_t i = 0; i < counts.n; i++) {
        sums[i] += cmi_ep_count_at(&counts, i);
    }
    peer->is_busy = counts.is_busy;
    peer->n_counts++;
    return true;
}

bool cmi_rank_balance_hear(cmi_rank_balance *b, uint32_t place, const cmi_frame *frame)
{
    peer_progress *peer = &b->peers[place];
    cmi_ep_round round;
    assert(place < b->n_places);
    if (frame->type == CMI_EP_FRAME_COUNTS) {
        return hear_counts(b, peer, frame);
    }
    if (frame->type != CMI_EP_FRAME_ROUND || !cmi_ep_read_round(frame, &round)) {
        return false;
    }
    peer->n_loaded = CMI_MAX(peer->n_loaded, round.n_loaded);
    peer->n_switched = CMI_MAX(peer->n_switched, round.n_switched);
    return true;
}

static uint32_t frames_of_a_window(const cmi_rank_balance *b)
{
    return b->n_layers * CMI_DIV_UP(b->n_experts, (uint32_t)CMI_EP_MAX_COUNTS);
}

static cmi_status tell_counts(cmi_rank_balance *b)
{
    cmi_status st = CMI_OK;
    for (uint32_t layer = 0; layer < b->n_layers; layer++) {
        for (uint32_t e = 0; st == CMI_OK && e < b->n_experts; e += CMI_EP_MAX_COUNTS) {
            const uint32_t n = CMI_MIN(b->n_experts - e, (uint32_t)CMI_EP_MAX_COUNTS);
            st = cmi_ep_rank_tell_counts(b->rank, layer, e, b->counts + placed_at(b, layer) + e, n,
                                         is_moving(b));
        }
    }
    return st;
}

static bool has_everybodys_counts(const cmi_rank_balance *b)
{
    for (uint32_t i = 0; i < b->n_places; i++) {
        if (i != cmi_rank_experts_place(b->x) && b->peers[i].n_counts < frames_of_a_window(b)) {
            return false;
        }
    }
    return true;
}

static void add_window(cmi_rank_balance *b)
{
    for (uint32_t layer = 0; layer < b->n_layers; layer++) {
        for (uint32_t e = 0; e < b->n_experts; e++) {
            const size_t at = placed_at(b, layer) + e;
            cmi_expert_load_add(&b->load, layer, e, b->sums[at] + b->counts[at]);
        }
    }
    cmi_expert_load_age(&b->load);
}

/* All ranks end it behind the same pass, so everybody's counts are on their way or here. */
static cmi_status await_counts(cmi_rank_balance *b)
{
    const uint64_t until_ns = cmi_clock_monotonic_ns() + COUNTS_NS;
    cmi_status st = CMI_OK;
    while (st == CMI_OK && b->state != BALANCE_BROKEN && !has_everybodys_counts(b)) {
        st = cmi_ep_rank_await_frames(b->rank);
        if (cmi_clock_monotonic_ns() >= until_ns) { /* it runs passes, but keeps to no rules */
            cmi_log(CMI_LOG_ERROR, "experts do not move any more: a rank does not count");
            b->state = BALANCE_BROKEN;
        }
    }
    return st;
}

static void close_window(cmi_rank_balance *b)
{
    const size_t n = (size_t)b->n_layers * b->n_experts;
    memset(b->sums, 0, n * sizeof *b->sums);
    memset(b->counts, 0, n * sizeof *b->counts);
    b->stats.n_windows++;
}

static cmi_status end_window(cmi_rank_balance *b)
{
    cmi_status st = tell_counts(b);
    st = st == CMI_OK ? await_counts(b) : st;
    if (st != CMI_OK || b->state == BALANCE_BROKEN) {
        return st;
    }
    bool is_anybody_busy = is_moving(b);
    for (uint32_t i = 0; i < b->n_places; i++) {
        is_anybody_busy |= b->peers[i].is_busy;
        b->peers[i].n_counts -= i != cmi_rank_experts_place(b->x) ? frames_of_a_window(b) : 0;
    }
    if (!is_anybody_busy) { /* so it is on all ranks */
        add_window(b);
        b->stats.n_plans++;
        b->state = BALANCE_PLANNING;
        begin_work(b);
    }
    close_window(b);
    return CMI_OK;
}

/* ---- moves ---- */

static cmi_status tell_round(cmi_rank_balance *b, uint32_t n_loaded, uint32_t n_switched)
{
    const cmi_ep_round round = {n_loaded, n_switched};
    peer_progress *own = &b->peers[cmi_rank_experts_place(b->x)];
    own->n_loaded = n_loaded;
    own->n_switched = n_switched;
    return cmi_ep_rank_tell_round(b->rank, &round);
}

static bool have_all(const cmi_rank_balance *b, bool switched)
{
    for (uint32_t i = 0; i < b->n_places; i++) {
        const uint32_t n = switched ? b->peers[i].n_switched : b->peers[i].n_loaded;
        if (n <= b->round) {
            return false;
        }
    }
    return true;
}

/* The next round of the plan, in this layer or a later one. False: there is none. */
static bool next_round(cmi_rank_balance *b)
{
    const uint32_t n_replicas = b->target.layout.n_replicas;
    while (b->layer < b->n_layers && cmi_expert_moving_is_over(&b->moving)) {
        if (++b->layer < b->n_layers) {
            cmi_expert_moving_init(&b->moving, b->moves + (size_t)b->layer * n_replicas,
                                   b->n_moves[b->layer]);
        }
    }
    if (b->layer == b->n_layers) {
        return false;
    }
    b->n_round_moves = cmi_expert_moving_begin(&b->moving, UINT32_MAX, &b->round_moves);
    return true;
}

static cmi_status begin_round(cmi_rank_balance *b)
{
    cmi_error err = {0};
    if (!next_round(b)) {
        b->state = BALANCE_COUNTING;
        return CMI_OK;
    }
    b->state = BALANCE_LOADING;
    for (uint32_t i = 0; i < b->n_round_moves; i++) {
        const cmi_expert_move *move = &b->round_moves[i];
        const bool is_ours =
            cmi_expert_slot_rank(&b->target.layout, move->to_slot) == cmi_rank_experts_place(b->x);
        if (is_ours && !cmi_rank_experts_has(b->x, b->layer, move->expert)) {
            b->incoming.id = (cmi_expert_id){b->layer, move->expert};
            if (cmi_rank_experts_take_slab(b->x, &b->incoming.slab, &err) != CMI_OK) {
                cmi_log(CMI_LOG_ERROR, "experts do not move any more: %s", err.text);
                b->state = BALANCE_BROKEN;
                return CMI_OK;
            }
            begin_work(b);
        }
    }
    return CMI_OK;
}

static cmi_status end_loading(cmi_rank_balance *b)
{
    if (b->incoming.slab != NULL) {
        if (b->work_status != CMI_OK) {
            cmi_rank_experts_give_slab(b->x, b->incoming.slab);
            b->incoming.slab = NULL;
            b->state = BALANCE_BROKEN;
            return CMI_OK;
        }
        cmi_rank_experts_hold(b->x, b->layer, b->incoming.id.expert, b->incoming.slab);
        b->incoming.slab = NULL;
        b->stats.n_moves++;
    }
    b->state = BALANCE_LOADED;
    return tell_round(b, b->round + 1, b->round);
}

static cmi_status switch_over(cmi_rank_balance *b)
{
    (void)cmi_expert_moving_arrive(&b->moving, b->n_round_moves);
    (void)cmi_expert_moving_commit(&b->moving, cmi_rank_experts_placement(b->x, b->layer));
    cmi_rank_experts_choose(b->x, b->layer);
    b->state = BALANCE_SWITCHED;
    return tell_round(b, b->round + 1, b->round + 1);
}

static cmi_status end_round(cmi_rank_balance *b)
{
    cmi_rank_experts_drop_unplaced(b->x, b->layer);
    b->round++;
    return begin_round(b);
}

static cmi_status begin_moves(cmi_rank_balance *b)
{
    b->layer = 0;
    b->stats.imbalance = b->imbalance;
    b->stats.planned = b->planned;
    cmi_expert_moving_init(&b->moving, b->moves, b->n_moves[0]);
    return begin_round(b);
}

cmi_status cmi_rank_balance_advance(cmi_rank_balance *b, bool has_passed)
{
    cmi_status st = CMI_OK;
    if (b->state == BALANCE_OFF) {
        return CMI_OK;
    }
    if (has_passed && ++b->n_passes == b->window) {
        b->n_passes = 0;
        st = end_window(b);
    }
    if (st == CMI_OK && b->state == BALANCE_PLANNING && !is_working(b)) {
        st = begin_moves(b);
    }
    if (st == CMI_OK && b->state == BALANCE_LOADING && !is_working(b)) {
        st = end_loading(b);
    }
    if (st == CMI_OK && b->state == BALANCE_LOADED && have_all(b, false)) {
        st = switch_over(b);
    }
    if (st == CMI_OK && b->state == BALANCE_SWITCHED && have_all(b, true)) {
        st = end_round(b);
    }
    return st;
}
