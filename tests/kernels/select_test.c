#include "tests/test.h"

#include "kernels/variants.h"

/* By architecture, each in bits without a hole. */
static const uint32_t x86_flags =
    CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI | CMI_CPU_AVX512_BF16;
static const uint32_t arm_flags =
    CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD | CMI_CPU_NEON_I8MM | CMI_CPU_NEON_BF16;
enum { ARM_FIRST_BIT = 16 };
static const uint32_t x86_traits = CMI_CPU_DUAL_DOT;

static void each_kernel_gets_the_last_row_that_the_flags_allow(void **state)
{
    (void)state;
    const uint32_t n_x86 = x86_flags + 1, n_arm = (arm_flags >> ARM_FIRST_BIT) + 1;
    for (uint32_t i = 0; i < 2 * n_x86 + n_arm; i++) {
        const uint32_t flags = i < n_x86       ? i
                               : i < 2 * n_x86 ? (i - n_x86) | x86_traits
                                               : (i - 2 * n_x86) << ARM_FIRST_BIT;
        cmi_kernels kernels;
        cmi_kernels_select(&kernels, flags);
#define CHECK(name, type)                                                                          \
    {                                                                                              \
        size_t v = cmi_##name##_n_variants - 1;                                                    \
        while ((cmi_##name##_variants[v].cpu_flags & ~flags) != 0 ||                               \
               (cmi_##name##_variants[v].slow_on & flags) != 0) {                                  \
            v--;                                                                                   \
        }                                                                                          \
        assert_true(kernels.name == cmi_##name##_variants[v].fn);                                  \
    }
        CMI_KERNEL_TABLE(CHECK)
#undef CHECK
    }
}

static void row_0_is_the_reference_and_needs_nothing(void **state)
{
    (void)state;
#define CHECK(name, type)                                                                          \
    assert_string_equal(cmi_##name##_variants[0].isa, "ref");                                      \
    assert_int_equal(cmi_##name##_variants[0].cpu_flags, 0);                                       \
    assert_int_equal(cmi_##name##_variants[0].slow_on, 0);
    CMI_KERNEL_TABLE(CHECK)
#undef CHECK
}

static void names_go_both_ways_and_others_are_refused(void **state)
{
    (void)state;
    cmi_isa parsed = CMI_ISA_REF;
    for (cmi_isa isa = CMI_ISA_REF; isa <= CMI_ISA_NEON; isa++) {
        assert_true(cmi_isa_parse(cmi_isa_name(isa), &parsed));
        assert_int_equal(parsed, isa);
    }
    assert_false(cmi_isa_parse("", &parsed));
    assert_false(cmi_isa_parse("AVX2", &parsed));
    assert_false(cmi_isa_parse("avx51", &parsed));
}

static void an_isa_mask_lets_through_its_own_and_lower_flags(void **state)
{
    (void)state;
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_REF), 0);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_AVX2), CMI_CPU_AVX2);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_AVX512), x86_flags | x86_traits);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_NEON_BASE), CMI_CPU_NEON);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_NEON_DOTPROD), CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_NEON), arm_flags);
    assert_int_equal(cmi_isa_best(0), CMI_ISA_REF);
    assert_int_equal(cmi_isa_best(CMI_CPU_AVX2), CMI_ISA_AVX2);
    assert_int_equal(cmi_isa_best(CMI_CPU_AVX2 | CMI_CPU_AVX512), CMI_ISA_AVX512);
    assert_int_equal(cmi_isa_best(x86_flags), CMI_ISA_AVX512);
    assert_int_equal(cmi_isa_best(CMI_CPU_NEON), CMI_ISA_NEON_BASE);
    assert_int_equal(cmi_isa_best(CMI_CPU_NEON | CMI_CPU_NEON_DOTPROD), CMI_ISA_NEON_DOTPROD);
    assert_int_equal(cmi_isa_best(arm_flags & ~(uint32_t)CMI_CPU_NEON_BF16), CMI_ISA_NEON);
    assert_int_equal(cmi_isa_best(arm_flags), CMI_ISA_NEON);
}

static void each_flag_of_this_processor_implies_those_below(void **state)
{
    (void)state;
    const uint32_t flags = cmi_cpu_flags() & ~x86_traits;
    const uint32_t first_bit = CMI_ARCH_AARCH64 ? ARM_FIRST_BIT : 0;
    assert_int_equal(flags & ~(CMI_ARCH_AARCH64 ? arm_flags : x86_flags), 0);
    const uint32_t ones = flags >> first_bit;
    assert_int_equal(ones & (ones + 1), 0); /* from the first bit up, without a hole */
    assert_true(!CMI_ARCH_AARCH64 || ones != 0);
    print_message("this processor: %s\n", cmi_isa_name(cmi_isa_best(flags)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kernel_gets_the_last_row_that_the_flags_allow),
        cmocka_unit_test(row_0_is_the_reference_and_needs_nothing),
        cmocka_unit_test(names_go_both_ways_and_others_are_refused),
        cmocka_unit_test(an_isa_mask_lets_through_its_own_and_lower_flags),
        cmocka_unit_test(each_flag_of_this_processor_implies_those_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
