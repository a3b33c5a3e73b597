#include "kernels/kernels.h"

#if CMI_ARCH_X86_64

#include <cpuid.h>

/* Which register states the operating system saves (XCR0). Only after CPUID has said OSXSAVE. */
static uint64_t saved_states(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool all_set(uint64_t value, uint64_t mask)
{
    return (value & mask) == mask;
}

static uint32_t features(void)
{
    /* Leaf 7's bits by their names in the processor manuals; not every cpuid.h has them all. */
    const uint32_t avx2_ebx = 1u << 5 | 1u << 8;                           /* AVX2, BMI2 */
    const uint32_t avx512_ebx = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    const uint32_t avx512_vnni_ecx = 1u << 11;
    const uint32_t avx512_bf16_eax = 1u << 5; /* subleaf 1 */
    const uint64_t ymm_states = 0x06, zmm_states = 0xE6;

    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !all_set(ecx, bit_OSXSAVE | bit_AVX | bit_FMA)) {
        return 0;
    }
    uint64_t states = saved_states();
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !all_set(states, ymm_states) ||
        !all_set(ebx, avx2_ebx)) {
        return 0;
    }
    uint32_t max_subleaf = eax;
    if (!all_set(states, zmm_states) || !all_set(ebx, avx512_ebx)) {
        return CMI_CPU_AVX2;
    }
    if (!all_set(ecx, avx512_vnni_ecx)) {
        return CMI_CPU_AVX2 | CMI_CPU_AVX512;
    }
    if (max_subleaf < 1 || !__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) ||
        !all_set(eax, avx512_bf16_eax)) {
        return CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI;
    }
    return CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI | CMI_CPU_AVX512_BF16;
}

/* No CPUID bit tells how many units there are. */
static uint32_t traits(void)
{
    uint32_t max_leaf, ebx, ecx, edx;
    bool is_intel = __get_cpuid(0, &max_leaf, &ebx, &ecx, &edx) && ebx == signature_INTEL_ebx &&
                    ecx == signature_INTEL_ecx && edx == signature_INTEL_edx;
    return is_intel ? CMI_CPU_DUAL_DOT : 0;
}

uint32_t cmi_cpu_flags(void)
{
    return features() | traits();
}

#elif CMI_ARCH_AARCH64

#include <asm/hwcap.h>
#include <sys/auxv.h>

uint32_t cmi_cpu_flags(void)
{
    unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
    if ((hwcap & HWCAP_ASIMDDP) == 0) {
        return CMI_CPU_NEON;
    }
    if ((hwcap2 & HWCAP2_I8MM) == 0) {
        return CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD;
    }
    if ((hwcap2 & HWCAP2_BF16) == 0) {
        return CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD | CMI_CPU_NEON_I8MM;
    }
    return CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD | CMI_CPU_NEON_I8MM | CMI_CPU_NEON_BF16;
}

#else

uint32_t cmi_cpu_flags(void)
{
    return 0;
}

#endif
