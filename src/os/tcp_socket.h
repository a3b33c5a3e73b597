/* os/tcp_socket.h - TCP connections that tell early when the other side is gone.
 *
 * The kernel closes the connections of a process that has died. Of a host that has died or cannot
 * be reached it tells after CMI_TCP_LOST_SECONDS, by probes and by data that nobody confirms.
 * Nothing here blocks, but that a host given by name is looked up. All descriptors are closed on
 * exec. Any thread. */
#ifndef CMI_OS_TCP_SOCKET_H
#define CMI_OS_TCP_SOCKET_H

#include "base/error.h"

enum {
    CMI_TCP_MAX_HOST = 110, /* bytes, without a NUL */
    CMI_TCP_LOST_SECONDS = 4,
};

/* Listens at a local address; port_inout 0: a free one, which it is set to. CMI_ERR_INVALID: no
 * such address. CMI_ERR_CLOSED: somebody listens there. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_tcp_listen(int *fd_out, const char *host, uint16_t *port_inout,
                                        cmi_error *err);

/* CMI_IN_PROGRESS: nobody waits. CMI_ERR_IO: this process has no descriptor left. */
CMI_NODISCARD cmi_status cmi_tcp_accept(int *fd_out, int listener);

/* Begins to connect. CMI_ERR_NOT_FOUND: no such host, or nobody listens. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_tcp_connect(int *fd_out, const char *host, uint16_t port);

/* How that went: CMI_IN_PROGRESS, CMI_OK, CMI_ERR_NOT_FOUND. */
CMI_NODISCARD cmi_status cmi_tcp_finish_connect(int fd);

/* Sends up to n bytes; *n_out says how many. CMI_ERR_PEER: the other side is gone. */
CMI_NODISCARD cmi_status cmi_tcp_send(int fd, const void *bytes, size_t n, size_t *n_out);

/* Receives up to n bytes, at least one. CMI_IN_PROGRESS: none there. CMI_ERR_PEER: the other side
 * has closed or is gone. */
CMI_NODISCARD cmi_status cmi_tcp_receive(int fd, void *bytes, size_t n, size_t *n_out);

/* This host's address, in figures, on the way to another one; sends nothing.
 * CMI_ERR_NOT_FOUND: no such host, or no way there. */
CMI_NODISCARD cmi_status cmi_tcp_own_address(char own_out[CMI_TCP_MAX_HOST + 1], const char *host,
                                             uint16_t port);

/* Nothing more will be sent; the other side can read what was. */
void cmi_tcp_end_sending(int fd);

#endif
