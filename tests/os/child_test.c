/* Processes of this program: how they end is told once, those that do not want to are killed, and
 * what they get is what they were given. */
#include "os/child.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static cmi_child start(const char *what)
{
    char program[] = "child_test", arg[32] = "";
    char *argv[] = {program, arg, NULL};
    const char *const env[] = {"CHILD_TEST=new", NULL};
    cmi_child child = {0};
    cmi_error err = {0};
    memcpy(arg, what, strlen(what));
    assert_int_equal(cmi_child_start(&child, argv, env, &err), CMI_OK);
    assert_true(child.pid > 0);
    return child;
}

/* In the child. */
static int act(const char *what)
{
    if (strcmp(what, "environment") == 0) {
        const char *value = getenv("CHILD_TEST");
        return value != NULL && strcmp(value, "new") == 0 && getenv("PATH") != NULL ? 7 : 1;
    }
    if (strcmp(what, "orphan") == 0) {
        return cmi_child_die_with_parent(cmi_child_own_pid()) ? 2 : 1; /* nobody is his own */
    }
    if (strcmp(what, "deaf") == 0) {
        signal(SIGTERM, SIG_IGN);
    }
    for (;;) {
        pause();
    }
}

static int wait_for_end(cmi_child *child)
{
    int how = -1;
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOWAIT), 0);
    assert_true(cmi_child_has_ended(child, &how));
    assert_int_equal(child->pid, 0);
    assert_false(cmi_child_has_ended(child, &how));
    return how;
}

static void how_it_ended_is_told(void **state)
{
    (void)state;
    setenv("CHILD_TEST", "old", 1);
    cmi_child child = start("environment");
    assert_int_equal(wait_for_end(&child), 7);
    child = start("orphan");
    assert_int_equal(wait_for_end(&child), 1);
    child = start("wait");
    kill(child.pid, SIGKILL);
    assert_int_equal(wait_for_end(&child), 128 + SIGKILL);
}

static void it_can_be_ended(void **state)
{
    (void)state;
    cmi_child none = {0};
    cmi_child_end(&none, 0);
    cmi_child child = start("wait");
    const pid_t pid = child.pid;
    cmi_child_end(&child, 60000000000u);
    assert_int_equal(child.pid, 0);
    assert_int_equal(kill(pid, 0), -1);
    child = start("deaf");
    cmi_child_end(&child, 1000000);
    assert_int_equal(child.pid, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        return act(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_it_ended_is_told),
        cmocka_unit_test(it_can_be_ended),
    };
    return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
