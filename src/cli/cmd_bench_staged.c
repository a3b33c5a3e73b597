/* cli/cmd_bench_staged.c - `cminfer bench staged`: uneven prompts, each by its own rank and by all
 * of them. */
#include <stdio.h>

#include "base/alloc.h"
#include "cli/bench/model_source.h"
#include "cli/bench/staged.h"
#include "cli/commands.h"
#include "engine/engine.h"

typedef struct staged_options {
    cmi_model_options model;
    cmi_bench_model_source source;
    const char *n_prompt;
    bool json;
    cmi_bench_staged_options staged;
} staged_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer bench staged MODEL [OPTION]...\n"
           "       cminfer bench staged --config FILE --random-weights [OPTION]...\n"
           "\n"
           "Ranks, each a thread of this process with a part of the experts, compute prompts of\n"
           "different lengths: data-parallel, where a rank has attention, projections and shared\n"
           "experts of its own prompts, and in stages, where all ranks share the rows of all "
           "prompts,\n"
           "and the heads in attention. Both give the same bits, or the command fails. A rank is\n"
           "idle while it waits for the others.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench staged models/matrix-tiny\n"
           "  cminfer bench staged models/matrix-tiny --ep 4 -p 1000,50 --chunk 256\n"
           "  cminfer bench staged --config config.json --random-weights \\\n"
           "      --override num_hidden_layers=4 -q w8a8-int8 -p 100,2000\n");
}

static cmi_status check(staged_options *opt, cmi_error *err)
{
    enum { MAX_TOKENS = 1 << 17 };
    cmi_status st =
        cmi_bench_list_parse(&opt->staged.prompts, "n-prompt",
                             opt->n_prompt != NULL ? opt->n_prompt : "50,1000", 1, MAX_TOKENS, err);
    return st == CMI_OK
               ? cmi_bench_model_source_read(&opt->source, "bench staged", opt->model.model, err)
               : st;
}

static void print_rows(const staged_options *opt, const cmi_bench_staged_result *r)
{
    static const char *const names[] = {"data-parallel", "staged"};
    cmi_bench_out out = {.format = opt->json ? CMI_BENCH_JSON : CMI_BENCH_MD};
    double n_tokens = 0;
    for (size_t i = 0; i < opt->staged.prompts.n; i++) {
        n_tokens += opt->staged.prompts.values[i];
    }
    for (uint32_t way = 0; way < CMI_BENCH_N_PREFILL_WAYS; way++) {
        const cmi_bench_cell_kind only_staged =
            way == CMI_BENCH_PREFILL_STAGED ? CMI_BENCH_REAL : CMI_BENCH_NONE;
        const cmi_bench_cell cells[] = {
            {"ranks", "ranks", CMI_BENCH_COUNT, NULL, opt->staged.n_ranks},
            {"tokens", "tokens", CMI_BENCH_COUNT, NULL, n_tokens, .width = 6},
            {"passes", "passes", CMI_BENCH_COUNT, NULL, r->n_passes},
            {"delay_us", "delay us", CMI_BENCH_COUNT, NULL, opt->staged.delay_us, .width = 8},
            {"way", "way", CMI_BENCH_TEXT, names[way], .width = 13},
            {"seconds", "ms", CMI_BENCH_REAL, NULL, r->seconds[way], .width = 8, .scale = 1e3,
             .decimals = 1},
            {"tokens_per_s", "tokens/s", CMI_BENCH_REAL, NULL, n_tokens / r->seconds[way],
             .width = 9, .decimals = 1},
            {"idle_share", "idle", CMI_BENCH_REAL, NULL, r->idle[way], .width = 6, .scale = 100,
             .decimals = 1, .unit = "%"},
            {"gain", "gain", only_staged, NULL, r->gain, .width = 6, .scale = 100, .decimals = 1,
             .unit = "%"},
            {"staged_bytes", "MB staged", only_staged, NULL, r->staged_bytes, .width = 9,
             .scale = 1e-6, .decimals = 1},
        };
        cmi_bench_out_row(&out, cells, CMI_LEN(cells));
    }
}

static cmi_status run(staged_options *opt, cmi_error *err)
{
    cmi_bench_staged_result result;
    cmi_instance *in = NULL;
    cmi_buf dir;
    cmi_instance_options options = {
        .max_num_seqs = 1, .max_model_len = CMI_KV_PAGE_TOKENS, .n_kv_tokens = CMI_KV_PAGE_TOKENS};
    opt->model.max_num_batched_tokens = CMI_KV_PAGE_TOKENS; /* ranks have passes of their own */
    cmi_bench_model_source_set(&opt->source, &options);
    cmi_status st = cmi_cli_open_instance(&in, &dir, &options, &opt->model, err);
    st = st == CMI_OK ? cmi_bench_staged_run(&result, in, &opt->staged, err) : st;
    if (st == CMI_OK) {
        print_rows(opt, &result);
    }
    cmi_instance_close(in);
    cmi_buf_deinit(&dir);
    return st;
}

int cmi_cmd_bench_staged(int argc, char **argv)
{
    enum { N_OWN = 6 };
    staged_options opt = {.staged = {.n_ranks = 2, .n_rounds = 11, .chunk = 512}};
    cmi_option own[N_OWN + CMI_BENCH_MODEL_SOURCE_OPTIONS + 1] = {
        {"ep", "N", "ranks (default 2); each has its part of --threads", CMI_OPTION_UINT,
         &opt.staged.n_ranks, 1, CMI_BENCH_STAGED_MAX_RANKS},
        {"n-prompt|p", "N,...", "lengths of prompts, dealt out to the ranks (default 50,1000)",
         CMI_OPTION_TEXT, &opt.n_prompt, 0, 0},
        {"chunk", "N", "rows of a rank's own prompts in a pass, at most (default 512)",
         CMI_OPTION_UINT, &opt.staged.chunk, 1, 1 << 14},
        {"delay", "US", "added to each put and signal (default: none, and no puts)",
         CMI_OPTION_UINT, &opt.staged.delay_us, 1, 1000000},
        {"rounds|r", "N", "whose median counts (default 11)", CMI_OPTION_UINT, &opt.staged.n_rounds,
         1, CMI_BENCH_STAGED_MAX_ROUNDS},
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
    if (check(&opt, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    return run(&opt, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
