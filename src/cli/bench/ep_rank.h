/* cli/bench/ep_rank.h - one rank of the measurement of dispatch and combine, in a thread of a group
 * or in a process of its own. All that ranks say to each other goes through their regions. */
#ifndef CMI_CLI_BENCH_EP_RANK_H
#define CMI_CLI_BENCH_EP_RANK_H

#include "cli/bench/ep.h"
#include "ep/ep.h"

/* How a rank is connected with the others. */
typedef struct cmi_bench_ep_place {
    uint32_t rank, n_ranks;
    cmi_fabric *fabric;
    cmi_region_id region; /* of cmi_bench_ep_region_bytes */
    const cmi_ep_peer *peers;
    /* [n_ranks], filled in by each rank before it runs: where plain copies to the others go. NULL:
     * they are in other processes, and this one's copies go to its own region. */
    uint8_t **memory;
} cmi_bench_ep_place;

/* CMI_ERR_INVALID: numbers that cannot be. */
CMI_NODISCARD cmi_status cmi_bench_ep_region_bytes(size_t *n_bytes_out, uint32_t n_ranks,
                                                   const cmi_bench_ep_options *opt, cmi_error *err);

/* Puts the delay, or what hides peers' memory, between a rank and its fabric, which *fabric_inout
 * becomes; nothing where the options ask for neither. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_bench_ep_wrap(const cmi_bench_ep_options *opt, uint32_t rank,
                                           cmi_fabric **fabric_inout, cmi_error *err);

/* All rounds, behind one that is not timed, in which each rank sees that its rows were at their
 * experts (CMI_ERR_BAD_DATA: they were not). Rank 0 sets *result_out; to the others it is scratch.
 * On an error the rank has closed its endpoints, so that the others end, too. */
CMI_NODISCARD cmi_status cmi_bench_ep_rank_run(const cmi_bench_ep_place *place,
                                               const cmi_bench_ep_options *opt,
                                               cmi_bench_ep_result *result_out, cmi_error *err);

#endif
