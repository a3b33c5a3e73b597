#include "tests/test.h"

#include <string.h>

#include "os/host_processor.h"

static void the_name_is_one_line_that_fits(void **state)
{
    (void)state;
    char name[128], cut[6];
    cmi_host_processor_name(name, sizeof name);
    assert_true(strlen(name) > 0);
    assert_null(strchr(name, '\n'));
    cmi_host_processor_name(cut, sizeof cut);
    assert_true(strlen(cut) < sizeof cut);
    assert_memory_equal(cut, name, strlen(cut));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_is_one_line_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
