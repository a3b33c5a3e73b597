/* cli/cmd_eval.c - `cminfer eval`: exact match on tasks, greedy, as a table.
 *
 * A task file has one JSON object a line: task (its name), messages, answer, and optionally tools
 * (list), thinking (false: the template is told enable_thinking=false). An item counts as right
 * when what stands behind the reasoning is the answer to the byte and the model ended by itself. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/chat.h"
#include "cli/eval.h"
#include "cli/progress.h"
#include "os/file.h"
#include "text/detokenizer.h"

enum { MAX_TASKS = 256, MAX_FILE_BYTES = 256 << 20, MAX_ANSWER_BYTES = 1 << 22 };

typedef struct task_result {
    char name[64];
    uint32_t n_items;
    uint32_t n_exact;
    uint32_t n_ended;
    uint64_t n_tokens;
} task_result;

typedef struct eval_options {
    cmi_model_options model;
    const char *tasks;
    const char *perplexity;
    const char *chat_template;
    uint32_t max_tokens;
    uint32_t limit; /* items of each task; 0: all */
    bool json;
    bool show_wrong;
} eval_options;

typedef struct eval_run {
    cmi_chat chat;
    const eval_options *opt;
    task_result tasks[MAX_TASKS];
    size_t n_tasks;
} eval_run;

/* The entry of a task, made at its first item; NULL when there are too many tasks. name is shorter
 * than an entry's. */
static task_result *find_task(eval_run *run, const char *name)
{
    for (size_t i = 0; i < run->n_tasks; i++) {
        if (strcmp(run->tasks[i].name, name) == 0) {
            return &run->tasks[i];
        }
    }
    if (run->n_tasks == MAX_TASKS) {
        return NULL;
    }
    task_result *task = &run->tasks[run->n_tasks++];
    snprintf(task->name, sizeof task->name, "%s", name);
    return task;
}

/* What stands behind the last end of reasoning. */
static const char *final_answer(const char *text)
{
    static const char end_of_reasoning[] = "</think>\n\n";
    const char *at = text;
    for (const char *next; (next = strstr(at, end_of_reasoning)) != NULL;) {
        at = next + strlen(end_of_reasoning);
    }
    return at;
}

static cmi_status ask(eval_run *run, const json_t *item, cmi_chat_answer *answer, cmi_error *err)
{
    const json_t *tools = json_object_get(item, "tools");
    const json_t *thinking = json_object_get(item, "thinking");
    json_t *kwargs = json_pack("{s:b}", "enable_thinking", !json_is_false(thinking));
    cmi_chat_question question = {.messages = json_object_get(item, "messages"),
                                  .tools = json_is_array(tools) ? tools : NULL,
                                  .kwargs = kwargs,
                                  .head = cmi_request_defaults()};
    question.head.temperature = 0;
    question.head.max_tokens = run->opt->max_tokens;
    cmi_status st = cmi_chat_ask(&run->chat, &question, answer, err);
    json_decref(kwargs);
    return st;
}

static cmi_status run_item(eval_run *run, const json_t *item, cmi_error *err)
{
    const char *name = json_string_value(json_object_get(item, "task"));
    const char *want = json_string_value(json_object_get(item, "answer"));
    if (name == NULL || want == NULL || !json_is_array(json_object_get(item, "messages"))) {
        return cmi_error_set(err, CMI_ERR_BAD_DATA,
                             "an item needs task and answer (strings) and messages (a list)");
    }
    if (strlen(name) >= sizeof run->tasks[0].name) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "task is longer than %zu bytes",
                             sizeof run->tasks[0].name - 1);
    }
    task_result *task = find_task(run, name);
    if (task == NULL) {
        return cmi_error_set(err, CMI_ERR_TOO_LARGE, "more than %d different tasks", MAX_TASKS);
    }
    if (run->opt->limit > 0 && task->n_items >= run->opt->limit) {
        return CMI_OK;
    }
    cmi_chat_answer answer;
    cmi_status st = ask(run, item, &answer, err);
    if (st == CMI_OK) {
        cmi_buf text;
        cmi_buf_init(&text, MAX_ANSWER_BYTES);
        bool ended = answer.finish_reason == CMI_FINISH_STOP;
        cmi_tokenizer_decode(run->chat.tokenizer, answer.ids.data, answer.ids.len - (ended ? 1 : 0),
                             false, &text);
        bool exact = ended && strcmp(final_answer(cmi_buf_cstr(&text)), want) == 0;
        task->n_items++;
        task->n_ended += ended ? 1 : 0;
        task->n_exact += exact ? 1 : 0;
        task->n_tokens += answer.ids.len;
        if (!exact && run->opt->show_wrong) {
            fprintf(stderr, "%s: want %s\n  got %s\n", name, want, cmi_buf_cstr(&text));
        }
        cmi_buf_deinit(&text);
    }
    cmi_ids_deinit(&answer.ids);
    return st;
}

static cmi_status run_line(eval_run *run, const char *line, size_t n, size_t line_no,
                           cmi_error *err)
{
    json_error_t where;
    json_t *item = json_loadb(line, n, 0, &where);
    cmi_status st = item == NULL ? cmi_error_set(err, CMI_ERR_BAD_DATA, "%s", where.text)
                                 : run_item(run, item, err);
    json_decref(item);
    if (st != CMI_OK) {
        cmi_error_prefix(err, "%s line %zu", run->opt->tasks, line_no);
    }
    return st;
}

static cmi_status run_file(eval_run *run, cmi_error *err)
{
    cmi_buf file;
    cmi_progress progress;
    cmi_status st = cmi_file_read(&file, run->opt->tasks, MAX_FILE_BYTES, err);
    size_t line_no = 0;
    cmi_progress_start(&progress, "tasks");
    for (size_t at = 0; st == CMI_OK && at < file.len;) {
        const char *line = file.data + at;
        const char *end = memchr(line, '\n', file.len - at);
        size_t n = end != NULL ? (size_t)(end - line) : file.len - at;
        line_no++;
        if (n > 0) {
            st = run_line(run, line, n, line_no, err);
        }
        at += n + 1;
        cmi_progress_count(&progress, CMI_MIN(at, file.len), file.len);
    }
    cmi_progress_end(&progress);
    cmi_buf_deinit(&file);
    return st;
}

static double percent(uint32_t part, uint32_t whole)
{
    return whole > 0 ? 100.0 * part / whole : 0;
}

static void print_table(const eval_run *run)
{
    task_result all = {.name = "all"};
    printf("| %-16s | items | exact | exact match | ended by itself |\n", "task");
    printf("| ---------------- | ----: | ----: | ----------: | --------------: |\n");
    for (size_t i = 0; i <= run->n_tasks; i++) {
        const task_result *t = i < run->n_tasks ? &run->tasks[i] : &all;
        printf("| %-16s | %5u | %5u | %9.1f %% | %13.1f %% |\n", t->name, t->n_items, t->n_exact,
               percent(t->n_exact, t->n_items), percent(t->n_ended, t->n_items));
        all.n_items += t->n_items;
        all.n_exact += t->n_exact;
        all.n_ended += t->n_ended;
    }
}

static void print_json(const eval_run *run)
{
    json_t *tasks = json_object();
    for (size_t i = 0; i < run->n_tasks; i++) {
        const task_result *t = &run->tasks[i];
        json_object_set_new(tasks, t->name,
                            json_pack("{s:I,s:I,s:I,s:I}", "n", (json_int_t)t->n_items, "n_exact",
                                      (json_int_t)t->n_exact, "n_ended", (json_int_t)t->n_ended,
                                      "n_tokens", (json_int_t)t->n_tokens));
    }
    json_t *root = json_pack("{s:o}", "tasks", tasks);
    json_dumpf(root, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(root);
}

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf(
        "Usage: cminfer eval MODEL (--tasks FILE.jsonl | --perplexity FILE) [OPTION]...\n"
        "\n"
        "Answers every item of FILE greedily and counts exact matches a task. An item is a JSON\n"
        "object: task, messages, answer, and optionally tools and thinking.\n"
        "With --perplexity: how well the model predicts a text (exp of the mean negative\n"
        "log-likelihood of a token), in windows of up to 2048 tokens.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExample:\n"
           "  cminfer eval models/matrix-tiny --tasks models/matrix-tiny/eval.jsonl --limit 10\n"
           "  cminfer eval models/matrix-tiny --perplexity README.md --quantization w8a8-int8\n");
}

static int evaluate(const eval_options *opt)
{
    cmi_error err = {0};
    cmi_engine_options engine = {0};
    eval_run *run = cmi_alloc(1, sizeof *run);
    run->opt = opt;
    cmi_status st = cmi_chat_open(&run->chat, &opt->model, opt->chat_template, &engine, &err);
    if (st == CMI_OK) {
        st = run_file(run, &err);
    }
    if (st == CMI_OK) {
        (opt->json ? print_json : print_table)(run);
    }
    cmi_chat_close(&run->chat);
    cmi_free(run);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}

int cmi_cmd_eval(int argc, char **argv)
{
    eval_options opt = {.max_tokens = 200};
    const cmi_option own_table[] = {
        {"tasks", "FILE", "the items, one JSON object a line", CMI_OPTION_TEXT, &opt.tasks, 0, 0},
        {"perplexity", "FILE", "a text, or documents as .jsonl lines {\"text\": ...}",
         CMI_OPTION_TEXT, &opt.perplexity, 0, 0},
        {"max-tokens", "N", "longest answer in tokens (default 200)", CMI_OPTION_UINT,
         &opt.max_tokens, 1, 1 << 20},
        {"limit", "N", "only the first N items of each task", CMI_OPTION_UINT, &opt.limit, 1,
         UINT32_MAX},
        {"json", NULL, "print JSON instead of a table", CMI_OPTION_FLAG, &opt.json, 0, 0},
        {"show-wrong", NULL, "print every wrong answer on standard error", CMI_OPTION_FLAG,
         &opt.show_wrong, 0, 0},
        {"chat-template", "FILE", "a Jinja template (or its text) instead of the model's own",
         CMI_OPTION_TEXT, &opt.chat_template, 0, 0},
        {0},
    };
    int exit_status;
    if (!cmi_cli_parse(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    if ((opt.tasks == NULL) == (opt.perplexity == NULL)) {
        return cmi_cli_usage("eval needs --tasks FILE.jsonl or --perplexity FILE, one of them");
    }
    return opt.perplexity != NULL ? cmi_cli_perplexity(&opt.model, opt.perplexity, opt.json)
                                  : evaluate(&opt);
}
