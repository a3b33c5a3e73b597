/* engine/rank_port.h - one engine for a router in another process (engine/router.h).
 *
 * A port has a thread and a fabric of its own, at an address where a router connects. Requests that
 * come whole are offered to the engine; its events go back, and every few milliseconds what it has
 * to do. When the router is gone, its requests are cancelled; a second one is turned away as long
 * as the first is there. A router that does not read holds the engine back, as whoever polls one
 * does.
 *
 * Thread: create, start and destroy by one; notify by any. */
#ifndef CMI_ENGINE_RANK_PORT_H
#define CMI_ENGINE_RANK_PORT_H

#include "engine/engine.h"
#include "fabric/fabric.h"

typedef struct cmi_rank_port cmi_rank_port;

/* Of a fabric for ports and routers: messages, ring, endpoints; name, secret and address are the
 * caller's. */
void cmi_link_fabric_options(cmi_fabric_options *opt, uint32_t n_peers);

/* Takes over a fabric that listens. */
CMI_NODISCARD cmi_status cmi_rank_port_create(cmi_rank_port **port_out, cmi_fabric *fabric,
                                              cmi_error *err);

/* For the engine's options: to be called with the port when its ring of events is no longer empty.
 */
void cmi_rank_port_notify(void *port);

/* From now on the engine is the router's: nobody else submits or polls. max_running: of the engine.
 */
CMI_NODISCARD cmi_status cmi_rank_port_start(cmi_rank_port *port, cmi_engine *engine,
                                             uint32_t max_running, cmi_error *err);

/* The router sees the rank go, and sends its requests elsewhere. Before the engine is stopped. NULL
 * is fine. */
void cmi_rank_port_destroy(cmi_rank_port *port);

#endif
