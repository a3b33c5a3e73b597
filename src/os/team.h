/* os/team.h - a fork-join team of threads for the operators of one step.
 *
 * cmi_team_run hands out the tasks 0 .. n_tasks-1 to all members and returns when all are done.
 * Which member takes which task is a race on purpose (nobody waits for a slow one), so a task's
 * result may depend on its number only, never on its worker. Between runs the members spin briefly,
 * then sleep. Every member computes in the mode of base/float_env.h.
 *
 * Thread: one thread, the owner, calls run; it is itself worker 0. */
#ifndef CMI_OS_TEAM_H
#define CMI_OS_TEAM_H

#include "base/error.h"

typedef struct cmi_team cmi_team;

/* arg is what cmi_team_run was given; worker < n_threads picks scratch memory, nothing else. */
typedef void cmi_team_fn(void *arg, uint32_t task, uint32_t worker);

/* n_threads counts the owner: 1 .. 1024. Sets the owner's float mode too. */
CMI_NODISCARD cmi_status cmi_team_create(cmi_team **team_out, uint32_t n_threads, cmi_error *err);
void cmi_team_destroy(cmi_team *team); /* NULL is fine; joins the members */

void cmi_team_run(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks);

uint32_t cmi_team_size(const cmi_team *team);

/* Processors that this process may run on (its affinity mask), at least 1. */
uint32_t cmi_host_processors(void);

#endif
