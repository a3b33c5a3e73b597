/* base/float_env.h - one floating-point mode for every thread that computes.
 *
 * Subnormal inputs and results are zero (DAZ and FTZ). The BF16 dot-product instructions flush
 * whatever the mode, so bits can be the same on every ISA only if everything else flushes too.
 * Rounding is to nearest even. Call it once at the start of every computing thread; the mode is per
 * thread.
 *
 * One thing the mode cannot make alike: x86 asks after rounding whether a result is subnormal, Arm
 * before. A product, a multiply-add or a conversion from float64 whose exact magnitude lies in
 * [2^-126 - 2^-151, 2^-126) is 2^-126 on x86 and 0 on Arm (sums, quotients and roots never lie
 * there). Added to larger numbers the difference is lost, unless it breaks a tie; else a final
 * result can differ only where it is itself that small. */
#ifndef CMI_BASE_FLOAT_ENV_H
#define CMI_BASE_FLOAT_ENV_H

#include "base/compiler.h"

#if CMI_ARCH_X86_64
#include <xmmintrin.h>
static inline void cmi_float_env_set(void)
{
    _mm_setcsr((_mm_getcsr() & ~0x6000u) | 0x8040u); /* round to nearest, FTZ | DAZ */
}
#elif CMI_ARCH_AARCH64
static inline void cmi_float_env_set(void)
{
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    fpcr = (fpcr & ~(UINT64_C(3) << 22)) | UINT64_C(1) << 24; /* round to nearest, FZ */
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr));
}
#else
static inline void cmi_float_env_set(void) {}
#endif

#endif
