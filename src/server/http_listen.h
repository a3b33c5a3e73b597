/* server/http_listen.h - the socket that the server listens on. */
#ifndef CMI_SERVER_HTTP_LISTEN_H
#define CMI_SERVER_HTTP_LISTEN_H

#include "base/error.h"

/* Binds the first address of host that can be bound and listens; the caller closes *fd_out.
 * port 0: the system picks; *port_out is the real one.
 * CMI_ERR_INVALID: host has no address, or none of this machine's. CMI_ERR_IO: the port is taken,
 * or needs privileges; err names the process that has it if it can be seen. */
CMI_NODISCARD cmi_status cmi_http_listen(const char *host, uint16_t port, int *fd_out,
                                         uint16_t *port_out, cmi_error *err);

#endif
