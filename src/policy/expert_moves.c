/* policy/expert_moves.c - the order of moves.
 *
 * Each rank has a list of experts to lose and one, as long, of experts to gain. A round pairs one
 * of each on as many ranks as it can, such that every expert has a replica after it. An expert with
 * another replica may go at once. One without must come to another rank in the same round, which
 * loses something in turn: such a chain ends at a rank that may lose an expert with another
 * replica, or at the rank where it began. A search over ranks finds a shortest chain, so that no
 * rank is in it twice.
 *
 * Some chain is always found before the first move of a round: an expert without another replica
 * is to be gained somewhere, or it would not be in the target. So from any rank one can go on until
 * the chain ends or comes back to one of its ranks, and from that rank on it is a cycle. */
#include "policy/expert_moves.h"

#include <assert.h>
#include <string.h>

enum { NONE = UINT16_MAX };

typedef struct rank_lists {
    uint16_t begin; /* in losses and gains */
    uint16_t n;     /* left in each of them */
    uint16_t n_read;
    uint16_t parent;  /* in the search: who hands its expert to this rank */
    uint16_t handed;  /* that expert */
    uint16_t visitor; /* the start of the search that came here last */
    bool is_done;     /* in this round */
} rank_lists;

typedef struct planner {
    const cmi_expert_layout *layout;
    cmi_expert_move *moves;
    uint32_t n_moves;
    uint16_t layer;
    uint16_t round;
    rank_lists *ranks; /* [n_ranks] */
    uint16_t *now;     /* [n_replicas] the experts of the slots in this round */
    uint16_t *losses;  /* [n_replicas] slots, by rank */
    uint16_t *gains;   /* [n_replicas] experts, by rank */
    uint16_t *n_valid; /* [n_experts] replicas after this round, as far as it is planned */
    uint16_t *tally;   /* [n_experts] */
    uint16_t *queue;   /* [n_ranks] */
    /* [n_experts + 1], [n_replicas]: the ranks that gain an expert, or did. */
    uint16_t *first_gainer, *gainers;
} planner;

size_t cmi_expert_moves_work_bytes(const cmi_expert_layout *l)
{
    if (cmi_expert_layout_fault(l) != NULL) {
        return 0;
    }
    return l->n_ranks * (sizeof(rank_lists) + sizeof(uint16_t)) +
           (4 * (size_t)l->n_replicas + 3 * (size_t)l->n_experts + 1) * sizeof(uint16_t);
}

static planner make_planner(void *work, const cmi_expert_placement *from)
{
    const cmi_expert_layout *l = &from->layout;
    planner p = {.layout = l, .ranks = work};
    p.now = (uint16_t *)(void *)(p.ranks + l->n_ranks);
    p.losses = p.now + l->n_replicas;
    p.gains = p.losses + l->n_replicas;
    p.n_valid = p.gains + l->n_replicas;
    p.tally = p.n_valid + l->n_experts;
    p.queue = p.tally + l->n_experts;
    p.first_gainer = p.queue + l->n_ranks;
    p.gainers = p.first_gainer + l->n_experts + 1;
    memcpy(p.now, from->physical_to_logical, l->n_replicas * sizeof *p.now);
    memset(p.tally, 0, l->n_experts * sizeof *p.tally);
    for (uint32_t e = 0; e < l->n_experts; e++) {
        p.n_valid[e] = (uint16_t)cmi_expert_replica_count(from, e);
    }
    return p;
}

/* Fills a rank's lists. The tally is all zero before and after. */
static void compare_rank(planner *p, uint32_t rank, const uint16_t *to)
{
    uint32_t begin;
    const uint32_t n = cmi_expert_rank_slots(p->layout, rank, &begin);
    const uint32_t end = begin + n;
    rank_lists *r = &p->ranks[rank];
    *r = (rank_lists){.begin = (uint16_t)begin, .visitor = NONE};
    for (uint32_t i = begin; i < end; i++) {
        p->tally[to[i]]++;
    }
    for (uint32_t i = begin; i < end; i++) {
        if (p->tally[p->now[i]] > 0) {
            p->tally[p->now[i]]--;
        } else {
            p->losses[begin + r->n++] = (uint16_t)i;
        }
    }
    uint32_t n_gains = 0; /* what is left in the tally */
    for (uint32_t i = begin; i < end; i++) {
        if (p->tally[to[i]] > 0) {
            p->tally[to[i]]--;
            p->gains[begin + n_gains++] = to[i];
        }
    }
    assert(n_gains == r->n);
}

/* From the gains of all ranks. */
static void index_gainers(planner *p)
{
    const uint32_t n_experts = p->layout->n_experts, n_ranks = p->layout->n_ranks;
    memset(p->first_gainer, 0, (n_experts + 1) * sizeof *p->first_gainer);
    for (uint32_t rank = 0; rank < n_ranks; rank++) {
        const rank_lists *r = &p->ranks[rank];
        for (uint32_t i = r->begin; i < (uint32_t)r->begin + r->n; i++) {
            p->first_gainer[p->gains[i]]++;
        }
    }
    for (uint32_t e = 0, end = 0; e <= n_experts; e++) {
        end += p->first_gainer[e];
        p->first_gainer[e] = (uint16_t)end;
    }
    for (uint32_t rank = n_ranks; rank-- > 0;) { /* backwards: ends move down to beginnings */
        const rank_lists *r = &p->ranks[rank];
        for (uint32_t i = r->begin; i < (uint32_t)r->begin + r->n; i++) {
            p->gainers[--p->first_gainer[p->gains[i]]] = (uint16_t)rank;
        }
    }
}

/* Where an expert stands in a rank's gains; NONE: it does not. */
static uint32_t find_gain(const planner *p, const rank_lists *r, uint32_t expert)
{
    for (uint32_t i = r->begin; i < (uint32_t)r->begin + r->n; i++) {
        if (p->gains[i] == expert) {
            return i;
        }
    }
    return NONE;
}

/* A rank gains an expert for that of a slot, in this round. */
static void pair(planner *p, uint32_t rank, uint32_t loss, uint32_t gain)
{
    rank_lists *r = &p->ranks[rank];
    const uint32_t last = r->begin + --r->n;
    const uint16_t slot = p->losses[loss], expert = p->gains[gain];
    p->losses[loss] = p->losses[last];
    p->gains[gain] = p->gains[last];
    p->n_valid[p->now[slot]]--;
    p->n_valid[expert]++;
    p->moves[p->n_moves++] =
        (cmi_expert_move){.layer = p->layer, .expert = expert, .to_slot = slot, .round = p->round};
    r->is_done = true;
}

/* A loss of an expert that has another replica; of those the one with the most. NONE: there is
 * none. */
static uint32_t find_free_loss(const planner *p, const rank_lists *r)
{
    uint32_t best = NONE, most = 1;
    for (uint32_t i = r->begin; i < (uint32_t)r->begin + r->n; i++) {
        if (p->n_valid[p->now[p->losses[i]]] > most) {
            most = p->n_valid[p->now[p->losses[i]]];
            best = i;
        }
    }
    return best;
}

static uint32_t find_loss(const planner *p, const rank_lists *r, uint32_t expert)
{
    uint32_t i = r->begin;
    while (p->now[p->losses[i]] != expert) {
        i++;
    }
    return i;
}

/* Of what a rank may gain that which the fewest others have: it frees most. */
static uint32_t find_rarest_gain(const planner *p, const rank_lists *r)
{
    uint32_t best = r->begin;
    for (uint32_t i = best + 1; i < (uint32_t)r->begin + r->n; i++) {
        best = p->n_valid[p->gains[i]] < p->n_valid[p->gains[best]] ? i : best;
    }
    return best;
}

/* The chain that the search from start left in the parents, from its last rank back. loss is what
 * the last one loses. If it closes a cycle, nobody has that expert when it is start's turn, so it
 * is the rarest one that start may gain. */
static void take_chain(planner *p, uint32_t start, uint32_t rank, uint32_t loss)
{
    while (rank != start) {
        const rank_lists *r = &p->ranks[rank];
        pair(p, rank, loss, find_gain(p, r, r->handed));
        rank = r->parent;
        loss = find_loss(p, &p->ranks[rank], r->handed);
    }
    pair(p, start, loss, find_rarest_gain(p, &p->ranks[start]));
}

/* Puts the ranks that can gain an expert from rank into the queue; true if start is one of them. */
static bool hand_on(planner *p, uint32_t start, uint32_t rank, uint32_t expert, uint32_t *n_queue)
{
    for (uint32_t i = p->first_gainer[expert]; i < p->first_gainer[expert + 1]; i++) {
        const uint16_t gainer = p->gainers[i];
        rank_lists *r = &p->ranks[gainer];
        if (r->is_done || (r->visitor == start && gainer != start) ||
            find_gain(p, r, expert) == NONE) {
            continue;
        }
        if (gainer == start) {
            return true;
        }
        r->parent = (uint16_t)rank;
        r->handed = (uint16_t)expert;
        r->visitor = (uint16_t)start;
        p->queue[(*n_queue)++] = gainer;
    }
    return false;
}

/* Looks for a chain from start and takes it. */
static void search(planner *p, uint32_t start)
{
    uint32_t n_queue = 1;
    p->queue[0] = (uint16_t)start;
    p->ranks[start].visitor = (uint16_t)start;
    for (uint32_t at = 0; at < n_queue; at++) {
        const uint32_t rank = p->queue[at];
        const rank_lists *r = &p->ranks[rank];
        const uint32_t loss = find_free_loss(p, r);
        if (loss != NONE) {
            take_chain(p, start, rank, loss);
            return;
        }
        for (uint32_t i = r->begin; i < (uint32_t)r->begin + r->n; i++) {
            if (hand_on(p, start, rank, p->now[p->losses[i]], &n_queue)) {
                take_chain(p, start, rank, i);
                return;
            }
        }
    }
}

/* The slot to copy from, among those of this round: near, then little read in it, then low. */
static uint16_t choose_source(planner *p, const cmi_expert_move *move)
{
    const cmi_expert_layout *l = p->layout;
    const uint32_t to = cmi_expert_slot_rank(l, move->to_slot);
    uint32_t best_slot = NONE, best_rank = 0, best_cost = UINT32_MAX;
    for (uint32_t slot = 0; slot < l->n_replicas; slot++) {
        if (p->now[slot] != move->expert) {
            continue;
        }
        const uint32_t rank = cmi_expert_slot_rank(l, slot);
        const bool is_near = cmi_expert_rank_node(l, rank) == cmi_expert_rank_node(l, to);
        const uint32_t distance = rank == to ? 0 : is_near ? 1 : 2;
        const uint32_t cost = distance << 16 | p->ranks[rank].n_read;
        if (cost < best_cost) {
            best_slot = slot;
            best_rank = rank;
            best_cost = cost;
        }
    }
    assert(best_slot != NONE);
    p->ranks[best_rank].n_read++;
    return (uint16_t)best_slot;
}

static void plan_round(planner *p)
{
    const uint32_t n_before = p->n_moves;
    for (uint32_t rank = 0; rank < p->layout->n_ranks; rank++) {
        p->ranks[rank].is_done = false;
        p->ranks[rank].n_read = 0;
        p->ranks[rank].visitor = NONE;
    }
    for (uint32_t rank = 0; rank < p->layout->n_ranks; rank++) {
        if (!p->ranks[rank].is_done && p->ranks[rank].n > 0) {
            search(p, rank);
        }
    }
    assert(p->n_moves > n_before);
    for (uint32_t i = n_before; i < p->n_moves; i++) {
        p->moves[i].from_slot = choose_source(p, &p->moves[i]);
    }
    for (uint32_t i = n_before; i < p->n_moves; i++) {
        p->now[p->moves[i].to_slot] = p->moves[i].expert;
    }
    p->round++;
}

static bool is_same_layout(const cmi_expert_layout *a, const cmi_expert_layout *b)
{
    return a->n_experts == b->n_experts && a->n_replicas == b->n_replicas &&
           a->n_groups == b->n_groups && a->n_nodes == b->n_nodes && a->n_ranks == b->n_ranks &&
           a->n_shared_ranks == b->n_shared_ranks;
}

uint32_t cmi_expert_moves_plan(cmi_expert_move *moves, uint32_t layer,
                               const cmi_expert_placement *from, const cmi_expert_placement *to,
                               void *work)
{
    assert(is_same_layout(&from->layout, &to->layout));
    planner p = make_planner(work, from);
    p.moves = moves;
    p.layer = (uint16_t)layer;
    uint32_t n_left = 0;
    for (uint32_t rank = 0; rank < p.layout->n_ranks; rank++) {
        compare_rank(&p, rank, to->physical_to_logical);
        n_left += p.ranks[rank].n;
    }
    index_gainers(&p);
    while (p.n_moves < n_left) {
        plan_round(&p);
    }
    return p.n_moves;
}
