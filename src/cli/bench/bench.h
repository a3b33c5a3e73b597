/* cli/bench/bench.h - the parts of `cminfer bench`, which cli/cmd_bench.c calls by its options. */
#ifndef CMI_CLI_BENCH_BENCH_H
#define CMI_CLI_BENCH_BENCH_H

#include "cli/bench/kernel_cases.h"
#include "cli/bench/out.h"
#include "cli/bench/routing.h"
#include "cli/options.h"
#include "engine/instance.h"

/* Numbers of an option like "1,8,32". */
enum { CMI_BENCH_MAX_LIST = 32 };
typedef struct cmi_bench_list {
    uint32_t values[CMI_BENCH_MAX_LIST];
    size_t n;
} cmi_bench_list;

/* text is the value of the option --name. CMI_ERR_INVALID: no list of numbers from min to max. */
CMI_NODISCARD cmi_status cmi_bench_list_parse(cmi_bench_list *list_out, const char *name,
                                              const char *text, uint32_t min, uint32_t max,
                                              cmi_error *err);

/* Measures the limits with one thread and with all, prints a row for each, and writes the hardware
 * profile (docs/PERF.md) to profile_path unless it is NULL. CMI_ERR_IO: it could not be written. */
CMI_NODISCARD cmi_status cmi_bench_machine(cmi_bench_rig *rig, cmi_bench_out *out,
                                           const char *profile_path, cmi_error *err);

typedef struct cmi_bench_kernels_options {
    const char *only;        /* names of kernels with commas; NULL: all */
    cmi_bench_shapes shapes; /* of matrix products; empty: the usual ones */
    bool with_ref;           /* the references too */
    double seconds;          /* that a row is measured for, and at least a few rounds */
} cmi_bench_kernels_options;

/* Reads "512x7168x7168,8x2048x2048". CMI_ERR_INVALID. */
CMI_NODISCARD cmi_status cmi_bench_shapes_parse(cmi_bench_shapes *shapes_out, const char *text,
                                                cmi_error *err);

/* CMI_ERR_INVALID: `only` names a kernel that there is not. */
CMI_NODISCARD cmi_status cmi_bench_kernels_check(const cmi_bench_kernels_options *opt,
                                                 cmi_error *err);

/* Prints a row for every kernel, instruction set, shape and number of threads (one; all where a
 * product is cut), in turn with the limits and, for INT8 products, oneDNN. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_bench_kernels(cmi_bench_rig *rig, cmi_bench_out *out,
                                           const cmi_bench_kernels_options *opt, cmi_error *err);

/* What to run on a model: prompts of n_prompt tokens, prompt_batch of them packed together, and
 * n_gen tokens for batch sequences that decode together, each behind every depth of context, and
 * with so many drafts of the MTP layer behind each token, all of which hold. */
typedef struct cmi_bench_models_options {
    const char *name; /* of the model */
    cmi_bench_list n_prompt, prompt_batch, n_gen, batch, depth, drafts;
    uint32_t repetitions; /* at least; more while a test has been measured for less than seconds */
    double seconds;
    cmi_bench_routing routing;
    bool with_stages; /* a row for every stage too */
} cmi_bench_models_options;

/* What an instance needs for it. */
typedef struct cmi_bench_models_sizes {
    uint64_t n_tests;
    uint64_t n_kv_tokens;
    uint64_t max_model_len;
    uint32_t max_num_seqs;
    uint32_t max_drafts;
} cmi_bench_models_sizes;
cmi_bench_models_sizes cmi_bench_models_needs(const cmi_bench_models_options *opt);

/* Prints a row for each. The context before a row's tokens is random KV. */
void cmi_bench_models(cmi_bench_rig *rig, cmi_bench_out *out, cmi_instance *instance,
                      const cmi_bench_models_options *opt);

/* Reads the config.json at path, with fields replaced as overrides ("name=value", the value JSON or
 * else text) say. CMI_ERR_INVALID for an override, or the errors of cmi_model_config_load. */
CMI_NODISCARD cmi_status cmi_bench_config_load(cmi_model_config *config_out, const char *path,
                                               const cmi_option_list *overrides, cmi_error *err);

#endif
