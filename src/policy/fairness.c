#include "policy/fairness.h"

#include <assert.h>
#include <string.h>

void cmi_fairness_init(cmi_fairness *f)
{
    memset(f, 0, sizeof *f);
    f->n = 1;
}

/* Of those that have requests here; UINT64_MAX: nobody has. */
static uint64_t lowest_served(const cmi_fairness *f)
{
    uint64_t lowest = UINT64_MAX;
    for (uint32_t i = 0; i < f->n; i++) {
        if (f->tenants[i].n_requests > 0) {
            lowest = CMI_MIN(lowest, f->tenants[i].n_served);
        }
    }
    return lowest;
}

/* The tenant's entry, perhaps taken from an idle one; 0 when there is none. */
static uint32_t find_or_make(cmi_fairness *f, uint64_t key)
{
    uint32_t idle = 0;
    for (uint32_t i = 1; i < f->n; i++) {
        if (f->tenants[i].key == key) {
            return i;
        }
        if (f->tenants[i].n_requests == 0 &&
            (idle == 0 || f->tenants[i].n_served < f->tenants[idle].n_served)) {
            idle = i;
        }
    }
    if (f->n < CMI_FAIRNESS_TENANTS) {
        idle = f->n++;
    }
    if (idle > 0) {
        f->tenants[idle] = (cmi_tenant){.key = key};
    }
    return idle;
}

uint32_t cmi_fairness_enter(cmi_fairness *f, uint64_t key)
{
    const uint64_t lowest = lowest_served(f);
    const uint32_t tenant = find_or_make(f, key);
    cmi_tenant *t = &f->tenants[tenant];
    if (t->n_requests++ == 0 && lowest != UINT64_MAX) {
        t->n_served = CMI_MAX(t->n_served, lowest);
    }
    return tenant;
}

void cmi_fairness_leave(cmi_fairness *f, uint32_t tenant)
{
    assert(f->tenants[tenant].n_requests > 0);
    f->tenants[tenant].n_requests--;
}

void cmi_fairness_charge(cmi_fairness *f, uint32_t tenant, uint64_t n_tokens)
{
    f->tenants[tenant].n_served += n_tokens;
}

bool cmi_fairness_is_before(const cmi_fairness *f, uint32_t a, uint32_t b)
{
    return f->tenants[a].n_served < f->tenants[b].n_served;
}
