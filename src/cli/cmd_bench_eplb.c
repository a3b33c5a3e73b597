/* cli/cmd_bench_eplb.c - `cminfer bench eplb`: what moving experts between ranks costs and brings.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/bench/eplb.h"
#include "cli/bench/model_source.h"
#include "cli/bench/rig.h"
#include "cli/commands.h"
#include "os/host_processor.h"

enum { MAX_ROUNDS = 51 };

typedef struct eplb_options {
    cmi_model_options model;
    const char *redundant, *routing;
    cmi_bench_model_source source;
    uint32_t n_rounds;
    bool json;
    /* what they come to */
    cmi_bench_list n_redundant;
    cmi_bench_eplb_options eplb;
} eplb_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf(
        "Usage: cminfer bench eplb MODEL [OPTION]...\n"
        "       cminfer bench eplb --config FILE --random-weights [OPTION]...\n"
        "\n"
        "Ranks, each a thread of this process with a part of the experts and of --threads, run\n"
        "passes whose rows want some experts more than others, with --enable-eplb: a window of\n"
        "passes before experts move, those while they do, and a window after. Each round opens\n"
        "the instance anew; all numbers of redundant experts take turns; medians of the rounds.\n"
        "\n"
        "\"imbalance\" is what the experts of the busiest rank compute by the mean of ranks, as\n"
        "counted; times are of a pass until its slowest rank is done; \"by median\" is the\n"
        "longest pass of the same phase of a round by its median, and \"slow\" are the passes "
        "that\n"
        "took more than 1.2 times the median: where other processes want the processors, too,\n"
        "some do in each phase.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench eplb models/matrix-tiny --redundant 0,8\n"
           "  cminfer bench eplb --config config.json --random-weights -q w8a8-int8 \\\n"
           "      --override num_hidden_layers=2 --redundant 0,16,32,64 --ep 2\n");
}

static cmi_status check(eplb_options *opt, cmi_error *err)
{
    opt->eplb.routing = CMI_BENCH_ROUTING_ZIPF;
    if (opt->routing != NULL && (!cmi_bench_routing_parse(opt->routing, &opt->eplb.routing) ||
                                 opt->eplb.routing == CMI_BENCH_ROUTING_GATE)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--routing takes uniform or zipf, not \"%s\"",
                             opt->routing);
    }
    cmi_status st =
        cmi_bench_list_parse(&opt->n_redundant, "redundant",
                             opt->redundant != NULL ? opt->redundant : "0", 0, 1024, err);
    return st == CMI_OK
               ? cmi_bench_model_source_read(&opt->source, "bench eplb", opt->model.model, err)
               : st;
}

static double median(const cmi_bench_eplb_result *results, uint32_t n,
                     double (*value)(const cmi_bench_eplb_result *r))
{
    cmi_bench_samples samples = {.n = 0};
    for (uint32_t i = 0; i < n; i++) {
        cmi_bench_sample(&samples, value(&results[i]));
    }
    return cmi_bench_median(&samples);
}

#define VALUE(name, expression)                                                                    \
    static double name(const cmi_bench_eplb_result *r)                                             \
    {                                                                                              \
        return expression;                                                                         \
    }
VALUE(n_moves, (double)r->n_moves)
VALUE(imbalance_before, r->before.imbalance)
VALUE(planned, r->planned)
VALUE(imbalance_after, r->after.imbalance)
VALUE(before_s, r->before.median_s)
VALUE(longest_before, r->before.longest_s / r->before.median_s)
VALUE(n_moving, r->moving.n_passes)
VALUE(moving_s, r->moving.median_s)
VALUE(longest_moving, r->moving.n_passes > 0 ? r->moving.longest_s / r->moving.median_s : 1)
VALUE(after_s, r->after.median_s)
VALUE(longest_after, r->after.longest_s / r->after.median_s)
VALUE(slow_before, r->before.slow_share)
VALUE(slow_moving, r->moving.slow_share)
VALUE(slow_after, r->after.slow_share)
VALUE(gain, r->before.median_s / r->after.median_s - 1)
#undef VALUE

static void print_row(cmi_bench_out *out, const eplb_options *opt, uint32_t n_redundant,
                      const cmi_bench_eplb_result *r)
{
    const uint32_t n = opt->n_rounds;
    const double n_tokens = (double)opt->eplb.n_rows * opt->eplb.n_ranks;
#define REAL(name, head, value, ...)                                                               \
    {                                                                                              \
        name, head, CMI_BENCH_REAL, NULL, value, __VA_ARGS__                                       \
    }
    const cmi_bench_cell cells[] = {
        {"ranks", "ranks", CMI_BENCH_COUNT, NULL, opt->eplb.n_ranks},
        {"redundant", "redundant", CMI_BENCH_COUNT, NULL, n_redundant, .width = 9},
        REAL("moves", "moves", median(r, n, n_moves), .width = 5, .decimals = 0),
        REAL("imbalance_before", "imbalance", median(r, n, imbalance_before), .width = 9,
             .decimals = 2),
        REAL("imbalance_planned", "planned", median(r, n, planned), .width = 7, .decimals = 2),
        REAL("imbalance_after", "after", median(r, n, imbalance_after), .width = 5, .decimals = 2),
        REAL("before_seconds", "before ms", median(r, n, before_s), .width = 9, .scale = 1e3,
             .decimals = 2),
        REAL("before_longest", "by median", median(r, n, longest_before), .width = 9,
             .decimals = 2),
        REAL("before_slow_share", "slow", median(r, n, slow_before), .width = 5, .scale = 100,
             .decimals = 1, .unit = "%"),
        REAL("moving_passes", "passes", median(r, n, n_moving), .width = 6, .decimals = 0),
        REAL("moving_seconds", "moving ms", median(r, n, moving_s), .width = 9, .scale = 1e3,
             .decimals = 2),
        REAL("moving_longest", "by median", median(r, n, longest_moving), .width = 9,
             .decimals = 2),
        REAL("moving_slow_share", "slow", median(r, n, slow_moving), .width = 5, .scale = 100,
             .decimals = 1, .unit = "%"),
        REAL("after_seconds", "after ms", median(r, n, after_s), .width = 8, .scale = 1e3,
             .decimals = 2),
        REAL("after_longest", "by median", median(r, n, longest_after), .width = 9, .decimals = 2),
        REAL("after_slow_share", "slow", median(r, n, slow_after), .width = 5, .scale = 100,
             .decimals = 1, .unit = "%"),
        REAL("before_tokens_per_s", "tokens/s", n_tokens / median(r, n, before_s), .width = 8,
             .decimals = 0),
        REAL("after_tokens_per_s", "after", n_tokens / median(r, n, after_s), .width = 8,
             .decimals = 0),
        REAL("gain", "gain", median(r, n, gain), .width = 6, .scale = 100, .decimals = 1,
             .unit = "%"),
    };
#undef REAL
    cmi_bench_out_row(out, cells, CMI_LEN(cells));
}

static cmi_status run(eplb_options *opt, cmi_error *err)
{
    static cmi_bench_eplb_result results[CMI_BENCH_MAX_LIST][MAX_ROUNDS];
    cmi_bench_out out = {.format = opt->json ? CMI_BENCH_JSON : CMI_BENCH_MD};
    cmi_instance_options *instance = &opt->eplb.instance;
    cmi_buf dir;
    const uint32_t n_threads =
        opt->model.n_threads > 0 ? opt->model.n_threads : cmi_host_processors();
    cmi_buf_init(&dir, 4096);
    opt->model.n_threads = CMI_MAX(n_threads / opt->eplb.n_ranks, 1u);
    opt->model.max_num_batched_tokens = CMI_MAX(opt->eplb.n_rows, (uint32_t)CMI_KV_PAGE_TOKENS);
    *instance = (cmi_instance_options){.max_model_len = CMI_KV_PAGE_TOKENS};
    cmi_status st = cmi_cli_instance_options(instance, &opt->model, err);
    if (st == CMI_OK && opt->source.config == NULL) {
        st = cmi_cli_find_model(&dir, &opt->model, err);
    }
    instance->model_dir = cmi_buf_cstr(&dir);
    cmi_bench_model_source_set(&opt->source, instance);
    for (uint32_t i = 0; st == CMI_OK && i < opt->n_rounds; i++) {
        for (size_t k = 0; st == CMI_OK && k < opt->n_redundant.n; k++) {
            opt->eplb.n_redundant = opt->n_redundant.values[k];
            st = cmi_bench_eplb_run(&results[k][i], &opt->eplb, err);
        }
    }
    for (size_t k = 0; st == CMI_OK && k < opt->n_redundant.n; k++) {
        print_row(&out, opt, opt->n_redundant.values[k], results[k]);
    }
    cmi_buf_deinit(&dir);
    return st;
}

int cmi_cmd_bench_eplb(int argc, char **argv)
{
    enum { N_OWN = 8 };
    eplb_options opt = {.n_rounds = 3, .eplb = {.n_ranks = 2, .n_rows = 32, .window = 200}};
    cmi_option own[N_OWN + CMI_BENCH_MODEL_SOURCE_OPTIONS + 1] = {
        {"ep", "N", "ranks (default 2)", CMI_OPTION_UINT, &opt.eplb.n_ranks, 2,
         CMI_BENCH_EPLB_MAX_RANKS},
        {"redundant", "N,...", "experts of a layer beyond one of each (default 0)", CMI_OPTION_TEXT,
         &opt.redundant, 0, 0},
        {"batch", "N", "sequences that decode on each rank (default 32)", CMI_OPTION_UINT,
         &opt.eplb.n_rows, 1, 4096},
        {"window", "N", "passes before experts move, and after (default 200)", CMI_OPTION_UINT,
         &opt.eplb.window, 10, CMI_BENCH_EPLB_MAX_WINDOW},
        {"routing", "HOW",
         "to which experts: zipf (the default: the k-th in demand in\n"
         "proportion to 1/k, in an order of its own) or uniform",
         CMI_OPTION_TEXT, &opt.routing, 0, 0},
        {"pause", "US",
         "between passes, not counted (default 0). Under a real-time policy,\n"
         "so that the system does not take its share of a pass",
         CMI_OPTION_UINT, &opt.eplb.pause_us, 0, 1000000},
        {"rounds|r", "N", "whose medians count (default 3)", CMI_OPTION_UINT, &opt.n_rounds, 1,
         MAX_ROUNDS},
        {"json", NULL, "one JSON object a line instead of a table", CMI_OPTION_FLAG, &opt.json, 0,
         0},
        {0},
    };
    cmi_bench_model_source_add_options(own, &opt.source);
    int exit_status;
    if (!cmi_cli_parse_any(own, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    cmi_error err = {0};
    cmi_log_set_level(CMI_LOG_WARN); /* each round would tell of its ranks */
    if (check(&opt, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    return run(&opt, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
