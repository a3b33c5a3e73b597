/* cli/cmd_bench_ep.c - `cminfer bench ep`: what it costs to send rows to experts of other ranks. */
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "cli/bench/ep.h"
#include "cli/commands.h"

static void print_help(const cmi_option *own)
{
    printf(
        "Usage: cminfer bench ep [OPTION]...\n"
        "\n"
        "Ranks, each a thread of this process with one computing thread, send INT8 rows to each\n"
        "other's experts (dispatch) and BF16 results back (combine), as a step of a layer does.\n"
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
           "  cminfer bench ep --ranks 2,4 --delay 200\n");
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

static cmi_status run(const cmi_bench_list *ranks, const cmi_bench_ep_options *opt,
                      cmi_bench_format format, cmi_error *err)
{
    cmi_bench_out out = {.format = format};
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < ranks->n; i++) {
        cmi_bench_ep_result result;
        st = cmi_bench_ep_run(&result, ranks->values[i], opt, err);
        if (st == CMI_OK) {
            print_row(&out, ranks->values[i], opt, &result);
        }
    }
    return st;
}

int cmi_cmd_bench_ep(int argc, char **argv)
{
    const char *ranks_text = "2,4,8,16";
    bool json = false;
    cmi_bench_ep_options opt = {.fabric = "local",
                                .n_rows = 128,
                                .hidden = 7168,
                                .top_k = 8,
                                .n_experts = 256,
                                .n_rounds = 51};
    const cmi_option own[] = {
        {"ranks", "N,...", "how many (default 2,4,8,16)", CMI_OPTION_TEXT, &ranks_text, 0, 0},
        {"fabric", "KIND", "what connects them: local or ucx (default local)", CMI_OPTION_TEXT,
         &opt.fabric, 0, 0},
        {"rows", "N", "of each rank (default 128)", CMI_OPTION_UINT, &opt.n_rows, 1, 4096},
        {"hidden", "N", "values of a row (default 7168)", CMI_OPTION_UINT, &opt.hidden, 64, 65536},
        {"experts", "N", "of a layer (default 256)", CMI_OPTION_UINT, &opt.n_experts, 1, 2048},
        {"top-k", "N", "experts of a row (default 8)", CMI_OPTION_UINT, &opt.top_k, 1, 64},
        {"rounds", "N", "whose median counts (default 51)", CMI_OPTION_UINT, &opt.n_rounds, 1,
         CMI_BENCH_EP_MAX_ROUNDS},
        {"puts", NULL, "through puts, as over a network, not straight into memory", CMI_OPTION_FLAG,
         &opt.by_put, 0, 0},
        {"delay", "US", "added to each put and signal (default 0)", CMI_OPTION_UINT, &opt.delay_us,
         0, 1000000},
        {"json", NULL, "one JSON object a line instead of a table", CMI_OPTION_FLAG, &json, 0, 0},
        {0},
    };
    const cmi_option *const tables[] = {own, NULL};
    cmi_command_line line = {.tables = tables};
    cmi_error err = {0};
    cmi_bench_list ranks;
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        print_help(own);
        return CMI_EXIT_OK;
    }
    if (st == CMI_OK) {
        st = cmi_bench_list_parse(&ranks, "ranks", ranks_text, 1, CMI_BENCH_EP_MAX_RANKS, &err);
    }
    if (st != CMI_OK || opt.top_k > opt.n_experts) {
        return cmi_cli_usage(st != CMI_OK ? err.text : "--top-k is more than --experts");
    }
    st = run(&ranks, &opt, json ? CMI_BENCH_JSON : CMI_BENCH_MD, &err);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
