#include "policy/preemption.h"

static bool goes_before(const cmi_preemption_candidate *a, const cmi_preemption_candidate *b)
{
    if (a->priority != b->priority) {
        return a->priority < b->priority;
    }
    if (a->arrival_ns != b->arrival_ns) {
        return a->arrival_ns > b->arrival_ns;
    }
    return a->id > b->id;
}

uint32_t cmi_preemption_pick(const cmi_preemption_candidate *candidates, uint32_t n_candidates,
                             const cmi_preemption_candidate *needy)
{
    uint32_t picked = UINT32_MAX;
    const cmi_preemption_candidate *first = needy;
    for (uint32_t i = 0; i < n_candidates; i++) {
        const cmi_preemption_candidate *c = &candidates[i];
        if (c->freed_pages > 0 && c->id != needy->id && goes_before(c, first)) {
            picked = i;
            first = c;
        }
    }
    return picked;
}
