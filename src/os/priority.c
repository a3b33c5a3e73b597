#include "os/priority.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/compiler.h"

/* Ten steps of niceness are a tenth of a processor beside a thread that computes: what waits for
 * that thread takes 1.1 times as long. At 19 it would be a hundredth, and on a host that has other
 * work, too, seconds for what takes milliseconds. */
enum { STEPS = 10, LOWEST = 19 };

void cmi_priority_lower(void)
{
    const struct sched_param none = {0};
    const id_t self = (id_t)syscall(SYS_gettid); /* Linux: of the thread */
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
    const int nice = getpriority(PRIO_PROCESS, self) + STEPS;
    (void)setpriority(PRIO_PROCESS, self, CMI_MIN(nice, (int)LOWEST));
}
