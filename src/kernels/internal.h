/* kernels/internal.h - the functions behind the variant tables: cmi_<kernel>_<isa>. */
#ifndef CMI_KERNELS_INTERNAL_H
#define CMI_KERNELS_INTERNAL_H

#include "kernels/kernels.h"

#define CMI_KERNEL_DECLARE(name, type) type cmi_##name##_ref;
CMI_KERNEL_TABLE(CMI_KERNEL_DECLARE)
#undef CMI_KERNEL_DECLARE

#endif
