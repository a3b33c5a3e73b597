#include "tests/test.h"

#include <sys/prctl.h>
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

static void large_blocks_begin_at_a_huge_page(void **state)
{
    (void)state;
    size_t huge = cmi_host_memory_huge_page();
    assert_true(huge >= 4096 && (huge & (huge - 1)) == 0);
    size_t sizes[] = {huge, huge + 1, 3 * huge - 5};
    for (size_t i = 0; i < CMI_LEN(sizes); i++) {
        void *block = NULL;
        assert_int_equal(cmi_host_memory_map(&block, sizes[i], "a test", NULL), CMI_OK);
        assert_true((uintptr_t)block % huge == 0);
        ((uint8_t *)block)[0] = 1;
        ((uint8_t *)block)[sizes[i] - 1] = 1;
        cmi_host_memory_unmap(block, sizes[i]);
    }
}

/* Whether the kernel has huge pages to give is not ours to hold it to: what it says is. */
static void huge_bytes_are_those_of_the_block(void **state)
{
    (void)state;
    size_t n_bytes = 4 * cmi_host_memory_huge_page();
    void *block = NULL;
    assert_int_equal(cmi_host_memory_map(&block, n_bytes, "a test", NULL), CMI_OK);
    assert_int_equal(cmi_host_memory_huge_bytes(block, n_bytes), 0); /* nothing is written yet */
    memset(block, 1, n_bytes);
    cmi_host_memory_collapse(block, n_bytes);
    uint64_t huge_bytes = cmi_host_memory_huge_bytes(block, n_bytes);
    print_message("%llu of %zu bytes lie in huge pages\n", (unsigned long long)huge_bytes, n_bytes);
    assert_true(huge_bytes <= n_bytes && huge_bytes % cmi_host_memory_huge_page() == 0);
    for (size_t at = 0; at < n_bytes; at += 512) {
        assert_int_equal(((const uint8_t *)block)[at], 1);
    }
    cmi_host_memory_unmap(block, n_bytes);
    assert_int_equal(cmi_host_memory_huge_bytes(NULL, 0), 0);
}

/* A process can be denied huge pages for itself: everything works, and says so. */
static void without_huge_pages_blocks_are_as_good(void **state)
{
    (void)state;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
        skip();
    }
    size_t n_bytes = 4 * cmi_host_memory_huge_page();
    void *block = NULL;
    assert_int_equal(cmi_host_memory_map(&block, n_bytes, "a test", NULL), CMI_OK);
    memset(block, 1, n_bytes);
    cmi_host_memory_collapse(block, n_bytes);
    assert_int_equal(cmi_host_memory_huge_bytes(block, n_bytes), 0);
    assert_non_null(strstr(cmi_host_memory_huge_advice(), "for this process"));
    cmi_host_memory_unmap(block, n_bytes);
    assert_int_equal(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
    assert_non_null(strstr(cmi_host_memory_huge_advice(), "echo "));
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
        cmocka_unit_test(large_blocks_begin_at_a_huge_page),
        cmocka_unit_test(huge_bytes_are_those_of_the_block),
        cmocka_unit_test(without_huge_pages_blocks_are_as_good),
        cmocka_unit_test(memory_that_cannot_be_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
