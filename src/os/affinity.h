/* os/affinity.h - which processors a thread and those that it starts may use.
 *
 * For instances of one process that are to stay out of each other's way. Thread: the one it is
 * about. */
#ifndef CMI_OS_AFFINITY_H
#define CMI_OS_AFFINITY_H

#include "base/compiler.h"

enum { CMI_AFFINITY_MAX_PROCESSORS = 4096 };

typedef struct cmi_affinity {
    uint64_t bits[CMI_AFFINITY_MAX_PROCESSORS / 64];
} cmi_affinity;

/* What the calling thread may use. False: the system does not say. */
CMI_NODISCARD bool cmi_affinity_get(cmi_affinity *out);

uint32_t cmi_affinity_count(const cmi_affinity *set);

/* The processors first .. first + n - 1 of the set, counted from its lowest. */
cmi_affinity cmi_affinity_part(const cmi_affinity *set, uint32_t first, uint32_t n);

/* Binds the calling thread, and those that it starts from now on. False: nothing has changed. */
bool cmi_affinity_set(const cmi_affinity *set);

#endif
