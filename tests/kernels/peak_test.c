/* The peaks are loops without results, so what can be held is that they count what they do, and
 * that every reader reads everything. */
#include "tests/test.h"

#include "base/alloc.h"
#include "kernels/variants.h"

static void a_peak_counts_its_operations(void **state)
{
    (void)state;
    const uint32_t flags = cmi_cpu_flags();
#define CHECK(name)                                                                                \
    for (size_t v = 0; v < cmi_##name##_n_variants; v++) {                                         \
        const cmi_##name##_variant *row = &cmi_##name##_variants[v];                               \
        if ((row->cpu_flags & ~flags) == 0) {                                                      \
            assert_int_equal(row->fn(0), 0);                                                       \
            assert_int_equal(row->fn(1) % 32, 0);                                                  \
            assert_int_equal(row->fn(100), 100 * row->fn(1));                                      \
        }                                                                                          \
    }
    CHECK(peak_i8)
    CHECK(peak_bf16)
    CHECK(peak_f32)
#undef CHECK
}

static void every_reader_reads_every_word_once(void **state)
{
    (void)state;
    enum { N_WORDS = 3 * CMI_PEAK_READ_BYTES / 8 };
    uint64_t *words = cmi_alloc_aligned(N_WORDS * sizeof *words, CMI_CACHE_LINE);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < N_WORDS; i++) {
        words[i] = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
        sum += words[i];
    }
    for (size_t v = 0; v < cmi_peak_read_n_variants; v++) {
        const cmi_peak_read_variant *row = &cmi_peak_read_variants[v];
        if ((row->cpu_flags & ~cmi_cpu_flags()) == 0) {
            assert_true(row->fn(words, N_WORDS * sizeof *words) == sum);
            assert_true(row->fn(words, 0) == 0);
        }
    }
    cmi_free(words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peak_counts_its_operations),
        cmocka_unit_test(every_reader_reads_every_word_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
