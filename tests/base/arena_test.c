#include "tests/test.h"

#include "base/arena.h"

static void allocations_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 5000, 9000, 3, 2000000, 1};
    cmi_arena a;
    cmi_arena_init(&a, 16 << 20);
    unsigned char *p[CMI_LEN(sizes)];
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        p[i] = cmi_arena_alloc(&a, sizes[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(p[i][k], 0);
        }
        memset(p[i], (int)i + 1, sizes[i]);
    }
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(p[i][k], i + 1);
        }
    }
    cmi_arena_deinit(&a);
    cmi_arena_deinit(&a);
    cmi_arena_deinit(NULL);
}

static void limit_is_kept_and_changes_nothing(void **state)
{
    (void)state;
    cmi_arena a;
    cmi_arena_init(&a, 100);
    assert_non_null(cmi_arena_alloc(&a, 60));
    assert_null(cmi_arena_alloc(&a, 60));
    assert_null(cmi_arena_alloc(&a, SIZE_MAX));
    assert_non_null(cmi_arena_alloc(&a, 30));
    assert_true(a.used <= 100);
    cmi_arena_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_zeroed_aligned_and_apart),
        cmocka_unit_test(limit_is_kept_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
