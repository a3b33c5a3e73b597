#include "tests/test.h"

#include <pthread.h>
#include <sys/resource.h>

#include "base/compiler.h"
#include "os/priority.h"

static void *lower_own(void *nice_out)
{
    cmi_priority_lower();
    *(int *)nice_out = getpriority(PRIO_PROCESS, 0); /* Linux: of the thread */
    return NULL;
}

static void one_thread_gives_way_and_no_other(void **state)
{
    (void)state;
    pthread_t thread;
    int nice = -1;
    const int before = getpriority(PRIO_PROCESS, 0);
    assert_int_equal(pthread_create(&thread, NULL, lower_own, &nice), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(nice, CMI_MIN(before + 10, 19));
    assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_gives_way_and_no_other),
    };
    return cmocka_run_group_tests_name("priority", tests, NULL, NULL);
}
