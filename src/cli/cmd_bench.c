/* cli/cmd_bench.c - `cminfer bench`: options, and which part runs. */
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "cli/commands.h"

typedef struct bench_options {
    cmi_model_options model;
    bool machine;
    bool kernels;
    const char *output;
    bool json;
    const char *profile;
} bench_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer bench --machine [OPTION]...\n"
           "\n"
           "Measures, and says which share of the machine's limits was reached; the limits are\n"
           "measured in the same run.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench --machine --profile machine.json\n");
}

/* One of the things to measure, in one of the formats. */
static const char *what_is_wrong(const bench_options *opt, cmi_bench_format *format_out)
{
    if (!opt->machine) {
        return "bench needs --machine";
    }
    if (opt->profile != NULL && !opt->machine) {
        return "--profile goes with --machine";
    }
    if (opt->json && opt->output != NULL) {
        return "--json and --output exclude each other";
    }
    const char *format = opt->json ? "json" : opt->output != NULL ? opt->output : "md";
    return cmi_bench_format_parse(format, format_out) ? NULL : "--output takes md, csv or json";
}

static cmi_status bench(const bench_options *opt, cmi_bench_format format, cmi_isa isa,
                        cmi_error *err)
{
    cmi_bench_rig rig;
    cmi_bench_out out = {.format = format};
    uint32_t flags = cmi_cpu_flags() & cmi_isa_cpu_flags(isa);
    cmi_status st = cmi_bench_rig_init(&rig, opt->model.n_threads, flags, err);
    if (st == CMI_OK) {
        st = cmi_bench_machine(&rig, &out, opt->profile, err);
    }
    cmi_bench_rig_deinit(&rig);
    return st;
}

int cmi_cmd_bench(int argc, char **argv)
{
    bench_options opt = {0};
    const cmi_option own_table[] = {
        {"machine", NULL, "measure the limits: dot products, multiply-adds, memory, signals",
         CMI_OPTION_FLAG, &opt.machine, 0, 0},
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
    const char *wrong = what_is_wrong(&opt, &format);
    if (wrong != NULL) {
        return cmi_cli_usage(wrong);
    }
    cmi_error err = {0};
    cmi_isa isa;
    if (cmi_cli_parse_isa(opt.model.isa, &isa, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    return bench(&opt, format, isa, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
