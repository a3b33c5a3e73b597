/* Sleeping for a bell, for descriptors and for a process. */
#include "tests/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/watch.h"

static const uint64_t SECOND_NS = 1000000000u;
static cmi_watch watch;

static int make(void **state)
{
    (void)state;
    return cmi_watch_init(&watch, NULL) != CMI_OK;
}

static int end(void **state)
{
    (void)state;
    cmi_watch_deinit(&watch);
    cmi_watch_deinit(&watch);
    return 0;
}

/* How long it has slept, of at most ten seconds. */
static uint64_t sleep_for(uint64_t timeout_ns)
{
    uint64_t begin_ns = cmi_clock_monotonic_ns();
    cmi_watch_sleep(&watch, timeout_ns);
    return cmi_clock_monotonic_ns() - begin_ns;
}

static void a_bell_ends_this_sleep_or_the_next(void **state)
{
    (void)state;
    uint64_t keys[4];
    assert_true(sleep_for(2000000) >= 2000000);
    cmi_watch_ring(watch.bell_fd);
    cmi_watch_ring(watch.bell_fd);
    assert_true(sleep_for(10 * SECOND_NS) < 5 * SECOND_NS);
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 0);
    assert_true(sleep_for(2000000) >= 2000000); /* silent again */
}

static void descriptors_are_told_by_their_keys(void **state)
{
    (void)state;
    int first[2], second[2];
    uint64_t keys[4];
    assert_int_equal(pipe(first), 0);
    assert_int_equal(pipe(second), 0);
    assert_int_equal(cmi_watch_add(&watch, first[0], 11), CMI_OK);
    assert_int_equal(cmi_watch_add(&watch, second[0], 22), CMI_OK);
    assert_int_equal(cmi_watch_add(&watch, -1, 33), CMI_ERR_IO);
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 0);
    assert_int_equal(write(second[1], "x", 1), 1);
    cmi_watch_ring(watch.bell_fd);
    assert_true(sleep_for(10 * SECOND_NS) < 5 * SECOND_NS);
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 1);
    assert_int_equal(keys[0], 22);
    cmi_watch_remove(&watch, second[0]);
    close(first[1]); /* broken */
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 1);
    assert_int_equal(keys[0], 11);
    close(first[0]);
    close(second[0]);
    close(second[1]);
}

static void the_end_of_a_process_is_seen(void **state)
{
    (void)state;
    uint64_t keys[4];
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    int fd = cmi_watch_open_process(pid);
    if (fd < 0) { /* an old kernel, or an emulator */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        skip();
    }
    assert_int_equal(cmi_watch_add(&watch, fd, 5), CMI_OK);
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 0);
    kill(pid, SIGKILL);
    assert_true(sleep_for(10 * SECOND_NS) < 5 * SECOND_NS);
    assert_int_equal(cmi_watch_ready(&watch, keys, 4), 1);
    assert_int_equal(keys[0], 5);
    close(fd);
    waitpid(pid, NULL, 0);
    assert_true(cmi_watch_open_process(0) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_bell_ends_this_sleep_or_the_next, make, end),
        cmocka_unit_test_setup_teardown(descriptors_are_told_by_their_keys, make, end),
        cmocka_unit_test_setup_teardown(the_end_of_a_process_is_seen, make, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
