/* cli/bench/model_source.h - the options by which a bench has a config.json with random weights in
 * place of a model: --config, --random-weights, --override, --seed. Thread: the main thread. */
#ifndef CMI_CLI_BENCH_MODEL_SOURCE_H
#define CMI_CLI_BENCH_MODEL_SOURCE_H

#include "cli/commands.h"

typedef struct cmi_bench_model_source {
    const char *config; /* NULL: a model */
    bool random_weights;
    cmi_option_list overrides;
    uint32_t seed;
    cmi_model_config random_config; /* config, once it was loaded */
} cmi_bench_model_source;

/* Behind the table's last option. */
enum { CMI_BENCH_MODEL_SOURCE_OPTIONS = 4 };
void cmi_bench_model_source_add_options(cmi_option *table, cmi_bench_model_source *source);

/* Which options do not go together; NULL: all do. */
const char *cmi_bench_model_source_fault(const cmi_bench_model_source *source);

/* For a command (its name is in the error) that has to have one of model, which may be NULL, and
 * --config: checks that, and loads the latter. CMI_ERR_INVALID, or as cmi_bench_config_load. */
CMI_NODISCARD cmi_status cmi_bench_model_source_read(cmi_bench_model_source *source,
                                                     const char *command, const char *model,
                                                     cmi_error *err);

/* In the options of an instance, which point into source then. */
void cmi_bench_model_source_set(const cmi_bench_model_source *source,
                                cmi_instance_options *options);

#endif
