/* os/priority.h - how much a thread counts beside others.
 *
 * Thread: the one it is about. */
#ifndef CMI_OS_PRIORITY_H
#define CMI_OS_PRIORITY_H

/* From now on the calling thread takes a tenth of a processor where a thread of its process
 * computes on it, nothing where that one runs by a real-time policy, and all of an idle one.
 * Nothing changes where the system does not let it. */
void cmi_priority_lower(void);

#endif
