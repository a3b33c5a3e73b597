#include "server/http_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/port_holder.h"

/* The kernel doubles it, for its own overhead. */
enum { SEND_BUFFER_BYTES = 256 * 1024 };

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t n = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &n) != 0) {
        return 0;
    }
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

/* A listening socket, or -1 with errno. */
static int listen_on(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    /* A restarted server need not wait for the old one's connections to be forgotten. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    /* Accepted sockets inherit it. The system's own choice grows to megabytes for a client that
     * does not read, which thousands of those would take of the kernel's memory; a stream of tokens
     * needs little. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){SEND_BUFFER_BYTES}, sizeof(int));
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
        return fd;
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static cmi_status listen_error(const char *host, uint16_t port, int error, cmi_error *err)
{
    char holder[128];
    switch (error) {
    case EADDRINUSE:
        if (!cmi_port_holder_find(port, holder, sizeof holder)) {
            snprintf(holder, sizeof holder, "another process");
        }
        return cmi_error_set(err, CMI_ERR_IO,
                             "port %u is taken by %s; choose another with --port, or --port 0 for "
                             "any that is free",
                             port, holder);
    case EACCES:
        return cmi_error_set(err, CMI_ERR_IO,
                             "port %u needs privileges that this process lacks; choose one above "
                             "1023 with --port",
                             port);
    case EADDRNOTAVAIL:
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "%s is not an address of this machine; choose another with --host",
                             host);
    default:
        return cmi_error_set(err, CMI_ERR_IO, "cannot listen on %s port %u: %s", host, port,
                             strerror(error));
    }
}

cmi_status cmi_http_listen(const char *host, uint16_t port, int *fd_out, uint16_t *port_out,
                           cmi_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *infos = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(host, service, &hints, &infos);
    if (rc != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--host %s has no address: %s", host,
                             gai_strerror(rc));
    }
    int fd = -1;
    int error = EADDRNOTAVAIL;
    for (const struct addrinfo *info = infos; info != NULL && fd < 0; info = info->ai_next) {
        fd = listen_on(info);
        error = fd < 0 ? errno : 0;
    }
    freeaddrinfo(infos);
    if (fd < 0) {
        return listen_error(host, port, error, err);
    }
    *fd_out = fd;
    *port_out = bound_port(fd);
    return CMI_OK;
}
