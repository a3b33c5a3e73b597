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
        cmocka_unit_test(a_bad_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
