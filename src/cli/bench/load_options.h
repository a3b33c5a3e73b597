/* cli/bench/load_options.h - what the command line of `cminfer bench serve` said, and what it comes
 * to. */
#ifndef CMI_CLI_BENCH_LOAD_OPTIONS_H
#define CMI_CLI_BENCH_LOAD_OPTIONS_H

#include "cli/bench/load.h"
#include "cli/options.h"

enum { CMI_LOAD_MAX_ARGUMENTS = 8 };

/* Fields of `load` that no other field here stands for are set by the options themselves. */
typedef struct cmi_load_command {
    cmi_load_options load;
    const char *host;
    uint32_t port; /* 0: not given */
    const char *request_rate, *burstiness;
    const char *percentile_metrics, *metric_percentiles;
    cmi_option_list goodput, headers;
    const char *arguments[CMI_LOAD_MAX_ARGUMENTS]; /* those of no option: more limits of goodput */
    size_t n_arguments;
    const char *api_key;
    bool ignore_eos, no_ignore_eos;
    uint32_t nice;
    bool is_accepted; /* options that change nothing here */
    cmi_buf header_lines, url;
} cmi_load_command;

/* Everything that a run may need, but for what options say. Deinit it. */
void cmi_load_command_init(cmi_load_command *command);
void cmi_load_command_deinit(cmi_load_command *command);

/* Completes command->load. CMI_ERR_INVALID or CMI_ERR_UNSUPPORTED: options are wrong, or exclude
 * each other. */
CMI_NODISCARD cmi_status cmi_load_command_check(cmi_load_command *command, cmi_error *err);

#endif
