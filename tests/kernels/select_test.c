#include "tests/test.h"

#include "kernels/variants.h"

static const uint32_t all_flags =
    CMI_CPU_AVX2 | CMI_CPU_AVX512 | CMI_CPU_AVX512_VNNI | CMI_CPU_AVX512_BF16;

static void each_kernel_gets_the_last_row_that_the_flags_allow(void **state)
{
    (void)state;
    for (uint32_t flags = 0; flags <= all_flags; flags++) {
        cmi_kernels kernels;
        cmi_kernels_select(&kernels, flags);
#define CHECK(name, type)                                                                          \
    {                                                                                              \
        size_t v = cmi_##name##_n_variants - 1;                                                    \
        while ((cmi_##name##_variants[v].cpu_flags & ~flags) != 0) {                               \
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
    assert_int_equal(cmi_##name##_variants[0].cpu_flags, 0);
    CMI_KERNEL_TABLE(CHECK)
#undef CHECK
}

static void names_go_both_ways_and_others_are_refused(void **state)
{
    (void)state;
    static const cmi_isa isas[] = {CMI_ISA_REF, CMI_ISA_AVX2, CMI_ISA_AVX512, CMI_ISA_NEON};
    cmi_isa parsed = CMI_ISA_REF;
    for (size_t i = 0; i < CMI_LEN(isas); i++) {
        assert_true(cmi_isa_parse(cmi_isa_name(isas[i]), &parsed));
        assert_int_equal(parsed, isas[i]);
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
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_AVX512), all_flags);
    assert_int_equal(cmi_isa_cpu_flags(CMI_ISA_NEON), 0);
    assert_int_equal(cmi_isa_best(0), CMI_ISA_REF);
    assert_int_equal(cmi_isa_best(CMI_CPU_AVX2), CMI_ISA_AVX2);
    assert_int_equal(cmi_isa_best(CMI_CPU_AVX2 | CMI_CPU_AVX512), CMI_ISA_AVX512);
    assert_int_equal(cmi_isa_best(all_flags), CMI_ISA_AVX512);
}

static void each_flag_of_this_processor_implies_those_below(void **state)
{
    (void)state;
    const uint32_t flags = cmi_cpu_flags();
    assert_true(flags <= all_flags);
    assert_int_equal(flags & (flags + 1), 0); /* ones from bit 0 up, without a hole */
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
