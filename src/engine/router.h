/* engine/router.h - the ranks of an instance behind one engine's handle (engine/engine.h): what a
 * server talks to in a process without a model.
 *
 * Each request goes to the rank with the most room (policy/routing.h), its events come back. A
 * router keeps every request with the tokens that have come; when a rank dies, its requests go on
 * at others, behind these tokens and with the same bits, and nobody is told. One that no rank could
 * take for patience_ns ends with CMI_ERR_PEER.
 *
 * Admission is by what the chosen rank has told last and what was sent to it since, so it waits for
 * nobody. The queue's bounds are those of all ranks together. Grammars are compiled twice: here, to
 * know at once that they can be kept to, and where they run. */
#ifndef CMI_ENGINE_ROUTER_H
#define CMI_ENGINE_ROUTER_H

#include "engine/engine.h"
#include "fabric/fabric.h"

enum { CMI_ROUTER_MAX_RANKS = 1024 };

typedef struct cmi_router_options {
    /* Of cmi_link_fabric_options (engine/rank_port.h); the router's from then on, also when it does
     * not start. */
    cmi_fabric *fabric;
    const char *const *addresses; /* [n_ranks] of the ports; copied */
    uint32_t n_ranks;
    uint32_t max_running;         /* of each rank at most; what is beyond is not used */
    uint32_t max_queued_requests; /* as of an engine; 0: the default */
    uint64_t max_queued_tokens;
    uint32_t n_events;
    const struct cmi_vocab *vocab; /* as of an engine */
    uint64_t patience_ns;          /* 0: 30 s */
} cmi_router_options;

/* CMI_ERR_INVALID: an option. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_router_start(cmi_engine **engine_out, const cmi_router_options *opt,
                                          cmi_error *err);

/* Waits until n ranks can be asked, at most for wait_ns. Returns how many can. Before, what
 * cmi_engine_info_get says is not known. */
uint32_t cmi_router_wait(cmi_engine *router, uint32_t n, uint64_t wait_ns);

typedef struct cmi_router_stats {
    uint32_t n_ranks, n_open;
    uint64_t n_lost;     /* ranks, since the start */
    uint64_t n_moved;    /* requests that went on at another rank */
    uint32_t n_unplaced; /* requests that no rank has */
} cmi_router_stats;

void cmi_router_stats_get(cmi_engine *router, cmi_router_stats *stats_out);

#endif
