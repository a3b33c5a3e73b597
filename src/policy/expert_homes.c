#include "policy/expert_homes.h"

#include <assert.h>

static bool is_dead(const uint64_t *dead, uint32_t rank)
{
    return (dead[rank / 64] >> rank % 64 & 1) != 0;
}

static bool has_living_replica(const cmi_expert_placement *p, const uint64_t *dead, uint32_t expert)
{
    for (uint32_t i = p->first[expert]; i < p->first[expert + 1]; i++) {
        if (!is_dead(dead, cmi_expert_slot_rank(&p->layout, p->physical[i]))) {
            return true;
        }
    }
    return false;
}

/* n_ranks: nobody. */
static uint32_t lightest(const cmi_expert_layout *l, const uint64_t *dead, const uint32_t *n_held)
{
    uint32_t best = l->n_ranks;
    for (uint32_t rank = l->n_shared_ranks; rank < l->n_ranks; rank++) {
        if (!is_dead(dead, rank) && (best == l->n_ranks || n_held[rank] < n_held[best])) {
            best = rank;
        }
    }
    return best;
}

bool cmi_expert_homes_adopt(const cmi_expert_placement *p, const uint64_t *dead,
                            uint16_t *adopters_out, uint32_t *work)
{
    const cmi_expert_layout *l = &p->layout;
    for (uint32_t rank = 0; rank < l->n_ranks; rank++) {
        uint32_t first;
        work[rank] = cmi_expert_rank_slots(l, rank, &first);
    }
    for (uint32_t e = 0; e < l->n_experts; e++) {
        adopters_out[e] = CMI_EXPERT_NOT_ADOPTED;
        if (!has_living_replica(p, dead, e)) {
            const uint32_t rank = lightest(l, dead, work);
            if (rank == l->n_ranks) {
                return false;
            }
            adopters_out[e] = (uint16_t)rank;
            work[rank]++;
        }
    }
    return true;
}

bool cmi_expert_homes_holds(const cmi_expert_placement *p, const uint16_t *adopters, uint32_t rank,
                            uint32_t expert)
{
    for (uint32_t i = p->first[expert]; i < p->first[expert + 1]; i++) {
        if (cmi_expert_slot_rank(&p->layout, p->physical[i]) == rank) {
            return true;
        }
    }
    return adopters[expert] == rank;
}

void cmi_expert_homes_choose(const cmi_expert_placement *p, const uint16_t *adopters,
                             const cmi_replica_source *source, uint16_t *rank_of_out)
{
    for (uint32_t e = 0; e < p->layout.n_experts; e++) {
        if (adopters[e] != CMI_EXPERT_NOT_ADOPTED) {
            rank_of_out[e] = adopters[e];
        } else {
            const uint32_t slot = cmi_expert_replica_choose(p, e, source);
            assert(slot != CMI_EXPERT_NONE); /* or it would be adopted */
            rank_of_out[e] = (uint16_t)cmi_expert_slot_rank(&p->layout, slot);
        }
    }
}
