/* cli/options_internal.h - what options.c and options_config.c share. */
#ifndef CMI_CLI_OPTIONS_INTERNAL_H
#define CMI_CLI_OPTIONS_INTERNAL_H

#include "cli/options.h"

/* NULL: there is none of this name of n bytes. */
const cmi_option *cmi_option_find(const cmi_command_line *line, const char *name, size_t n);

/* given: what errors call the option. */
CMI_NODISCARD cmi_status cmi_option_store(const cmi_option *option, const char *given,
                                          const char *value, cmi_error *err);

/* Stores what the --config files of a command line say, in their order. */
CMI_NODISCARD cmi_status cmi_options_read_configs(const cmi_command_line *line, int argc,
                                                  char **argv, cmi_error *err);

#endif
