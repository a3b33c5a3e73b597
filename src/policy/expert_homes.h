/* policy/expert_homes.h - which rank computes an expert while some ranks are dead.
 *
 * A placement (expert_placement.h) says which experts a rank holds. Where all ranks that hold an
 * expert are dead, a living one adopts it: it brings the weights and holds them until a rank of the
 * placement is back. Equal arguments give equal homes, so ranks that agree on who lives need not
 * talk about it.
 *
 * Pure: memory comes from the caller. Any thread, as long as nobody writes. */
#ifndef CMI_POLICY_EXPERT_HOMES_H
#define CMI_POLICY_EXPERT_HOMES_H

#include "policy/expert_placement.h"

enum { CMI_EXPERT_NOT_ADOPTED = UINT16_MAX };

/* adopters_out [n_experts]: the rank that adopts an expert. Orphans, in order, each to the living
 * rank with the fewest experts, of equals the lower one; ranks kept for the shared expert adopt
 * none. dead: bit rank % 64 of word rank / 64. work: [n_ranks]. False: nobody lives who could.
 * O(n_replicas + orphans * n_ranks). */
CMI_NODISCARD bool cmi_expert_homes_adopt(const cmi_expert_placement *p, const uint64_t *dead,
                                          uint16_t *adopters_out, uint32_t *work);

/* Whether a rank holds an expert, by the placement or because it has adopted it. */
bool cmi_expert_homes_holds(const cmi_expert_placement *p, const uint16_t *adopters, uint32_t rank,
                            uint32_t expert);

/* rank_of_out [n_experts]: where rows of the source's rank go: cmi_expert_replica_choose among the
 * living, or the adopter. */
void cmi_expert_homes_choose(const cmi_expert_placement *p, const uint16_t *adopters,
                             const cmi_replica_source *source, uint16_t *rank_of_out);

#endif
