/* os/port_holder.h - who listens on a TCP port of this machine. */
#ifndef CMI_OS_PORT_HOLDER_H
#define CMI_OS_PORT_HOLDER_H

#include "base/compiler.h"

/* Writes "process 1234 (name)" to out. False when it cannot be seen: nobody listens, or another
 * user's process does. Reads /proc, so milliseconds; for error lines. */
bool cmi_port_holder_find(uint16_t port, char *out, size_t n_bytes);

#endif
