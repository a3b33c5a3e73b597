/* cli/commands.h - the subcommands, and what those that run a model have in common. */
#ifndef CMI_CLI_COMMANDS_H
#define CMI_CLI_COMMANDS_H

#include "base/buf.h"
#include "cli/options.h"
#include "engine/instance.h"

/* Exit statuses. */
enum { CMI_EXIT_OK = 0, CMI_EXIT_FAILED = 1, CMI_EXIT_USAGE = 2 };

/* A command gets its arguments without "cminfer COMMAND" and returns the exit status. */
typedef int cmi_command_fn(int argc, char **argv);

int cmi_cmd_run(int argc, char **argv);
int cmi_cmd_serve(int argc, char **argv);
int cmi_cmd_score(int argc, char **argv);
int cmi_cmd_eval(int argc, char **argv);
int cmi_cmd_bench(int argc, char **argv);
int cmi_cmd_eplb(int argc, char **argv);
int cmi_cmd_bench_serve(int argc, char **argv); /* without "bench serve" */
int cmi_cmd_bench_ep(int argc, char **argv);    /* without "bench ep" */
int cmi_cmd_bench_eplb(int argc, char **argv);
int cmi_cmd_bench_pipeline(int argc, char **argv);
int cmi_cmd_bench_staged(int argc, char **argv);
int cmi_cmd_bench_replay(int argc, char **argv); /* without "bench replay" */

/* Prints "cminfer: LINE" to standard error and returns CMI_EXIT_FAILED. */
int cmi_cli_fail(const cmi_error *err);

/* What MODEL and the options of every command that runs a model said. */
typedef struct cmi_model_options {
    const char *model;
    const char *dtype;
    const char *kv_cache_dtype;
    const char *quantization;
    const char *isa;
    uint32_t n_threads;
    uint32_t max_num_batched_tokens;
    uint32_t max_model_len;
    const char *numa;
    bool share_weights;
    const char *share_dir;
    const char *config; /* read by then */
    /* Not in the table of every command; 0: the instance's defaults. */
    uint32_t max_num_seqs;
    uint64_t n_kv_tokens;
    uint32_t max_drafts;
    uint32_t n_ranks;        /* cli/ranks.h; 0: 1 */
    const char *rank_hosts;  /* NULL: all on this one */
    uint32_t rank_host;      /* this one; UINT32_MAX: what a launcher says */
    uint32_t n_redundant;    /* replicas of experts beyond one of each */
    uint32_t n_microbatches; /* 0: as many as pay */
    bool balances;           /* experts move between ranks */
    bool shares_prompts;     /* ranks share rows of uneven prompts */
    uint32_t balance_window; /* passes; 0: the default */
    /* Of n_threads, for an instance of their own that runs prompts; 0: one instance does all. */
    uint32_t n_prefill_threads;
} cmi_model_options;

/* Prints a command's usage; called with its own options and those above. */
typedef void cmi_help_fn(const cmi_option *own, const cmi_option *model);

/* Parses the arguments of a command that takes a model. own ends with a row without names.
 * False: the command is over, after --help, a wrong option or without a model, with
 * *exit_status_out. */
CMI_NODISCARD bool cmi_cli_parse(const cmi_option *own, cmi_model_options *opt, cmi_help_fn *help,
                                 int argc, char **argv, int *exit_status_out);

/* The same for a command that may go without: opt->model may be NULL then. */
CMI_NODISCARD bool cmi_cli_parse_any(const cmi_option *own, cmi_model_options *opt,
                                     cmi_help_fn *help, int argc, char **argv,
                                     int *exit_status_out);

/* What --isa said. CMI_ERR_INVALID. */
CMI_NODISCARD cmi_status cmi_cli_parse_isa(const char *name, cmi_isa *isa_out, cmi_error *err);

/* Prints "cminfer: LINE" for a wrong combination of options and returns CMI_EXIT_USAGE. */
int cmi_cli_usage(const char *line);

/* Finds the model's directory and opens it, with a progress bar when standard error is a terminal
 * and a line that says what is in use. dir_out receives the directory (initialized here, deinit it
 * always). */
CMI_NODISCARD cmi_status cmi_cli_open_model(cmi_instance **instance_out, cmi_buf *dir_out,
                                            const cmi_model_options *opt, bool with_mtp,
                                            cmi_error *err);

/* The directory of opt's model. */
CMI_NODISCARD cmi_status cmi_cli_find_model(cmi_buf *dir_out, const cmi_model_options *opt,
                                            cmi_error *err);

/* The parts of cmi_cli_open_model, for instances that are opened beside: how long and how many
 * sequences may be, then all but MODEL. */
cmi_instance_options cmi_cli_sized_options(const cmi_model_options *opt, bool with_mtp);
CMI_NODISCARD cmi_status cmi_cli_instance_options(cmi_instance_options *instance,
                                                  const cmi_model_options *opt, cmi_error *err);

/* The same for a command that has filled in instance (how many sequences, random weights) before;
 * what opt says comes to it. model_dir of random weights is what to call them. */
CMI_NODISCARD cmi_status cmi_cli_open_instance(cmi_instance **instance_out, cmi_buf *dir_out,
                                               cmi_instance_options *instance,
                                               const cmi_model_options *opt, cmi_error *err);

#endif
