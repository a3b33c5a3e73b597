/* ep/stage.h - a stage exchange (model/stage_exchange.h) over a fabric: a window in each rank's
 * region, and a flag from each source with the number of the last step that it has told.
 *
 * Where a peer's memory is mapped (cmi_remote_memory) the team's threads write there themselves;
 * elsewhere the owner's thread puts, what is contiguous in one. To tell is to raise the flags
 * behind all that was put, to hear to wait for those of all ranks. So nobody is more than a step
 * ahead, which is all that the windows' layout needs to know (model/stage_exchange.h).
 *
 * All ranks take part: while one is away there are no staged passes.
 *
 * Nothing allocates, and nothing blocks but the waits for flags, which spin briefly, then sleep,
 * and have a deadline. Thread: the owner of the team and of the fabric. */
#ifndef CMI_EP_STAGE_H
#define CMI_EP_STAGE_H

#include "ep/ep.h"
#include "model/stage_exchange.h"

typedef struct cmi_ep_stage_options {
    cmi_stage_shape shape;
    uint32_t rank;
    cmi_team *team;
    cmi_fabric *fabric;
    cmi_region_id region;     /* cmi_ep_stage_region_bytes, zeroed, of this rank */
    const cmi_ep_peer *peers; /* [n_ranks], where their regions are; copied */
    uint64_t patience_ns;     /* without a peer's flag for so long the exchange is over */
    /* As of cmi_ep_options. */
    cmi_status (*look)(void *arg);
    void *look_arg;
} cmi_ep_stage_options;

/* Of a rank's region with a window of so many bytes. */
size_t cmi_ep_stage_region_bytes(uint32_t n_ranks, size_t window_bytes);

/* All that the options point to outlives it. CMI_ERR_INVALID: what cannot be. */
CMI_NODISCARD cmi_status cmi_ep_stage_create(cmi_stage_exchange **exchange_out,
                                             const cmi_ep_stage_options *opt, cmi_error *err);
void cmi_ep_stage_destroy(cmi_stage_exchange *exchange); /* NULL is fine */

/* After a call returned an error: the rank whose fault it is, or n_ranks. */
uint32_t cmi_ep_stage_culprit(const cmi_stage_exchange *exchange);

/* How long hear has waited in all, by the fabric's clock. */
uint64_t cmi_ep_stage_waited_ns(const cmi_stage_exchange *exchange);

/* Begins anew with other peers, as cmi_ep_restart does: sequence is above all before by more than
 * one, and the same on all ranks. With a peer that is away nothing is to be called but this. */
void cmi_ep_stage_restart(cmi_stage_exchange *exchange, const cmi_ep_peer *peers,
                          uint64_t sequence);
uint64_t cmi_ep_stage_next_sequence(const cmi_stage_exchange *exchange);

#endif
