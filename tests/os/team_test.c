#include "tests/test.h"

#include <stdatomic.h>

#include "os/team.h"

enum { N_TASKS = 1000 };

struct counts {
    _Atomic uint32_t runs[N_TASKS];
    uint32_t n_threads;
    _Atomic uint32_t bad_worker;
};

static void count_task(void *arg, uint32_t task, uint32_t worker)
{
    struct counts *counts = arg;
    atomic_fetch_add(&counts->runs[task], 1);
    if (worker >= counts->n_threads) {
        atomic_store(&counts->bad_worker, 1);
    }
}

static void every_task_runs_once_a_run(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 8};
    for (size_t s = 0; s < CMI_LEN(sizes); s++) {
        struct counts counts = {.n_threads = sizes[s]};
        cmi_team *team = NULL;
        cmi_error err;
        assert_int_equal(cmi_team_create(&team, sizes[s], &err), CMI_OK);
        assert_int_equal(cmi_team_size(team), sizes[s]);
        for (uint32_t run = 0; run < 200; run++) {
            uint32_t n_tasks = run % 3 == 0 ? 0 : run % 3 == 1 ? 7 : N_TASKS;
            cmi_team_run(team, count_task, &counts, n_tasks);
        }
        for (uint32_t task = 0; task < N_TASKS; task++) {
            assert_int_equal(counts.runs[task], task < 7 ? 133 : 66);
        }
        assert_int_equal(counts.bad_worker, 0);
        cmi_team_destroy(team);
    }
}

struct short_run {
    _Atomic uint32_t n_ran;
    uint32_t n_tasks;
    _Atomic bool out_of_range;
};

static void short_task(void *arg, uint32_t task, uint32_t worker)
{
    struct short_run *run = arg;
    (void)worker;
    atomic_fetch_add_explicit(&run->n_ran, 1, memory_order_relaxed);
    if (task >= run->n_tasks) {
        atomic_store(&run->out_of_range, true);
    }
}

/* Runs so short that members arrive late, when the next one has begun. */
static void a_late_member_takes_no_task_of_a_run_that_is_over(void **state)
{
    (void)state;
    enum { N_RUNS = 20000 };
    cmi_team *team = NULL;
    cmi_error err;
    assert_int_equal(cmi_team_create(&team, 4, &err), CMI_OK);
    for (uint32_t i = 0; i < N_RUNS; i++) {
        struct short_run run = {.n_tasks = 2 + i % 3};
        cmi_team_run(team, short_task, &run, run.n_tasks);
        assert_int_equal(run.n_ran, run.n_tasks);
        assert_false(run.out_of_range);
    }
    cmi_team_destroy(team);
}

static void a_bad_size_is_refused(void **state)
{
    (void)state;
    cmi_team *team = NULL;
    cmi_error err;
    assert_int_equal(cmi_team_create(&team, 0, &err), CMI_ERR_INVALID);
    assert_int_equal(cmi_team_create(&team, 5000, &err), CMI_ERR_INVALID);
    assert_null(team);
    cmi_team_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once_a_run),
        cmocka_unit_test(a_late_member_takes_no_task_of_a_run_that_is_over),
        cmocka_unit_test(a_bad_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
