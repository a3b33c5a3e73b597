/* cli/cmd_bench.c - `cminfer bench`: options, and which part runs. */
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "cli/bench/model_source.h"
#include "cli/commands.h"
#include "engine/engine.h"

typedef struct bench_options {
    cmi_model_options model;
    bool machine, kernels, json;
    const char *output;
    const char *profile;
    const char *shapes;
    cmi_bench_model_source source;
    const char *routing;
    const char *n_prompt, *n_gen, *depth, *batch, *prompt_batch, *drafts;
    uint32_t pool_mib;
    double seconds;
    cmi_bench_kernels_options kernels_options;
    cmi_bench_models_options models_options;
    /* what they come to */
    cmi_bench_format format;
    cmi_isa isa;
} bench_options;

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf(
        "Usage: cminfer bench MODEL [OPTION]...\n"
        "       cminfer bench --config FILE --random-weights [OPTION]...\n"
        "       cminfer bench --kernels | --machine [OPTION]...\n"
        "       cminfer bench serve [OPTION]...\n"
        "       cminfer bench ep [OPTION]...\n"
        "       cminfer bench pipeline MODEL [OPTION]...\n"
        "       cminfer bench eplb MODEL [OPTION]...\n"
        "       cminfer bench staged MODEL [OPTION]...\n"
        "       cminfer bench replay FILE [OPTION]...\n"
        "\n"
        "Measures prefill (pp) and decode (tg) of a model, the kernels, or the machine's limits,\n"
        "and says which share of the limits was reached: they are measured in the same run, in\n"
        "turn with everything else. docs/PERF.md says how the share is computed.\n"
        "\n"
        "bench serve puts a load on a server, this one or another; \"cminfer bench serve --help\"\n"
        "lists its options. bench ep measures how rows get to experts of other ranks and back,\n"
        "bench pipeline what computing hides of it, bench staged what it brings to compute\n"
        "prompts on all ranks together, and bench eplb what moving experts between ranks costs\n"
        "and brings.\n"
        "bench replay runs a recorded scheduler once more.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer bench models/matrix-tiny -p 128,1024 -n 64 -d 0,512\n"
           "  cminfer bench /data/DeepSeek-V2-Lite -q w8a8-int8 -p 1024,4096 -n 64 --batch 1,32\n"
           "  cminfer bench --config config.json --random-weights --override num_hidden_layers=4\n"
           "  cminfer bench --config config.json --random-weights -p 32,512 -n 0 --stages \\\n"
           "      --routing zipf\n"
           "  cminfer bench --kernels --only gemm_i8 --shapes 512x7168x7168,8x7168x7168 --json\n"
           "  cminfer bench --machine --profile machine.json\n"
           "  cminfer bench serve --num-prompts 100 --request-rate 10\n");
}

static bool has_model_options(const bench_options *opt)
{
    return opt->n_prompt != NULL || opt->n_gen != NULL || opt->depth != NULL ||
           opt->batch != NULL || opt->prompt_batch != NULL || opt->drafts != NULL ||
           opt->source.overrides.n_items > 0 || opt->source.random_weights ||
           opt->source.config != NULL || opt->routing != NULL || opt->models_options.with_stages;
}

/* What excludes each other, what is missing. */
static const char *what_is_wrong(const bench_options *opt)
{
    const int n_things =
        opt->machine + opt->kernels + (opt->model.model != NULL) + (opt->source.config != NULL);
    if (n_things != 1) {
        return "bench needs MODEL, --config, --kernels or --machine, one of them";
    }
    if ((opt->machine || opt->kernels) && has_model_options(opt)) {
        return "options of models do not go with --kernels or --machine";
    }
    if (cmi_bench_model_source_fault(&opt->source) != NULL) {
        return cmi_bench_model_source_fault(&opt->source);
    }
    if (opt->model.max_model_len != 0) {
        return "bench takes the context's length from -p, -n and -d, not from --max-model-len";
    }
    if (opt->profile != NULL && !opt->machine) {
        return "--profile goes with --machine";
    }
    if ((opt->shapes != NULL || opt->kernels_options.only != NULL) && !opt->kernels) {
        return "--only and --shapes go with --kernels";
    }
    if (opt->seconds < 0) {
        return "--seconds takes a positive number";
    }
    if (opt->json && opt->output != NULL) {
        return "--json and --output exclude each other";
    }
    return NULL;
}

static cmi_status parse_lists(bench_options *opt, cmi_error *err)
{
    enum { MAX_TOKENS = 1 << 20, MAX_BATCH = 4096 };
    cmi_bench_models_options *models = &opt->models_options;
    const struct {
        cmi_bench_list *list;
        const char *name, *text;
        uint32_t min, max;
    } lists[] = {
        {&models->n_prompt, "n-prompt", opt->n_prompt != NULL ? opt->n_prompt : "1024", 0,
         MAX_TOKENS},
        {&models->n_gen, "n-gen", opt->n_gen != NULL ? opt->n_gen : "64", 0, MAX_TOKENS},
        {&models->depth, "n-depth", opt->depth != NULL ? opt->depth : "0", 0, MAX_TOKENS},
        {&models->batch, "batch", opt->batch != NULL ? opt->batch : "1", 1, MAX_BATCH},
        {&models->prompt_batch, "prompt-batch", opt->prompt_batch != NULL ? opt->prompt_batch : "1",
         1, MAX_BATCH},
        {&models->drafts, "drafts", opt->drafts != NULL ? opt->drafts : "0", 0, CMI_MAX_DRAFTS},
    };
    cmi_status st = CMI_OK;
    for (size_t i = 0; st == CMI_OK && i < CMI_LEN(lists); i++) {
        st = cmi_bench_list_parse(lists[i].list, lists[i].name, lists[i].text, lists[i].min,
                                  lists[i].max, err);
    }
    return st;
}

static cmi_status check(bench_options *opt, cmi_error *err)
{
    const char *wrong = what_is_wrong(opt);
    if (wrong != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s", wrong);
    }
    const char *format = opt->json ? "json" : opt->output != NULL ? opt->output : "md";
    if (!cmi_bench_format_parse(format, &opt->format)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--output takes md, csv or json, not \"%s\"",
                             format);
    }
    if (opt->routing != NULL &&
        !cmi_bench_routing_parse(opt->routing, &opt->models_options.routing)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--routing takes gate, uniform or zipf, not \"%s\"", opt->routing);
    }
    cmi_status st = cmi_cli_parse_isa(opt->model.isa, &opt->isa, err);
    if (st == CMI_OK && opt->shapes != NULL) {
        st = cmi_bench_shapes_parse(&opt->kernels_options.shapes, opt->shapes, err);
    }
    opt->kernels_options.seconds = opt->models_options.seconds = opt->seconds;
    opt->kernels_options.with_ref = opt->isa == CMI_ISA_REF;
    if (st == CMI_OK) {
        st = cmi_bench_kernels_check(&opt->kernels_options, err);
    }
    if (st == CMI_OK) {
        st = parse_lists(opt, err);
    }
    if (st == CMI_OK && opt->source.config != NULL) {
        st = cmi_bench_model_source_read(&opt->source, "bench", NULL, err);
    }
    return st;
}

/* What rows call the model: the last part of its path that is a name. */
static const char *model_name(const char *path)
{
    const char *name = path;
    for (const char *at = path; *at != '\0'; at++) {
        name = *at == '/' && at[1] != '\0' ? at + 1 : name;
    }
    return name;
}

static cmi_status bench_model(bench_options *opt, cmi_bench_rig *rig, cmi_bench_out *out,
                              cmi_error *err)
{
    cmi_bench_models_options *models = &opt->models_options;
    cmi_bench_models_sizes sizes = cmi_bench_models_needs(models);
    cmi_instance *instance = NULL;
    cmi_buf dir;
    cmi_instance_options options = {.max_model_len = (uint32_t)sizes.max_model_len,
                                    .max_num_seqs = sizes.max_num_seqs,
                                    .n_kv_tokens = sizes.n_kv_tokens,
                                    .max_drafts = sizes.max_drafts,
                                    .with_mtp = sizes.max_drafts > 0};
    /* A step of decode has a row for every sequence and draft. */
    uint32_t chunk = opt->model.max_num_batched_tokens;
    chunk = chunk > 0 ? chunk : (uint32_t)CMI_DEFAULT_MAX_NUM_BATCHED_TOKENS;
    opt->model.max_num_batched_tokens = CMI_MAX(chunk, sizes.max_num_seqs * (1 + sizes.max_drafts));
    models->name = model_name(opt->source.config != NULL ? opt->source.config : opt->model.model);
    cmi_bench_model_source_set(&opt->source, &options);
    cmi_status st = cmi_cli_open_instance(&instance, &dir, &options, &opt->model, err);
    if (st == CMI_OK && instance->max_drafts < sizes.max_drafts) {
        st = cmi_error_set(err, CMI_ERR_INVALID,
                           "--drafts needs a model with an MTP layer, and %s has none",
                           models->name);
    }
    if (st == CMI_OK) {
        cmi_bench_models(rig, out, instance, models);
    }
    cmi_instance_close(instance);
    cmi_buf_deinit(&dir);
    return st;
}

enum { KERNELS_POOL_MIB = 320u }; /* the largest matrix that --shapes takes */

static cmi_status bench(bench_options *opt, cmi_error *err)
{
    cmi_bench_rig rig;
    cmi_bench_out out = {.format = opt->format};
    uint32_t flags = cmi_cpu_flags() & cmi_isa_cpu_flags(opt->isa);
    uint32_t pool_mib = opt->kernels ? CMI_MAX(opt->pool_mib, KERNELS_POOL_MIB) : opt->pool_mib;
    cmi_status st = cmi_bench_rig_init(&rig, opt->model.n_threads, flags, pool_mib, err);
    if (st == CMI_OK) {
        st = opt->machine   ? cmi_bench_machine(&rig, &out, opt->profile, err)
             : opt->kernels ? cmi_bench_kernels(&rig, &out, &opt->kernels_options, err)
                            : bench_model(opt, &rig, &out, err);
    }
    cmi_bench_rig_deinit(&rig);
    return st;
}

enum { OWN_ROWS = 19 };

static void make_table(cmi_option table[OWN_ROWS], bench_options *opt)
{
    const cmi_option rows[OWN_ROWS] = {
        {"n-prompt|p", "N,...", "prompts of N tokens, 0 for none (default 1024)", CMI_OPTION_TEXT,
         &opt->n_prompt, 0, 0},
        {"n-gen|n", "N,...", "decode N tokens, 0 for none (default 64)", CMI_OPTION_TEXT,
         &opt->n_gen, 0, 0},
        {"n-depth|d", "N,...", "behind N tokens of context (default 0)", CMI_OPTION_TEXT,
         &opt->depth, 0, 0},
        {"batch", "N,...", "sequences that decode together (default 1)", CMI_OPTION_TEXT,
         &opt->batch, 0, 0},
        {"drafts", "K,...",
         "of the MTP layer behind each token that decode verifies and that\n"
         "hold, so tokens/s are the most that drafts can bring (default 0)",
         CMI_OPTION_TEXT, &opt->drafts, 0, 0},
        {"prompt-batch", "N,...", "prompts that are packed together (default 1)", CMI_OPTION_TEXT,
         &opt->prompt_batch, 0, 0},
        {"stages", NULL, "a row for every stage of the layers, too", CMI_OPTION_FLAG,
         &opt->models_options.with_stages, 0, 0},
        {"routing", "HOW",
         "to which experts: gate (the default: the model's gate decides),\n"
         "uniform, or zipf (expert e in proportion to 1/(e + 1))",
         CMI_OPTION_TEXT, &opt->routing, 0, 0},
        {"repetitions|r", "N", "of every row at least, whose median counts (default 3)",
         CMI_OPTION_UINT, &opt->models_options.repetitions, 1, CMI_BENCH_MAX_SAMPLES},
        {"kernels", NULL,
         "measure the kernels of every instruction set, and oneDNN's INT8\nproduct",
         CMI_OPTION_FLAG, &opt->kernels, 0, 0},
        {"only", "NAMES", "with --kernels: only these, with commas", CMI_OPTION_TEXT,
         &opt->kernels_options.only, 0, 0},
        {"shapes", "RxCxK,...", "with --kernels: sizes of matrix products", CMI_OPTION_TEXT,
         &opt->shapes, 0, 0},
        {"seconds", "S", "time that a row is measured for at least (default 0.5)",
         CMI_OPTION_NUMBER, &opt->seconds, 0, 0},
        {"memory", "MIB", "in which the memory's bandwidth is measured (default 1024)",
         CMI_OPTION_UINT, &opt->pool_mib, 64, 1 << 20},
        {"machine", NULL, "measure the limits: dot products, multiply-adds, memory, signals",
         CMI_OPTION_FLAG, &opt->machine, 0, 0},
        {"profile", "FILE", "with --machine: write the limits to FILE, for the simulator",
         CMI_OPTION_TEXT, &opt->profile, 0, 0},
        {"output|o", "FORMAT", "md (the default), csv or json", CMI_OPTION_TEXT, &opt->output, 0,
         0},
        {"json", NULL, "the same as --output json: one object a line", CMI_OPTION_FLAG, &opt->json,
         0, 0},
        {NULL, NULL, NULL, CMI_OPTION_FLAG, NULL, 0, 0},
    };
    memcpy(table, rows, sizeof rows);
}

int cmi_cmd_bench(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } parts[] = {{"serve", cmi_cmd_bench_serve},   {"ep", cmi_cmd_bench_ep},
                 {"eplb", cmi_cmd_bench_eplb},     {"pipeline", cmi_cmd_bench_pipeline},
                 {"staged", cmi_cmd_bench_staged}, {"replay", cmi_cmd_bench_replay}};
    for (size_t i = 0; argc > 0 && i < CMI_LEN(parts); i++) {
        if (strcmp(argv[0], parts[i].name) == 0) {
            return parts[i].run(argc - 1, argv + 1);
        }
    }
    bench_options opt = {.seconds = 0.5, .pool_mib = 1024, .models_options = {.repetitions = 3}};
    cmi_option own_table[OWN_ROWS + CMI_BENCH_MODEL_SOURCE_OPTIONS];
    make_table(own_table, &opt);
    cmi_bench_model_source_add_options(own_table, &opt.source);
    int exit_status;
    if (!cmi_cli_parse_any(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    cmi_error err = {0};
    if (check(&opt, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    return bench(&opt, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
