/* cli/cmd_bench.c - `cminfer bench`: options, and which part runs. */
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "cli/commands.h"

typedef struct bench_options {
    cmi_model_options model;
    bool machine;
    bool kernels;
    const char *shapes;
    cmi_bench_kernels_options kernels_options;
    const char *output;
    bool json;
    const char *profile;
} bench_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer bench --kernels | --machine [OPTION]...\n"
           "\n"
           "Measures, and says which share of the machine's limits was reached; the limits are\n"
           "measured in the same run.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench --machine --profile machine.json\n"
           "  cminfer bench --kernels\n"
           "  cminfer bench --kernels --only gemm_i8 --shapes 512x7168x7168,8x7168x7168 --json\n");
}

/* What excludes each other. */
static const char *what_is_wrong(const bench_options *opt)
{
    if (opt->machine == opt->kernels) {
        return "bench needs --kernels or --machine, one of them";
    }
    if (opt->profile != NULL && !opt->machine) {
        return "--profile goes with --machine";
    }
    if ((opt->shapes != NULL || opt->kernels_options.only != NULL) && !opt->kernels) {
        return "--only and --shapes go with --kernels";
    }
    if (opt->kernels_options.seconds < 0) {
        return "--seconds takes a positive number";
    }
    if (opt->json && opt->output != NULL) {
        return "--json and --output exclude each other";
    }
    return NULL;
}

static cmi_status check(bench_options *opt, cmi_bench_format *format_out, cmi_isa *isa_out,
                        cmi_error *err)
{
    const char *wrong = what_is_wrong(opt);
    if (wrong != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s", wrong);
    }
    const char *format = opt->json ? "json" : opt->output != NULL ? opt->output : "md";
    if (!cmi_bench_format_parse(format, format_out)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--output takes md, csv or json, not \"%s\"",
                             format);
    }
    cmi_status st = cmi_cli_parse_isa(opt->model.isa, isa_out, err);
    if (st == CMI_OK && opt->shapes != NULL) {
        st = cmi_bench_shapes_parse(&opt->kernels_options.shapes, opt->shapes, err);
    }
    opt->kernels_options.with_ref = *isa_out == CMI_ISA_REF;
    return st == CMI_OK ? cmi_bench_kernels_check(&opt->kernels_options, err) : st;
}

static cmi_status bench(const bench_options *opt, cmi_bench_format format, cmi_isa isa,
                        cmi_error *err)
{
    cmi_bench_rig rig;
    cmi_bench_out out = {.format = format};
    uint32_t flags = cmi_cpu_flags() & cmi_isa_cpu_flags(isa);
    cmi_status st = cmi_bench_rig_init(&rig, opt->model.n_threads, flags, err);
    if (st == CMI_OK) {
        st = opt->machine ? cmi_bench_machine(&rig, &out, opt->profile, err)
                          : cmi_bench_kernels(&rig, &out, &opt->kernels_options, err);
    }
    cmi_bench_rig_deinit(&rig);
    return st;
}

int cmi_cmd_bench(int argc, char **argv)
{
    bench_options opt = {.kernels_options = {.seconds = 0.4}};
    const cmi_option own_table[] = {
        {"machine", NULL, "measure the limits: dot products, multiply-adds, memory, signals",
         CMI_OPTION_FLAG, &opt.machine, 0, 0},
        {"kernels", NULL, "measure the kernels of every instruction set, and oneDNN's INT8 product",
         CMI_OPTION_FLAG, &opt.kernels, 0, 0},
        {"only", "NAMES", "with --kernels: only these, with commas", CMI_OPTION_TEXT,
         &opt.kernels_options.only, 0, 0},
        {"shapes", "SHAPES",
         "with --kernels: sizes of matrix products, for example\n512x7168x7168,8x2048x2048",
         CMI_OPTION_TEXT, &opt.shapes, 0, 0},
        {"seconds", "S", "with --kernels: time for each row (default 0.4)", CMI_OPTION_NUMBER,
         &opt.kernels_options.seconds, 0, 0},
        {"profile", "FILE", "with --machine: write the limits to FILE, for the simulator",
         CMI_OPTION_TEXT, &opt.profile, 0, 0},
        {"output|o", "FORMAT", "md (the default), csv or json", CMI_OPTION_TEXT, &opt.output, 0, 0},
        {"json", NULL, "the same as --output json: one object a line", CMI_OPTION_FLAG, &opt.json,
         0, 0},
        {0},
    };
    int exit_status;
    if (!cmi_cli_parse_any(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    cmi_bench_format format;
    cmi_isa isa;
    cmi_error err = {0};
    if (check(&opt, &format, &isa, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    return bench(&opt, format, isa, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
