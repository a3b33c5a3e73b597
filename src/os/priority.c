#include "os/priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/compiler.h"

/* Not SCHED_IDLE: a processor that is never idle would leave it three thousandths, too little for
 * work that others wait for in the end. */
enum { LOWEST = 19 };

void cmi_priority_lower(void)
{
    const struct sched_param none = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), LOWEST); /* Linux: of the thread */
}
