/* os/team.c - see team.h.
 *
 * One generation counter starts a run: the owner writes the run's fields, then releases a new
 * generation; members acquire it, take task numbers from one atomic counter, and count themselves
 * out of `n_working` with release, which the owner acquires. Sleepers wait on the generation by
 * futex. A condition variable instead would cost a lock and, with short operators, most of the
 * step. */
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

/* About 20 us on a 3 GHz core: longer than the gap between two operators of a step, far shorter
 * than the gap between two requests. */
enum { SPINS_BEFORE_SLEEP = 4000 };

struct cmi_team {
    _Atomic uint32_t generation; /* odd jumps never happen: +1 a run, +1 to stop */
    _Atomic uint32_t n_sleeping;
    _Atomic uint32_t next_task CMI_ALIGNED(CMI_CACHE_LINE);
    _Atomic uint32_t n_working CMI_ALIGNED(CMI_CACHE_LINE);
    cmi_team_fn *fn CMI_ALIGNED(CMI_CACHE_LINE);
    void *arg;
    uint32_t n_tasks;
    bool stopping;
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

/* Waits until *word is no longer `seen` (acquire: pairs with the release that changed it). */
static void wait_change(cmi_team *team, _Atomic uint32_t *word, uint32_t seen)
{
    for (uint32_t i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != seen) {
            return;
        }
        cpu_relax();
    }
    /* seq_cst on both sides: either the waker sees this sleeper, or the futex sees the new value.
     */
    atomic_fetch_add(&team->n_sleeping, 1);
    while (atomic_load(word) == seen) {
        futex_wait(word, seen);
    }
    atomic_fetch_sub(&team->n_sleeping, 1);
}

static void take_tasks(cmi_team *team, uint32_t worker)
{
    for (;;) {
        uint32_t task = atomic_fetch_add_explicit(&team->next_task, 1, memory_order_relaxed);
        if (task >= team->n_tasks) {
            return;
        }
        team->fn(team->arg, task, worker);
    }
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    cmi_team *team = member->team;
    cmi_float_env_set();
    for (uint32_t seen = 0;; seen++) {
        wait_change(team, &team->generation, seen);
        if (team->stopping) {
            return NULL;
        }
        take_tasks(team, member->worker);
        if (atomic_fetch_sub(&team->n_working, 1) == 1 && atomic_load(&team->n_sleeping) > 0) {
            futex_wake_all(&team->n_working);
        }
    }
}

static void start_generation(cmi_team *team)
{
    atomic_fetch_add(&team->generation, 1);
    if (atomic_load(&team->n_sleeping) > 0) {
        futex_wake_all(&team->generation);
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
    atomic_store_explicit(&team->next_task, 0, memory_order_relaxed);
    atomic_store_explicit(&team->n_working, team->n_threads - 1, memory_order_relaxed);
    start_generation(team);
    take_tasks(team, 0);
    uint32_t left;
    while ((left = atomic_load_explicit(&team->n_working, memory_order_acquire)) != 0) {
        wait_change(team, &team->n_working, left);
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
    team->stopping = true;
    start_generation(team);
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
