/* engine/rank_experts_internal.h - what rank_balance.c does to a rank's experts while it moves
 * them. Thread: the forward pass's owner, but for what says otherwise. */
#ifndef CMI_ENGINE_RANK_EXPERTS_INTERNAL_H
#define CMI_ENGINE_RANK_EXPERTS_INTERNAL_H

#include "engine/rank_experts.h"

/* Do not change. Any thread. */
uint32_t cmi_rank_experts_n_layers(const cmi_rank_experts *experts);
uint32_t cmi_rank_experts_place(const cmi_rank_experts *experts);
bool cmi_rank_experts_has_layer(const cmi_rank_experts *experts, uint32_t layer);
const cmi_expert_source *cmi_rank_experts_source(const cmi_rank_experts *experts);

/* To be changed by a commit of moves; then cmi_rank_experts_choose. Any thread may read it while
 * nobody changes it. */
cmi_expert_placement *cmi_rank_experts_placement(cmi_rank_experts *experts, uint32_t layer);

bool cmi_rank_experts_has(const cmi_rank_experts *experts, uint32_t layer, uint32_t expert);

/* Memory for one more expert, and what is done with it. Where experts move, and nobody is dead,
 * there is some for one beyond what is placed here. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_rank_experts_take_slab(cmi_rank_experts *experts, void **slab_out,
                                                    cmi_error *err);
void cmi_rank_experts_give_slab(cmi_rank_experts *experts, void *slab);
void cmi_rank_experts_hold(cmi_rank_experts *experts, uint32_t layer, uint32_t expert, void *slab);

/* Sends rows of a layer by its placement, with everybody alive. */
void cmi_rank_experts_choose(cmi_rank_experts *experts, uint32_t layer);

/* Lets experts of a layer go that its placement gives to others. */
void cmi_rank_experts_drop_unplaced(cmi_rank_experts *experts, uint32_t layer);

#endif
