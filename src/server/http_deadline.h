/* server/http_deadline.h - ends the connections of clients that take too long.
 *
 * libmicrohttpd's own timeout ends a connection on which nothing moves. One on which a byte moves
 * now and then would hold its place for ever, so each connection also has a deadline for what is
 * going on: a whole head since the connection began or its last answer ended; a body, and what is
 * left of an answer, at a lowest speed. While the engine works there is none: that is not the
 * client's time.
 *
 * A connection past its deadline is shut down, which libmicrohttpd sees as a client that left. One
 * thread of the table looks every quarter of a second while there are connections.
 *
 * The table has a slot for each connection that libmicrohttpd admits. A slot belongs to the
 * connection from libmicrohttpd's notice of its start to that of its end; its deadline may be set
 * by any thread that knows the connection to be open. */
#ifndef CMI_SERVER_HTTP_DEADLINE_H
#define CMI_SERVER_HTTP_DEADLINE_H

#include <microhttpd.h>

#include "base/error.h"

typedef struct cmi_deadline cmi_deadline;
typedef struct cmi_deadline_table cmi_deadline_table;

typedef struct cmi_deadline_options {
    uint32_t n_max;            /* connections at once */
    uint64_t idle_ns;          /* for the head of the next request */
    uint64_t slow_ns;          /* for a body or an answer, on top of its time at the lowest speed */
    uint32_t bytes_per_s;      /* that lowest speed; not 0 */
    _Atomic uint64_t *n_ended; /* counts the connections that were ended; outlives the table */
} cmi_deadline_options;

/* Starts the thread. CMI_ERR_IO: the system has none left. */
CMI_NODISCARD cmi_status cmi_deadline_table_create(cmi_deadline_table **table_out,
                                                   const cmi_deadline_options *opt, cmi_error *err);
void cmi_deadline_table_destroy(
    cmi_deadline_table *table); /* no connection is left. NULL is fine */

/* libmicrohttpd's MHD_OPTION_NOTIFY_CONNECTION, with the table as cls. */
void cmi_deadline_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                                enum MHD_ConnectionNotificationCode code);

/* The connection's, inside libmicrohttpd's callbacks; NULL where the table is not used, which the
 * functions below take for no deadline at all. */
cmi_deadline *cmi_deadline_of(struct MHD_Connection *connection);

void cmi_deadline_set_idle(cmi_deadline *deadline);                       /* a head is awaited */
void cmi_deadline_set_transfer(cmi_deadline *deadline, uint64_t n_bytes); /* so many are to move */
void cmi_deadline_extend(cmi_deadline *deadline, uint64_t n_bytes);       /* so many have moved */
void cmi_deadline_clear(cmi_deadline *deadline);                          /* the server's turn */

#endif
