/* policy/expert_moving.c - carrying out the moves of a layer, round by round. */
#include "policy/expert_moves.h"

#include <assert.h>

void cmi_expert_moving_init(cmi_expert_moving *m, const cmi_expert_move *moves, uint32_t n_moves)
{
    *m = (cmi_expert_moving){.moves = moves, .n_moves = n_moves};
}

/* Where the current round ends. */
static uint32_t round_end(const cmi_expert_moving *m)
{
    uint32_t end = m->n_committed;
    while (end < m->n_moves && m->moves[end].round == m->moves[m->n_committed].round) {
        end++;
    }
    return end;
}

uint32_t cmi_expert_moving_begin(cmi_expert_moving *m, uint32_t max,
                                 const cmi_expert_move **moves_out)
{
    const uint32_t n = CMI_MIN(max, round_end(m) - m->n_given);
    *moves_out = m->moves + m->n_given;
    m->n_given += n;
    return n;
}

bool cmi_expert_moving_arrive(cmi_expert_moving *m, uint32_t n)
{
    assert(n <= m->n_given - m->n_arrived);
    m->n_arrived += n;
    return m->n_arrived > m->n_committed && m->n_arrived == round_end(m);
}

uint32_t cmi_expert_moving_commit(cmi_expert_moving *m, cmi_expert_placement *placement)
{
    const uint32_t end = round_end(m), n = end - m->n_committed;
    assert(n > 0 && m->n_arrived == end);
    for (uint32_t i = m->n_committed; i < end; i++) {
        placement->physical_to_logical[m->moves[i].to_slot] = m->moves[i].expert;
    }
    m->n_committed = end;
    const cmi_status st = cmi_expert_placement_reindex(placement);
    assert(st == CMI_OK);
    (void)st;
    return n;
}
