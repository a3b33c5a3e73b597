/* Memory nodes of made-up hosts and of this one, and a team that is spread over them. */
#include "tests/test.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/compiler.h"
#include "os/host_memory.h"
#include "os/team.h"
#include "os/topology.h"

static cmi_topology *make(const char *synthetic, const char *processors)
{
    cmi_topology *t = NULL;
    cmi_topology_options opt = {.synthetic = synthetic, .processors = processors};
    cmi_error err = {0};
    if (cmi_topology_create(&t, &opt, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return t;
}

/* ---- nodes ---- */

static void nodes_are_those_with_memory_and_processors(void **state)
{
    (void)state;
    static const struct {
        const char *synthetic, *processors;
        uint32_t n_nodes, n_processors[16];
    } cases[] = {
        {"node:1 core:2 pu:1", NULL, 1, {2}},
        {"node:2 core:4 pu:1", NULL, 2, {4, 4}},
        {"node:4 core:2 pu:2", NULL, 4, {4, 4, 4, 4}},
        {"package:2 node:4 core:2 pu:1", NULL, 8, {2, 2, 2, 2, 2, 2, 2, 2}},
        {"node:16 core:1 pu:1", NULL, 16, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
        /* more than there may be: placement is off */
        {"node:17 core:1 pu:1", NULL, 1, {17}},
        /* an affinity mask: uneven nodes, nodes without processors */
        {"node:2 core:4 pu:1", "0-2,7", 2, {3, 1}},
        {"node:4 core:2 pu:1", "0,6-7", 2, {1, 2}},
        {"node:4 core:2 pu:1", "2,3", 1, {2}},
        /* nodes without memory: the package's own node is the nearest */
        {"package:2 [numanode(memory=1GB)] group:2 [numanode(memory=0)] core:2 pu:1",
         NULL,
         2,
         {4, 4}},
        {"package:2 [numanode(memory=0)] core:2 pu:1", NULL, 1, {4}},
        /* two kinds of memory at the same processors: the first is their home */
        {"package:2 [numanode(memory=1GB)] [numanode(memory=2GB)] core:2 pu:1", NULL, 2, {2, 2}},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_topology *t = make(cases[i].synthetic, cases[i].processors);
        if (cmi_topology_nodes(t) != cases[i].n_nodes) {
            fail_msg("%s: %u nodes", cases[i].synthetic, cmi_topology_nodes(t));
        }
        for (uint32_t k = 0; k < cases[i].n_nodes; k++) {
            assert_int_equal(cmi_topology_processors(t, k), cases[i].n_processors[k]);
        }
        cmi_topology_destroy(t);
    }
    cmi_topology_destroy(NULL);
}

static void what_is_no_topology_is_refused(void **state)
{
    (void)state;
    static const cmi_topology_options cases[] = {
        {.synthetic = "node:two"},
        {.synthetic = "node:2 core:2 pu:1", .processors = "4-7"},
        {.synthetic = "node:2 core:2 pu:1", .processors = ""},
        {.synthetic = "node:2 core:2 pu:1", .processors = "first"},
    };
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_topology *t = NULL;
        cmi_error err = {0};
        assert_int_equal(cmi_topology_create(&t, &cases[i], &err), CMI_ERR_INVALID);
        assert_null(t);
        assert_true(err.text[0] != '\0');
    }
}

/* Every thing has one node, all nodes get their part to within one, and node 0 the first. */
static void things_are_spread_by_processors(void **state)
{
    (void)state;
    static const char *const processors[] = {"0-7", "0-2,7", "0,4-7", "3,4"};
    for (size_t i = 0; i < CMI_LEN(processors); i++) {
        cmi_topology *t = make("node:2 core:4 pu:1", processors[i]);
        uint32_t n_nodes = cmi_topology_nodes(t);
        uint32_t total = 0, begin[CMI_TOPOLOGY_MAX_NODES + 1];
        for (uint32_t k = 0; k < n_nodes; k++) {
            total += cmi_topology_processors(t, k);
        }
        for (uint32_t n = 1; n <= 40; n++) {
            cmi_topology_spread(t, n, begin);
            assert_int_equal(begin[0], 0);
            assert_int_equal(begin[n_nodes], n);
            assert_true(begin[1] > 0);
            for (uint32_t k = 0; k < n_nodes; k++) {
                assert_true(begin[k] <= begin[k + 1]);
                double part = (double)n * cmi_topology_processors(t, k) / total;
                double got = begin[k + 1] - begin[k];
                assert_true(got > part - 1 && got < part + 1);
            }
        }
        cmi_topology_destroy(t);
    }
}

/* ---- this host ---- */

static void this_host_has_the_processors_of_the_affinity_mask(void **state)
{
    (void)state;
    cmi_topology *t = make(NULL, NULL);
    uint32_t total = 0;
    for (uint32_t k = 0; k < cmi_topology_nodes(t); k++) {
        total += cmi_topology_processors(t, k);
    }
    assert_int_equal(total, cmi_host_processors());
    cmi_topology_destroy(t);
}

static void binding_takes_hold_on_this_host(void **state)
{
    (void)state;
    cmi_topology *t = make(NULL, NULL);
    cpu_set_t before, set;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (uint32_t k = 0; k < cmi_topology_nodes(t); k++) {
        assert_true(cmi_topology_bind_thread(t, k));
        assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
        assert_int_equal(CPU_COUNT(&set), cmi_topology_processors(t, k));
        CPU_AND(&set, &set, &before);
        assert_int_equal(CPU_COUNT(&set), cmi_topology_processors(t, k));
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    }
    cmi_topology_destroy(t);
}

static void memory_comes_from_the_node_preferred(void **state)
{
    (void)state;
    cmi_topology *t = make(NULL, NULL);
    for (uint32_t k = 0; k < cmi_topology_nodes(t); k++) {
        enum { N_BYTES = 1 << 20 };
        void *block = NULL;
        assert_int_equal(cmi_host_memory_map(&block, N_BYTES, "a test", NULL), CMI_OK);
        if (!cmi_topology_prefer_node(t, k)) {
            print_message("this system forbids memory policies\n");
            cmi_host_memory_unmap(block, N_BYTES);
            cmi_topology_destroy(t);
            skip();
        }
        assert_int_equal(cmi_topology_node_of(t, block), -1);
        memset(block, 1, N_BYTES);
        assert_true(cmi_topology_prefer_none(t));
        assert_int_equal(cmi_topology_node_of(t, block), k);
        assert_true(cmi_topology_keep(t, block, N_BYTES));
        assert_int_equal(cmi_topology_node_of(t, (uint8_t *)block + N_BYTES - 1), k);
        cmi_host_memory_unmap(block, N_BYTES);
    }
    cmi_topology_destroy(t);
}

/* ---- teams ---- */

static cmi_team *make_team(uint32_t n_threads, const cmi_topology *t)
{
    cmi_team *team = NULL;
    cmi_error err = {0};
    if (cmi_team_create_on(&team, n_threads, t, &err) != CMI_OK) {
        fail_msg("%s", err.text);
    }
    return team;
}

static void members_and_shares_go_by_nodes(void **state)
{
    (void)state;
    cmi_topology *t = make("node:2 core:4 pu:1", "0-3,4");
    static const struct {
        uint32_t n_threads, on_node_0;
    } cases[] = {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 4}, {10, 8}};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_team *team = make_team(cases[i].n_threads, t);
        assert_int_equal(cmi_team_nodes(team), 2);
        for (uint32_t w = 0; w < cases[i].n_threads; w++) {
            assert_int_equal(cmi_team_node_of(team, w), w >= cases[i].on_node_0);
        }
        assert_int_equal(cmi_team_share(team, 0, 1000), 0);
        assert_int_equal(cmi_team_share(team, 1, 1000),
                         1000 * cases[i].on_node_0 / cases[i].n_threads);
        assert_int_equal(cmi_team_share(team, 2, 1000), 1000);
        cmi_team_destroy(team);
    }
    cmi_team *one = make_team(3, NULL);
    assert_int_equal(cmi_team_nodes(one), 1);
    assert_int_equal(cmi_team_share(one, 1, UINT64_C(1) << 50), UINT64_C(1) << 50);
    cmi_team_destroy(one);
    cmi_topology_destroy(t);
}

enum { N_TASKS = 1000 };

struct counts {
    _Atomic uint32_t runs[N_TASKS];
};

static void count_task(void *arg, uint32_t task, uint32_t worker)
{
    struct counts *counts = arg;
    (void)worker;
    atomic_fetch_add_explicit(&counts->runs[task], 1, memory_order_relaxed);
}

static void every_task_of_every_node_runs_once_a_run(void **state)
{
    (void)state;
    static const char *const hosts[] = {"node:2 core:2 pu:1", "node:4 core:1 pu:1",
                                        "node:3 core:4 pu:1"};
    static const uint32_t dealt[][4] = {{1, 0, 0, 0},    {0, 1, 0, 0}, {3, 500, 1, 0},
                                        {0, 0, 1000, 0}, {1, 1, 1, 1}, {0, 0, 0, 0}};
    for (size_t h = 0; h < CMI_LEN(hosts); h++) {
        cmi_topology *t = make(hosts[h], NULL);
        cmi_team *team = make_team(4, t);
        for (uint32_t run = 0; run < 300; run++) {
            struct counts counts = {0};
            const uint32_t *n_tasks = dealt[run % CMI_LEN(dealt)];
            uint32_t total = run % 2 == 0 ? run : 0;
            if (run % 2 == 0) {
                cmi_team_run(team, count_task, &counts, total);
            } else {
                cmi_team_run_on_nodes(team, count_task, &counts, n_tasks);
            }
            for (uint32_t k = 0; run % 2 == 1 && k < cmi_team_nodes(team); k++) {
                total += n_tasks[k];
            }
            for (uint32_t task = 0; task < N_TASKS; task++) {
                assert_int_equal(counts.runs[task], task < total);
            }
        }
        cmi_team_destroy(team);
        cmi_topology_destroy(t);
    }
}

/* Node 0 has one member, which is stuck in its first task until all others are done: the members of
 * node 1 have to do the rest of node 0's. */
struct stuck {
    _Atomic uint32_t n_done, n_stolen;
    uint32_t n_tasks;
};

static void stuck_task(void *arg, uint32_t task, uint32_t worker)
{
    struct stuck *s = arg;
    if (worker == 0) {
        while (atomic_load(&s->n_done) < s->n_tasks - 1) {
            sched_yield();
        }
    } else {
        atomic_fetch_add(&s->n_stolen, task < s->n_tasks / 2);
    }
    atomic_fetch_add(&s->n_done, 1);
}

static void idle_members_take_tasks_of_other_nodes(void **state)
{
    (void)state;
    cmi_topology *t = make("node:2 core:1 pu:1", NULL);
    cmi_team *team = make_team(2, t);
    for (uint32_t run = 0; run < 200; run++) {
        struct stuck s = {.n_tasks = 20};
        cmi_team_run_on_nodes(team, stuck_task, &s, (const uint32_t[]){10, 10});
        assert_int_equal(s.n_done, 20);
        assert_in_range(s.n_stolen, 9, 10); /* 10: the owner came late and got one of node 1's */
    }
    cmi_team_destroy(team);
    cmi_topology_destroy(t);
}

/* One task a node, and each waits for all: every member is busy with its first. */
struct together {
    _Atomic uint32_t n_begun;
    const cmi_team *team;
    uint32_t n_tasks;
    _Atomic uint32_t n_at_home;
};

static void together_task(void *arg, uint32_t task, uint32_t worker)
{
    struct together *s = arg;
    atomic_fetch_add(&s->n_begun, 1);
    while (atomic_load(&s->n_begun) < s->n_tasks) {
        sched_yield();
    }
    atomic_fetch_add(&s->n_at_home, cmi_team_node_of(s->team, worker) == task);
}

static void members_take_tasks_of_their_node_first(void **state)
{
    (void)state;
    cmi_topology *t = make("node:4 core:1 pu:1", NULL);
    cmi_team *team = make_team(4, t);
    for (uint32_t run = 0; run < 200; run++) {
        struct together s = {.team = team, .n_tasks = 4};
        if (run % 2 == 0) {
            cmi_team_run(team, together_task, &s, 4);
        } else {
            cmi_team_run_on_nodes(team, together_task, &s, (const uint32_t[]){1, 1, 1, 1});
        }
        assert_int_equal(s.n_at_home, 4);
    }
    cmi_team_destroy(team);
    cmi_topology_destroy(t);
}

static void read_affinity(void *arg, uint32_t task, uint32_t worker)
{
    (void)task;
    (void)worker;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        atomic_fetch_add((_Atomic uint32_t *)arg, (uint32_t)CPU_COUNT(&set));
    }
}

/* On a host with one node nobody is bound, so that two servers of one host do not fight. */
static void one_node_binds_nobody(void **state)
{
    (void)state;
    cmi_topology *t = make(NULL, NULL);
    if (cmi_topology_nodes(t) > 1) {
        cmi_topology_destroy(t);
        skip();
    }
    cmi_team *team = make_team(3, t);
    _Atomic uint32_t n_processors = 0;
    cmi_team_own(team);
    cmi_team_run(team, read_affinity, (void *)&n_processors, 30);
    assert_int_equal(n_processors, 30 * cmi_host_processors());
    cmi_team_destroy(team);
    cmi_topology_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_those_with_memory_and_processors),
        cmocka_unit_test(what_is_no_topology_is_refused),
        cmocka_unit_test(things_are_spread_by_processors),
        cmocka_unit_test(this_host_has_the_processors_of_the_affinity_mask),
        cmocka_unit_test(binding_takes_hold_on_this_host),
        cmocka_unit_test(memory_comes_from_the_node_preferred),
        cmocka_unit_test(members_and_shares_go_by_nodes),
        cmocka_unit_test(every_task_of_every_node_runs_once_a_run),
        cmocka_unit_test(idle_members_take_tasks_of_other_nodes),
        cmocka_unit_test(members_take_tasks_of_their_node_first),
        cmocka_unit_test(one_node_binds_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
