/* policy/fairness.h - whose turn it is among tenants that share a queue: the one that was served
 * the fewest tokens.
 *
 * Each tenant has a counter of tokens served, of its prompts and, twice as much, of its answers.
 * One that comes back after it had nothing here begins at the lowest counter of those that have
 * something, so nobody saves up turns; what it was ahead stays. While two tenants wait all the time
 * their counters differ by what one of them can have running at most.
 *
 * The table is bounded. When it is full, an idle tenant with the lowest counter is forgotten; when
 * all are busy, new ones share one entry, and with it one tenant's turns.
 *
 * Pure: no clock, no allocation. Thread: one, the owner's. */
#ifndef CMI_POLICY_FAIRNESS_H
#define CMI_POLICY_FAIRNESS_H

#include "base/compiler.h"

enum {
    CMI_FAIRNESS_TENANTS = 256, /* the first is for those that the others have no room for */
    CMI_FAIRNESS_ANSWER_WEIGHT = 2,
};

typedef struct cmi_tenant {
    uint64_t key;
    uint64_t n_served;
    uint32_t n_requests; /* waiting or running */
} cmi_tenant;

typedef struct cmi_fairness {
    cmi_tenant tenants[CMI_FAIRNESS_TENANTS];
    uint32_t n; /* entries in use, the shared one included */
} cmi_fairness;

void cmi_fairness_init(cmi_fairness *f);

/* A request of the tenant comes, or ends. Returns the tenant's entry, for the calls below. O(n). */
uint32_t cmi_fairness_enter(cmi_fairness *f, uint64_t key);
void cmi_fairness_leave(cmi_fairness *f, uint32_t tenant);

void cmi_fairness_charge(cmi_fairness *f, uint32_t tenant, uint64_t n_tokens);

/* Whether a tenant goes before another. Neither, if they were served alike. */
bool cmi_fairness_is_before(const cmi_fairness *f, uint32_t a, uint32_t b);

#endif
