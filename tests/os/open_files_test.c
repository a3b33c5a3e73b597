#include "tests/test.h"

#include <sys/resource.h>

#include "os/open_files.h"

static void the_soft_limit_rises_to_the_hard_one_and_never_falls(void **state)
{
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit low = {.rlim_cur = 64, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(cmi_open_files_raise(100), 100);
    assert_int_equal(cmi_open_files_raise(10), 100);
    assert_int_equal(cmi_open_files_raise(UINT64_MAX), before.rlim_max);
    struct rlimit after;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
    assert_int_equal(after.rlim_cur, before.rlim_max);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_soft_limit_rises_to_the_hard_one_and_never_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
