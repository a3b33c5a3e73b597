#include "tests/test.h"

#include <unistd.h>

#include "base/compiler.h"
#include "os/host_memory.h"

static void available_memory_is_part_of_the_host_s(void **state)
{
    (void)state;
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t available = cmi_host_memory_available();
    assert_true(available > 0);
    assert_true(available <= total);
}

static void mapped_memory_is_zero_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4097, 5 << 20};
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        void *block = NULL;
        assert_int_equal(cmi_host_memory_map(&block, sizes[i], "a test", NULL), CMI_OK);
        assert_true((uintptr_t)block % CMI_CACHE_LINE == 0);
        for (size_t at = 0; at < sizes[i]; at++) {
            assert_int_equal(((const uint8_t *)block)[at], 0);
        }
        cmi_host_memory_unmap(block, sizes[i]);
    }
    cmi_host_memory_unmap(NULL, 0);
}

static void memory_that_cannot_be_is_refused_by_name(void **state)
{
    (void)state;
    void *block = NULL;
    cmi_error err = {0};
    assert_int_equal(cmi_host_memory_map(&block, SIZE_MAX / 2, "the moon", &err),
                     CMI_ERR_NO_MEMORY);
    assert_non_null(strstr(err.text, "the moon"));
    assert_null(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available_memory_is_part_of_the_host_s),
        cmocka_unit_test(mapped_memory_is_zero_and_aligned),
        cmocka_unit_test(memory_that_cannot_be_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
