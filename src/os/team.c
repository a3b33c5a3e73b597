/* os/team.c - see team.h.
 *
 * Members and owner claim a task by counting down those that are left, and whoever has claimed one
 * may read the run's other fields, which do not change before all its tasks are done. The owner
 * waits for tasks, not for members: one that the system has not scheduled in time finds nothing
 * left, or joins the next run, and holds nobody up.
 * (Waiting for every member to check out made a busy two-core machine 20 times slower.)
 *
 * Sleepers wait by futex. A condition variable would cost a lock and, with short operators, most of
 * the step. */
#include "os/team.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/float_env.h"

/* 100 us on a Zen 4 core: longer than the gap between two operators of a step, far shorter than the
 * gap between two requests. */
enum { SPINS_BEFORE_SLEEP = 4000 };

struct cmi_team {
    _Atomic uint32_t n_runs; /* begun; also counts the stop. What idle members wait on */
    _Atomic uint32_t n_sleeping;
    _Atomic uint32_t n_left CMI_ALIGNED(CMI_CACHE_LINE); /* tasks not yet claimed */
    _Atomic
        uint32_t n_done CMI_ALIGNED(CMI_CACHE_LINE); /* tasks of this run; the owner waits on it */
    cmi_team_fn *fn CMI_ALIGNED(CMI_CACHE_LINE);
    void *arg;
    uint32_t n_tasks;
    _Atomic bool stopping; /* a late member of the last run may look at it early */
    uint32_t n_threads;
    uint32_t n_started;
    struct member {
        pthread_t thread;
        cmi_team *team;
        uint32_t worker;
    } * members;
};

static void cpu_relax(void)
{
#if CMI_ARCH_X86_64
    __builtin_ia32_pause();
#elif CMI_ARCH_AARCH64
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Waits until *word is no longer `seen`, and returns what it is (acquire: pairs with the change).
 */
static uint32_t wait_change(cmi_team *team, _Atomic uint32_t *word, uint32_t seen)
{
    uint32_t now;
    for (uint32_t i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        now = atomic_load_explicit(word, memory_order_acquire);
        if (now != seen) {
            return now;
        }
        cpu_relax();
    }
    /* seq_cst on both sides: either the waker sees this sleeper, or the futex sees the new value.
     */
    atomic_fetch_add(&team->n_sleeping, 1);
    while ((now = atomic_load(word)) == seen) {
        futex_wait(word, seen);
    }
    atomic_fetch_sub(&team->n_sleeping, 1);
    return now;
}

/* False: none is left. Acquire: pairs with the release of cmi_team_run, for the run's fields. A
 * count from an earlier run does no harm: where the exchange succeeds, it is this run's too. */
static bool claim_task(cmi_team *team, uint32_t *task_out)
{
    uint32_t left = atomic_load_explicit(&team->n_left, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak_explicit(&team->n_left, &left, left - 1,
                                                  memory_order_acquire, memory_order_relaxed)) {
            *task_out = team->n_tasks - left;
            return true;
        }
    }
    return false;
}

/* No run can begin before the tasks claimed here are counted, so all of them are of one run. */
static void take_tasks(cmi_team *team, uint32_t worker)
{
    uint32_t task;
    uint32_t n_taken = 0;
    uint32_t n_tasks = 0;
    while (claim_task(team, &task)) {
        n_tasks = team->n_tasks;
        team->fn(team->arg, task, worker);
        n_taken++;
    }
    /* seq_cst, as the load behind it: either the owner sees the count, or it is seen sleeping */
    if (n_taken > 0 && atomic_fetch_add(&team->n_done, n_taken) + n_taken == n_tasks &&
        atomic_load(&team->n_sleeping) > 0) {
        futex_wake_all(&team->n_done);
    }
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    cmi_team *team = member->team;
    uint32_t seen = 0;
    cmi_float_env_set();
    for (;;) {
        seen = wait_change(team, &team->n_runs, seen);
        if (atomic_load(&team->stopping)) {
            return NULL;
        }
        take_tasks(team, member->worker);
    }
}

/* Lets the members look: at the tasks of a new run, or at `stopping`. */
static void announce(cmi_team *team)
{
    atomic_fetch_add(&team->n_runs, 1);
    if (atomic_load(&team->n_sleeping) > 0) {
        futex_wake_all(&team->n_runs);
    }
}

void cmi_team_run(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks)
{
    if (team->n_threads == 1 || n_tasks <= 1) {
        for (uint32_t task = 0; task < n_tasks; task++) {
            fn(arg, task, 0);
        }
        return;
    }
    team->fn = fn;
    team->arg = arg;
    team->n_tasks = n_tasks;
    atomic_store_explicit(&team->n_done, 0, memory_order_relaxed);
    atomic_store_explicit(&team->n_left, n_tasks, memory_order_release);
    announce(team);
    take_tasks(team, 0);
    uint32_t done;
    while ((done = atomic_load_explicit(&team->n_done, memory_order_acquire)) != n_tasks) {
        wait_change(team, &team->n_done, done);
    }
}

cmi_status cmi_team_create(cmi_team **team_out, uint32_t n_threads, cmi_error *err)
{
    if (n_threads < 1 || n_threads > 1024) {
        return cmi_error_set(err, CMI_ERR_INVALID, "threads: %u is not in 1..1024", n_threads);
    }
    cmi_team *team = cmi_alloc_aligned(sizeof *team, CMI_CACHE_LINE);
    team->n_threads = n_threads;
    team->members = cmi_alloc(n_threads, sizeof *team->members);
    for (uint32_t i = 1; i < n_threads; i++) {
        team->members[i] = (struct member){.team = team, .worker = i};
        int rc = pthread_create(&team->members[i].thread, NULL, member_main, &team->members[i]);
        if (rc != 0) {
            cmi_team_destroy(team);
            return cmi_error_set(err, CMI_ERR_IO, "cannot start thread %u of %u: %s", i + 1,
                                 n_threads, strerror(rc));
        }
        team->n_started = i;
    }
    cmi_float_env_set();
    *team_out = team;
    return CMI_OK;
}

void cmi_team_destroy(cmi_team *team)
{
    if (team == NULL) {
        return;
    }
    atomic_store(&team->stopping, true);
    announce(team);
    for (uint32_t i = 1; i <= team->n_started; i++) {
        pthread_join(team->members[i].thread, NULL);
    }
    cmi_free(team->members);
    cmi_free(team);
}

uint32_t cmi_team_size(const cmi_team *team)
{
    return team->n_threads;
}

uint32_t cmi_host_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    return (uint32_t)CMI_MAX(CPU_COUNT(&set), 1);
}
