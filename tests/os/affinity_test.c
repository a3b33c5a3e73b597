/* Parts of what this process may use: counted, bound, inherited, and given back. */
#include "tests/test.h"

#include <pthread.h>

#include "os/affinity.h"

static void parts_are_counted_from_the_lowest(void **state)
{
    (void)state;
    cmi_affinity set = {.bits = {0xf0, 0, 0x3}};
    assert_int_equal(cmi_affinity_count(&set), 6);
    cmi_affinity first = cmi_affinity_part(&set, 0, 3), rest = cmi_affinity_part(&set, 3, 10);
    assert_int_equal(first.bits[0], 0x70);
    assert_int_equal(rest.bits[0], 0x80);
    assert_int_equal(rest.bits[2], 0x3);
    assert_int_equal(cmi_affinity_count(&(cmi_affinity){0}), 0);
}

static void *count_own(void *arg)
{
    cmi_affinity set;
    *(uint32_t *)arg = cmi_affinity_get(&set) ? cmi_affinity_count(&set) : 0;
    return NULL;
}

static void threads_inherit_what_they_may_use(void **state)
{
    (void)state;
    cmi_affinity all;
    uint32_t n = 0;
    pthread_t thread;
    assert_true(cmi_affinity_get(&all));
    assert_true(cmi_affinity_count(&all) >= 1);
    cmi_affinity one = cmi_affinity_part(&all, cmi_affinity_count(&all) - 1, 1);
    assert_true(cmi_affinity_set(&one));
    assert_int_equal(pthread_create(&thread, NULL, count_own, &n), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n, 1);
    assert_true(cmi_affinity_set(&all));
    count_own(&n);
    assert_int_equal(n, cmi_affinity_count(&all));
    assert_false(cmi_affinity_set(&(cmi_affinity){0})); /* a thread must run somewhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_counted_from_the_lowest),
        cmocka_unit_test(threads_inherit_what_they_may_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
