#include "os/local_socket.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128 };

/* An abstract name begins with a NUL and ends with the length. */
static bool make_address(struct sockaddr_un *address, socklen_t *n_out, const char *name)
{
    size_t n = strlen(name);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (n == 0 || n > CMI_LOCAL_SOCKET_MAX_NAME) {
        return false;
    }
    memcpy(address->sun_path + 1, name, n);
    *n_out = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    return true;
}

static int open_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

cmi_status cmi_local_socket_listen(int *fd_out, const char *name, cmi_error *err)
{
    struct sockaddr_un address;
    socklen_t n;
    if (!make_address(&address, &n, name)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.120s\": a name has 1 to %d bytes", name,
                             CMI_LOCAL_SOCKET_MAX_NAME);
    }
    int fd = open_socket();
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, n) == 0 && listen(fd, BACKLOG) == 0) {
        *fd_out = fd;
        return CMI_OK;
    }
    bool is_taken = errno == EADDRINUSE;
    cmi_error_set(err, is_taken ? CMI_ERR_CLOSED : CMI_ERR_IO, "cannot listen at local:%s: %s",
                  name, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return is_taken ? CMI_ERR_CLOSED : CMI_ERR_IO;
}

cmi_status cmi_local_socket_accept(int *fd_out, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        bool is_short = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
        return is_short ? CMI_ERR_IO : CMI_IN_PROGRESS;
    }
    *fd_out = fd;
    return CMI_OK;
}

cmi_status cmi_local_socket_connect(int *fd_out, const char *name)
{
    struct sockaddr_un address;
    socklen_t n;
    if (!make_address(&address, &n, name)) {
        return CMI_ERR_INVALID;
    }
    int fd = open_socket();
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, n) == 0) {
        *fd_out = fd;
        return CMI_OK;
    }
    int cause = errno;
    if (fd >= 0) {
        close(fd);
    }
    if (cause == ECONNREFUSED || cause == ENOENT) {
        return CMI_ERR_NOT_FOUND;
    }
    return cause == EAGAIN || cause == EINTR ? CMI_ERR_NO_CAPACITY : CMI_ERR_IO;
}

/* ---- datagrams ---- */

typedef union fd_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(CMI_LOCAL_SOCKET_MAX_FDS * sizeof(int))];
} fd_space;

cmi_status cmi_local_socket_send(int fd, const cmi_local_datagram *datagram)
{
    struct iovec part = {.iov_base = datagram->bytes, .iov_len = datagram->n_bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    fd_space space = {0};
    if (datagram->n_fds > 0) {
        message.msg_control = space.bytes;
        message.msg_controllen = CMSG_SPACE(datagram->n_fds * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(datagram->n_fds * sizeof(int));
        memcpy(CMSG_DATA(head), datagram->fds, datagram->n_fds * sizeof(int));
    }
    if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
        return CMI_OK;
    }
    bool is_full = errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ETOOMANYREFS;
    return is_full ? CMI_ERR_NO_CAPACITY : CMI_ERR_PEER;
}

static void take_fds(cmi_local_datagram *datagram, struct msghdr *message)
{
    datagram->n_fds = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            if (datagram->n_fds < CMI_LOCAL_SOCKET_MAX_FDS) {
                datagram->fds[datagram->n_fds++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

cmi_status cmi_local_socket_receive(int fd, cmi_local_datagram *datagram)
{
    struct iovec part = {.iov_base = datagram->bytes, .iov_len = datagram->n_bytes};
    fd_space space = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = space.bytes,
                             .msg_controllen = sizeof space.bytes};
    datagram->n_fds = 0;
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && errno == ECONNRESET) { /* told first, but what was sent before is still there */
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return CMI_IN_PROGRESS;
    }
    if (n <= 0) {
        return CMI_ERR_PEER; /* nobody sends empty datagrams */
    }
    take_fds(datagram, &message);
    datagram->n_bytes = (size_t)n;
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        while (datagram->n_fds > 0) {
            close(datagram->fds[--datagram->n_fds]);
        }
        return CMI_ERR_TOO_LARGE;
    }
    return CMI_OK;
}

int64_t cmi_local_socket_peer_process(int fd)
{
    struct ucred who = {0};
    socklen_t n = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 ? who.pid : 0;
}
