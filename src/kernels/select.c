#include <string.h>

#include "kernels/internal.h"
#include "kernels/variants.h"

#define CMI_KERNEL_ROWS(name, type)                                                                \
    const cmi_##name##_variant cmi_##name##_variants[] = {                                         \
        {"ref", 0, cmi_##name##_ref},                                                              \
    };                                                                                             \
    const size_t cmi_##name##_n_variants = CMI_LEN(cmi_##name##_variants);
CMI_KERNEL_TABLE(CMI_KERNEL_ROWS)
#undef CMI_KERNEL_ROWS

static const struct {
    const char *name;
    uint32_t cpu_flags;
} isas[] = {
    [CMI_ISA_REF] = {"ref", 0},
    [CMI_ISA_AVX2] = {"avx2", CMI_CPU_AVX2},
    [CMI_ISA_AVX512] = {"avx512", CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_BF16},
    [CMI_ISA_NEON] = {"neon", 0},
};

uint32_t cmi_isa_cpu_flags(cmi_isa isa)
{
    return isas[isa].cpu_flags;
}

const char *cmi_isa_name(cmi_isa isa)
{
    return isas[isa].name;
}

bool cmi_isa_parse(const char *name, cmi_isa *isa_out)
{
    for (size_t i = 0; i < CMI_LEN(isas); i++) {
        if (strcmp(name, isas[i].name) == 0) {
            *isa_out = (cmi_isa)i;
            return true;
        }
    }
    return false;
}

cmi_isa cmi_isa_best(uint32_t cpu_flags)
{
    if ((cpu_flags & CMI_CPU_AVX512) != 0) {
        return CMI_ISA_AVX512;
    }
    return (cpu_flags & CMI_CPU_AVX2) != 0 ? CMI_ISA_AVX2 : CMI_ISA_REF;
}

void cmi_kernels_select(cmi_kernels *kernels_out, uint32_t cpu_flags)
{
#define CMI_KERNEL_SELECT(name, type)                                                              \
    for (size_t i = 0; i < cmi_##name##_n_variants; i++) {                                         \
        uint32_t needed = cmi_##name##_variants[i].cpu_flags;                                      \
        if ((needed & cpu_flags) == needed) {                                                      \
            kernels_out->name = cmi_##name##_variants[i].fn;                                       \
        }                                                                                          \
    }
    CMI_KERNEL_TABLE(CMI_KERNEL_SELECT)
#undef CMI_KERNEL_SELECT
}
