#include "os/watch.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_READY = 64 };
static const uint64_t BELL_KEY = UINT64_MAX;

cmi_status cmi_watch_init(cmi_watch *watch, cmi_error *err)
{
    *watch = (cmi_watch){.set_fd = epoll_create1(EPOLL_CLOEXEC),
                         .bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (watch->set_fd < 0 || watch->bell_fd < 0 ||
        cmi_watch_add(watch, watch->bell_fd, BELL_KEY) != CMI_OK) {
        cmi_status st = cmi_error_set(err, CMI_ERR_IO, "cannot make an epoll and an eventfd: %s",
                                      strerror(errno));
        cmi_watch_deinit(watch);
        return st;
    }
    return CMI_OK;
}

void cmi_watch_deinit(cmi_watch *watch)
{
    if (watch->set_fd > 0) {
        close(watch->set_fd);
    }
    if (watch->bell_fd > 0) {
        close(watch->bell_fd);
    }
    *watch = (cmi_watch){0};
}

cmi_status cmi_watch_add(cmi_watch *watch, int fd, uint64_t key)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = key};
    return epoll_ctl(watch->set_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? CMI_OK : CMI_ERR_IO;
}

void cmi_watch_remove(cmi_watch *watch, int fd)
{
    epoll_ctl(watch->set_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ppoll around the set: epoll_wait itself counts milliseconds. */
void cmi_watch_sleep(cmi_watch *watch, uint64_t timeout_ns)
{
    struct pollfd set = {.fd = watch->set_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    ppoll(&set, 1, &timeout, NULL);
}

size_t cmi_watch_ready(cmi_watch *watch, uint64_t *keys_out, size_t n_max)
{
    struct epoll_event events[MAX_READY];
    int n = epoll_wait(watch->set_fd, events, (int)CMI_MIN(n_max, (size_t)MAX_READY), 0);
    size_t n_keys = 0;
    for (int i = 0; i < n; i++) {
        uint64_t key = events[i].data.u64;
        if (key != BELL_KEY) {
            keys_out[n_keys++] = key;
            continue;
        }
        uint64_t rings;
        ssize_t got = read(watch->bell_fd, &rings, sizeof rings);
        (void)got;
    }
    return n_keys;
}

void cmi_watch_ring(int bell_fd)
{
    uint64_t one = 1;
    ssize_t n = write(bell_fd, &one, sizeof one); /* fails only when it rings already */
    (void)n;
}

int cmi_watch_open_process(int64_t process)
{
#if defined(SYS_pidfd_open)
    return process > 0 ? (int)syscall(SYS_pidfd_open, (pid_t)process, 0) : -1;
#else
    (void)process;
    return -1;
#endif
}
