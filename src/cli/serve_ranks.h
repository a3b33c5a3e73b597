/* cli/serve_ranks.h - `cminfer serve --ep N`: a front with the HTTP server and no model, and N rank
 * processes that it starts, watches, and starts again. With --ep-hosts the front is on the first
 * host, and on the others a process that does the rest of that for theirs.
 *
 * Thread: the main thread. */
#ifndef CMI_CLI_SERVE_RANKS_H
#define CMI_CLI_SERVE_RANKS_H

#include "cli/chat.h"
#include "cli/ranks.h"

/* In the front: starts the ranks, reads the model's texts, and has a router as the chat's engine,
 * behind which all ranks are up. What it says of the model is in chat->generation. */
CMI_NODISCARD cmi_status cmi_serve_ranks_open(cmi_chat *chat, cmi_cli_ranks *ranks,
                                              const cmi_model_options *opt,
                                              const char *chat_template,
                                              const cmi_engine_options *engine, cmi_error *err);

/* Until stop_fd is readable: starts ranks of this host again that have ended. */
void cmi_serve_ranks_watch(cmi_cli_ranks *ranks, int stop_fd);

/* In the first process of a host that has no front: its ranks, until stop_fd is readable. */
CMI_NODISCARD cmi_status cmi_serve_ranks_of_host(cmi_cli_ranks *ranks, int stop_fd, cmi_error *err);

/* In a rank: serves its router until stop_fd is readable, or the other ranks have been away for too
 * long, which is an error. */
CMI_NODISCARD cmi_status cmi_serve_rank(cmi_cli_ranks *ranks, const cmi_model_options *opt,
                                        const char *chat_template, const cmi_engine_options *engine,
                                        int stop_fd, cmi_error *err);

#endif
