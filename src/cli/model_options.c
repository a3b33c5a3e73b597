/* cli/model_options.c - the options of every command that runs a model. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "model/model_dir.h"
#include "os/host_memory.h"

int cmi_cli_fail(const cmi_error *err)
{
    fprintf(stderr, "cminfer: %s\n", err->text);
    return CMI_EXIT_FAILED;
}

int cmi_cli_usage(const char *line)
{
    fprintf(stderr, "cminfer: %s\n", line);
    return CMI_EXIT_USAGE;
}

enum { MODEL_OPTION_ROWS = 13 };

/* Fills the table (with its end mark) with options that are stored in opt. */
static void make_table(cmi_option table[MODEL_OPTION_ROWS], cmi_model_options *opt)
{
    *opt = (cmi_model_options){.dtype = "auto",
                               .kv_cache_dtype = "auto",
                               .quantization = "auto",
                               .isa = "auto",
                               .numa = "auto",
                               .share_dir = CMI_SHARED_BLOCK_DEFAULT_DIR,
                               .rank_host = UINT32_MAX};
    const cmi_option rows[MODEL_OPTION_ROWS] = {
        {"config", "FILE.yaml",
         "options from a file, \"key: value\" or lists; the command line wins", CMI_OPTION_CONFIG,
         &opt->config, 0, 0},
        {"model|model-path|m", "DIR", "the model, instead of the first argument", CMI_OPTION_TEXT,
         &opt->model, 0, 0},
        {"dtype", "TYPE",
         "bf16: BF16 weights and KV (the default: auto)\n"
         "f32: float32 throughout, twice the memory, for verification",
         CMI_OPTION_TEXT, &opt->dtype, 0, 0},
        {"kv-cache-dtype", "TYPE",
         "int8: latent KV as INT8 with a scale for each token, rope as BF16:\n"
         "56 % of BF16's memory for DeepSeek-V3, at some loss\n"
         "bf16: as computed\n"
         "auto (the default): as --dtype says",
         CMI_OPTION_TEXT, &opt->kv_cache_dtype, 0, 0},
        {"quantization|q", "METHOD",
         "w8a8-int8: INT8 weights, quantized while loading, and INT8\n"
         "activations: half the memory of BF16\n"
         "none: every weight as --dtype says\n"
         "auto (the default): INT8 checkpoints (compressed-tensors\n"
         "int-quantized, w8a8_int8) as INT8 with the head as stored, others\n"
         "as --dtype says",
         CMI_OPTION_TEXT, &opt->quantization, 0, 0},
        {"threads|t", "N", "computing threads (default: one for each processor)", CMI_OPTION_UINT,
         &opt->n_threads, 1, 1024},
        {"numa", "HOW",
         "slice: threads are spread over the memory nodes and stay there,\n"
         "and each node has a slice of every weight matrix\n"
         "off: threads and memory go where the system puts them\n"
         "auto (the default): slice, unless threads outnumber processors",
         CMI_OPTION_TEXT, &opt->numa, 0, 0},
        {"isa", "ISA",
         "use at most ref, avx2 or avx512; neon_base, neon_dotprod or neon\n"
         "(default: the best there is)",
         CMI_OPTION_TEXT, &opt->isa, 0, 0},
        {"max-num-batched-tokens|chunked-prefill-size|max-prefill-tokens|b", "N",
         "tokens of one step, the chunk of a prompt (default 2048)", CMI_OPTION_UINT,
         &opt->max_num_batched_tokens, 1, 65536},
        {"max-model-len|context-length|c", "N",
         "tokens of prompt and answer together (default: the model's,\n"
         "or what fits in memory if that is less)",
         CMI_OPTION_UINT, &opt->max_model_len, 2, UINT32_MAX},
        {"share-weights", NULL,
         "have one copy of the weights with the other processes of this\n"
         "host that load the same files with the same options. Off by\n"
         "default: the copy counts as shared memory, which a container or\n"
         "the mount may limit, and is not given up before its last user ends",
         CMI_OPTION_FLAG, &opt->share_weights, 0, 0},
        {"share-weights-dir", "DIR",
         "a tmpfs or hugetlbfs for it (default " CMI_SHARED_BLOCK_DEFAULT_DIR ")", CMI_OPTION_TEXT,
         &opt->share_dir, 0, 0},
        {NULL, NULL, NULL, CMI_OPTION_FLAG, NULL, 0, 0},
    };
    memcpy(table, rows, sizeof rows);
}

bool cmi_cli_parse_any(const cmi_option *own, cmi_model_options *opt, cmi_help_fn *help, int argc,
                       char **argv, int *exit_status_out)
{
    cmi_option model[MODEL_OPTION_ROWS];
    cmi_error err = {0};
    make_table(model, opt);
    const cmi_option *const tables[] = {own, model, NULL};
    cmi_command_line line = {.tables = tables, .positional = &opt->model, .n_positional_max = 1};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        help(own, model);
        *exit_status_out = CMI_EXIT_OK;
        return false;
    }
    if (st != CMI_OK) {
        *exit_status_out = cmi_cli_usage(err.text);
    }
    return st == CMI_OK;
}

bool cmi_cli_parse(const cmi_option *own, cmi_model_options *opt, cmi_help_fn *help, int argc,
                   char **argv, int *exit_status_out)
{
    if (!cmi_cli_parse_any(own, opt, help, argc, argv, exit_status_out)) {
        return false;
    }
    if (opt->model == NULL) {
        *exit_status_out =
            cmi_cli_usage("a model directory is missing, for example models/matrix-tiny");
    }
    return opt->model != NULL;
}

cmi_status cmi_cli_parse_isa(const char *name, cmi_isa *isa_out, cmi_error *err)
{
    if (strcmp(name, "auto") == 0) {
        *isa_out = cmi_isa_best(cmi_cpu_flags());
    } else if (!cmi_isa_parse(name, isa_out)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--isa takes ref, avx2, avx512, neon, neon_dotprod or neon_base, not "
                             "\"%s\"",
                             name);
    }
    return CMI_OK;
}

static cmi_status parse_types(cmi_instance_options *instance, const cmi_model_options *opt,
                              cmi_error *err)
{
    if (strcmp(opt->dtype, "bf16") == 0 || strcmp(opt->dtype, "bfloat16") == 0 ||
        strcmp(opt->dtype, "auto") == 0) {
        instance->dtype = CMI_DTYPE_BF16;
    } else if (strcmp(opt->dtype, "f32") == 0 || strcmp(opt->dtype, "float32") == 0 ||
               strcmp(opt->dtype, "float") == 0) {
        instance->dtype = CMI_DTYPE_F32;
    } else {
        return cmi_error_set(err, CMI_ERR_INVALID, "--dtype takes bf16, f32 or auto, not \"%s\"",
                             opt->dtype);
    }
    const char *kv = opt->kv_cache_dtype;
    instance->int8_kv = strcmp(kv, "int8") == 0;
    if (strcmp(kv, "bf16") == 0 || strcmp(kv, "bfloat16") == 0) {
        if (instance->dtype != CMI_DTYPE_BF16) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "--kv-cache-dtype %s goes with --dtype bf16 only", kv);
        }
    } else if (!instance->int8_kv && strcmp(kv, "auto") != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--kv-cache-dtype takes int8, bf16 or auto, not \"%s\"", kv);
    }
    if (strcmp(opt->quantization, "w8a8-int8") == 0 ||
        strcmp(opt->quantization, "w8a8_int8") == 0 || strcmp(opt->quantization, "int8") == 0) {
        instance->quantization = CMI_QUANTIZATION_W8A8_INT8;
    } else if (strcmp(opt->quantization, "none") == 0) {
        instance->quantization = CMI_QUANTIZATION_NONE;
    } else if (strcmp(opt->quantization, "auto") != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--quantization takes w8a8-int8, none or auto, not \"%s\"",
                             opt->quantization);
    }
    return cmi_cli_parse_isa(opt->isa, &instance->isa, err);
}

static cmi_status parse_numa(cmi_instance_options *instance, const cmi_model_options *opt,
                             cmi_error *err)
{
    if (strcmp(opt->numa, "off") == 0) {
        instance->numa = CMI_NUMA_OFF;
    } else if (strcmp(opt->numa, "slice") == 0 || strcmp(opt->numa, "distribute") == 0) {
        instance->numa = CMI_NUMA_SLICE;
    } else if (strcmp(opt->numa, "auto") != 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--numa takes auto, slice or off, not \"%s\"",
                             opt->numa);
    }
    return CMI_OK;
}

cmi_status cmi_cli_find_model(cmi_buf *dir_out, const cmi_model_options *opt, cmi_error *err)
{
    cmi_model_dir_env env = {.hf_hub_cache = getenv("HF_HUB_CACHE"),
                             .hf_home = getenv("HF_HOME"),
                             .xdg_cache_home = getenv("XDG_CACHE_HOME"),
                             .home = getenv("HOME")};
    return cmi_model_dir_resolve(dir_out, opt->model, &env, err);
}

static const char *sharing(const cmi_weights *weights)
{
    if (weights->shared == NULL) {
        return "";
    }
    return cmi_shared_block_is_maker(weights->shared) ? ", shared, loaded by this process"
                                                      : ", shared, loaded by another process";
}

static double huge_share(const cmi_weights *weights)
{
    return (double)weights->huge_bytes / (double)weights->block_bytes;
}

static void warn_of_small_pages(const cmi_weights *weights)
{
    const uint64_t worth_it = 64 << 20; /* less than that may well lie in caches */
    if (weights->n_bytes >= worth_it && huge_share(weights) < 0.9) {
        cmi_log(CMI_LOG_WARN,
                "%.0f %% of the weights lie in small pages, which slows decoding down: %s",
                100 - huge_share(weights) * 100, cmi_host_memory_huge_advice());
    }
}

static void say_what_is_where(const cmi_instance *instance)
{
    const cmi_team *team = instance->team;
    uint32_t n_nodes = cmi_team_nodes(team), n_threads = cmi_team_size(team);
    char threads[128];
    size_t at = 0;
    if (n_nodes == 1) {
        return;
    }
    for (uint32_t i = 0; i < n_nodes && at < sizeof threads; i++) {
        uint64_t n = cmi_team_share(team, i + 1, n_threads) - cmi_team_share(team, i, n_threads);
        at += (size_t)snprintf(threads + at, sizeof threads - at, "%s%u", i == 0 ? "" : "+",
                               (unsigned)n);
    }
    double share = instance->weights->share_at_home;
    if (isnan(share)) {
        cmi_log(CMI_LOG_WARN,
                "%u memory nodes: threads %s; where pages lie cannot be seen (in a "
                "container, --cap-add SYS_NICE allows it)",
                n_nodes, threads);
        return;
    }
    cmi_log(CMI_LOG_INFO,
            "%u memory nodes: threads %s, %.0f %% of the weights on the node that "
            "reads them",
            n_nodes, threads, share * 100);
}

static void say_what_is_in_use(const cmi_instance *instance, const char *dir)
{
    if (instance->isa == CMI_ISA_REF) {
        cmi_log(CMI_LOG_WARN,
                "this processor (or --isa) has neither AVX2 nor NEON: the slow reference kernels "
                "run");
    }
    warn_of_small_pages(instance->weights);
    say_what_is_where(instance);
    cmi_log(CMI_LOG_INFO,
            "model %s: weights %s, attention %s, KV %s, isa %s, threads %u, weights %.2f GiB%s "
            "(%.0f %% in huge pages%s), KV %.2f GiB for %" PRIu64 " tokens, "
            "scratch %.2f GiB, chunk %u",
            dir, cmi_dtype_name(instance->weights_dtype), cmi_dtype_name(instance->dtype),
            cmi_dtype_name(instance->kv_dtype), cmi_isa_name(instance->isa),
            cmi_team_size(instance->team), (double)instance->weights->n_bytes / (1 << 30),
            instance->weights->mtp != NULL ? " with the MTP layer" : "",
            huge_share(instance->weights) * 100, sharing(instance->weights),
            (double)instance->kv_bytes / (1 << 30),
            (uint64_t)instance->n_kv_pages * CMI_KV_PAGE_TOKENS,
            (double)instance->scratch_bytes / (1 << 30), instance->max_num_batched_tokens);
}

cmi_status cmi_cli_instance_options(cmi_instance_options *instance, const cmi_model_options *opt,
                                    cmi_error *err)
{
    instance->n_threads = opt->n_threads;
    instance->max_num_batched_tokens = opt->max_num_batched_tokens;
    instance->share_dir = opt->share_weights ? opt->share_dir : NULL;
    cmi_status st = parse_types(instance, opt, err);
    return st == CMI_OK ? parse_numa(instance, opt, err) : st;
}

cmi_instance_options cmi_cli_sized_options(const cmi_model_options *opt, bool with_mtp)
{
    return (cmi_instance_options){.max_model_len = opt->max_model_len,
                                  .max_num_seqs = opt->max_num_seqs,
                                  .n_kv_tokens = opt->n_kv_tokens,
                                  .with_mtp = with_mtp || opt->max_drafts > 0,
                                  .max_drafts = opt->max_drafts};
}

cmi_status cmi_cli_open_instance(cmi_instance **instance_out, cmi_buf *dir_out,
                                 cmi_instance_options *instance, const cmi_model_options *opt,
                                 cmi_error *err)
{
    cmi_buf_init(dir_out, 4096);
    cmi_progress progress;
    cmi_status st = cmi_cli_instance_options(instance, opt, err);
    instance->progress = cmi_progress_bytes;
    instance->progress_arg = &progress;
    if (st == CMI_OK && instance->random_config == NULL) {
        st = cmi_cli_find_model(dir_out, opt, err);
        instance->model_dir = cmi_buf_cstr(dir_out);
    }
    if (st != CMI_OK) {
        return st;
    }
    cmi_progress_start(&progress, instance->random_config == NULL ? "loading" : "making weights");
    st = cmi_instance_open(instance_out, instance, err);
    cmi_progress_end(&progress);
    if (st == CMI_OK) {
        say_what_is_in_use(*instance_out, instance->model_dir);
    }
    return st;
}

cmi_status cmi_cli_open_model(cmi_instance **instance_out, cmi_buf *dir_out,
                              const cmi_model_options *opt, bool with_mtp, cmi_error *err)
{
    cmi_instance_options instance = cmi_cli_sized_options(opt, with_mtp);
    return cmi_cli_open_instance(instance_out, dir_out, &instance, opt, err);
}
