/* policy/expert_moves.h - from one placement of a layer to another while it is in use.
 *
 * A move copies one expert's weights from a slot that holds them to another rank's memory, beside
 * the slot that they are for: each rank has one slab to spare, for all layers together. Moves come
 * in rounds, in which each rank receives at most one. When all of a round's copies have arrived,
 * the round is committed between two steps: its slots have their new experts at once, and the slabs
 * with the old ones are the spare ones of the next round. So
 *
 *   - a step sees a placement in which every expert has a valid replica, always
 *   - the slots that a round reads stay as they are until it is committed
 *   - moving may end for good after any round, and copies of a round that is not committed may be
 *     forgotten: what was committed is a placement
 *
 * The spare slab is what makes it always possible: experts with one replica that change places need
 * a third place. It also leaves a slot valid while its successor is on the way.
 *
 * There are as few moves as can be: a rank receives the experts that it lacks. Those that it keeps
 * stay in their slots, so the result has the experts of every rank as in the target, but perhaps
 * in other slots of that rank.
 *
 * Pure: memory comes from the caller. Thread: one, the owner's. */
#ifndef CMI_POLICY_EXPERT_MOVES_H
#define CMI_POLICY_EXPERT_MOVES_H

#include "policy/expert_placement.h"

typedef struct cmi_expert_move {
    uint16_t layer;
    uint16_t expert;
    uint16_t
        from_slot;    /* holds the expert until the round is committed; perhaps of the same rank */
    uint16_t to_slot; /* will hold it then */
    uint16_t round;   /* 0, 1, ...: ascending in a plan */
} cmi_expert_move;

/* Bytes of work for a plan; 0: the layout has a fault. */
size_t cmi_expert_moves_work_bytes(const cmi_expert_layout *layout);

/* Writes the moves from a placement to another one, in order; returns their number. moves has room
 * for n_replicas. Sources are on the own rank, else on the own node, if there are, and take turns
 * within a round. work is aligned for uint64_t. Some n_replicas^2 operations: not for a step's
 * path. Both placements must have the same layout (asserted). */
uint32_t cmi_expert_moves_plan(cmi_expert_move *moves, uint32_t layer,
                               const cmi_expert_placement *from, const cmi_expert_placement *to,
                               void *work);

/* ---- carrying out the moves of one layer ---- */

typedef struct cmi_expert_moving {
    const cmi_expert_move *moves;
    uint32_t n_moves;
    uint32_t n_given;   /* that the caller was told to begin */
    uint32_t n_arrived; /* of those */
    uint32_t n_committed;
} cmi_expert_moving;

/* Begins with the first of n_moves moves, which must outlive it. */
void cmi_expert_moving_init(cmi_expert_moving *m, const cmi_expert_move *moves, uint32_t n_moves);

/* The next copies to begin, at most max and of the current round only: returns their number. */
uint32_t cmi_expert_moving_begin(cmi_expert_moving *m, uint32_t max,
                                 const cmi_expert_move **moves_out);

/* n of the copies that were begun have arrived, whichever. True: the round is complete, and waits
 * for its commit. */
bool cmi_expert_moving_arrive(cmi_expert_moving *m, uint32_t n);

/* Gives the slots of a complete round their new experts. Between two steps, at the same step on
 * every rank. Returns how many moves it were: the slabs to be exchanged are theirs. O(n_replicas).
 */
uint32_t cmi_expert_moving_commit(cmi_expert_moving *m, cmi_expert_placement *placement);

static inline bool cmi_expert_moving_is_over(const cmi_expert_moving *m)
{
    return m->n_committed == m->n_moves;
}

#endif
