/* cli/open_apart.h - prefill and decode as two instances of this process. */
#ifndef CMI_CLI_OPEN_APART_H
#define CMI_CLI_OPEN_APART_H

#include "cli/chat.h"

/* For opt->n_prefill_threads > 0: opens the decode instance as chat's, each of the two on
 * processors of its own where there are enough, and makes chat's apart. What is open on error is
 * cmi_chat_close's. dir_out as in cmi_cli_open_model. */
CMI_NODISCARD cmi_status cmi_cli_open_apart(cmi_chat *chat, cmi_buf *dir_out,
                                            const cmi_model_options *opt, cmi_error *err);

/* Opens the prefill instance, and starts the engines; chat's is the decode side's. */
CMI_NODISCARD cmi_status cmi_cli_start_apart(cmi_chat *chat, const cmi_buf *dir,
                                             const cmi_model_options *opt,
                                             const cmi_engine_options *engine, cmi_error *err);

#endif
