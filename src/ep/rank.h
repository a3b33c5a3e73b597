/* ep/rank.h - this process as one rank of an instance whose experts are spread: the gang that says
 * who is there (cluster/gang.h), and the exchanges of rows with those who are (ep/ep.h).
 *
 * A rank keeps its place (the index of its member) for life; experts and receive windows belong to
 * places, and a place without a living process is away. Its owner polls:
 *
 *     WAITING     nobody to act with: sleep, poll again
 *     NEW_VIEW    others are there, dead_out says who is not: bring the experts that fall to this
 *                 rank, write rank_of, then enter
 *     READY       passes may run; all ranks run the same ones
 *     SUPERSEDED  another process has this place: end
 *
 * A pass begins where a rank has work: it calls the others, which join, with or without rows. When
 * somebody dies or comes, the exchanges of a pass that is under way return an error, on every rank:
 * poll then, until READY, and run the pass again. Nobody acts in the new view before all its ranks
 * have polled STOPPING's end, and what was written in views before is never taken for news, since
 * sequence numbers begin with the view's.
 *
 * The fabric's events and messages are the rank's. Thread: the fabric's owner, but for wake. */
#ifndef CMI_EP_RANK_H
#define CMI_EP_RANK_H

#include "cluster/gang.h"
#include "ep/ep.h"
#include "ep/rank_wire.h"
#include "ep/stage.h"

typedef struct cmi_ep_rank cmi_ep_rank;

typedef struct cmi_ep_rank_options {
    const char *name;           /* of the instance */
    cmi_fabric *fabric;         /* as cluster/gang.h wants it */
    cmi_membership *membership; /* its members are the places; both outlive the rank */
    uint32_t min_ranks;         /* fewer do not act; 1 or more */
    cmi_team *team;             /* outlives the rank */
    cmi_ep_shape shape;         /* n_ranks: all places */
    uint32_t n_streams;         /* exchanges beside each other: 1 .. CMI_EP_MAX_STREAMS */
    /* Of a stage exchange beside them, for all places; no ranks: there is none. */
    cmi_stage_shape stage;
    size_t stage_window_bytes;
    uint32_t n_layers, n_experts;
    const uint16_t *rank_of; /* [n_layers][n_experts] places, as in ep.h; the caller's */
    uint32_t *counts;        /* as in ep.h; of all streams together */
    void (*on_frame)(void *arg, uint32_t place, const cmi_frame *frame); /* beyond calls; or NULL */
    void *on_frame_arg;
    uint64_t model;       /* a hash: ranks of another one are not acted with */
    uint64_t silent_ns;   /* a rank that is not heard of for so long is lost; more than what
                           * a rank computes between two exchanges */
    uint64_t patience_ns; /* how long an exchange waits for living ranks */
    uint64_t gather_ns;   /* how long the first view waits for all places; they may be loading */
} cmi_ep_rank_options;

/* Bytes that a message of the fabric must be able to have. */
enum { CMI_EP_RANK_MESSAGE_BYTES = CMI_GANG_MAX_FRAME };

/* Fills in times. */
void cmi_ep_rank_options_default(cmi_ep_rank_options *opt);

/* CMI_ERR_INVALID: an option. CMI_ERR_NO_MEMORY: the receive windows do not fit. */
CMI_NODISCARD cmi_status cmi_ep_rank_create(cmi_ep_rank **rank_out, const cmi_ep_rank_options *opt,
                                            cmi_error *err);
void cmi_ep_rank_destroy(cmi_ep_rank *rank); /* NULL is fine */

/* Of a stream, for the forward pass. The same for the rank's life. */
cmi_exchange *cmi_ep_rank_exchange(cmi_ep_rank *rank, uint32_t stream);

/* Likewise; NULL: there is none. To be used in views in which all places live. */
cmi_stage_exchange *cmi_ep_rank_stage(cmi_ep_rank *rank);

typedef enum cmi_ep_rank_state {
    CMI_EP_RANK_WAITING,
    CMI_EP_RANK_NEW_VIEW,
    CMI_EP_RANK_READY,
    CMI_EP_RANK_SUPERSEDED,
} cmi_ep_rank_state;

/* Does what is due. Between passes only. */
cmi_ep_rank_state cmi_ep_rank_poll(cmi_ep_rank *rank);

/* In NEW_VIEW: bit place % 64 of word place / 64 is set where nobody lives. Valid until poll. */
const uint64_t *cmi_ep_rank_dead(const cmi_ep_rank *rank);
uint32_t cmi_ep_rank_n_living(const cmi_ep_rank *rank);

/* In NEW_VIEW. CMI_OK: READY. CMI_ERR_UNSUPPORTED: a rank there has another model. Else somebody
 * is lost already: poll. */
CMI_NODISCARD cmi_status cmi_ep_rank_enter(cmi_ep_rank *rank, cmi_error *err);

/* In READY, before a pass that others may not expect; pass is what they are told. CMI_OK, or the
 * view is over: poll. */
CMI_NODISCARD cmi_status cmi_ep_rank_call(cmi_ep_rank *rank, uint32_t pass);

/* In READY: whether somebody has called for the pass that is next. */
CMI_NODISCARD bool cmi_ep_rank_is_called(const cmi_ep_rank *rank, uint32_t *pass_out);

/* In READY: frames for all others (ep/rank_wire.h). CMI_OK, or the view is over. */
CMI_NODISCARD cmi_status cmi_ep_rank_tell_counts(cmi_ep_rank *rank, uint32_t layer, uint32_t first,
                                                 const uint32_t *counts, uint32_t n, bool is_busy);
CMI_NODISCARD cmi_status cmi_ep_rank_tell_round(cmi_ep_rank *rank, const cmi_ep_round *round);

/* Waits a little for frames of others, and has them heard. CMI_OK, or the view is over. */
CMI_NODISCARD cmi_status cmi_ep_rank_await_frames(cmi_ep_rank *rank);

/* Sleeps until poll may have something to do, a wake, or the deadline (of the fabric's clock); not
 * at all when it is called. What comes between poll and sleep ends the sleep. */
void cmi_ep_rank_sleep(cmi_ep_rank *rank, uint64_t deadline_ns);
void cmi_ep_rank_wake(cmi_ep_rank *rank); /* any thread */

/* Of all its exchanges together. */
void cmi_ep_rank_get_work(const cmi_ep_rank *rank, cmi_ep_counters *counters_out);

void cmi_ep_rank_get_counters(const cmi_ep_rank *rank, cmi_gang_counters *counters_out);

#endif
