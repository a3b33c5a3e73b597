/* cli/ranks.h - an instance of several ranks: the processes of it on this host, and this one's
 * place among them all.
 *
 * The first process of a host (a command with --ep N) starts the others: this program with the same
 * arguments, and in the environment which rank it is. Of several hosts (cli/rank_hosts.h) the user
 * or a launcher starts the first process on each; all have the secret in CMINFER_CLUSTER_SECRET.
 * Thread: the main thread. */
#ifndef CMI_CLI_RANKS_H
#define CMI_CLI_RANKS_H

#include "cli/commands.h"
#include "cli/rank_hosts.h"
#include "os/child.h"

typedef struct cmi_cli_ranks {
    uint32_t n;              /* 1: no ranks; this process has it all */
    uint32_t first, n_local; /* ranks of this host: those that its first process starts */
    bool is_started;         /* by a first process */
    uint32_t place;          /* of this process, once it has joined */
    cmi_rank_hosts hosts;
    char secret[CMI_FABRIC_MAX_SECRET + 1];
    cmi_child children[CMI_CLI_MAX_RANKS]; /* by place */
    /* of a process with a place */
    bool spins; /* for long, since nobody else needs its processors */
    cmi_fabric *fabric;
    cmi_membership *membership;
    cmi_rank_options options;
} cmi_cli_ranks;

/* Behind the table's last option: those of commands that can run ranks. */
enum { CMI_CLI_RANK_OPTIONS = 8 };
void cmi_cli_ranks_add_options(cmi_option *table, cmi_model_options *opt);

/* What main was given; the others are started with it. */
void cmi_cli_ranks_remember(char **argv);

/* Looks whether this process was started as a rank, makes a name otherwise; starts nobody.
 * CMI_ERR_INVALID: options that do not go together. */
CMI_NODISCARD cmi_status cmi_cli_ranks_begin(cmi_cli_ranks *ranks, const cmi_model_options *opt,
                                             cmi_error *err);

/* Starts the process of a place. */
CMI_NODISCARD cmi_status cmi_cli_ranks_start(cmi_cli_ranks *ranks, uint32_t place, cmi_error *err);

/* Takes the place that this process was started for, or else the first of the host, its part of the
 * threads (in opt), and makes instance one of a rank. is_alone: this process has nothing to do but
 * its passes; a server's rank has a port, too (engine/rank_port.h), which waits where it spins. */
CMI_NODISCARD cmi_status cmi_cli_ranks_join(cmi_cli_ranks *ranks, cmi_model_options *opt,
                                            bool is_alone, cmi_instance_options *instance,
                                            cmi_error *err);

/* Ends the others; before the instance is closed, or they would go on without this rank. */
void cmi_cli_ranks_end_others(cmi_cli_ranks *ranks);

/* After it is closed. */
void cmi_cli_ranks_end(cmi_cli_ranks *ranks);

#endif
