/* What every backend promises (fabric/fabric.h), in the world that the arguments name:
 *
 *   fabric_test [ucx] threads|processes [faults] */
#include "tests/fabric/cases.h"

#include <dirent.h>
#include <stdlib.h>

#include "base/log.h"

static int n_fds_before;

static int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    while (dir != NULL && readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}

/* Mapped memory without a name that a fabric has made. */
static bool has_shared_memory(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    bool found = false;
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        found |= strstr(line, "memfd:cminfer") != NULL;
    }
    if (f != NULL) {
        fclose(f);
    }
    return found;
}

static int remember(void **state)
{
    (void)state;
    n_fds_before = count_entries("/proc/self/fd");
    return 0;
}

/* Fails unless descriptors and shared memory are as before. */
static int compare(void **state)
{
    (void)state;
    int n_fds = count_entries("/proc/self/fd");
    if (n_fds != n_fds_before || has_shared_memory()) {
        print_error("%d descriptors, %d before; shared memory left: %d\n", n_fds, n_fds_before,
                    has_shared_memory());
        return -1;
    }
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, remember, compare)

int main(int argc, char **argv)
{
    static char name[64];
    for (int i = 1; i < argc; i++) {
        world.is_process |= strcmp(argv[i], "processes") == 0;
        world.has_faults |= strcmp(argv[i], "faults") == 0;
        world.backend = strcmp(argv[i], "ucx") == 0 ? "ucx" : world.backend;
    }
    rig_init();
    snprintf(name, sizeof name, "%s in %s%s", world.backend,
             world.is_process ? "processes" : "threads", world.has_faults ? " under faults" : "");
    world.name = name;
    cmi_log_set_level(CMI_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        TEST(bits_arrive),
        TEST(signals_follow_puts),
        TEST(layers_are_handed_over),
        TEST(sums_of_many_peers_are_exact),
        TEST(what_is_outside_is_refused),
        TEST(operations_have_one_event_each),
        TEST(memory_of_the_caller_can_be_a_region),
        TEST(a_fabric_can_be_its_own_peer),
        TEST(messages_come_in_order_around_the_ring),
        TEST(a_full_ring_changes_nothing),
        TEST(messages_of_many_peers_take_turns),
        TEST(a_wake_ends_a_sleep),
        TEST(strangers_are_refused),
        TEST(what_does_not_speak_is_dropped),
        TEST(a_full_house_says_so),
        TEST(a_farewell_is_not_a_death),
        TEST(handles_do_not_outlive_their_things),
        TEST(tables_are_full_and_empty_again),
        TEST(waits_have_deadlines),
        TEST(a_killed_peer_is_noticed),
        TEST(a_killed_peer_ends_a_wait),
        TEST(a_hung_peer_is_noticed),
        TEST(an_idle_peer_is_not_hung),
    };
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}
