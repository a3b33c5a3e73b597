/* os/team.h - a fork-join team of threads for the operators of one step.
 *
 * cmi_team_run hands out the tasks 0 .. n_tasks-1 to all members and returns when all are done.
 * Which member takes which task is a race on purpose (nobody waits for a slow one), so a task's
 * result may depend on its number only, never on its worker. Between runs the members spin briefly,
 * then sleep. Every member computes in the mode of base/float_env.h.
 *
 * On a host with several memory nodes the members are spread over them and stay on their node's
 * processors (any of them: two teams of one host get along). A run's tasks are dealt to the nodes,
 * in order and in proportion to their members; a member takes its node's tasks first, then what is
 * left of others'. So what has the same place in the order is mostly computed on the same node from
 * run to run, and data that is cut by cmi_team_share lies where it is read.
 *
 * Thread: one thread, the owner, calls run; it is itself worker 0. */
#ifndef CMI_OS_TEAM_H
#define CMI_OS_TEAM_H

#include "base/error.h"
#include "os/topology.h"

typedef struct cmi_team cmi_team;

/* arg is what cmi_team_run was given; worker < n_threads picks scratch memory, nothing else. */
typedef void cmi_team_fn(void *arg, uint32_t task, uint32_t worker);

/* n_threads counts the owner: 1 .. 1024. Sets the owner's float mode too. */
CMI_NODISCARD cmi_status cmi_team_create(cmi_team **team_out, uint32_t n_threads, cmi_error *err);

/* The same with members on all nodes of topology, which must outlive the team; NULL, or one node:
 * nobody is bound. The owner is bound by cmi_team_own only: threads that it starts inherit that. */
CMI_NODISCARD cmi_status cmi_team_create_on(cmi_team **team_out, uint32_t n_threads,
                                            const cmi_topology *topology, cmi_error *err);
void cmi_team_destroy(cmi_team *team); /* NULL is fine; joins the members */

/* The calling thread is the owner from now on: sets its float mode and binds it to worker 0's node.
 */
void cmi_team_own(cmi_team *team);

void cmi_team_run(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks);

/* The same where the caller says which tasks are whose: of the tasks 0, 1, 2, ... the first
 * n_tasks[0] are node 0's, the next n_tasks[1] node 1's, and so on. */
void cmi_team_run_on_nodes(cmi_team *team, cmi_team_fn *fn, void *arg, const uint32_t *n_tasks);

uint32_t cmi_team_nodes(const cmi_team *team); /* 1 .. CMI_TOPOLOGY_MAX_NODES */
uint32_t cmi_team_node_of(const cmi_team *team, uint32_t worker);
const cmi_topology *cmi_team_topology(const cmi_team *team); /* NULL: one node */

/* Of n things in a row, node k's are cmi_team_share(team, k, n) .. cmi_team_share(team, k + 1, n):
 * in proportion to its members. */
uint64_t cmi_team_share(const cmi_team *team, uint32_t node, uint64_t n);

uint32_t cmi_team_size(const cmi_team *team);

/* Processors that this process may run on (its affinity mask), at least 1. */
uint32_t cmi_host_processors(void);

#endif
