/* os/watch.h - sleeping until one of many descriptors has something, or somebody rings the bell.
 *
 * One owner, but for what says otherwise. */
#ifndef CMI_OS_WATCH_H
#define CMI_OS_WATCH_H

#include "base/error.h"

typedef struct cmi_watch {
    int set_fd;  /* an epoll; -1 or, with bell_fd, 0 when zeroed */
    int bell_fd; /* an eventfd: whoever has a copy, in any process, may ring it */
} cmi_watch;

CMI_NODISCARD cmi_status cmi_watch_init(cmi_watch *watch, cmi_error *err);
void cmi_watch_deinit(cmi_watch *watch); /* zeroed is fine */

/* fd becomes known under key (not UINT64_MAX) until it is removed or closed. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_watch_add(cmi_watch *watch, int fd, uint64_t key);
void cmi_watch_remove(cmi_watch *watch, int fd);

/* Sleeps until the bell rings, a descriptor is readable or broken, or timeout_ns have passed. */
void cmi_watch_sleep(cmi_watch *watch, uint64_t timeout_ns);

/* The keys of up to n_max descriptors that are readable or broken now. Silences the bell. */
size_t cmi_watch_ready(cmi_watch *watch, uint64_t *keys_out, size_t n_max);

/* Ends the sleep of the watch that the bell is of, or its next one. Never blocks. Any thread. */
void cmi_watch_ring(int bell_fd);

/* A descriptor that becomes readable when the process has ended; -1 where the kernel has none. */
int cmi_watch_open_process(int64_t process);

#endif
