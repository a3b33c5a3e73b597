#include "policy/routing.h"

uint32_t cmi_route_prefill(const cmi_prefill_load *loads, uint32_t n)
{
    uint32_t best = CMI_ROUTE_NONE;
    for (uint32_t i = 0; i < n; i++) {
        if (loads[i].is_open &&
            (best == CMI_ROUTE_NONE || loads[i].n_tokens < loads[best].n_tokens)) {
            best = i;
        }
    }
    return best;
}
