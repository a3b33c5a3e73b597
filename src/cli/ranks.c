#include "cli/ranks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/instance_rank.h"
#include "os/affinity.h"
#include "os/host_memory.h"
#include "os/random.h"

/* Set for the processes that a first one starts. */
#define RANK_VARIABLE "CMINFER_EP_RANK"
#define NAME_VARIABLE "CMINFER_EP_NAME"
#define PARENT_VARIABLE "CMINFER_EP_PARENT"

enum { SECRET_BYTES = 32, RING_BYTES = 1 << 18, LINE_BYTES = CMI_FABRIC_MAX_SECRET + 64 };

extern char **environ;

static const uint64_t SECOND = 1000000000;
/* How long a rank that has processors for itself waits before it sleeps: longer than ranks of a
 * pass are apart as a rule, and than the kernel takes to wake one. */
static const uint64_t SPIN_NS = 1000000;
static char **program_argv;

void cmi_cli_ranks_remember(char **argv)
{
    program_argv = argv;
}

void cmi_cli_ranks_add_options(cmi_option *table, cmi_model_options *opt)
{
    const cmi_option options[CMI_CLI_RANK_OPTIONS + 1] = {
        {"ep|ep-size", "N",
         "ranks that the experts are spread over, each a process with its\n"
         "part of the host's --threads (default 1)",
         CMI_OPTION_UINT, &opt->n_ranks, 1, CMI_CLI_MAX_RANKS},
        {"ep-hosts", "HOST:PORT,...",
         "the hosts that have these ranks, as many each; two ports of each\n"
         "for every rank, from PORT on. The same command is started on all,\n"
         "with CMINFER_CLUSTER_SECRET set; the first one answers requests",
         CMI_OPTION_TEXT, &opt->rank_hosts, 0, 0},
        {"node-rank", "N",
         "which of them this is, from 0 on (default: what Slurm's srun,\n"
         "mpirun or torchrun says, or else 0)",
         CMI_OPTION_UINT, &opt->rank_host, 0, CMI_CLI_MAX_HOSTS - 1},
        {"ep-num-redundant-experts", "N",
         "replicas of experts beyond one of each, in every layer (default 0)", CMI_OPTION_UINT,
         &opt->n_redundant, 0, 1024},
        {"enable-eplb", NULL,
         "move experts between ranks by how much they are asked, in the\n"
         "background",
         CMI_OPTION_FLAG, &opt->balances, 0, 0},
        {"eplb-rebalance-num-iterations|eplb-step-interval", "N",
         "steps between looks at that (default 1000)", CMI_OPTION_UINT, &opt->balance_window, 1,
         1 << 30},
        {"ep-microbatches", "N",
         "parts of a step that take turns, so that one computes while rows\n"
         "of the other are on their way: 1, 2, or 0 (the default): as pays",
         CMI_OPTION_UINT, &opt->n_microbatches, 0, 2},
        {"ep-staged-prefill", NULL,
         "share rows and heads of uneven prompts among all ranks, so that\n"
         "none waits for one with a long prompt",
         CMI_OPTION_FLAG, &opt->shares_prompts, 0, 0},
        {0},
    };
    while (table->names != NULL) {
        table++;
    }
    memcpy(table, options, sizeof options);
}

/* ---- who is who ---- */

static cmi_status make_secret(cmi_cli_ranks *ranks, cmi_error *err)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t random[SECRET_BYTES];
    const char *given;
    cmi_status st = cmi_cluster_secret_read(&given, err);
    if (st == CMI_OK && given == NULL && ranks->hosts.n_hosts > 1) {
        st = cmi_error_set(err, CMI_ERR_INVALID,
                           "ranks on several hosts need the same secret in all of them: "
                           "set " CMI_CLUSTER_SECRET_VARIABLE " (openssl rand -hex 32 makes one)");
    }
    if (st != CMI_OK) {
        return st;
    }
    if (given != NULL) {
        snprintf(ranks->secret, sizeof ranks->secret, "%s", given);
        return CMI_OK;
    }
    if (!cmi_random_bytes(random, sizeof random)) {
        return cmi_error_set(err, CMI_ERR_IO, "the kernel has no randomness for a secret");
    }
    for (size_t i = 0; i < SECRET_BYTES; i++) {
        ranks->secret[2 * i] = digits[random[i] >> 4];
        ranks->secret[2 * i + 1] = digits[random[i] & 15];
    }
    return CMI_OK;
}

static bool read_number(const char *text, uint32_t *out)
{
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    *out = (uint32_t)value;
    return errno == 0 && end != text && *end == '\0' && value <= INT32_MAX;
}

static cmi_status read_environment(cmi_cli_ranks *ranks, cmi_error *err)
{
    const char *rank = getenv(RANK_VARIABLE), *name = getenv(NAME_VARIABLE);
    const char *secret = getenv(CMI_CLUSTER_SECRET_VARIABLE), *parent = getenv(PARENT_VARIABLE);
    ranks->is_started = rank != NULL && name != NULL && secret != NULL && parent != NULL;
    if (!ranks->is_started) {
        return CMI_OK;
    }
    uint32_t place, parent_pid;
    if (!read_number(rank, &place) || !read_number(parent, &parent_pid) || place >= ranks->n ||
        strlen(name) >= sizeof ranks->hosts.name || strlen(secret) >= sizeof ranks->secret) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             RANK_VARIABLE " and its like are for processes that --ep starts");
    }
    ranks->place = place;
    snprintf(ranks->hosts.name, sizeof ranks->hosts.name, "%s", name);
    snprintf(ranks->secret, sizeof ranks->secret, "%s", secret);
    return cmi_child_die_with_parent((int)parent_pid)
               ? CMI_OK
               : cmi_error_set(err, CMI_ERR_CLOSED, "the process that started this rank is gone");
}

cmi_status cmi_cli_ranks_begin(cmi_cli_ranks *ranks, const cmi_model_options *opt, cmi_error *err)
{
    *ranks = (cmi_cli_ranks){.n = CMI_MAX(opt->n_ranks, 1u)};
    if (ranks->n == 1) {
        return opt->n_redundant == 0 && opt->rank_hosts == NULL
                   ? CMI_OK
                   : cmi_error_set(err, CMI_ERR_INVALID, "%s goes with --ep",
                                   opt->n_redundant > 0 ? "--ep-num-redundant-experts"
                                                        : "--ep-hosts");
    }
    if (opt->n_prefill_threads > 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--disaggregate does not go with --ep yet");
    }
    cmi_status st = cmi_rank_hosts_read(&ranks->hosts, ranks->n, opt->rank_hosts, opt->rank_host,
                                        (const char *const *)environ, err);
    ranks->first = cmi_rank_hosts_first(&ranks->hosts);
    ranks->n_local = cmi_rank_hosts_count(&ranks->hosts);
    st = st == CMI_OK ? read_environment(ranks, err) : st;
    return st == CMI_OK && !ranks->is_started ? make_secret(ranks, err) : st;
}

cmi_status cmi_cli_ranks_start(cmi_cli_ranks *ranks, uint32_t place, cmi_error *err)
{
    char rank[LINE_BYTES], name[LINE_BYTES], secret[LINE_BYTES], parent[LINE_BYTES];
    const char *const env[] = {rank, name, secret, parent, NULL};
    snprintf(rank, sizeof rank, RANK_VARIABLE "=%u", place);
    snprintf(name, sizeof name, NAME_VARIABLE "=%s", ranks->hosts.name);
    snprintf(secret, sizeof secret, CMI_CLUSTER_SECRET_VARIABLE "=%s", ranks->secret);
    snprintf(parent, sizeof parent, PARENT_VARIABLE "=%d", cmi_child_own_pid());
    return cmi_child_start(&ranks->children[place], program_argv, env, err);
}

/* ---- a place ---- */

static cmi_status open_fabric(cmi_cli_ranks *ranks, cmi_error *err)
{
    char name[16], address[CMI_FABRIC_MAX_ADDRESS + 1];
    cmi_fabric_options opt;
    snprintf(name, sizeof name, "rank-%u", ranks->place);
    cmi_rank_hosts_address(&ranks->hosts, ranks->place, false, address, sizeof address);
    cmi_fabric_options_default(&opt);
    opt.name = name;
    opt.secret = (const uint8_t *)ranks->secret;
    opt.secret_bytes = strlen(ranks->secret);
    opt.version = CMI_FRAME_MAJOR;
    opt.n_endpoints = 2 * ranks->n + 8;
    opt.n_remotes = 4 * (2 * ranks->n + 8);
    opt.message_bytes = CMI_EP_RANK_MESSAGE_BYTES;
    opt.ring_bytes = RING_BYTES;
    opt.handshake_ns = 60 * SECOND; /* a peer may be reading an expert */
    if (ranks->spins) {
        opt.spin_ns = SPIN_NS;
    }
    cmi_status st =
        cmi_fabric_create(&ranks->fabric, cmi_rank_hosts_fabric(&ranks->hosts), &opt, err);
    return st == CMI_OK ? cmi_fabric_listen(ranks->fabric, address, err) : st;
}

static cmi_status list_members(cmi_cli_ranks *ranks, cmi_error *err)
{
    cmi_member members[CMI_CLI_MAX_RANKS] = {0};
    for (uint32_t i = 0; i < ranks->n; i++) {
        cmi_rank_hosts_address(&ranks->hosts, i, false, members[i].address,
                               sizeof members[i].address);
    }
    return cmi_membership_create_static(&ranks->membership, members, ranks->n, ranks->place, err);
}

/* Each rank has as many threads, on processors of its own where there are enough. */
static void take_threads(cmi_cli_ranks *ranks, cmi_model_options *opt, bool is_alone)
{
    const uint32_t n_all = opt->n_threads > 0 ? opt->n_threads : cmi_host_processors();
    const uint32_t n_own = CMI_MAX(n_all / ranks->n_local, 1u);
    cmi_affinity all;
    opt->n_threads = n_own;
    if (cmi_affinity_get(&all) && cmi_affinity_count(&all) >= n_own * ranks->n_local) {
        const cmi_affinity part =
            cmi_affinity_part(&all, (ranks->place - ranks->first) * n_own, n_own);
        ranks->spins = cmi_affinity_set(&part) && is_alone;
    }
}

cmi_status cmi_cli_ranks_join(cmi_cli_ranks *ranks, cmi_model_options *opt, bool is_alone,
                              cmi_instance_options *instance, cmi_error *err)
{
    ranks->place = ranks->is_started ? ranks->place : ranks->first;
    take_threads(ranks, opt, is_alone);
    const uint32_t window = opt->balance_window > 0 ? opt->balance_window : 1000;
    cmi_status st = open_fabric(ranks, err);
    st = st == CMI_OK ? list_members(ranks, err) : st;
    ranks->options = (cmi_rank_options){.name = ranks->hosts.name,
                                        .fabric = ranks->fabric,
                                        .membership = ranks->membership,
                                        .n_redundant = opt->n_redundant,
                                        .n_microbatches = opt->n_microbatches,
                                        .shares_prompts = opt->shares_prompts,
                                        .balance_window = opt->balances ? window : 0};
    instance->rank = &ranks->options;
    return st;
}

void cmi_cli_ranks_end_others(cmi_cli_ranks *ranks)
{
    for (uint32_t i = 0; i < CMI_CLI_MAX_RANKS; i++) { /* all at once: none adopts for another */
        cmi_child_ask_to_end(&ranks->children[i]);
    }
    for (uint32_t i = 0; i < CMI_CLI_MAX_RANKS; i++) {
        cmi_child_end(&ranks->children[i], 10 * SECOND);
    }
}

void cmi_cli_ranks_end(cmi_cli_ranks *ranks)
{
    cmi_cli_ranks_end_others(ranks);
    cmi_fabric_destroy(ranks->fabric);
    cmi_membership_destroy(ranks->membership);
}
