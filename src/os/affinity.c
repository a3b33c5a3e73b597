#include "os/affinity.h"

#include <sched.h>
#include <string.h>

_Static_assert(sizeof(cmi_affinity) % sizeof(cpu_set_t) == 0, "the kernel's set is a part of ours");

static bool has(const cmi_affinity *set, uint32_t processor)
{
    return (set->bits[processor / 64] >> processor % 64 & 1) != 0;
}

bool cmi_affinity_get(cmi_affinity *out)
{
    memset(out, 0, sizeof *out);
    return sched_getaffinity(0, sizeof *out, (cpu_set_t *)(void *)out->bits) == 0;
}

uint32_t cmi_affinity_count(const cmi_affinity *set)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < CMI_AFFINITY_MAX_PROCESSORS; i++) {
        n += has(set, i) ? 1 : 0;
    }
    return n;
}

cmi_affinity cmi_affinity_part(const cmi_affinity *set, uint32_t first, uint32_t n)
{
    cmi_affinity part = {0};
    uint32_t at = 0;
    for (uint32_t i = 0; i < CMI_AFFINITY_MAX_PROCESSORS; i++) {
        if (has(set, i)) {
            if (at >= first && at - first < n) {
                part.bits[i / 64] |= UINT64_C(1) << i % 64;
            }
            at++;
        }
    }
    return part;
}

bool cmi_affinity_set(const cmi_affinity *set)
{
    return sched_setaffinity(0, sizeof *set, (const cpu_set_t *)(const void *)set->bits) == 0;
}
