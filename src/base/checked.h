/* base/checked.h - arithmetic on sizes that come from files: true means it overflowed. */
#ifndef CMI_BASE_CHECKED_H
#define CMI_BASE_CHECKED_H

#include "base/compiler.h"

static inline bool cmi_add_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline bool cmi_mul_overflow(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

#endif
