/* cli/eval.h - the measures of `cminfer eval` that stand in files of their own. */
#ifndef CMI_CLI_EVAL_H
#define CMI_CLI_EVAL_H

#include "cli/commands.h"

/* Prints the perplexity of the text in path, and returns the exit status. */
int cmi_cli_perplexity(const cmi_model_options *opt, const char *path, bool as_json);

#endif
