/* os/priority.h - how much a thread counts beside others.
 *
 * Thread: the one it is about. */
#ifndef CMI_OS_PRIORITY_H
#define CMI_OS_PRIORITY_H

/* From now on the calling thread gives way to every thread that computes, also where those run by
 * a real-time policy; it gets on, if only slowly, where all processors are busy. Nothing changes
 * where the system does not let it. */
void cmi_priority_lower(void);

#endif
