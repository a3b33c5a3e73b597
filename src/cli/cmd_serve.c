/* cli/cmd_serve.c - `cminfer serve`: the OpenAI-compatible server around one engine. */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/chat.h"
#include "cli/serve_http.h"
#include "cli/serve_ranks.h"
#include "os/clock.h"
#include "os/random.h"
#include "server/server.h"

typedef struct serve_options {
    cmi_model_options model;
    char own_name[NAME_MAX + 1]; /* of the model, when served_names is empty */
    const char *host;
    const char *chat_template;
    cmi_option_list served_names;
    cmi_option_list api_keys;
    uint32_t port;
    uint32_t max_queued;
    uint32_t max_queued_tokens;
    double ttft_ms, tpot_ms; /* 0: no target */
    uint32_t timeout_s;      /* of a request; 0: none */
    uint32_t probe_ms;
    uint32_t max_num_seqs;
    uint32_t max_total_tokens;
    uint32_t max_prefill_rows;
    bool no_prefix_cache;
    bool prefix_cache; /* the default; taken so that others' command lines work */
    uint32_t max_drafts;
    const char *speculative_config;
    bool always_drafts;
    bool disaggregate;
    uint32_t n_prefill_threads;
    uint32_t max_body_mib;
    uint32_t shutdown_timeout_s;
    const char *record_events;
    cmi_serve_http http;
} serve_options;

#define MAX_TARGET_MS 4e6

static int stop_fd = -1;

/* The first signal asks for a clean stop; the second, of either kind, finds the default action and
 * ends the process. */
static void on_stop_signal(int signal_number)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    uint64_t one = 1;
    ssize_t n = write(stop_fd, &one, sizeof one);
    (void)n;
    (void)signal_number;
}

static cmi_status watch_signals(cmi_error *err)
{
    stop_fd = eventfd(0, EFD_CLOEXEC);
    if (stop_fd < 0) {
        return cmi_error_set(err, CMI_ERR_IO, "cannot make an eventfd");
    }
    struct sigaction action = {.sa_handler = on_stop_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return CMI_OK;
}

static void wait_for_stop(cmi_cli_ranks *ranks)
{
    struct pollfd readable = {.fd = stop_fd, .events = POLLIN};
    if (ranks->n > 1) {
        cmi_serve_ranks_watch(ranks, stop_fd);
    }
    while (poll(&readable, 1, -1) <= 0) {
    }
}

/* The last part of a path, which names the model when the user does not. */
static void name_model(char *name_out, size_t size, const char *path)
{
    char real[PATH_MAX];
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    snprintf(name_out, size, "%.*s", (int)(end - begin), path + begin);
    bool is_dots = strcmp(name_out, ".") == 0 || strcmp(name_out, "..") == 0;
    if (is_dots && realpath(path, real) != NULL) {
        name_model(name_out, size, real);
    }
}

static cmi_status make_api(cmi_api **api_out, const serve_options *opt, const cmi_chat *chat,
                           cmi_error *err)
{
    const cmi_generation_config *generation = &chat->generation;
    const char *path = opt->model.model;
    const char *own_names[2] = {opt->own_name, path};
    bool renamed = opt->served_names.n_items > 0;
    cmi_api_options api = {
        .model_names = renamed ? opt->served_names.items : own_names,
        .n_model_names = renamed ? opt->served_names.n_items : CMI_LEN(own_names),
        .model_root = path,
        .created_unix_s = cmi_clock_unix_ns() / 1000000000u,
        .sampling = {.temperature = generation->temperature,
                     .top_p = generation->top_p,
                     .repetition_penalty = generation->repetition_penalty,
                     .top_k = generation->top_k},
        .tokenizer = chat->tokenizer,
        .chat_template = chat->chat_template,
        .id_seed = cmi_random_seed(),
    };
    cmi_engine_info_get(chat->engine, &api.engine);
    return cmi_api_create(api_out, &api, err);
}

static cmi_status start_server(cmi_server **server_out, serve_options *opt, cmi_error *err)
{
    cmi_option_list keys = cmi_serve_http_keys(&opt->api_keys, "CMINFER_API_KEY", "VLLM_API_KEY");
    cmi_server_options server = {
        .host = opt->host,
        .port = (uint16_t)opt->port,
        .api_keys = keys.items,
        .n_api_keys = keys.n_items,
        .model_name = opt->served_names.n_items > 0 ? opt->served_names.items[0] : opt->own_name,
        .id_seed = cmi_random_seed(),
        .max_body_bytes = (size_t)opt->max_body_mib << 20,
        .service = {.ttft_us = (uint32_t)(opt->ttft_ms * 1000),
                    .tpot_us = (uint32_t)(opt->tpot_ms * 1000),
                    .timeout_ms = opt->timeout_s * 1000},
    };
    cmi_status st = cmi_serve_http_load(&opt->http, err);
    if (st == CMI_OK) {
        cmi_serve_http_apply(&opt->http, &server);
        st = cmi_server_start(server_out, &server, err);
    }
    cmi_serve_http_deinit(&opt->http);
    return st;
}

/* Half of all threads where the user does not say. 0: prefill is not apart. */
static uint32_t prefill_threads(const serve_options *opt)
{
    const uint32_t n_threads =
        opt->model.n_threads > 0 ? opt->model.n_threads : cmi_host_processors();
    if (!opt->disaggregate) {
        return 0;
    }
    return opt->n_prefill_threads > 0 ? opt->n_prefill_threads : CMI_MAX(n_threads / 2, 1u);
}

static cmi_model_options model_options(const serve_options *opt)
{
    cmi_model_options model = opt->model;
    model.max_num_seqs = opt->max_num_seqs;
    model.n_kv_tokens = opt->max_total_tokens;
    model.max_drafts = opt->max_drafts;
    model.n_prefill_threads = prefill_threads(opt);
    return model;
}

static cmi_engine_options engine_options(const serve_options *opt)
{
    return (cmi_engine_options){.max_queued_requests = opt->max_queued,
                                .max_queued_tokens = opt->max_queued_tokens,
                                .probe_ms = opt->probe_ms,
                                .max_prefill_rows = opt->max_prefill_rows,
                                .no_prefix_cache = opt->no_prefix_cache,
                                .max_drafts = opt->max_drafts,
                                .record_events = opt->record_events,
                                .drafts_by_cost = !opt->always_drafts};
}

/* The port is taken first: that it is busy should be known before a model has been loaded. */
static cmi_status serve_front(serve_options *opt, cmi_cli_ranks *ranks, cmi_error *err)
{
    const cmi_model_options model = model_options(opt);
    const cmi_engine_options engine = engine_options(opt);
    cmi_server *server = NULL;
    cmi_chat chat = {0};
    cmi_api *api = NULL;
    cmi_status st = start_server(&server, opt, err);
    if (st == CMI_OK && ranks->n > 1) {
        st = cmi_serve_ranks_open(&chat, ranks, &model, opt->chat_template, &engine, err);
    } else if (st == CMI_OK) {
        st = cmi_chat_open(&chat, &model, opt->chat_template, &engine, err);
    }
    st = st == CMI_OK ? make_api(&api, opt, &chat, err) : st;
    st = st == CMI_OK ? cmi_server_attach(server, api, chat.engine, err) : st;
    st = st == CMI_OK ? watch_signals(err) : st;
    if (st == CMI_OK) {
        cmi_log(CMI_LOG_INFO, "serving %s at %s://%s:%u/v1", opt->model.model,
                opt->http.tls_key_path != NULL ? "https" : "http", opt->host,
                cmi_server_port(server));
        wait_for_stop(ranks);
        cmi_log(CMI_LOG_INFO, "stopping");
    }
    cmi_server_stop(server, opt->shutdown_timeout_s * UINT64_C(1000000000));
    cmi_api_destroy(api);
    cmi_chat_close(&chat);
    return st;
}

static int serve(serve_options *opt)
{
    cmi_error err = {0};
    cmi_cli_ranks ranks;
    const cmi_model_options model = model_options(opt);
    signal(SIGPIPE, SIG_IGN);
    cmi_status st = cmi_cli_ranks_begin(&ranks, &model, &err);
    if (st == CMI_OK && ranks.is_started) {
        const cmi_engine_options engine = engine_options(opt);
        st = watch_signals(&err);
        signal(SIGINT, SIG_IGN); /* of a terminal: the front says when it is over */
        st = st == CMI_OK
                 ? cmi_serve_rank(&ranks, &model, opt->chat_template, &engine, stop_fd, &err)
                 : st;
    } else if (st == CMI_OK && ranks.first > 0) {
        st = watch_signals(&err);
        st = st == CMI_OK ? cmi_serve_ranks_of_host(&ranks, stop_fd, &err) : st;
    } else if (st == CMI_OK) {
        st = serve_front(opt, &ranks, &err);
    }
    cmi_cli_ranks_end(&ranks);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}

/* vLLM's --speculative-config. */
static cmi_status read_speculative_config(serve_options *opt, cmi_error *err)
{
    if (opt->speculative_config == NULL) {
        return CMI_OK;
    }
    json_t *config = json_loads(opt->speculative_config, 0, NULL);
    const char *method = json_string_value(json_object_get(config, "method"));
    const json_t *n = json_object_get(config, "num_speculative_tokens");
    bool ok = json_is_integer(n) && json_integer_value(n) >= 0 &&
              json_integer_value(n) <= CMI_MAX_DRAFTS &&
              (method == NULL || strcmp(method, "mtp") == 0 || strcmp(method, "deepseek_mtp") == 0);
    opt->max_drafts = ok ? (uint32_t)json_integer_value(n) : 0;
    json_decref(config);
    return ok ? CMI_OK
              : cmi_error_set(err, CMI_ERR_INVALID,
                              "--speculative-config takes {\"method\": \"mtp\", "
                              "\"num_speculative_tokens\": 0 to %d}, not %s",
                              CMI_MAX_DRAFTS, opt->speculative_config);
}

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer serve MODEL [OPTION]...\n"
           "\n"
           "Serves the OpenAI API at http://HOST:PORT/v1 until SIGINT or SIGTERM.\n");
    cmi_options_print("Server:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer serve models/matrix-tiny\n"
           "  cminfer serve /data/DeepSeek-V2-Lite --host 0.0.0.0 --api-key secret --threads 32\n");
}

/* Behind the table's last option: how requests are to be served, and by what. */
static void add_service_options(cmi_option *table, serve_options *opt)
{
    const cmi_option options[] = {
        {"tpot-ms", "MS",
         "target for the mean time between a request's tokens (default:\n"
         "none); header x-llm-d-slo-tpot-ms. Fewer run together, and prompts\n"
         "come in smaller pieces, so that it holds",
         CMI_OPTION_NUMBER, &opt->tpot_ms, 0, 0},
        {"ttft-ms", "MS",
         "target for the time to the first token (default: none); header\n"
         "x-llm-d-slo-ttft-ms",
         CMI_OPTION_NUMBER, &opt->ttft_ms, 0, 0},
        {"request-timeout", "SECONDS",
         "a request that has no complete answer by then is ended with 408;\n"
         "header x-request-timeout-ms, if that is less (default 0: none)",
         CMI_OPTION_UINT, &opt->timeout_s, 0, 4000000},
        {"step-probe-ms", "MS",
         "to measure made-up steps at the start, so that their durations\n"
         "can be predicted (default 1000, and longer where too few fit in;\n"
         "0: learn from requests only)",
         CMI_OPTION_UINT, &opt->probe_ms, 0, 60000},
        {"speculate-always", NULL,
         "try drafts where predictions say that they cost more than they\n"
         "bring, too, as long as enough of them are right: for measuring",
         CMI_OPTION_FLAG, &opt->always_drafts, 0, 0},
        {"disaggregate", NULL,
         "prefill and decode are two instances, each with its own threads\n"
         "and KV: long prompts do not delay those who are being answered",
         CMI_OPTION_FLAG, &opt->disaggregate, 0, 0},
        {"prefill-threads", "N", "of --threads, for prefill with --disaggregate (default: half)",
         CMI_OPTION_UINT, &opt->n_prefill_threads, 1, 1024},
        {"record-events", "FILE",
         "write what the scheduler is told and answers to FILE, for\n"
         "\"cminfer bench replay FILE\"; no texts, and no tokens",
         CMI_OPTION_TEXT, &opt->record_events, 0, 0},
    };
    while (table->names != NULL) {
        table++;
    }
    memcpy(table, options, sizeof options);
}

int cmi_cmd_serve(int argc, char **argv)
{
    serve_options opt = {.host = "127.0.0.1",
                         .port = 8000,
                         .max_body_mib = 10,
                         .max_num_seqs = 64,
                         .probe_ms = 1000};
    cmi_option own_table[CMI_SERVE_OPTIONS_MAX] = {
        {"host", "ADDRESS", "to listen on (default 127.0.0.1; 0.0.0.0 for all)", CMI_OPTION_TEXT,
         &opt.host, 0, 0},
        {"port", "N", "to listen on (default 8000; 0: any free one)", CMI_OPTION_UINT, &opt.port, 0,
         65535},
        {"served-model-name|alias", "NAME",
         "name of the model in the API, may be given several times\n"
         "(default: the last part of MODEL, and MODEL)",
         CMI_OPTION_LIST, &opt.served_names, 0, 0},
        {"api-key", "KEY",
         "clients must send it as a bearer token; may be given several\n"
         "times (default: $CMINFER_API_KEY, $VLLM_API_KEY, or no key)",
         CMI_OPTION_LIST, &opt.api_keys, 0, 0},
        {"max-num-queued-reqs|max-queued-requests", "N",
         "requests that may wait, more get 429 (default 1024)", CMI_OPTION_UINT, &opt.max_queued, 1,
         1 << 20},
        {"max-num-queued-tokens", "N",
         "prompt tokens that may wait, more get 429 (default: no limit; a\n"
         "request that waits alone may have more)",
         CMI_OPTION_UINT, &opt.max_queued_tokens, 1, UINT32_MAX},
        {"max-num-seqs|max-running-requests", "N", "requests that run together (default 64)",
         CMI_OPTION_UINT, &opt.max_num_seqs, 1, 65536},
        {"max-total-tokens", "N",
         "tokens of all running requests that the KV holds (default: the\n"
         "whole context for each, or half of the memory that is left)",
         CMI_OPTION_UINT, &opt.max_total_tokens, 64, UINT32_MAX},
        {"prefill-beside-decode", "N",
         "prompt tokens of a step in which others decode; fewer delay them\n"
         "less (default 256)",
         CMI_OPTION_UINT, &opt.max_prefill_rows, 1, 65536},
        {"no-enable-prefix-caching|disable-radix-cache", NULL,
         "prompts that begin alike are computed anew each time", CMI_OPTION_FLAG,
         &opt.no_prefix_cache, 0, 0},
        {"enable-prefix-caching", NULL, NULL, CMI_OPTION_FLAG, &opt.prefix_cache, 0, 0},
        {"num-speculative-tokens|speculative-num-draft-tokens", "N",
         "tokens that the model's MTP layer guesses ahead, at most; the\n"
         "answer is the same, and none are tried where that would cost\n"
         "more than it brings (default 0: none)",
         CMI_OPTION_UINT, &opt.max_drafts, 0, CMI_MAX_DRAFTS},
        {"speculative-config", "JSON",
         "the same as vLLM says it:\n"
         "{\"method\": \"mtp\", \"num_speculative_tokens\": N}",
         CMI_OPTION_TEXT, &opt.speculative_config, 0, 0},
        {"max-body-mib", "N", "largest request body (default 10)", CMI_OPTION_UINT,
         &opt.max_body_mib, 1, 1024},
        {"shutdown-timeout", "SECONDS", "for running requests after SIGTERM (default 0)",
         CMI_OPTION_UINT, &opt.shutdown_timeout_s, 0, 86400},
        {"chat-template", "FILE", "a Jinja template (or its text) instead of the model's own",
         CMI_OPTION_TEXT, &opt.chat_template, 0, 0},
    };
    cmi_serve_http_append(own_table, &opt.http);
    int exit_status;
    add_service_options(own_table, &opt);
    cmi_cli_ranks_add_options(own_table, &opt.model);
    if (!cmi_cli_parse(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    cmi_error err = {0};
    if (read_speculative_config(&opt, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    if (!(opt.ttft_ms >= 0 && opt.ttft_ms <= MAX_TARGET_MS) ||
        !(opt.tpot_ms >= 0 && opt.tpot_ms <= MAX_TARGET_MS)) {
        return cmi_cli_usage("--ttft-ms and --tpot-ms take 0 to 4000000");
    }
    if (opt.record_events != NULL && opt.model.n_ranks > 1) {
        return cmi_cli_usage("--record-events is of one scheduler and does not go with --ep");
    }
    name_model(opt.own_name, sizeof opt.own_name, opt.model.model);
    return serve(&opt);
}
