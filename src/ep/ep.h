/* ep/ep.h - rows to the experts of other ranks and back: FusedDispatch and FusedCombine (paper
 * sections 5.2 and 5.3) as an exchange of the forward pass (model/exchange.h).
 *
 * Dispatch. Rows were quantized once, by the norm before them. Each goes, with its scale, straight
 * into the receive window that the rank of its expert keeps for this source, once for a rank;
 * behind it the list of pairs (row, expert), and then a flag with the sequence number of the
 * exchange. A rank waits for the flags of all ranks, also of those without a row for it: that is
 * what lets buffers be static and keeps ranks within an exchange of each other. Then it sorts what
 * came by expert, by counts and prefix sums, without asking anybody.
 *
 * Combine. Each result goes into the place of its pair at the row's own rank, then a flag to every
 * source that sent rows. That rank waits for those that it sent rows to. What adds results up is
 * the forward pass, in the order in which the gate chose.
 *
 * Where a peer's memory is mapped (cmi_remote_memory) the team's threads write there themselves:
 * the paper's AIV-Direct. Elsewhere rows are packed into messages by the team, in the own window
 * those that have an expert here, too; and the owner's thread puts them, neighbours in one put: few
 * large puts when most rows go to a rank, one a row when few do.
 *
 * Ranks may be away: those that are left go on without them, with rank_of that names none of them.
 *
 * Nothing allocates, and nothing blocks but the waits for flags, which spin briefly, then sleep,
 * and have a deadline.
 *
 * Thread: the owner of the team and of the fabric. */
#ifndef CMI_EP_EP_H
#define CMI_EP_EP_H

#include "ep/layout.h"
#include "fabric/fabric.h"
#include "model/exchange.h"
#include "os/team.h"

/* Where a rank's region can be reached. */
typedef struct cmi_ep_peer {
    cmi_endpoint_id endpoint; /* zeroed for the rank itself */
    cmi_remote_id region;
    bool is_away; /* nothing is sent to it or expected of it */
} cmi_ep_peer;

typedef struct cmi_ep_options {
    cmi_ep_layout layout;
    uint32_t rank; /* of this process, < n_ranks */
    cmi_team *team;
    cmi_fabric *fabric;
    cmi_region_id region;     /* of layout.region_bytes, zeroed, of this rank */
    const cmi_ep_peer *peers; /* [n_ranks]; copied */
    uint32_t n_layers, n_experts;
    /* [n_layers][n_experts] the rank to which this one sends rows of an expert; must have it, and
     * no rank more of a layer's than max_local_experts. Read by each send; may change between two
     * exchanges, and ranks need not agree. */
    const uint16_t *rank_of;
    uint32_t *counts;     /* [n_layers][n_experts] rows of each that were sent; NULL: not wanted */
    uint64_t patience_ns; /* without a peer's flag for so long the exchange is over */
    /* Called by each send and every few milliseconds of a wait; what it returns but CMI_OK ends the
     * exchange. Of the fabric it may use all but the peers' memory. NULL: nothing is looked at. */
    cmi_status (*look)(void *arg);
    void *look_arg;
} cmi_ep_options;

/* All that the options point to outlives it; the exchange's max_rows and max_arrivals are the
 * layout's. CMI_ERR_INVALID: what cannot be. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_ep_create(cmi_exchange **exchange_out, const cmi_ep_options *opt,
                                       cmi_error *err);
void cmi_ep_destroy(cmi_exchange *exchange); /* NULL is fine */

/* Waits until peers have all that was sent, so that results that were given to send_back may go,
 * and the exchange. Its errors are those of the calls (model/exchange.h). */
CMI_NODISCARD cmi_status cmi_ep_drain(cmi_exchange *exchange);

/* When the last receive had everybody's rows, by the fabric's clock: until then it waited, since
 * then it has sorted. */
uint64_t cmi_ep_arrived_ns(const cmi_exchange *exchange);

/* Since it was made. */
typedef struct cmi_ep_counters {
    uint64_t n_pairs;   /* (row, expert) that came: what the experts here have computed */
    uint64_t waited_ns; /* for rows and results of other ranks */
} cmi_ep_counters;

void cmi_ep_get_counters(const cmi_exchange *exchange, cmi_ep_counters *counters_out);

/* After a call returned an error: the rank whose fault it is, or n_ranks. */
uint32_t cmi_ep_culprit(const cmi_exchange *exchange);

/* Begins anew, with other peers [n_ranks] (copied), between two passes or after an error: whatever
 * this rank put has been flushed, and all that take part begin with the same sequence, above all
 * before by more than an exchange. Flags and rows of before are then older than any that is waited
 * for. */
void cmi_ep_restart(cmi_exchange *exchange, const cmi_ep_peer *peers, uint64_t sequence);

/* Of the next send. */
uint64_t cmi_ep_next_sequence(const cmi_exchange *exchange);

#endif
