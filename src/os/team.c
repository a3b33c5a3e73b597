/* os/team.c - see team.h.
 *
 * Members and owner claim a task of a node's queue by counting down those that are left there, and
 * whoever has claimed one may read the run's other fields, which do not change before all its tasks
 * are done. There is one queue for each node, also when a run fills only some. The owner
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

/* A node's share of the run's tasks. */
typedef struct queue {
    _Atomic uint32_t n_left CMI_ALIGNED(CMI_CACHE_LINE); /* not yet claimed */
    uint32_t end;                                        /* behind the last */
} queue;

struct cmi_team {
    _Atomic uint32_t n_runs; /* begun; also counts the stop. What idle members wait on */
    _Atomic uint32_t n_sleeping;
    queue queues[CMI_TOPOLOGY_MAX_NODES];
    _Atomic
        uint32_t n_done CMI_ALIGNED(CMI_CACHE_LINE); /* tasks of this run; the owner waits on it */
    cmi_team_fn *fn CMI_ALIGNED(CMI_CACHE_LINE);
    void *arg;
    uint32_t n_tasks;
    _Atomic bool stopping; /* a late member of the last run may look at it early */
    uint32_t n_threads;
    uint32_t n_started;
    uint32_t n_nodes;
    uint32_t
        first_worker[CMI_TOPOLOGY_MAX_NODES + 1]; /* of a node; its last is before the next's */
    const cmi_topology *topology;                 /* NULL: nobody is bound */
    struct member {
        pthread_t thread;
        cmi_team *team;
        uint32_t worker;
    } * members;
};

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
        cmi_cpu_relax();
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

/* False: none is left. Acquire: pairs with the release of start_run, for the run's fields. A count
 * from an earlier run does no harm: where the exchange succeeds, it is this run's too. */
static bool claim_task(queue *q, uint32_t *task_out)
{
    uint32_t left = atomic_load_explicit(&q->n_left, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak_explicit(&q->n_left, &left, left - 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *task_out = q->end - left;
            return true;
        }
    }
    return false;
}

/* No run can begin before the tasks claimed here are counted, so all of them are of one run. */
static void take_tasks(cmi_team *team, uint32_t worker, uint32_t node)
{
    uint32_t task;
    uint32_t n_taken = 0;
    uint32_t n_tasks = 0;
    for (uint32_t i = 0; i < team->n_nodes; i++) { /* its own node first */
        queue *q = &team->queues[node];
        while (claim_task(q, &task)) {
            n_tasks = team->n_tasks;
            team->fn(team->arg, task, worker);
            n_taken++;
        }
        node = node + 1 == team->n_nodes ? 0 : node + 1;
    }
    /* seq_cst, as the load behind it: either the owner sees the count, or it is seen sleeping */
    if (n_taken > 0 && atomic_fetch_add(&team->n_done, n_taken) + n_taken == n_tasks &&
        atomic_load(&team->n_sleeping) > 0) {
        futex_wake_all(&team->n_done);
    }
}

/* Float mode and place of the calling thread. */
static void enter_team(const cmi_team *team, uint32_t node)
{
    cmi_float_env_set();
    if (team->topology != NULL) {
        (void)cmi_topology_bind_thread(team->topology, node);
    }
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    cmi_team *team = member->team;
    uint32_t node = cmi_team_node_of(team, member->worker);
    uint32_t seen = 0;
    enter_team(team, node);
    for (;;) {
        seen = wait_change(team, &team->n_runs, seen);
        if (atomic_load(&team->stopping)) {
            return NULL;
        }
        take_tasks(team, member->worker, node);
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

/* end[k]: behind the last task of node k, whose first is behind the last of node k - 1. */
static void run(cmi_team *team, cmi_team_fn *fn, void *arg, const uint32_t *end)
{
    uint32_t n_tasks = end[team->n_nodes - 1];
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
    for (uint32_t i = 0, begin = 0; i < team->n_nodes; begin = end[i], i++) {
        team->queues[i].end = end[i];
        atomic_store_explicit(&team->queues[i].n_left, end[i] - begin, memory_order_release);
    }
    announce(team);
    take_tasks(team, 0, 0); /* worker 0 is on node 0 */
    uint32_t done;
    while ((done = atomic_load_explicit(&team->n_done, memory_order_acquire)) != n_tasks) {
        wait_change(team, &team->n_done, done);
    }
}

void cmi_team_run(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks)
{
    uint32_t end[CMI_TOPOLOGY_MAX_NODES];
    for (uint32_t i = 0; i < team->n_nodes; i++) {
        end[i] = (uint32_t)cmi_team_share(team, i + 1, n_tasks);
    }
    run(team, fn, arg, end);
}

void cmi_team_run_on_nodes(cmi_team *team, cmi_team_fn *fn, void *arg, const uint32_t *n_tasks)
{
    uint32_t end[CMI_TOPOLOGY_MAX_NODES];
    for (uint32_t i = 0, sum = 0; i < team->n_nodes; i++) {
        sum += n_tasks[i];
        end[i] = sum;
    }
    run(team, fn, arg, end);
}

uint64_t cmi_team_share(const cmi_team *team, uint32_t node, uint64_t n)
{
    /* The products of a model's sizes and 1024 threads stay far below 2^64. */
    return n * team->first_worker[node] / team->n_threads;
}

uint32_t cmi_team_nodes(const cmi_team *team)
{
    return team->n_nodes;
}

uint32_t cmi_team_node_of(const cmi_team *team, uint32_t worker)
{
    uint32_t node = 0;
    while (team->first_worker[node + 1] <= worker) {
        node++;
    }
    return node;
}

const cmi_topology *cmi_team_topology(const cmi_team *team)
{
    return team->topology;
}

void cmi_team_own(cmi_team *team)
{
    enter_team(team, cmi_team_node_of(team, 0));
}

cmi_status cmi_team_create(cmi_team **team_out, uint32_t n_threads, cmi_error *err)
{
    return cmi_team_create_on(team_out, n_threads, NULL, err);
}

cmi_status cmi_team_create_on(cmi_team **team_out, uint32_t n_threads, const cmi_topology *topology,
                              cmi_error *err)
{
    if (n_threads < 1 || n_threads > 1024) {
        return cmi_error_set(err, CMI_ERR_INVALID, "threads: %u is not in 1..1024", n_threads);
    }
    cmi_team *team = cmi_alloc_aligned(sizeof *team, CMI_CACHE_LINE);
    team->n_threads = n_threads;
    team->n_nodes = 1;
    team->first_worker[1] = n_threads;
    if (topology != NULL && cmi_topology_nodes(topology) > 1) {
        team->topology = topology;
        team->n_nodes = cmi_topology_nodes(topology);
        cmi_topology_spread(topology, n_threads, team->first_worker);
    }
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
