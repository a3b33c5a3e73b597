/* engine/rank_balance.h - experts move between the ranks of an instance while it runs (EPLB, paper
 * section 4; docs/EXPERT_PARALLEL.md).
 *
 * All ranks run the same passes, so a window of so many passes ends on all of them together. Each
 * then tells the others how many of its rows went to each expert; with everybody's counts each
 * comes to the same placement and to the same plan of moves (policy/expert_moves.h), without a word
 * more. A round of moves goes in three steps, and no rank waits in a pass for another:
 *
 *     loaded     every rank has read what comes to it, into memory beside, on a thread of its own
 *     switched   once all have said so, each sends rows by the new places from its next pass on
 *     let go     once all have said so, nobody asks at the old places any more
 *
 * At no time is an expert without a rank. A view that ends leaves everything as it was at first.
 * While a rank is dead nothing moves.
 *
 * Thread: the forward pass's owner; it has one thread more, which plans and reads, and gives way to
 * all others (os/priority.h). In a pass, and between two of them, nothing is allocated or mapped.
 */
#ifndef CMI_ENGINE_RANK_BALANCE_H
#define CMI_ENGINE_RANK_BALANCE_H

#include "engine/rank_experts.h"
#include "ep/rank.h"

typedef struct cmi_rank_balance cmi_rank_balance;

/* window: passes of the main model, 1 or more. experts were made to move. CMI_ERR_IO: no thread. */
CMI_NODISCARD cmi_status cmi_rank_balance_create(cmi_rank_balance **balance_out,
                                                 cmi_rank_experts *experts, uint32_t window,
                                                 cmi_error *err);
void cmi_rank_balance_destroy(cmi_rank_balance *balance); /* NULL is fine; before the experts */

/* [n_layers][n_experts] where the exchanges count the rows that they send. */
uint32_t *cmi_rank_balance_counts(cmi_rank_balance *balance);

/* Before experts are arranged for a view: ends what moves, once an expert that is being read is
 * there. */
void cmi_rank_balance_stop(cmi_rank_balance *balance);

/* In a new view, once it is entered. */
void cmi_rank_balance_start(cmi_rank_balance *balance, cmi_ep_rank *rank);

/* A frame of another rank; types beyond CMI_EP_FRAME_CALL. False: it is none of ours, or names what
 * is not there; it is passed over. */
bool cmi_rank_balance_hear(cmi_rank_balance *balance, uint32_t place, const cmi_frame *frame);

/* Between passes: does what is due, without waiting but for counts that are on their way.
 * has_passed: a pass of the main model has just been run by all. CMI_OK, or the view is over. */
CMI_NODISCARD cmi_status cmi_rank_balance_advance(cmi_rank_balance *balance, bool has_passed);

typedef struct cmi_rank_balance_stats {
    uint64_t n_windows, n_plans, n_moves; /* experts that came to this rank */
    double imbalance; /* the busiest rank's load by the mean, over layers, as it was counted last */
    double planned;   /* the same of the places that were planned then */
    bool is_moving;   /* or planning */
} cmi_rank_balance_stats;

void cmi_rank_balance_get_stats(const cmi_rank_balance *balance, cmi_rank_balance_stats *stats_out);

#endif
