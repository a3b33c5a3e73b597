/* os/local_socket.h - datagram connections between processes of one host, which carry descriptors.
 *
 * Names are abstract ones of the network namespace: nothing of them is left when their process has
 * ended, and anybody may connect or take a name first, so whoever uses a connection proves himself.
 * Nothing here blocks. All descriptors are closed on exec. Any thread. */
#ifndef CMI_OS_LOCAL_SOCKET_H
#define CMI_OS_LOCAL_SOCKET_H

#include "base/error.h"

enum {
    CMI_LOCAL_SOCKET_MAX_NAME = 100, /* bytes, without a NUL */
    CMI_LOCAL_SOCKET_MAX_FDS = 4,    /* in one datagram */
};

/* CMI_ERR_INVALID: no such name can be. CMI_ERR_CLOSED: the name is taken. CMI_ERR_IO. */
CMI_NODISCARD cmi_status cmi_local_socket_listen(int *fd_out, const char *name, cmi_error *err);

/* CMI_IN_PROGRESS: nobody waits. CMI_ERR_IO: this process has no descriptor left. */
CMI_NODISCARD cmi_status cmi_local_socket_accept(int *fd_out, int listener);

/* CMI_ERR_NOT_FOUND: nobody listens. CMI_ERR_NO_CAPACITY: too many wait there; try again. */
CMI_NODISCARD cmi_status cmi_local_socket_connect(int *fd_out, const char *name);

typedef struct cmi_local_datagram {
    void *bytes; /* to receive into: of n_bytes */
    size_t n_bytes;
    int fds[CMI_LOCAL_SOCKET_MAX_FDS]; /* those received are the receiver's to close */
    uint32_t n_fds;
} cmi_local_datagram;

/* CMI_ERR_NO_CAPACITY: try again later. CMI_ERR_PEER: the other side has closed. */
CMI_NODISCARD cmi_status cmi_local_socket_send(int fd, const cmi_local_datagram *datagram);

/* Sets n_bytes and fds. CMI_IN_PROGRESS: none there. CMI_ERR_PEER: the other side has closed.
 * CMI_ERR_TOO_LARGE: more than n_bytes, dropped. */
CMI_NODISCARD cmi_status cmi_local_socket_receive(int fd, cmi_local_datagram *datagram);

/* The process on the other side when it connected; 0 when it cannot be seen from here. */
int64_t cmi_local_socket_peer_process(int fd);

#endif
