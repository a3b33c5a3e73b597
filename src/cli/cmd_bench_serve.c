/* cli/cmd_bench_serve.c - `cminfer bench serve`: options of the load generator.
 *
 * Names and meanings are those of vllm bench serve where it has them, so that its command lines can
 * be pasted. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/load.h"
#include "cli/commands.h"

enum { MAX_EXTRA_ARGUMENTS = 8, MAX_HEADER_BYTES = 32 << 10 };

typedef struct serve_options {
    cmi_load_options load;
    const char *host;
    uint32_t port;
    const char *request_rate, *burstiness;
    const char *percentile_metrics, *metric_percentiles;
    cmi_option_list goodput, headers;
    const char *api_key;
    bool ignore_eos, no_ignore_eos;
    uint32_t nice;
    bool is_accepted; /* options that change nothing here */
    const char *positional[MAX_EXTRA_ARGUMENTS];
    cmi_buf header_lines, url;
} serve_options;

enum { TARGET_ROWS = 14, LOAD_ROWS = 12, DATA_ROWS = 16, RESULT_ROWS = 12 };

static void make_target_table(cmi_option table[TARGET_ROWS], serve_options *opt)
{
    cmi_load_options *load = &opt->load;
    const cmi_option rows[TARGET_ROWS] = {
        {"base-url", "URL", "of the server (default http://127.0.0.1:8000)", CMI_OPTION_TEXT,
         &load->base_url, 0, 0},
        {"host", "NAME", "instead of --base-url (default 127.0.0.1)", CMI_OPTION_TEXT, &opt->host,
         0, 0},
        {"port", "N", "instead of --base-url (default 8000)", CMI_OPTION_UINT, &opt->port, 1,
         65535},
        {"backend|endpoint-type", "NAME",
         "openai: /v1/completions (the default)\nopenai-chat: /v1/chat/completions",
         CMI_OPTION_TEXT, &load->backend, 0, 0},
        {"endpoint", "PATH", "where requests go (default: by --backend)", CMI_OPTION_TEXT,
         &load->endpoint, 0, 0},
        {"model|m", "NAME", "in requests (default: the first of /v1/models)", CMI_OPTION_TEXT,
         &load->model, 0, 0},
        {"served-model-name", "NAME", "in requests, when --model is to be in the result only",
         CMI_OPTION_TEXT, &load->served_name, 0, 0},
        {"api-key", "KEY", "sent as a bearer token (default: $OPENAI_API_KEY, or none)",
         CMI_OPTION_TEXT, &opt->api_key, 0, 0},
        {"header", "NAME:VALUE", "a header of every request; may be given several times",
         CMI_OPTION_LIST, &opt->headers, 0, 0},
        {"extra-body", "JSON", "fields to add to every request, or to replace ours",
         CMI_OPTION_TEXT, &load->extra_body, 0, 0},
        {"temperature", "X", "of sampling (default: the server's)", CMI_OPTION_NUMBER,
         &load->temperature, 0, 0},
        {"timeout", "S", "for a whole answer (default 21600)", CMI_OPTION_NUMBER, &load->timeout_s,
         0, 0},
        {"trust-remote-code|skip-tokenizer-init", NULL, NULL, CMI_OPTION_FLAG, &opt->is_accepted, 0,
         0},
        {0},
    };
    memcpy(table, rows, sizeof rows);
}

static void make_load_table(cmi_option table[LOAD_ROWS], serve_options *opt)
{
    cmi_load_options *load = &opt->load;
    const cmi_option rows[LOAD_ROWS] = {
        {"num-prompts|n", "N", "requests (default: all of a file, 1000 random ones)",
         CMI_OPTION_UINT, &load->num_prompts, 1, CMI_LOAD_MAX_REQUESTS},
        {"request-rate", "R",
         "requests a second, or inf: all at once (default: the times of a\ntrace, else inf)",
         CMI_OPTION_TEXT, &opt->request_rate, 0, 0},
        {"burstiness", "B",
         "of a rate: gaps are gamma distributed with this shape. 1 (the\n"
         "default): a Poisson process; less: bursts; inf: even",
         CMI_OPTION_TEXT, &opt->burstiness, 0, 0},
        {"max-concurrency", "N", "open requests at most; others wait (default: no limit)",
         CMI_OPTION_UINT, &load->max_concurrency, 1, 1 << 20},
        {"cancel-rate", "P", "share of the requests (0 to 1) that close the connection",
         CMI_OPTION_NUMBER, &load->cancel_rate, 0, 0},
        {"cancel-delay", "S", "seconds after which they do (default 0.5)", CMI_OPTION_NUMBER,
         &load->cancel_delay_s, 0, 0},
        {"num-warmups", "N", "requests before the run that do not count (default 0)",
         CMI_OPTION_UINT, &load->num_warmups, 0, 10000},
        {"seed", "N", "of prompts, lengths, arrivals and cancels (default 0)", CMI_OPTION_UINT,
         &load->seed, 0, UINT32_MAX},
        {"nice", "N", "lowers this process's priority, 1 to 19", CMI_OPTION_UINT, &opt->nice, 1,
         19},
        {0},
    };
    memcpy(table, rows, sizeof rows);
}

static void make_data_table(cmi_option table[DATA_ROWS], serve_options *opt)
{
    cmi_load_options *load = &opt->load;
    const cmi_option rows[DATA_ROWS] = {
        {"dataset-name", "NAME",
         "random (the default)\n"
         "custom: lines {\"prompt\": \"..\"} or {\"messages\": [..]}, with\n"
         "\"output_tokens\" or without\n"
         "mooncake: a trace, lines with timestamp, input_length,\n"
         "output_length, hash_ids; equal ids get equal text\n"
         "azure: a trace, CSV of TIMESTAMP,ContextTokens,GeneratedTokens",
         CMI_OPTION_TEXT, &load->dataset_name, 0, 0},
        {"dataset-path", "FILE", "of custom, mooncake and azure", CMI_OPTION_TEXT,
         &load->dataset_path, 0, 0},
        {"random-input-len|input-len", "N", "tokens of a prompt (default 1024)", CMI_OPTION_UINT,
         &load->random.input_tokens, 0, CMI_LOAD_MAX_TOKENS},
        {"random-output-len|output-len|custom-output-len", "N",
         "tokens of an answer, of custom lines without one too (default 128)", CMI_OPTION_UINT,
         &load->random.output_tokens, 1, CMI_LOAD_MAX_TOKENS},
        {"random-range-ratio", "R",
         "lengths are uniform from N * (1 - R) to N * (1 + R) (default 0)", CMI_OPTION_NUMBER,
         &load->random.range_ratio, 0, 0},
        {"random-prefix-len", "N", "tokens before them that all prompts share (default 0)",
         CMI_OPTION_UINT, &load->random.prefix_tokens, 0, CMI_LOAD_MAX_TOKENS},
        {"trace-scale", "X", "replays a trace X times as fast (default 1)", CMI_OPTION_NUMBER,
         &load->trace_scale, 0, 0},
        {"max-model-len", "N",
         "clips prompt and answer to N tokens together; a chat's template\nneeds some more",
         CMI_OPTION_UINT, &load->max_model_len, 2, UINT32_MAX},
        {"tokenizer", "DIR",
         "with tokenizer.json: prompts of exact length. Without it a prompt\n"
         "has as many words, and the server says how many tokens",
         CMI_OPTION_TEXT, &load->tokenizer, 0, 0},
        {"token-ids", NULL, "sends prompts as token ids, for /v1/completions: exact lengths",
         CMI_OPTION_FLAG, &load->token_ids, 0, 0},
        {"vocab-size", "N", "ids are below it, without --tokenizer (default 1024)", CMI_OPTION_UINT,
         &load->vocab_size, 64, 1 << 22},
        {"ignore-eos", NULL, "has answers go on to their length (the default but for custom)",
         CMI_OPTION_FLAG, &opt->ignore_eos, 0, 0},
        {"no-ignore-eos", NULL, "does not, and does not send the field", CMI_OPTION_FLAG,
         &opt->no_ignore_eos, 0, 0},
        {0},
    };
    memcpy(table, rows, sizeof rows);
}

static void make_result_table(cmi_option table[RESULT_ROWS], serve_options *opt)
{
    cmi_load_options *load = &opt->load;
    const cmi_option rows[RESULT_ROWS] = {
        {"goodput", "NAME:MS ...", "limits of ttft, tpot, e2el; goodput counts requests within all",
         CMI_OPTION_LIST, &opt->goodput, 0, 0},
        {"percentile-metrics", "NAMES",
         "of ttft, tpot, itl, e2el, client_queue_time (default: the first\nfour)", CMI_OPTION_TEXT,
         &opt->percentile_metrics, 0, 0},
        {"metric-percentiles", "P,...", "which ones (default 50,90,99)", CMI_OPTION_TEXT,
         &opt->metric_percentiles, 0, 0},
        {"save-result", NULL, "writes the result as JSON", CMI_OPTION_FLAG, &load->saves_result, 0,
         0},
        {"save-detailed", NULL, "writes every request's figures and text, too", CMI_OPTION_FLAG,
         &load->is_detailed, 0, 0},
        {"result-dir", "DIR", "for it (default: the current one)", CMI_OPTION_TEXT,
         &load->result_dir, 0, 0},
        {"result-filename", "FILE", "for it (default: BACKEND-RATEqps-MODEL-DATE.json)",
         CMI_OPTION_TEXT, &load->result_filename, 0, 0},
        {"plot", "FILE", "writes an SVG of latencies and of throughput over time", CMI_OPTION_TEXT,
         &load->plot, 0, 0},
        {"label", "TEXT", "in the result", CMI_OPTION_TEXT, &load->label, 0, 0},
        {"disable-tqdm", NULL, NULL, CMI_OPTION_FLAG, &opt->is_accepted, 0, 0},
        {0},
    };
    memcpy(table, rows, sizeof rows);
}

static void print_help(const cmi_option *const tables[])
{
    printf("Usage: cminfer bench serve [OPTION]...\n"
           "\n"
           "Sends requests to a server of the OpenAI API, this one or another, and measures the\n"
           "answers: time to first token (TTFT), per output token (TPOT), between chunks (ITL),\n"
           "end to end (E2EL), throughput, goodput. Flags, result fields and definitions are\n"
           "those of vllm bench serve; underscores are as good as hyphens.\n");
    cmi_options_print("Server:", tables[0]);
    cmi_options_print("Load:", tables[1]);
    cmi_options_print("Requests:", tables[2]);
    cmi_options_print("Result:", tables[3]);
    printf("\nExamples:\n"
           "  cminfer serve models/matrix-tiny &\n"
           "  cminfer bench serve --random-input-len 128 --random-output-len 64 \\\n"
           "      --num-prompts 100 --request-rate 10 --goodput ttft:2000 tpot:50\n"
           "  cminfer bench serve --backend openai-chat --base-url http://server:8000 \\\n"
           "      --tokenizer /data/DeepSeek-V2-Lite --max-concurrency 64 --num-prompts 500 \\\n"
           "      --save-result --result-filename run.json --plot run.svg\n"
           "  cminfer bench serve --dataset-name mooncake --dataset-path trace.jsonl \\\n"
           "      --token-ids --max-model-len 32768 --trace-scale 2 --num-prompts 1000\n");
}

/* A positive number or "inf". */
static cmi_status parse_positive(double *to, const char *name, const char *text, cmi_error *err)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--%s takes a positive number or inf, not \"%s\"", name, text);
    }
    *to = value;
    return CMI_OK;
}

static cmi_status parse_percentiles(cmi_load_options *load, const char *text, cmi_error *err)
{
    for (const char *at = text;; at++) {
        char *end;
        double p = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0') || !(p >= 0 && p <= 100) ||
            load->n_percentiles == CMI_LOAD_MAX_PERCENTILES) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "--metric-percentiles takes at most %d numbers from 0 to 100 with "
                                 "commas, not \"%s\"",
                                 CMI_LOAD_MAX_PERCENTILES, text);
        }
        load->percentiles[load->n_percentiles++] = p;
        if (*end == '\0') {
            return CMI_OK;
        }
        at = end;
    }
}

static cmi_status parse_metrics(cmi_load_options *load, const char *text, cmi_error *err)
{
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, ",");
        cmi_load_metric metric;
        if (!cmi_load_metric_parse(at, n, &metric)) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "--percentile-metrics takes ttft, tpot, itl, e2el and "
                                 "client_queue_time with commas, not \"%s\"",
                                 text);
        }
        load->metrics[metric] = true;
        at += n;
        if (*at == '\0') {
            return CMI_OK;
        }
    }
}

/* "--goodput ttft:2000 tpot:50": what follows the first limit are arguments of no option. */
static cmi_status parse_goodput(serve_options *opt, size_t n_positional, cmi_error *err)
{
    cmi_status st = CMI_OK;
    if (n_positional > 0 && opt->goodput.n_items == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%s\" is one argument too many",
                             opt->positional[0]);
    }
    for (size_t i = 0; st == CMI_OK && i < opt->goodput.n_items; i++) {
        st = cmi_load_slo_parse(&opt->load.slo, opt->goodput.items[i], err);
    }
    for (size_t i = 0; st == CMI_OK && i < n_positional; i++) {
        st = cmi_load_slo_parse(&opt->load.slo, opt->positional[i], err);
    }
    return st;
}

/* Visible ASCII, spaces and tabs, and what is not ASCII: nothing that ends a line. */
static bool is_header_value(const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f) {
            return false;
        }
    }
    return true;
}

static cmi_status add_header(serve_options *opt, const char *header, cmi_error *err)
{
    static const char *const token = "!#$%&'*+-.^_`|~0123456789"
                                     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t n = strspn(header, token);
    if (n == 0 || (header[n] != ':' && header[n] != '=') || !is_header_value(header)) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--header takes NAME:VALUE, not \"%s\"", header);
    }
    const char *value = header + n + 1 + strspn(header + n + 1, " ");
    cmi_buf_printf(&opt->header_lines, "%.*s: %s\r\n", (int)n, header, value);
    return CMI_OK;
}

static cmi_status make_headers(serve_options *opt, cmi_error *err)
{
    cmi_status st = CMI_OK;
    const char *key = opt->api_key != NULL ? opt->api_key : getenv("OPENAI_API_KEY");
    if (key != NULL && key[0] != '\0') {
        if (!is_header_value(key)) {
            return cmi_error_set(err, CMI_ERR_INVALID, "the API key holds control characters");
        }
        cmi_buf_printf(&opt->header_lines, "Authorization: Bearer %s\r\n", key);
    }
    for (size_t i = 0; st == CMI_OK && i < opt->headers.n_items; i++) {
        st = add_header(opt, opt->headers.items[i], err);
    }
    if (st == CMI_OK && opt->header_lines.overflow) {
        st = cmi_error_set(err, CMI_ERR_INVALID, "headers of more than %d bytes", MAX_HEADER_BYTES);
    }
    opt->load.headers = cmi_buf_cstr(&opt->header_lines);
    return st;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);
    size_t n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Backend and endpoint say the same thing; one is enough. */
static cmi_status choose_endpoint(cmi_load_options *load, cmi_error *err)
{
    static const char *const completions_names[] = {"openai", "vllm", "openai-completions"};
    bool is_completions = false;
    bool is_chat = load->backend != NULL && strcmp(load->backend, "openai-chat") == 0;
    for (size_t i = 0; load->backend != NULL && i < CMI_LEN(completions_names); i++) {
        is_completions = is_completions || strcmp(load->backend, completions_names[i]) == 0;
    }
    if (load->backend != NULL && !is_chat && !is_completions) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--backend takes openai or openai-chat, not \"%s\"", load->backend);
    }
    if (load->endpoint == NULL) {
        load->endpoint = is_chat ? "/v1/chat/completions" : "/v1/completions";
    }
    load->is_chat = ends_with(load->endpoint, "/chat/completions");
    bool is_known = load->is_chat || ends_with(load->endpoint, "/completions");
    if (load->endpoint[0] != '/' || !is_known || strpbrk(load->endpoint, " \r\n\t") != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--endpoint takes a path that ends in /chat/completions or "
                             "/completions, not \"%s\"",
                             load->endpoint);
    }
    if (load->backend != NULL && is_chat != load->is_chat) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--backend %s does not go with --endpoint %s",
                             load->backend, load->endpoint);
    }
    load->backend = load->backend != NULL ? load->backend
                    : load->is_chat       ? "openai-chat"
                                          : "openai";
    return CMI_OK;
}

static cmi_status choose_dataset(cmi_load_options *load, cmi_error *err)
{
    static const char *const names[] = {[CMI_LOAD_RANDOM] = "random",
                                        [CMI_LOAD_CUSTOM] = "custom",
                                        [CMI_LOAD_MOONCAKE] = "mooncake",
                                        [CMI_LOAD_AZURE] = "azure"};
    size_t i = 0;
    while (i < CMI_LEN(names) && strcmp(load->dataset_name, names[i]) != 0) {
        i++;
    }
    if (i == CMI_LEN(names)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "--dataset-name takes random, custom, mooncake or azure, not \"%s\"",
                             load->dataset_name);
    }
    load->dataset = (cmi_load_dataset)i;
    if ((load->dataset == CMI_LOAD_RANDOM) != (load->dataset_path == NULL)) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             load->dataset_path == NULL
                                 ? "--dataset-name %s needs --dataset-path"
                                 : "--dataset-path goes with --dataset-name custom, mooncake or "
                                   "azure, not with %s",
                             load->dataset_name);
    }
    return CMI_OK;
}

/* What excludes each other, what is out of range. */
static const char *what_is_wrong(const serve_options *opt)
{
    const cmi_load_options *load = &opt->load;
    if (load->base_url != NULL && (opt->host != NULL || opt->port != 0)) {
        return "--base-url and --host or --port exclude each other";
    }
    if (!(load->random.range_ratio >= 0 && load->random.range_ratio < 1)) {
        return "--random-range-ratio takes a number from 0 to less than 1";
    }
    if (load->random.input_tokens == 0 && load->random.prefix_tokens == 0) {
        return "a prompt needs a token: --random-input-len 0 goes with --random-prefix-len";
    }
    if (!(load->cancel_rate >= 0 && load->cancel_rate <= 1)) {
        return "--cancel-rate takes a number from 0 to 1";
    }
    if (!(load->cancel_delay_s >= 0 && load->cancel_delay_s < 1e9)) {
        return "--cancel-delay takes a number of seconds";
    }
    if (!(load->timeout_s > 0 && load->timeout_s < 1e9)) {
        return "--timeout takes a positive number of seconds";
    }
    if (!(load->trace_scale > 0)) {
        return "--trace-scale takes a positive number";
    }
    if (load->token_ids && load->is_chat) {
        return "--token-ids goes with /v1/completions only";
    }
    if (opt->ignore_eos && opt->no_ignore_eos) {
        return "--ignore-eos and --no-ignore-eos exclude each other";
    }
    return NULL;
}

static cmi_status parse_numbers(serve_options *opt, cmi_error *err)
{
    cmi_load_options *load = &opt->load;
    cmi_status st = CMI_OK;
    load->has_rate = opt->request_rate != NULL;
    if (load->has_rate) {
        st = parse_positive(&load->request_rate, "request-rate", opt->request_rate, err);
    }
    if (st == CMI_OK && opt->burstiness != NULL) {
        st = parse_positive(&load->burstiness, "burstiness", opt->burstiness, err);
    }
    if (st == CMI_OK) {
        st = parse_metrics(load, opt->percentile_metrics, err);
    }
    if (st == CMI_OK) {
        st = parse_percentiles(load, opt->metric_percentiles, err);
    }
    return st;
}

static cmi_status choose_target(serve_options *opt, cmi_error *err)
{
    cmi_load_options *load = &opt->load;
    if (load->base_url == NULL) {
        const char *host = opt->host != NULL ? opt->host : "127.0.0.1";
        bool is_ipv6 = strchr(host, ':') != NULL && host[0] != '[';
        cmi_buf_printf(&opt->url, is_ipv6 ? "http://[%s]:%u" : "http://%s:%u", host,
                       opt->port != 0 ? opt->port : 8000u);
        load->base_url = cmi_buf_cstr(&opt->url);
    }
    return cmi_load_target_parse(&load->target, load->base_url, err);
}

static cmi_status check(serve_options *opt, size_t n_positional, cmi_error *err)
{
    cmi_load_options *load = &opt->load;
    cmi_status st = parse_goodput(opt, n_positional, err);
    if (st == CMI_OK) {
        st = choose_endpoint(load, err);
    }
    const char *wrong = st == CMI_OK ? what_is_wrong(opt) : NULL;
    if (wrong != NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "%s", wrong);
    }
    if (st == CMI_OK) {
        st = parse_numbers(opt, err);
    }
    if (st == CMI_OK) {
        st = choose_dataset(load, err);
    }
    if (st == CMI_OK) {
        st = make_headers(opt, err);
    }
    if (st == CMI_OK) {
        st = choose_target(opt, err);
    }
    load->ignore_eos = opt->ignore_eos || (load->dataset != CMI_LOAD_CUSTOM && !opt->no_ignore_eos);
    load->saves_result = load->saves_result || load->is_detailed || load->result_filename != NULL;
    return st;
}

static int run(serve_options *opt, size_t n_positional)
{
    cmi_error err = {0};
    int exit_status;
    if (check(opt, n_positional, &err) != CMI_OK) {
        exit_status = cmi_cli_usage(err.text);
    } else {
        errno = 0;
        if (opt->nice > 0 && nice((int)opt->nice) == -1 && errno != 0) {
            fprintf(stderr, "cminfer: cannot lower the priority: %s\n", strerror(errno));
        }
        exit_status = cmi_load_run(&opt->load, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
    }
    return exit_status;
}

int cmi_cmd_bench_serve(int argc, char **argv)
{
    serve_options opt = {.percentile_metrics = "ttft,tpot,itl,e2el",
                         .metric_percentiles = "50,90,99",
                         .load = {.dataset_name = "random",
                                  .random = {.input_tokens = 1024, .output_tokens = 128},
                                  .request_rate = INFINITY,
                                  .burstiness = 1,
                                  .trace_scale = 1,
                                  .vocab_size = 1024,
                                  .temperature = -1,
                                  .cancel_delay_s = 0.5,
                                  .timeout_s = 21600}};
    cmi_option target[TARGET_ROWS];
    cmi_option load[LOAD_ROWS];
    cmi_option data[DATA_ROWS];
    cmi_option result[RESULT_ROWS];
    make_target_table(target, &opt);
    make_load_table(load, &opt);
    make_data_table(data, &opt);
    make_result_table(result, &opt);
    const cmi_option *const tables[] = {target, load, data, result, NULL};
    cmi_command_line line = {
        .tables = tables, .positional = opt.positional, .n_positional_max = MAX_EXTRA_ARGUMENTS};
    cmi_error err = {0};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    if (st == CMI_ERR_CANCELLED) {
        print_help(tables);
        return CMI_EXIT_OK;
    }
    if (st != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    cmi_buf_init(&opt.header_lines, MAX_HEADER_BYTES);
    cmi_buf_init(&opt.url, 1024);
    int exit_status = run(&opt, line.n_positional);
    cmi_buf_deinit(&opt.header_lines);
    cmi_buf_deinit(&opt.url);
    return exit_status;
}
