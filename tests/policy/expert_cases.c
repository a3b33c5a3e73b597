#include "tests/policy/expert_cases.h"

#include <assert.h>

#include "base/rng.h"

uint32_t expert_random_below(expert_random *r, uint32_t n)
{
    uint32_t w[4];
    cmi_philox4x32(r->seed, r->n++, 0, w);
    return w[0] % n;
}

cmi_expert_layout expert_random_layout(expert_random *r)
{
    for (;;) {
        cmi_expert_layout l = {0};
        l.n_nodes = 1 + expert_random_below(r, 4);
        l.n_ranks = l.n_nodes * (1 + expert_random_below(r, 8));
        l.n_groups = expert_random_below(r, 3) == 0 ? 1 + expert_random_below(r, 7)
                                                    : l.n_nodes * (1 + expert_random_below(r, 4));
        l.n_experts = l.n_groups * (1 + expert_random_below(r, 12));
        l.n_replicas = l.n_ranks * (1 + expert_random_below(r, 10));
        if (l.n_experts <= l.n_replicas && l.n_replicas < EXPERT_CASE_MAX) {
            return l;
        }
    }
}

cmi_expert_layout expert_random_wild_layout(expert_random *r)
{
    cmi_expert_layout l = {0};
    l.n_experts = 1 + expert_random_below(r, 80);
    l.n_replicas = l.n_experts + (expert_random_below(r, 3) == 0 ? 0 : expert_random_below(r, 40));
    l.n_groups = 1 + expert_random_below(r, 8);
    l.n_nodes = 1 + expert_random_below(r, 5);
    l.n_ranks = 1 + expert_random_below(r, expert_random_below(r, 2) == 0 ? 8 : 100);
    l.n_shared_ranks = expert_random_below(r, 3) == 0 ? expert_random_below(r, l.n_ranks) : 0;
    return l;
}

void expert_random_loads(expert_random *r, uint32_t n, float *loads)
{
    const uint32_t kind = expert_random_below(r, 4);
    for (uint32_t e = 0; e < n; e++) {
        const uint32_t range = kind == 0 ? 1000 : kind == 1 ? 4 : 100000;
        loads[e] = (float)expert_random_below(r, range);
        if (kind == 3) {
            loads[e] = (float)(100000 / (1 + expert_random_below(r, 4 * n)));
        }
    }
}

void expert_random_placement(expert_random *r, const cmi_expert_layout *layout, void *memory,
                             void *work, cmi_expert_placement *p)
{
    cmi_status st = cmi_expert_placement_init(p, memory, layout);
    assert(st == CMI_OK);
    if (expert_random_below(r, 2) == 0) {
        float loads[EXPERT_CASE_MAX];
        expert_random_loads(r, layout->n_experts, loads);
        st = cmi_expert_placement_make(p, loads, work);
    } else {
        for (uint32_t i = layout->n_experts; i < layout->n_replicas; i++) {
            p->physical_to_logical[i] = (uint16_t)expert_random_below(r, layout->n_experts);
        }
        for (uint32_t i = layout->n_replicas; i-- > 1;) {
            const uint32_t j = expert_random_below(r, i + 1);
            const uint16_t expert = p->physical_to_logical[i];
            p->physical_to_logical[i] = p->physical_to_logical[j];
            p->physical_to_logical[j] = expert;
        }
        st = cmi_expert_placement_reindex(p);
    }
    assert(st == CMI_OK);
    (void)st;
}
