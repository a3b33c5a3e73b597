/* base/compiler.h - the only place where compiler extensions are named. */
#ifndef CMI_BASE_COMPILER_H
#define CMI_BASE_COMPILER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CMI_NODISCARD __attribute__((warn_unused_result))
#define CMI_PRINTF(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))
/* For templates written as functions: arguments that are constants at the call fold away. */
#define CMI_ALWAYS_INLINE inline __attribute__((always_inline))
#define CMI_NORETURN __attribute__((noreturn))
#define CMI_ALIGNED(n) __attribute__((aligned(n)))
#define CMI_LIKELY(x) __builtin_expect(!!(x), 1)
#define CMI_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* In a loop that waits for another thread: leaves the core to its sibling for a moment. */
static inline void cmi_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#define CMI_LEN(array) (sizeof(array) / sizeof((array)[0]))
#define CMI_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CMI_MAX(a, b) ((a) > (b) ? (a) : (b))
#define CMI_DIV_UP(a, b) (((a) + (b)-1) / (b))
#define CMI_ROUND_UP(a, b) (CMI_DIV_UP(a, b) * (b))

#if defined(__x86_64__)
#define CMI_ARCH_X86_64 1
#else
#define CMI_ARCH_X86_64 0
#endif
#if defined(__aarch64__)
#define CMI_ARCH_AARCH64 1
#else
#define CMI_ARCH_AARCH64 0
#endif

/* 1 when AddressSanitizer watches this build (gcc's way of saying it, then clang's). */
#if defined(__SANITIZE_ADDRESS__)
#define CMI_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CMI_ASAN 1
#endif
#endif
#if !defined(CMI_ASAN)
#define CMI_ASAN 0
#endif

/* Bytes of a cache line, and the alignment of every tensor row that a kernel may read in one load.
 */
#define CMI_CACHE_LINE 64

#endif
