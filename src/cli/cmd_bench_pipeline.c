/* cli/cmd_bench_pipeline.c - `cminfer bench pipeline`: what two microbatches hide of the way to
 * experts of other ranks. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/bench/model_source.h"
#include "cli/bench/pipeline.h"
#include "cli/commands.h"
#include "engine/engine.h"

typedef struct pipeline_options {
    cmi_model_options model;
    cmi_bench_model_source source;
    const char *n_prompt, *batch, *delay, *routing;
    uint32_t n_drafts, depth;
    bool json;
    /* what they come to */
    cmi_bench_list prompts, batches, delays;
    cmi_bench_pipeline_options pipeline;
} pipeline_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf(
        "Usage: cminfer bench pipeline MODEL [OPTION]...\n"
        "       cminfer bench pipeline --config FILE --random-weights [OPTION]...\n"
        "\n"
        "Ranks, each a thread of this process with a part of the experts, run passes of the model\n"
        "over puts that are held back: as one microbatch, which waits for its rows, and as two,\n"
        "of which one computes while the other's rows are on their way. Tokens/s are of all ranks\n"
        "together; times are those of the slowest rank.\n"
        "\n"
        "W1 and W2 are how much longer passes of one and of two microbatches wait for other ranks\n"
        "than without delay; \"hidden\" is the share of what can be hidden that was,\n"
        "    (n d - W2) / min(n d, t2 / 2)\n"
        "with n transfers of a microbatch in a pass, two in each layer of experts; the delay d; "
        "and\n"
        "the time t2 that two take without delay, half of which the other microbatch computes.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench pipeline models/matrix-tiny\n"
           "  cminfer bench pipeline models/matrix-tiny --ep 2 --delay 50,200,1000 --batch 64\n"
           "  cminfer bench pipeline --config config.json --random-weights \\\n"
           "      --override num_hidden_layers=4 -q w8a8-int8 -p 256 --batch 32 --drafts 1\n");
}

static cmi_status parse_lists(pipeline_options *opt, cmi_error *err)
{
    enum { MAX_ROWS = 1 << 14, MAX_DELAY_US = 1000000 };
    cmi_status st = cmi_bench_list_parse(
        &opt->prompts, "n-prompt", opt->n_prompt != NULL ? opt->n_prompt : "256", 0, MAX_ROWS, err);
    if (st == CMI_OK) {
        st = cmi_bench_list_parse(&opt->batches, "batch", opt->batch != NULL ? opt->batch : "32", 0,
                                  MAX_ROWS, err);
    }
    if (st == CMI_OK) {
        st = cmi_bench_list_parse(&opt->delays, "delay",
                                  opt->delay != NULL ? opt->delay : "50,200,1000", 1, MAX_DELAY_US,
                                  err);
    }
    if (st == CMI_OK && opt->delays.n >= CMI_BENCH_PIPELINE_MAX_DELAYS) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "--delay takes at most %d numbers",
                           CMI_BENCH_PIPELINE_MAX_DELAYS - 1);
    }
    opt->pipeline.n_delays = 1; /* none, to compare with */
    for (size_t i = 0; st == CMI_OK && i < opt->delays.n; i++) {
        opt->pipeline.delay_us[opt->pipeline.n_delays++] = opt->delays.values[i];
    }
    return st;
}

static cmi_status check(pipeline_options *opt, cmi_error *err)
{
    opt->pipeline.routing = CMI_BENCH_ROUTING_UNIFORM;
    if (opt->routing != NULL && !cmi_bench_routing_parse(opt->routing, &opt->pipeline.routing)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--routing takes gate, uniform or zipf, not \"%s\"", opt->routing);
    }
    cmi_status st = parse_lists(opt, err);
    return st == CMI_OK
               ? cmi_bench_model_source_read(&opt->source, "bench pipeline", opt->model.model, err)
               : st;
}

static void print_row(cmi_bench_out *out, const pipeline_options *opt,
                      const cmi_bench_pipeline_test *test, const cmi_bench_pipeline_result *r,
                      uint32_t delay)
{
    const double n_each = test->is_prefill ? test->n : test->n * (1.0 + test->n_drafts);
    const double n_tokens = n_each * opt->pipeline.n_ranks;
    const double one = r->seconds[delay][0], two = r->seconds[delay][1];
    const cmi_bench_cell_kind hidden = delay > 0 ? CMI_BENCH_REAL : CMI_BENCH_NONE;
    char name[32];
    snprintf(name, sizeof name, "%s%u", test->is_prefill ? "pp" : "tg x ", test->n);
    const cmi_bench_cell cells[] = {
        {"ranks", "ranks", CMI_BENCH_COUNT, NULL, opt->pipeline.n_ranks},
        {"test", "test", CMI_BENCH_TEXT, name, .width = 8},
        {"depth", "depth", CMI_BENCH_COUNT, NULL, test->depth},
        {"drafts", NULL, CMI_BENCH_COUNT, NULL, test->n_drafts},
        {"delay_us", "delay us", CMI_BENCH_COUNT, NULL, opt->pipeline.delay_us[delay], .width = 8},
        {"one_seconds", "one ms", CMI_BENCH_REAL, NULL, one, .width = 8, .scale = 1e3,
         .decimals = 2},
        {"two_seconds", "two ms", CMI_BENCH_REAL, NULL, two, .width = 8, .scale = 1e3,
         .decimals = 2},
        {"one_tokens_per_s", "tokens/s", CMI_BENCH_REAL, NULL, n_tokens / one, .width = 9,
         .decimals = 1},
        {"two_tokens_per_s", "of two", CMI_BENCH_REAL, NULL, n_tokens / two, .width = 9,
         .decimals = 1},
        {"gain", "gain", CMI_BENCH_REAL, NULL, one / two - 1, .width = 6, .scale = 100,
         .decimals = 1, .unit = "%"},
        {"one_wait_seconds", "W1 ms", hidden, NULL, r->waited[delay][0], .width = 6, .scale = 1e3,
         .decimals = 2},
        {"two_wait_seconds", "W2 ms", hidden, NULL, r->waited[delay][1], .width = 6, .scale = 1e3,
         .decimals = 2},
        {"hidden_share", "hidden", hidden, NULL,
         delay > 0 ? cmi_bench_pipeline_hidden(r, delay, opt->pipeline.delay_us[delay] * 1e-6) : 0,
         .width = 6, .scale = 100, .decimals = 0, .unit = "%"},
        {"one_puts", NULL, CMI_BENCH_REAL, NULL, r->n_puts[0]},
        {"two_puts", "puts", CMI_BENCH_REAL, NULL, r->n_puts[1], .width = 6, .decimals = 0},
        {"one_put_bytes", NULL, CMI_BENCH_REAL, NULL, r->put_bytes[0]},
        {"two_put_bytes", "MB put", CMI_BENCH_REAL, NULL, r->put_bytes[1], .width = 7,
         .scale = 1e-6, .decimals = 2},
    };
    cmi_bench_out_row(out, cells, CMI_LEN(cells));
}

static cmi_status run_test(const pipeline_options *opt, const cmi_instance *in, cmi_bench_out *out,
                           const cmi_bench_pipeline_test *test, cmi_error *err)
{
    cmi_bench_pipeline_result result;
    cmi_status st =
        test->n > 0 ? cmi_bench_pipeline_run(&result, in, test, &opt->pipeline, err) : CMI_OK;
    for (uint32_t i = 0; st == CMI_OK && test->n > 0 && i < opt->pipeline.n_delays; i++) {
        print_row(out, opt, test, &result, i);
    }
    return st;
}

static cmi_status run(pipeline_options *opt, cmi_error *err)
{
    cmi_bench_out out = {.format = opt->json ? CMI_BENCH_JSON : CMI_BENCH_MD};
    cmi_instance *in = NULL;
    cmi_buf dir;
    cmi_instance_options options = {
        .max_num_seqs = 1, .max_model_len = CMI_KV_PAGE_TOKENS, .n_kv_tokens = CMI_KV_PAGE_TOKENS};
    opt->model.max_num_batched_tokens = CMI_KV_PAGE_TOKENS; /* ranks have passes of their own */
    cmi_bench_model_source_set(&opt->source, &options);
    cmi_status st = cmi_cli_open_instance(&in, &dir, &options, &opt->model, err);
    for (size_t i = 0; st == CMI_OK && i < opt->prompts.n; i++) {
        const cmi_bench_pipeline_test test = {
            .is_prefill = true, .n = opt->prompts.values[i], .depth = opt->depth};
        st = run_test(opt, in, &out, &test, err);
    }
    for (size_t i = 0; st == CMI_OK && i < opt->batches.n; i++) {
        const cmi_bench_pipeline_test test = {
            .n = opt->batches.values[i], .n_drafts = opt->n_drafts, .depth = opt->depth};
        st = run_test(opt, in, &out, &test, err);
    }
    cmi_instance_close(in);
    cmi_buf_deinit(&dir);
    return st;
}

int cmi_cmd_bench_pipeline(int argc, char **argv)
{
    enum { N_OWN = 9 };
    pipeline_options opt = {.pipeline = {.n_ranks = 2, .n_rounds = 11}};
    cmi_option own[N_OWN + CMI_BENCH_MODEL_SOURCE_OPTIONS + 1] = {
        {"ep", "N", "ranks (default 2); each has its part of --threads", CMI_OPTION_UINT,
         &opt.pipeline.n_ranks, 1, CMI_BENCH_PIPELINE_MAX_RANKS},
        {"delay", "US,...", "added to each put and signal (default 50,200,1000)", CMI_OPTION_TEXT,
         &opt.delay, 0, 0},
        {"n-prompt|p", "N,...", "rows of a prompt on each rank, 0 for none (default 256)",
         CMI_OPTION_TEXT, &opt.n_prompt, 0, 0},
        {"batch", "N,...", "sequences that decode on each rank, 0 for none (default 32)",
         CMI_OPTION_TEXT, &opt.batch, 0, 0},
        {"drafts", "K", "behind each token that decodes (default 0)", CMI_OPTION_UINT,
         &opt.n_drafts, 0, CMI_MAX_DRAFTS},
        {"n-depth|d", "N", "behind N tokens of context (default 0)", CMI_OPTION_UINT, &opt.depth, 0,
         1 << 20},
        {"routing", "HOW",
         "to which experts: uniform (the default: ranks have even loads),\n"
         "gate (the model's gate decides), or zipf (expert e in\nproportion to 1/(e + 1))",
         CMI_OPTION_TEXT, &opt.routing, 0, 0},
        {"rounds|r", "N", "whose median counts (default 11)", CMI_OPTION_UINT,
         &opt.pipeline.n_rounds, 1, CMI_BENCH_PIPELINE_MAX_ROUNDS},
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
