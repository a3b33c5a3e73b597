/* kernels/internal.h - the functions behind the variant tables: cmi_<kernel>_<isa>.
 *
 * Every kernel has a reference. Not every combination with another ISA that is declared here
 * exists: select.c says which do. */
#ifndef CMI_KERNELS_INTERNAL_H
#define CMI_KERNELS_INTERNAL_H

#include "kernels/kernels.h"
#include "kernels/peak.h"

#define CMI_KERNEL_DECLARE(name, type)                                                             \
    type cmi_##name##_ref, cmi_##name##_avx2, cmi_##name##_avx512, cmi_##name##_avx512_vnni,       \
        cmi_##name##_avx512_vnni_dual, cmi_##name##_avx512_bf16, cmi_##name##_neon,                \
        cmi_##name##_neon_dotprod, cmi_##name##_neon_i8mm, cmi_##name##_neon_bf16;
CMI_KERNEL_TABLE(CMI_KERNEL_DECLARE)
CMI_PEAK_TABLE(CMI_KERNEL_DECLARE)
#undef CMI_KERNEL_DECLARE

#endif
