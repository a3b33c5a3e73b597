#include "os/tcp_socket.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, PROBE_SECONDS = 1 };

static struct addrinfo *look_up(const char *host, uint16_t port, int flags)
{
    char service[8];
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    snprintf(service, sizeof service, "%u", port);
    return getaddrinfo(host, service, &hints, &found) == 0 ? found : NULL;
}

static int open_socket(const struct addrinfo *at)
{
    return socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void set(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

static void prepare(int fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_SECONDS);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_SECONDS);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, CMI_TCP_LOST_SECONDS - PROBE_SECONDS);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, CMI_TCP_LOST_SECONDS * 1000);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &n) != 0) {
        return 0;
    }
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

cmi_status cmi_tcp_listen(int *fd_out, const char *host, uint16_t *port_inout, cmi_error *err)
{
    struct addrinfo *at = look_up(host, *port_inout, AI_PASSIVE);
    if (at == NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%.120s\" is no address to listen at", host);
    }
    int fd = open_socket(at);
    if (fd >= 0) {
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    bool is_good =
        fd >= 0 && bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    int why = errno;
    freeaddrinfo(at);
    if (is_good) {
        *fd_out = fd;
        *port_inout = port_of(fd);
        return CMI_OK;
    }
    if (fd >= 0) {
        close(fd);
    }
    cmi_status st = why == EADDRINUSE      ? CMI_ERR_CLOSED
                    : why == EADDRNOTAVAIL ? CMI_ERR_INVALID
                                           : CMI_ERR_IO;
    return cmi_error_set(err, st, "cannot listen at %.120s:%u: %s", host, *port_inout,
                         strerror(why));
}

cmi_status cmi_tcp_accept(int *fd_out, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        bool is_short = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS;
        return is_short ? CMI_ERR_IO : CMI_IN_PROGRESS;
    }
    prepare(fd);
    *fd_out = fd;
    return CMI_OK;
}

cmi_status cmi_tcp_connect(int *fd_out, const char *host, uint16_t port)
{
    struct addrinfo *at = look_up(host, port, 0);
    if (at == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    int fd = open_socket(at);
    cmi_status st = CMI_ERR_IO;
    if (fd >= 0) {
        prepare(fd);
        bool is_begun =
            connect(fd, at->ai_addr, at->ai_addrlen) == 0 || errno == EINPROGRESS || errno == EINTR;
        st = is_begun ? CMI_OK : CMI_ERR_NOT_FOUND;
    }
    freeaddrinfo(at);
    if (st == CMI_OK) {
        *fd_out = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    return st;
}

cmi_status cmi_tcp_finish_connect(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    int why = 0;
    socklen_t n = sizeof why;
    if (poll(&one, 1, 0) == 0) {
        return CMI_IN_PROGRESS;
    }
    bool is_good = getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) == 0 && why == 0;
    return is_good ? CMI_OK : CMI_ERR_NOT_FOUND;
}

static bool is_for_later(int why)
{
    return why == EAGAIN || why == EWOULDBLOCK || why == EINTR;
}

cmi_status cmi_tcp_send(int fd, const void *bytes, size_t n, size_t *n_out)
{
    ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
    *n_out = sent < 0 ? 0 : (size_t)sent;
    return sent >= 0 || is_for_later(errno) ? CMI_OK : CMI_ERR_PEER;
}

cmi_status cmi_tcp_receive(int fd, void *bytes, size_t n, size_t *n_out)
{
    ssize_t got = recv(fd, bytes, n, 0);
    *n_out = got < 0 ? 0 : (size_t)got;
    if (got > 0) {
        return CMI_OK;
    }
    return got < 0 && is_for_later(errno) ? CMI_IN_PROGRESS : CMI_ERR_PEER;
}

cmi_status cmi_tcp_own_address(char own_out[CMI_TCP_MAX_HOST + 1], const char *host, uint16_t port)
{
    struct sockaddr_storage own;
    socklen_t n = sizeof own;
    struct addrinfo *at = look_up(host, port, 0);
    if (at == NULL) {
        return CMI_ERR_NOT_FOUND;
    }
    /* UDP: to connect asks the routes and nobody else */
    int fd = socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is_found = fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
                    getsockname(fd, (struct sockaddr *)&own, &n) == 0 &&
                    getnameinfo((struct sockaddr *)&own, n, own_out, CMI_TCP_MAX_HOST + 1, NULL, 0,
                                NI_NUMERICHOST) == 0;
    freeaddrinfo(at);
    if (fd >= 0) {
        close(fd);
    }
    return is_found ? CMI_OK : CMI_ERR_NOT_FOUND;
}

void cmi_tcp_end_sending(int fd)
{
    shutdown(fd, SHUT_WR);
}
