/* cli/cmd_run.c - `cminfer run`: one answer, or a conversation at the terminal.
 *
 * Ctrl-C stops an answer and gives the prompt back; at the prompt, Ctrl-D leaves. */
#include <histedit.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "cli/chat.h"
#include "text/answer_parser.h"
#include "text/detokenizer.h"

enum { MAX_ANSWER_BYTES = 64 << 20 };
static const double MIN_POSITIVE = 1e-6;

typedef struct run_options {
    cmi_model_options model;
    const char *prompt;
    const char *system;
    const char *chat_template;
    double temperature, top_p; /* NAN: not given */
    uint32_t seed;
    uint32_t max_tokens;
    bool no_think;
    bool verbose;
} run_options;

/* An answer on its way to the screen. */
typedef struct screen {
    const cmi_chat_answer *answer; /* knows where the prompt ended once tokens come */
    cmi_detokenizer detokenizer;
    cmi_answer_parser parser;
    bool has_parser;
    cmi_buf text;    /* of one token */
    cmi_buf content; /* of the whole answer, for the history */
    bool is_terminal;
    bool dimmed;
} screen;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void set_dim(screen *s, bool dim)
{
    if (s->is_terminal && dim != s->dimmed) {
        fputs(dim ? "\x1b[2m" : "\x1b[22m", stdout);
        s->dimmed = dim;
    }
}

/* Reasoning is dim, calls are shown as name(arguments). Only content goes into the history. */
static void show_pieces(screen *s)
{
    cmi_answer_piece piece;
    while (cmi_answer_parser_next(&s->parser, &piece)) {
        set_dim(s, piece.type == CMI_ANSWER_REASONING);
        if (piece.type == CMI_ANSWER_CALL) {
            fputs("\n-> ", stdout);
        }
        fwrite(piece.text, 1, piece.n_bytes, stdout);
        if (piece.type == CMI_ANSWER_CALL) {
            fputc(' ', stdout);
        }
        if (piece.type == CMI_ANSWER_CONTENT) {
            cmi_buf_append(&s->content, piece.text, piece.n_bytes);
        }
    }
    fflush(stdout);
}

static void screen_start(screen *s, const cmi_chat *chat, const cmi_chat_answer *answer)
{
    *s = (screen){.answer = answer, .is_terminal = isatty(STDOUT_FILENO) == 1};
    s->detokenizer = cmi_detokenizer_start(chat->tokenizer, true);
    cmi_buf_init(&s->text, 1 << 16);
    cmi_buf_init(&s->content, MAX_ANSWER_BYTES);
}

static void parse_text(screen *s)
{
    if (!s->has_parser) {
        cmi_answer_parser_options options = {.in_reasoning = s->answer->in_reasoning,
                                             .tool_calls = true};
        cmi_answer_parser_init(&s->parser, &options);
        s->has_parser = true;
    }
    cmi_answer_parser_feed(&s->parser, cmi_buf_cstr(&s->text), s->text.len);
}

static bool show_token(void *arg, uint32_t token_id)
{
    screen *s = arg;
    cmi_buf_clear(&s->text);
    cmi_detokenizer_push(&s->detokenizer, token_id, &s->text);
    parse_text(s);
    show_pieces(s);
    return !interrupted;
}

static void screen_end(screen *s)
{
    cmi_buf_clear(&s->text);
    cmi_detokenizer_finish(&s->detokenizer, &s->text);
    parse_text(s);
    cmi_answer_parser_end(&s->parser);
    show_pieces(s);
    fputc('\n', stdout);
}

static void screen_deinit(screen *s)
{
    cmi_answer_parser_deinit(&s->parser);
    cmi_buf_deinit(&s->text);
    cmi_buf_deinit(&s->content);
}

/* What the user wants, else what the model recommends if that is at least min, else 1; NAN is "not
 * given". */
static float choose(double wanted, double recommended, double min)
{
    if (!isnan(wanted)) {
        return (float)wanted;
    }
    return recommended >= min ? (float)recommended : 1.0f;
}

static cmi_request sampling(const run_options *opt, const cmi_generation_config *model)
{
    cmi_request head = cmi_request_defaults();
    head.temperature = choose(opt->temperature, model->temperature, 0);
    head.top_p = choose(opt->top_p, model->top_p, MIN_POSITIVE);
    head.repetition_penalty = choose(NAN, model->repetition_penalty, MIN_POSITIVE);
    head.top_k = model->top_k;
    head.seed = opt->seed;
    head.max_tokens = opt->max_tokens > 0 ? opt->max_tokens : UINT32_MAX;
    return head;
}

static void say_speed(const cmi_chat_answer *answer)
{
    double prefill = (double)(answer->first_token_ns - answer->started_ns) * 1e-9;
    double decode = (double)(answer->finished_ns - answer->first_token_ns) * 1e-9;
    cmi_log(CMI_LOG_INFO, "prompt %u tokens in %.3f s, answer %zu tokens at %.1f tokens/s",
            answer->n_prompt_tokens, prefill, answer->ids.len,
            decode > 0 ? (double)(answer->ids.len - 1) / decode : 0);
}

/* Asks and shows; the answer joins the messages. */
static cmi_status take_turn(cmi_chat *chat, const run_options *opt, json_t *messages,
                            cmi_error *err)
{
    screen s;
    cmi_chat_answer answer;
    screen_start(&s, chat, &answer);
    json_t *kwargs =
        opt->no_think ? json_pack("{s:b,s:b}", "enable_thinking", 0, "thinking", 0) : NULL;
    cmi_chat_question question = {.messages = messages,
                                  .kwargs = kwargs,
                                  .head = sampling(opt, &chat->generation),
                                  .on_token = show_token,
                                  .on_token_arg = &s};
    interrupted = 0;
    cmi_status st = cmi_chat_ask(chat, &question, &answer, err);
    if (st == CMI_OK) {
        screen_end(&s);
        json_array_append_new(messages, json_pack("{s:s,s:s%}", "role", "assistant", "content",
                                                  cmi_buf_cstr(&s.content), s.content.len));
        if (opt->verbose) {
            say_speed(&answer);
        }
    }
    set_dim(&s, false);
    json_decref(kwargs);
    cmi_ids_deinit(&answer.ids);
    screen_deinit(&s);
    return st;
}

static const char *prompt_text(EditLine *el)
{
    (void)el;
    return "> ";
}

/* Reads lines with history until end of file. */
static cmi_status converse(cmi_chat *chat, const run_options *opt, json_t *messages, cmi_error *err)
{
    EditLine *el = el_init("cminfer", stdin, stdout, stderr);
    History *lines = history_init();
    HistEvent event;
    history(lines, &event, H_SETSIZE, 1000);
    el_set(el, EL_PROMPT, prompt_text);
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_SIGNAL, 0);
    el_set(el, EL_HIST, history, lines);
    puts("Ask; Ctrl-C stops an answer, Ctrl-D leaves.");
    cmi_status st = CMI_OK;
    for (;;) {
        int n = 0;
        const char *line = el_gets(el, &n);
        if (line == NULL && interrupted) {
            interrupted = 0;
            el_reset(el);
            putchar('\n');
            continue;
        }
        if (line == NULL || n <= 0) {
            break;
        }
        size_t length = strcspn(line, "\n");
        if (length == 0) {
            continue;
        }
        history(lines, &event, H_ENTER, line);
        size_t n_before = json_array_size(messages);
        json_t *text = json_stringn(line, length);
        if (text == NULL) {
            fputs("cminfer: that line is not UTF-8\n", stderr);
            continue;
        }
        json_array_append_new(messages, json_pack("{s:s,s:o}", "role", "user", "content", text));
        st = take_turn(chat, opt, messages, err);
        if (st != CMI_OK) {
            cmi_cli_fail(err); /* the conversation can go on without this turn */
            while (json_array_size(messages) > n_before) {
                json_array_remove(messages, n_before);
            }
        }
    }
    putchar('\n');
    history_end(lines);
    el_end(el);
    return CMI_OK;
}

static int run(const run_options *opt)
{
    cmi_error err = {0};
    cmi_chat chat;
    cmi_engine_options engine = {0};
    cmi_log_set_level(opt->verbose ? CMI_LOG_INFO : CMI_LOG_WARN);
    cmi_status st = cmi_chat_open(&chat, &opt->model, opt->chat_template, &engine, &err);
    if (st != CMI_OK) {
        return cmi_cli_fail(&err);
    }
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    json_t *messages = json_array();
    if (opt->system != NULL) {
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", "system", "content", opt->system));
    }
    if (opt->prompt != NULL) {
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", "user", "content", opt->prompt));
        st = take_turn(&chat, opt, messages, &err);
    } else {
        st = converse(&chat, opt, messages, &err);
    }
    json_decref(messages);
    cmi_chat_close(&chat);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer run MODEL [-p PROMPT] [OPTION]...\n"
           "\n"
           "Without -p: a conversation. Reasoning is shown dim.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExamples:\n"
           "  cminfer run models/matrix-tiny -p 'What is 345 + 78?'\n"
           "  cminfer run models/matrix-tiny --temperature 0\n");
}

int cmi_cmd_run(int argc, char **argv)
{
    run_options opt = {.temperature = NAN, .top_p = NAN};
    const cmi_option own_table[] = {
        {"prompt|p", "TEXT", "ask this and leave", CMI_OPTION_TEXT, &opt.prompt, 0, 0},
        {"system", "TEXT", "a system message at the start", CMI_OPTION_TEXT, &opt.system, 0, 0},
        {"temperature", "X", "0 is greedy (default: the model's)", CMI_OPTION_NUMBER,
         &opt.temperature, 0, 0},
        {"top-p", "X", "nucleus sampling (default: the model's)", CMI_OPTION_NUMBER, &opt.top_p, 0,
         0},
        {"seed", "N", "of sampling (default 0)", CMI_OPTION_UINT, &opt.seed, 0, UINT32_MAX},
        {"max-tokens|n-predict|n", "N", "longest answer (default: the rest of the context)",
         CMI_OPTION_UINT, &opt.max_tokens, 1, UINT32_MAX},
        {"no-think", NULL, "answer without reasoning, where the template can", CMI_OPTION_FLAG,
         &opt.no_think, 0, 0},
        {"chat-template", "FILE", "a Jinja template (or its text) instead of the model's own",
         CMI_OPTION_TEXT, &opt.chat_template, 0, 0},
        {"verbose|v", NULL, "say what is in use and how fast it went", CMI_OPTION_FLAG,
         &opt.verbose, 0, 0},
        {0},
    };
    int exit_status;
    if (!cmi_cli_parse(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    if (opt.temperature < 0) {
        return cmi_cli_usage("--temperature takes a number from 0 on");
    }
    if (opt.top_p <= 0 || opt.top_p > 1) {
        return cmi_cli_usage("--top-p takes a number above 0, up to 1");
    }
    return run(&opt);
}
