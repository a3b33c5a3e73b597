/* cli/open_apart.h - prefill and decode as two instances of this process. */
#ifndef CMI_CLI_OPEN_APART_H
#define CMI_CLI_OPEN_APART_H

#include "cli/chat.h"

/* Opens both for opt->n_prefill_threads > 0, each on processors of its own where there are enough,
 * and fills in chat's instance and engine (the decode side's) and apart. What is open on error is
 * cmi_chat_close's. dir_out as in cmi_cli_open_model. */
CMI_NODISCARD cmi_status cmi_cli_open_apart(cmi_chat *chat, cmi_buf *dir_out,
                                            const cmi_model_options *opt,
                                            const cmi_engine_options *engine, cmi_error *err);

#endif
