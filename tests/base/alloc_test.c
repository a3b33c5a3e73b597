/* Who allocates where it is forbidden is ended. */
#include "base/alloc.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

typedef void break_promise(void *block);

static void allocate(void *block)
{
    (void)block;
    cmi_free(cmi_alloc(1, 8));
}

static void grow(void *block)
{
    cmi_free(cmi_realloc(block, 2, 8));
}

static void align(void *block)
{
    (void)block;
    cmi_free(cmi_alloc_aligned(64, 64));
}

static void release(void *block)
{
    cmi_free(block);
}

static int end_of(break_promise *what, bool forbid)
{
    int status;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        void *block = cmi_alloc(1, 8);
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        assert_false(cmi_alloc_forbid(forbid));
        what(block);
        assert_int_equal(cmi_alloc_forbid(false), forbid);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void nothing_is_allocated_where_it_is_forbidden(void **state)
{
    (void)state;
    break_promise *const all[] = {allocate, grow, align, release};
    for (size_t i = 0; i < CMI_LEN(all); i++) {
        assert_int_equal(end_of(all[i], false), 0);
        assert_int_equal(end_of(all[i], true), SIGABRT);
    }
    cmi_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_allocated_where_it_is_forbidden),
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
