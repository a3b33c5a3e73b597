/* cli/cmd_bench_serve.c - `cminfer bench serve`: options of the load generator.
 *
 * Names and meanings are those of vllm bench serve where it has them, so that its command lines can
 * be pasted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench/load_options.h"
#include "cli/commands.h"

enum { TARGET_ROWS = 14, LOAD_ROWS = 12, DATA_ROWS = 16, RESULT_ROWS = 12 };

static void make_target_table(cmi_option table[TARGET_ROWS], cmi_load_command *opt)
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

static void make_load_table(cmi_option table[LOAD_ROWS], cmi_load_command *opt)
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

static void make_data_table(cmi_option table[DATA_ROWS], cmi_load_command *opt)
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

static void make_result_table(cmi_option table[RESULT_ROWS], cmi_load_command *opt)
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

static int run(cmi_load_command *opt)
{
    cmi_error err = {0};
    if (cmi_load_command_check(opt, &err) != CMI_OK) {
        return cmi_cli_usage(err.text);
    }
    errno = 0;
    if (opt->nice > 0 && nice((int)opt->nice) == -1 && errno != 0) {
        fprintf(stderr, "cminfer: cannot lower the priority: %s\n", strerror(errno));
    }
    return cmi_load_run(&opt->load, &err) == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}

int cmi_cmd_bench_serve(int argc, char **argv)
{
    cmi_load_command opt;
    cmi_option target[TARGET_ROWS];
    cmi_option load[LOAD_ROWS];
    cmi_option data[DATA_ROWS];
    cmi_option result[RESULT_ROWS];
    cmi_load_command_init(&opt);
    make_target_table(target, &opt);
    make_load_table(load, &opt);
    make_data_table(data, &opt);
    make_result_table(result, &opt);
    const cmi_option *const tables[] = {target, load, data, result, NULL};
    cmi_command_line line = {
        .tables = tables, .positional = opt.arguments, .n_positional_max = CMI_LOAD_MAX_ARGUMENTS};
    cmi_error err = {0};
    cmi_status st = cmi_options_parse(&line, argc, argv, &err);
    int exit_status = CMI_EXIT_OK;
    opt.n_arguments = line.n_positional;
    if (st == CMI_ERR_CANCELLED) {
        print_help(tables);
    } else if (st != CMI_OK) {
        exit_status = cmi_cli_usage(err.text);
    } else {
        exit_status = run(&opt);
    }
    cmi_load_command_deinit(&opt);
    return exit_status;
}
