/* policy/routing.h - which instance gets a request.
 *
 * Cache locality plays no part: every instance reaches every cached block at the same cost (paper
 * section 4.2). Pure; any thread. */
#ifndef CMI_POLICY_ROUTING_H
#define CMI_POLICY_ROUTING_H

#include "base/compiler.h"

enum { CMI_ROUTE_NONE = UINT32_MAX };

/* What a decode instance knows of a prefill instance. */
typedef struct cmi_prefill_load {
    bool is_open;      /* it can be asked */
    uint64_t n_tokens; /* of prompts that it was asked for and that have not arrived */
} cmi_prefill_load;

/* What a router knows of a rank of an instance. */
typedef struct cmi_rank_load {
    bool is_open;
    uint32_t n_seats;      /* sequences that can run together */
    uint32_t n_requests;   /* that run or wait there */
    uint64_t n_tokens;     /* of their prompts, to be computed yet */
    uint32_t n_pages;      /* of KV */
    uint32_t n_pages_used; /* for what runs, and for what was sent since that was told */
} cmi_rank_load;

/* The rank with the most room for a request that needs n_pages when it is complete. Ranks that have
 * seat and pages for it go before those where it would wait; then the one with the least to do in
 * its next steps (prompt tokens, then requests), then the most free pages; of equals the first from
 * `turn` on, which the caller counts. CMI_ROUTE_NONE: none is open. O(n). */
uint32_t cmi_route_rank(const cmi_rank_load *loads, uint32_t n, uint32_t n_pages, uint32_t turn);

/* The one with the least outstanding tokens, of equals the first; CMI_ROUTE_NONE: none is open. */
uint32_t cmi_route_prefill(const cmi_prefill_load *loads, uint32_t n);

#endif
