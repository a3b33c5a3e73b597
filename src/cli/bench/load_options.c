#include "cli/bench/load_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER_BYTES = 32 << 10, MAX_URL_BYTES = 1024 };

void cmi_load_command_init(cmi_load_command *command)
{
    *command = (cmi_load_command){.percentile_metrics = "ttft,tpot,itl,e2el",
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
    cmi_buf_init(&command->header_lines, MAX_HEADER_BYTES);
    cmi_buf_init(&command->url, MAX_URL_BYTES);
}

void cmi_load_command_deinit(cmi_load_command *command)
{
    cmi_buf_deinit(&command->header_lines);
    cmi_buf_deinit(&command->url);
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
static cmi_status parse_goodput(cmi_load_command *opt, cmi_error *err)
{
    cmi_status st = CMI_OK;
    if (opt->n_arguments > 0 && opt->goodput.n_items == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "\"%s\" is one argument too many",
                             opt->arguments[0]);
    }
    for (size_t i = 0; st == CMI_OK && i < opt->goodput.n_items; i++) {
        st = cmi_load_slo_parse(&opt->load.slo, opt->goodput.items[i], err);
    }
    for (size_t i = 0; st == CMI_OK && i < opt->n_arguments; i++) {
        st = cmi_load_slo_parse(&opt->load.slo, opt->arguments[i], err);
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

static cmi_status add_header(cmi_load_command *opt, const char *header, cmi_error *err)
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

static cmi_status make_headers(cmi_load_command *opt, cmi_error *err)
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
static const char *what_is_wrong(const cmi_load_command *opt)
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

static cmi_status parse_numbers(cmi_load_command *opt, cmi_error *err)
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

static cmi_status choose_target(cmi_load_command *opt, cmi_error *err)
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

cmi_status cmi_load_command_check(cmi_load_command *command, cmi_error *err)
{
    cmi_load_command *opt = command;
    cmi_load_options *load = &opt->load;
    cmi_status st = parse_goodput(opt, err);
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
