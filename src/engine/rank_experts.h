/* engine/rank_experts.h - the routed experts that one rank of several holds, and to whom it sends
 * rows for those that it does not.
 *
 * Each layer has a placement (policy/expert_placement.h), the same on all ranks, at first every
 * expert once and in order. An expert whose ranks are all dead is adopted (policy/expert_homes.h).
 * Weights of an expert are read from the model's files into a slab when it comes here; of the slabs
 * that are free again as many are kept as may be wanted while all ranks live.
 *
 * Thread: the forward pass's owner, between passes. */
#ifndef CMI_ENGINE_RANK_EXPERTS_H
#define CMI_ENGINE_RANK_EXPERTS_H

#include "model/expert_slabs.h"
#include "policy/expert_homes.h"

typedef struct cmi_rank_experts cmi_rank_experts;

typedef struct cmi_rank_experts_options {
    cmi_weights *weights;      /* made without experts; outlives it */
    cmi_expert_source *source; /* its own from then on, also on error */
    uint64_t slab_bytes;
    uint32_t n_layers;                  /* of the model, the MTP layer's included */
    uint32_t place;                     /* of this rank in the layout */
    const cmi_expert_layout *layout;    /* has no fault */
    const cmi_weights_options *reading; /* team and progress of the first reading */
    /* Experts will move between ranks (engine/rank_balance.h): memory for that is kept, so that
     * none is asked for or given back in a step. */
    bool moves;
} cmi_rank_experts_options;

/* Reads the experts of this place. CMI_ERR_NO_MEMORY, and as cmi_expert_read_many. */
CMI_NODISCARD cmi_status cmi_rank_experts_create(cmi_rank_experts **experts_out,
                                                 const cmi_rank_experts_options *opt,
                                                 cmi_error *err);
void cmi_rank_experts_destroy(cmi_rank_experts *experts); /* NULL is fine */

/* [n_layers][n_experts] the place to which this rank sends rows; the same array always. */
const uint16_t *cmi_rank_experts_rank_of(const cmi_rank_experts *experts);

/* After every expert that is read; false ends the reading with CMI_ERR_PEER. */
typedef bool cmi_rank_experts_go_on_fn(void *arg);

/* For a view: places as at first, with these dead (bit place % 64 of word place / 64); reads what
 * falls to this rank. CMI_ERR_PEER: nobody lives, or go_on said so; CMI_ERR_NO_MEMORY; as
 * cmi_expert_read. To be done again after an error. */
CMI_NODISCARD cmi_status cmi_rank_experts_arrange(cmi_rank_experts *experts, const uint64_t *dead,
                                                  cmi_rank_experts_go_on_fn *go_on, void *arg,
                                                  cmi_error *err);

/* Experts that this rank holds for dead ones, and that it has read since it was made. */
uint64_t cmi_rank_experts_n_adopted(const cmi_rank_experts *experts);
uint64_t cmi_rank_experts_n_read(const cmi_rank_experts *experts);

#endif
