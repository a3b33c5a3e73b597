/* Blocks shared by processes: one maker, the same bytes for all, and nothing left behind, however
 * the others end. */
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/shared_block.h"

enum { N_BYTES = 300000 };
static const uint64_t LONG_NS = 60 * UINT64_C(1000000000);

static char dir[64]; /* in memory, of the test at hand */

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/dev/shm/cmi_test_XXXXXX");
    return mkdtemp(dir) == NULL;
}

/* Fails unless everything in the directory is gone. */
static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static cmi_shared_block_options options(const char *key)
{
    return (cmi_shared_block_options){.dir = dir,
                                      .what = "things",
                                      .key = key,
                                      .key_bytes = strlen(key),
                                      .n_bytes = N_BYTES,
                                      .stall_ns = LONG_NS};
}

static cmi_shared_block *open_block(const char *key)
{
    cmi_shared_block_options opt = options(key);
    cmi_shared_block *block = NULL;
    cmi_error err = {0};
    if (cmi_shared_block_open(&block, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return block;
}

static void fill(cmi_shared_block *block, const char *key)
{
    cmi_error err = {0};
    assert_true(cmi_shared_block_is_maker(block));
    assert_int_equal(cmi_shared_block_reserve(block, 0, N_BYTES, &err), CMI_OK);
    memset(cmi_shared_block_bytes(block), key[0], N_BYTES);
}

static cmi_shared_block *make_block(const char *key)
{
    cmi_error err = {0};
    cmi_shared_block *block = open_block(key);
    fill(block, key);
    assert_int_equal(cmi_shared_block_publish(block, &err), CMI_OK);
    return block;
}

static bool has_bytes(const cmi_shared_block *block, const char *key)
{
    const char *bytes = cmi_shared_block_bytes(block);
    for (size_t i = 0; i < N_BYTES; i++) {
        if (bytes[i] != key[0]) {
            return false;
        }
    }
    return true;
}

/* The names in dir; n of them. */
static size_t list_dir(char names[8][256])
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    size_t n = 0;
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_true(n < 8);
            snprintf(names[n++], 256, "%s", entry->d_name);
        }
    }
    closedir(d);
    return n;
}

static size_t count_files(void)
{
    char names[8][256];
    return list_dir(names);
}

/* ---- one process ---- */

static void the_second_gets_what_the_first_made(void **state)
{
    (void)state;
    cmi_shared_block *first = make_block("a");
    cmi_shared_block *second = open_block("a");
    assert_false(cmi_shared_block_is_maker(second));
    assert_ptr_not_equal(cmi_shared_block_bytes(first), cmi_shared_block_bytes(second));
    assert_true(has_bytes(second, "a"));
    cmi_shared_block_close(first);
    assert_int_equal(count_files(), 2);
    assert_true(has_bytes(second, "a"));
    cmi_shared_block *third = open_block("a");
    assert_false(cmi_shared_block_is_maker(third));
    cmi_shared_block_close(second);
    cmi_shared_block_close(third);
    assert_int_equal(count_files(), 0);
    cmi_shared_block_close(NULL);
}

static void other_keys_and_sizes_are_other_blocks(void **state)
{
    (void)state;
    cmi_shared_block *a = make_block("a");
    cmi_shared_block *b = make_block("b");
    cmi_shared_block *aa = make_block("aa");
    cmi_shared_block_options opt = options("a");
    opt.n_bytes++;
    cmi_shared_block *longer = NULL;
    assert_int_equal(cmi_shared_block_open(&longer, &opt, NULL), CMI_OK);
    assert_true(cmi_shared_block_is_maker(longer));
    assert_true(has_bytes(a, "a") && has_bytes(b, "b") && has_bytes(aa, "a"));
    cmi_shared_block_close(longer);
    cmi_shared_block_close(aa);
    cmi_shared_block_close(b);
    cmi_shared_block_close(a);
}

static bool is_read_only(void *at)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)at = 1;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void complete_bytes_cannot_be_written(void **state)
{
    (void)state;
    cmi_shared_block *maker = open_block("a");
    fill(maker, "a");
    assert_false(is_read_only(cmi_shared_block_bytes(maker)));
    memset(cmi_shared_block_bytes(maker), 'a', 1);
    assert_int_equal(cmi_shared_block_publish(maker, NULL), CMI_OK);
    cmi_shared_block *user = open_block("a");
    assert_true(is_read_only(cmi_shared_block_bytes(maker)));
    assert_true(is_read_only(cmi_shared_block_bytes(user)));
    cmi_shared_block_close(maker);
    cmi_shared_block_close(user);
}

static void a_maker_that_gives_up_leaves_nothing(void **state)
{
    (void)state;
    cmi_shared_block *block = open_block("a");
    fill(block, "x");
    cmi_shared_block_close(block);
    assert_int_equal(count_files(), 0);
    block = make_block("a");
    assert_true(has_bytes(block, "a"));
    cmi_shared_block_close(block);
}

static void taken_bytes_are_those_of_the_host(void **state)
{
    (void)state;
    cmi_shared_block_options opt = options("a");
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), 0);
    cmi_shared_block *block = open_block("a");
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), 0);
    fill(block, "a");
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), N_BYTES);
    assert_int_equal(cmi_shared_block_publish(block, NULL), CMI_OK);
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), N_BYTES);
    cmi_shared_block_options other = options("b");
    assert_int_equal(cmi_shared_block_taken_bytes(&other), 0);
    cmi_shared_block_close(block);
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), 0);
}

static void what_cannot_hold_a_block_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *dir;
        uint64_t n_bytes;
        cmi_status status;
        const char *says;
    } cases[] = {
        {"/proc", 1, CMI_ERR_INVALID, "/proc: shared things need a directory in memory"},
        {"/dev/shm/none-of-that-name", 1, CMI_ERR_IO, "/dev/shm/none-of-that-name: cannot use"},
        {dir, UINT64_C(1) << 50, CMI_ERR_NO_MEMORY, "need 1048576.00 GiB, "},
        {dir, UINT64_MAX - 5, CMI_ERR_TOO_LARGE, "shared things: too large"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_shared_block_options opt = options("a");
        opt.dir = cases[i].dir;
        opt.n_bytes = cases[i].n_bytes;
        cmi_shared_block *block = NULL;
        cmi_error err = {0};
        assert_int_equal(cmi_shared_block_open(&block, &opt, &err), cases[i].status);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(block);
        assert_int_equal(count_files(), 0);
    }
}

/* Whoever can write the directory can put something at the name before us. */
static void planted_files_are_not_trusted(void **state)
{
    (void)state;
    char names[8][256], lock[400], data[400], elsewhere[400];
    cmi_shared_block *block = make_block("a");
    assert_int_equal(list_dir(names), 2);
    size_t i = strstr(names[0], ".lock") != NULL ? 0 : 1;
    snprintf(lock, sizeof lock, "%s/%s", dir, names[i]);
    snprintf(data, sizeof data, "%s/%s", dir, names[1 - i]);
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", dir);
    cmi_shared_block_close(block);

    cmi_shared_block_options opt = options("a");
    cmi_error err = {0};
    assert_int_equal(symlink(elsewhere, lock), 0);
    assert_int_equal(cmi_shared_block_open(&block, &opt, &err), CMI_ERR_IO);
    assert_int_equal(unlink(lock), 0);

    int fd = open(lock, O_CREAT | O_RDWR, 0600);
    assert_int_equal(fchmod(fd, 0666), 0);
    close(fd);
    assert_int_equal(cmi_shared_block_open(&block, &opt, &err), CMI_ERR_IO);
    assert_non_null(strstr(err.text, "only this user can write"));
    assert_int_equal(unlink(lock), 0);

    /* Bytes without a lock file that tells of them are made anew. */
    fd = open(data, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, N_BYTES), 0);
    close(fd);
    block = make_block("a");
    cmi_shared_block_close(block);
    assert_int_equal(count_files(), 0);
}

/* ---- several processes ---- */

/* Runs fn in a child and returns when it has said that it is ready; it then waits to be killed. */
typedef void child_fn(void);
static pid_t start_child(child_fn *fn)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        ssize_t n = write(ready[1], "r", 1);
        (void)n;
        for (;;) {
            pause();
        }
    }
    char got;
    close(ready[1]);
    assert_int_equal(read(ready[0], &got, 1), 1);
    close(ready[0]);
    return pid;
}

static void kill_child(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void one_of_many_at_once_is_the_maker(void **state)
{
    (void)state;
    enum { N_CHILDREN = 6, MADE = 10, GOT = 11 };
    int made = 0, got = 0;
    cmi_shared_block *keeper = make_block("k"); /* whose files a sweep must leave alone */
    for (int i = 0; i < N_CHILDREN; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            cmi_shared_block *block = open_block("a");
            bool is_maker = cmi_shared_block_is_maker(block);
            if (is_maker) {
                fill(block, "a");
                is_maker = cmi_shared_block_publish(block, NULL) == CMI_OK;
            }
            bool ok = has_bytes(block, "a");
            cmi_shared_block_close(block);
            _exit(!ok ? 1 : is_maker ? MADE : GOT);
        }
    }
    for (int i = 0; i < N_CHILDREN; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status));
        made += WEXITSTATUS(status) == MADE;
        got += WEXITSTATUS(status) == GOT;
    }
    assert_int_equal(made + got, N_CHILDREN);
    assert_true(made >= 1); /* more, when all others had closed it before one opened it */
    assert_true(has_bytes(keeper, "k"));
    cmi_shared_block_close(keeper);
    assert_int_equal(count_files(), 0);
}

static void become_maker_of_a(void)
{
    cmi_shared_block *block = open_block("a");
    fill(block, "x");
    cmi_shared_block_progress(block, 10, 30);
}

static pid_t waited_for;
static unsigned n_waits;

/* The maker is killed while it is waited for. */
static void on_wait(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    assert_ptr_equal(arg, dir);
    assert_int_equal(done_bytes, 10);
    assert_int_equal(total_bytes, 30);
    if (n_waits++ == 0) {
        kill_child(waited_for);
    }
}

static void a_killed_maker_is_followed_by_who_waits(void **state)
{
    (void)state;
    waited_for = start_child(become_maker_of_a);
    n_waits = 0;
    cmi_shared_block_options opt = options("a");
    opt.on_wait = on_wait;
    opt.wait_arg = dir;
    assert_int_equal(cmi_shared_block_taken_bytes(&opt), N_BYTES); /* the maker's, so far */
    cmi_shared_block *block = NULL;
    assert_int_equal(cmi_shared_block_open(&block, &opt, NULL), CMI_OK);
    assert_int_equal(n_waits, 1);
    assert_true(cmi_shared_block_is_maker(block));
    const char *bytes = cmi_shared_block_bytes(block);
    for (size_t i = 0; i < N_BYTES; i++) {
        assert_int_equal(bytes[i], 0); /* nothing of what the killed one wrote */
    }
    fill(block, "a");
    assert_int_equal(cmi_shared_block_publish(block, NULL), CMI_OK);
    cmi_shared_block_close(block);
}

static void a_stuck_maker_is_named(void **state)
{
    (void)state;
    pid_t pid = start_child(become_maker_of_a);
    cmi_shared_block_options opt = options("a");
    opt.stall_ns = 1;
    cmi_shared_block *block = NULL;
    cmi_error err = {0};
    char want[64];
    snprintf(want, sizeof want, "process %d makes the shared things", (int)pid);
    assert_int_equal(cmi_shared_block_open(&block, &opt, &err), CMI_ERR_TIMEOUT);
    assert_non_null(strstr(err.text, want));
    kill_child(pid);
    cmi_shared_block_close(open_block("a"));
}

static void publish_a(void)
{
    (void)make_block("a");
}

static void use_a(void)
{
    (void)open_block("a");
}

static void what_killed_users_left_is_taken_up(void **state)
{
    (void)state;
    kill_child(start_child(publish_a));
    assert_int_equal(count_files(), 2);
    cmi_shared_block *block = open_block("a");
    assert_false(cmi_shared_block_is_maker(block));
    assert_true(has_bytes(block, "a"));
    cmi_shared_block_close(block);
}

static void what_killed_users_left_is_removed_by_others(void **state)
{
    (void)state;
    kill_child(start_child(publish_a));
    kill_child(start_child(use_a));
    assert_int_equal(count_files(), 2);
    cmi_shared_block *other = make_block("b");
    assert_int_equal(count_files(), 2);
    cmi_shared_block_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_second_gets_what_the_first_made, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(other_keys_and_sizes_are_other_blocks, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(complete_bytes_cannot_be_written, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_maker_that_gives_up_leaves_nothing, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(taken_bytes_are_those_of_the_host, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_cannot_hold_a_block_is_refused, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(planted_files_are_not_trusted, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(one_of_many_at_once_is_the_maker, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_killed_maker_is_followed_by_who_waits, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_stuck_maker_is_named, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_killed_users_left_is_taken_up, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(what_killed_users_left_is_removed_by_others, make_dir,
                                        remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
