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

/* The one with the least outstanding tokens, of equals the first; CMI_ROUTE_NONE: none is open. */
uint32_t cmi_route_prefill(const cmi_prefill_load *loads, uint32_t n);

#endif
