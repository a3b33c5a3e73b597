/* kernels/variants.h - the variant tables: for tests and benches, which walk every row. */
#ifndef CMI_KERNELS_VARIANTS_H
#define CMI_KERNELS_VARIANTS_H

#include "kernels/kernels.h"
#include "kernels/peak.h"

/* Row 0 of each table is the reference; the best row is last, but for processors that it is
 * slow_on.
 */
#define CMI_KERNEL_VARIANTS(name, type)                                                            \
    typedef struct cmi_##name##_variant {                                                          \
        const char *isa;                                                                           \
        uint32_t cpu_flags; /* all of them are needed */                                           \
        uint32_t slow_on;   /* a processor with any of them has a faster row before this one */    \
        type *fn;                                                                                  \
    } cmi_##name##_variant;                                                                        \
    extern const cmi_##name##_variant cmi_##name##_variants[];                                     \
    extern const size_t cmi_##name##_n_variants;
CMI_KERNEL_TABLE(CMI_KERNEL_VARIANTS)
CMI_PEAK_TABLE(CMI_KERNEL_VARIANTS)
#undef CMI_KERNEL_VARIANTS

#endif
