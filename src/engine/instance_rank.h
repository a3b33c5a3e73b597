/* engine/instance_rank.h - an instance that is one rank of several, among which the routed experts
 * are spread (paper section 4 and 5; docs/EXPERT_PARALLEL.md).
 *
 * Every rank has attention, norms and shared experts for itself, with requests and KV of its own,
 * and a share of the routed experts. Which, follows from the places of the ranks and from who
 * lives: ranks that agree on that (ep/rank.h) agree on it without a word. An expert whose ranks are
 * all dead is adopted by a living one, which reads it from the model's files.
 *
 * Passes are common to all ranks: one that has work calls the others, which follow with no rows of
 * their own. A pass that fails because a rank was lost is run again after the next join; rows that
 * it has written are written again with the same bits.
 *
 * Thread: the instance's owner, but for wake. */
#ifndef CMI_ENGINE_INSTANCE_RANK_H
#define CMI_ENGINE_INSTANCE_RANK_H

#include "engine/instance.h"
#include "engine/rank_balance.h"
#include "ep/rank.h"

/* Which pass of the model all ranks are called to. */
typedef enum cmi_pass {
    CMI_PASS_MAIN = 1,
    CMI_PASS_MTP,
} cmi_pass;

typedef struct cmi_instance_rank cmi_instance_rank;

/* What an instance with these options does: opened between its weights and its forward pass, closed
 * with it. Reads the experts of this place. Errors as of cmi_instance_open. */
CMI_NODISCARD cmi_status cmi_instance_rank_open(cmi_instance *in, const cmi_instance_options *opt,
                                                const cmi_weights_options *weights, cmi_error *err);
void cmi_instance_rank_close(cmi_instance *in);

/* After the forward pass has been made. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_instance_rank_start(cmi_instance *in, cmi_error *err);

/* What the forward pass of such an instance needs to know before there is a rank: sizes of the
 * exchanges; and how many bytes experts and receive windows take. */
typedef struct cmi_instance_rank_sizes {
    cmi_exchange exchange;
    cmi_stage_exchange stage; /* without ranks: there is none */
    uint64_t n_bytes;
} cmi_instance_rank_sizes;
CMI_NODISCARD cmi_status cmi_instance_rank_plan(const cmi_instance *in,
                                                const cmi_instance_options *opt,
                                                const cmi_weights_options *weights,
                                                const cmi_kv_layout *layout,
                                                cmi_instance_rank_sizes *sizes_out, cmi_error *err);

/* Of an instance's rank, for its forward pass. */
cmi_exchange *cmi_instance_rank_exchange(cmi_instance_rank *rank);
cmi_stage_exchange *cmi_instance_rank_stage(cmi_instance_rank *rank); /* NULL: none */

/* Waits until this rank is one of a view whose experts are all here or at others: passes can run
 * then, and it is the same at once if nothing has happened. CMI_ERR_TIMEOUT: there are too few, for
 * patience_ns. CMI_ERR_CLOSED: another process has this place. CMI_ERR_UNSUPPORTED: the ranks do
 * not go together. Else an expert could not be read. */
CMI_NODISCARD cmi_status cmi_instance_join(cmi_instance *in, uint64_t patience_ns, cmi_error *err);

/* Calls all ranks to a pass. CMI_OK, or it is time to join. */
CMI_NODISCARD cmi_status cmi_instance_call(cmi_instance *in, cmi_pass pass);

/* Runs a pass that all ranks have been called to, or have agreed on, as many microbatches as they
 * have agreed on. CMI_OK, or it is time to join. */
CMI_NODISCARD cmi_status cmi_instance_pass(cmi_instance *in, const cmi_batch *batch);

/* If somebody has called: runs that pass and those of the MTP layer that the ranks have agreed on
 * in it, without rows. *followed_out says whether. CMI_OK, or it is time to join. */
CMI_NODISCARD cmi_status cmi_instance_follow(cmi_instance *in, bool *followed_out);

/* Runs passes of the MTP layer without rows. CMI_OK, or it is time to join. */
CMI_NODISCARD cmi_status cmi_instance_follow_mtp(cmi_instance *in, uint32_t n_passes);

/* Sleeps until a call, a change or a wake, for at most max_ns. */
void cmi_instance_rank_sleep(cmi_instance *in, uint64_t max_ns);
void cmi_instance_rank_wake(cmi_instance *in); /* any thread */

/* After join: follows until the first place is gone, then CMI_OK. Errors as of join. */
CMI_NODISCARD cmi_status cmi_instance_serve_first(cmi_instance *in, uint64_t patience_ns,
                                                  cmi_error *err);

typedef struct cmi_instance_rank_stats {
    uint32_t place, n_places, n_living;
    uint64_t n_views;
    uint64_t n_adopted;                /* experts that this rank holds for others */
    uint64_t n_read;                   /* experts read since the start */
    uint64_t last_rejoin_ns;           /* from a pass that failed to the next that could begin */
    uint64_t n_passes, n_split_passes; /* of the main model with rows; as two microbatches */
    uint64_t n_staged_passes;          /* in which prompts were shared */
    uint64_t n_all_passes, passes_ns;  /* of the main model, also without rows */
    cmi_ep_counters work;              /* of all passes */
    cmi_rank_balance_stats balance;    /* zeroed: experts stay */
} cmi_instance_rank_stats;

void cmi_instance_rank_get_stats(const cmi_instance *in, cmi_instance_rank_stats *stats_out);

#endif
