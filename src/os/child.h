/* os/child.h - processes of this program that this process starts and ends.
 *
 * Thread: the main thread; a child is asked to die with the thread that started it. */
#ifndef CMI_OS_CHILD_H
#define CMI_OS_CHILD_H

#include "base/error.h"

typedef struct cmi_child {
    int pid; /* 0: none */
    int fd;  /* of a pid above 0 */
} cmi_child;

/* Starts this program again with these arguments (argv[0] first, NULL behind the last) and, beside
 * this process's environment, "NAME=value" lines, which replace those of their names (NULL behind
 * the last). Its standard input is empty; output that it prints goes to standard error.
 * CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_child_start(cmi_child *child_out, char *const *argv,
                                         const char *const *env, cmi_error *err);

/* In the child: from now on it is killed when its parent is gone. False: that is so already. */
CMI_NODISCARD bool cmi_child_die_with_parent(int parent_pid);

/* Readable once it has ended; -1: there is none, or the system has no such thing. */
int cmi_child_fd(const cmi_child *child);

/* True, once: it has ended; *how_out is its exit status, or 128 and the signal that ended it. */
CMI_NODISCARD bool cmi_child_has_ended(cmi_child *child, int *how_out);

/* Asks it to end (SIGTERM) and goes on. None is fine. */
void cmi_child_ask_to_end(const cmi_child *child);

/* Asks it to end, kills it if it has not after patience_ns, and waits. None is fine. */
void cmi_child_end(cmi_child *child, uint64_t patience_ns);

int cmi_child_own_pid(void);

#endif
