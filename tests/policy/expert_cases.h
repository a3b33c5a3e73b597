/* tests/policy/expert_cases.h - random layouts and loads; equal seeds give equal ones. */
#ifndef CMI_TESTS_POLICY_EXPERT_CASES_H
#define CMI_TESTS_POLICY_EXPERT_CASES_H

#include "policy/expert_placement.h"

enum { EXPERT_CASE_MAX = 128 }; /* experts, slots and ranks of a random layout are fewer */

typedef struct expert_random {
    uint64_t seed, n;
} expert_random;

/* 0 .. n - 1 */
uint32_t expert_random_below(expert_random *r, uint32_t n);

/* A layout that the published algorithm takes, with nodes that divide the groups or not. */
cmi_expert_layout expert_random_layout(expert_random *r);

/* Any layout without a fault: nothing divides anything, ranks without slots, shared ranks. */
cmi_expert_layout expert_random_wild_layout(expert_random *r);

/* Whole numbers: many alike, some zero, or a few that outweigh the others. */
void expert_random_loads(expert_random *r, uint32_t n, float *loads);

/* A placement of any kind, by loads or by chance, every expert somewhere. memory, work: as large as
 * wanted. */
void expert_random_placement(expert_random *r, const cmi_expert_layout *layout, void *memory,
                             void *work, cmi_expert_placement *p);

#endif
