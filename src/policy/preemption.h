/* policy/preemption.h - whose pages are taken when none are left.
 *
 * The order, who goes first: lowest priority; of equals the latest to arrive; of those the highest
 * id. It depends on nothing that running changes, so a sequence that was preempted and runs again
 * cannot chase out the one that it made room for, and the oldest of the highest priority always
 * gets to its end.
 *
 * Pure. Any thread. */
#ifndef CMI_POLICY_PREEMPTION_H
#define CMI_POLICY_PREEMPTION_H

#include "base/compiler.h"

typedef struct cmi_preemption_candidate {
    uint64_t id;          /* unique */
    uint64_t arrival_ns;  /* of the request, also after it was preempted before */
    int32_t priority;     /* higher is more important */
    uint32_t freed_pages; /* that would be free or idle without it; with 0 it stays */
} cmi_preemption_candidate;

/* The index of the sequence to preempt for the one that needs pages; UINT32_MAX: none goes before
 * `needy` in the order (needy itself has to give way then). candidates need not hold needy, and it
 * is passed over where they do. O(n). */
uint32_t cmi_preemption_pick(const cmi_preemption_candidate *candidates, uint32_t n_candidates,
                             const cmi_preemption_candidate *needy);

#endif
