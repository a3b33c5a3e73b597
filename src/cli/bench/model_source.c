#include "cli/bench/model_source.h"

#include <string.h>

#include "cli/bench/bench.h"

void cmi_bench_model_source_add_options(cmi_option *table, cmi_bench_model_source *source)
{
    const cmi_option options[CMI_BENCH_MODEL_SOURCE_OPTIONS + 1] = {
        {"config", "FILE", "a config.json instead of a model", CMI_OPTION_TEXT, &source->config, 0,
         0},
        {"random-weights", NULL, "with --config: make the weights in memory", CMI_OPTION_FLAG,
         &source->random_weights, 0, 0},
        {"override", "NAME=VALUE", "with --config: replace a field; may come several times",
         CMI_OPTION_LIST, &source->overrides, 0, 0},
        {"seed", "N", "of the random weights (default 0)", CMI_OPTION_UINT, &source->seed, 0,
         UINT32_MAX},
        {0},
    };
    while (table->names != NULL) {
        table++;
    }
    memcpy(table, options, sizeof options);
}

const char *cmi_bench_model_source_fault(const cmi_bench_model_source *source)
{
    if (source->random_weights != (source->config != NULL)) {
        return "--config and --random-weights go together";
    }
    if (source->overrides.n_items > 0 && source->config == NULL) {
        return "--override goes with --config";
    }
    return NULL;
}

cmi_status cmi_bench_model_source_read(cmi_bench_model_source *source, const char *command,
                                       const char *model, cmi_error *err)
{
    const char *fault = cmi_bench_model_source_fault(source);
    if ((model != NULL) == (source->config != NULL)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s needs MODEL or --config, one of them",
                             command);
    }
    if (fault != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s", fault);
    }
    return source->config == NULL ? CMI_OK
                                  : cmi_bench_config_load(&source->random_config, source->config,
                                                          &source->overrides, err);
}

void cmi_bench_model_source_set(const cmi_bench_model_source *source, cmi_instance_options *options)
{
    options->random_seed = source->seed;
    if (source->config != NULL) {
        options->random_config = &source->random_config;
        options->model_dir = source->config;
    }
}
