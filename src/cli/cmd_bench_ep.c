/* cli/cmd_bench_ep.c - `cminfer bench ep`: what it costs to send rows to experts of other ranks. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/bench/bench.h"
#include "cli/bench/ep_process.h"
#include "cli/commands.h"
#include "cluster/launch.h"

static void print_help(const cmi_option *own)
{
    printf(
        "Usage: cminfer bench ep [OPTION]...\n"
        "       cminfer bench ep --ep-hosts HOST:PORT,... --rank R [OPTION]...\n"
        "       srun, mpirun or torchrun ... cminfer bench ep --launch [OPTION]...\n"
        "\n"
        "Ranks, each with one computing thread, send INT8 rows to each other's experts (dispatch)\n"
        "and BF16 results back (combine), as a step of a layer does. They are threads of this\n"
        "process, or processes of any hosts, of which rank 0 prints. Those prove to each other "
        "that\n"
        "they know the secret in CMINFER_CLUSTER_SECRET, and copies are to their own memory.\n"
        "Experts are drawn uniformly. Dispatch ends when a rank has everybody's rows; sorting "
        "them\n"
        "to its experts, a copy for each, comes apart. GB/s are of the bytes that a rank sends, "
        "to\n"
        "itself, too. \"of put\" and \"of copy\" is the time that all ranks need in the same run "
        "to\n"
        "put, or copy, as many bytes to each other in one piece for each, as a share of ours. "
        "Before\n"
        "that each rank has seen, once, that all its rows were at their experts.\n");
    cmi_options_print("Options:", own);
    printf("\nExamples:\n"
           "  cminfer bench ep\n"
           "  cminfer bench ep --ranks 2 --rows 128 --puts --json\n"
           "  cminfer bench ep --ranks 2 --fabric ucx\n"
           "  cminfer bench ep --ranks 2,4 --delay 200\n"
           "  CMINFER_CLUSTER_SECRET=... cminfer bench ep --ep-hosts a:7000,b:7000 --rank 0\n");
}

static void print_row(cmi_bench_out *out, uint32_t n_ranks, const cmi_bench_ep_options *opt,
                      const cmi_bench_ep_result *r)
{
    const bool is_mapped = !opt->by_put && opt->delay_us == 0 && strcmp(opt->fabric, "local") == 0;
    const cmi_bench_cell cells[] = {
        {"ranks", "ranks", CMI_BENCH_COUNT, NULL, n_ranks},
        {"rows", "rows", CMI_BENCH_COUNT, NULL, opt->n_rows},
        {"delay_us", NULL, CMI_BENCH_COUNT, NULL, opt->delay_us},
        {"fabric", "fabric", CMI_BENCH_TEXT, opt->fabric, .width = 6},
        {"way", "way", CMI_BENCH_TEXT, is_mapped ? "direct" : "put", .width = 6},
        {"message_bytes", NULL, CMI_BENCH_COUNT, NULL, r->message_bytes},
        {"result_bytes", NULL, CMI_BENCH_COUNT, NULL, r->result_bytes},
        {"dispatch_bytes", NULL, CMI_BENCH_COUNT, NULL, r->dispatch_bytes},
        {"dispatch_seconds", "dispatch us", CMI_BENCH_REAL, NULL, r->dispatch_s, .width = 11,
         .scale = 1e6, .decimals = 1},
        {"dispatch_bytes_per_s", "GB/s", CMI_BENCH_REAL, NULL, r->dispatch_bytes / r->dispatch_s,
         .width = 6, .scale = 1e-9, .decimals = 2},
        {"dispatch_share_of_put", "of put", CMI_BENCH_REAL, NULL, r->dispatch_put_s / r->dispatch_s,
         .width = 7, .scale = 100, .decimals = 1, .unit = "%"},
        {"dispatch_share", "of copy", CMI_BENCH_REAL, NULL, r->dispatch_copy_s / r->dispatch_s,
         .width = 7, .scale = 100, .decimals = 1, .unit = "%"},
        {"sort_seconds", "sort us", CMI_BENCH_REAL, NULL, r->sort_s, .width = 8, .scale = 1e6,
         .decimals = 1},
        {"combine_bytes", NULL, CMI_BENCH_COUNT, NULL, r->combine_bytes},
        {"combine_seconds", "combine us", CMI_BENCH_REAL, NULL, r->combine_s, .width = 11,
         .scale = 1e6, .decimals = 1},
        {"combine_bytes_per_s", "GB/s", CMI_BENCH_REAL, NULL, r->combine_bytes / r->combine_s,
         .width = 6, .scale = 1e-9, .decimals = 2},
        {"combine_share_of_put", "of put", CMI_BENCH_REAL, NULL, r->combine_put_s / r->combine_s,
         .width = 7, .scale = 100, .decimals = 1, .unit = "%"},
        {"combine_share", "of copy", CMI_BENCH_REAL, NULL, r->combine_copy_s / r->combine_s,
         .width = 7, .scale = 100, .decimals = 1, .unit = "%"},
    };
    cmi_bench_out_row(out, cells, CMI_LEN(cells));
}

typedef struct ep_command {
    const char *ranks_text;
    bool json;
    cmi_bench_ep_options bench;
    cmi_bench_ep_hosts hosts;
    /* from those: */
    bool has_processes;
    cmi_bench_list ranks;         /* else */
    cmi_bench_ep_process process; /* which of them this is */
} ep_command;

/* What options mean together. */
static cmi_status prepare(ep_command *c, cmi_error *err)
{
    const char *text = c->ranks_text != NULL ? c->ranks_text : "2,4,8,16";
    c->has_processes =
        c->hosts.list != NULL || c->hosts.launch || c->hosts.rank != CMI_LAUNCH_UNKNOWN;
    if (c->bench.fabric == NULL) {
        c->bench.fabric = c->has_processes ? "ucx" : "local";
    }
    if (c->bench.top_k > c->bench.n_experts) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--top-k is more than --experts");
    }
    if (!c->has_processes) {
        return cmi_bench_list_parse(&c->ranks, "ranks", text, 1, CMI_BENCH_EP_MAX_RANKS, err);
    }
    if (c->ranks_text != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--ranks is of threads, not of processes");
    }
    return cmi_bench_ep_find_hosts(&c->process, &c->hosts, c->bench.fabric, err);
}

static cmi_status run(const ep_command *c, cmi_error *err)
{
    cmi_bench_out out = {.format = c->json ? CMI_BENCH_JSON : CMI_BENCH_MD};
    cmi_bench_ep_result result;
    cmi_status st = CMI_OK;
    if (c->has_processes) {
        cmi_log_set_level(CMI_LOG_WARN);
        st = cmi_bench_ep_process_run(&result, &c->process, &c->bench, err);
        if (st == CMI_OK && c->process.rank == 0) {
            print_row(&out, c->process.n_ranks, &c->bench, &result);
        }
        return st;
    }
    for (size_t i = 0; st == CMI_OK && i < c->ranks.n; i++) {
        st = cmi_bench_ep_run(&result, c->ranks.values[i], &c->bench, err);
        if (st == CMI_OK) {
            print_row(&out, c->ranks.values[i], &c->bench, &result);
        }
    }
    return st;
}

int cmi_cmd_bench_ep(int argc, char **argv)
{
    ep_command c = {
        .bench = {.n_rows = 128, .hidden = 7168, .top_k = 8, .n_experts = 256, .n_rounds = 51},
        .hosts = {.rank = CMI_LAUNCH_UNKNOWN, .join_s = 60}};
    cmi_bench_ep_options *b = &c.bench;
    const cmi_option own[] = {
        {"ranks", "N,...", "threads; how many (default 2,4,8,16)", CMI_OPTION_TEXT, &c.ranks_text,
         0, 0},
        {"ep-hosts|hosts", "HOST:PORT,...",
         "processes: where each listens, rank 0 first; or\nlocal:NAME,...", CMI_OPTION_TEXT,
         &c.hosts.list, 0, 0},
        {"rank|node-rank", "R", "of them, this one (default: what a launcher's variables say)",
         CMI_OPTION_UINT, &c.hosts.rank, 0, CMI_BENCH_EP_MAX_RANKS - 1},
        {"launch", NULL,
         "processes of srun, mpirun or torchrun, which say this one's rank;\n"
         "without --ep-hosts they meet at MASTER_ADDR:MASTER_PORT",
         CMI_OPTION_FLAG, &c.hosts.launch, 0, 0},
        {"dist-timeout", "S", "processes: how long each waits for the others (default 60)",
         CMI_OPTION_UINT, &c.hosts.join_s, 1, 86400},
        {"fabric", "KIND", "what connects them: local or ucx (default local; processes: ucx)",
         CMI_OPTION_TEXT, &b->fabric, 0, 0},
        {"rows", "N", "of each rank (default 128)", CMI_OPTION_UINT, &b->n_rows, 1, 4096},
        {"hidden", "N", "values of a row (default 7168)", CMI_OPTION_UINT, &b->hidden, 64, 65536},
        {"experts", "N", "of a layer (default 256)", CMI_OPTION_UINT, &b->n_experts, 1, 2048},
        {"top-k", "N", "experts of a row (default 8)", CMI_OPTION_UINT, &b->top_k, 1, 64},
        {"rounds", "N", "whose median counts (default 51)", CMI_OPTION_UINT, &b->n_rounds, 1,
         CMI_BENCH_EP_MAX_ROUNDS},
        {"puts", NULL, "through puts, as over a network, not straight into memory", CMI_OPTION_FLAG,
         &b->by_put, 0, 0},
        {"delay", "US", "added to each put and signal (default 0)", CMI_OPTION_UINT, &b->delay_us,
         0, 1000000},
        {"json", NULL, "one JSON object a line instead of a table", CMI_OPTION_FLAG, &c.json, 0, 0},
        {0},
    };
    const cmi_option *const tables[] = {own, NULL};
    cmi_command_line line = {.tables = tables};
    cmi_error err = {0};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        print_help(own);
        return CMI_EXIT_OK;
    }
    st = st == CMI_OK ? prepare(&c, &err) : st;
    if (st != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    st = run(&c, &err);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
