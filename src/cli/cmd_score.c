/* cli/cmd_score.c - `cminfer score`: the model's opinion of given tokens, one JSON line a position.
 *
 * The prompt goes through the prefill path in chunks, generated tokens through the decode path,
 * exactly as in serving; so this is also the command with which the same-bits promise is checked.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/ranks.h"
#include "engine/instance_rank.h"
#include "engine/sampler.h"
#include "text/tokenizer.h"

typedef struct score_options {
    cmi_model_options model;
    const char *ids;
    const char *text;
    uint32_t top;
    uint32_t generate;
    bool drafts;
} score_options;

typedef struct score_run {
    cmi_instance *instance;
    cmi_sequence sequence;
    const score_options *opt;
    uint32_t *top_ids;  /* [top] */
    float next_logprob; /* of the token at the next position, NAN at the start */
} score_run;

/* One line for the token at pos. logits: after it. draft: negative when there is none. */
static void print_line(const score_run *run, uint32_t pos, uint32_t id, float logprob,
                       const float *logits, int64_t draft)
{
    uint32_t n_top = CMI_MIN(run->opt->top, run->instance->config.vocab_size);
    printf("{\"pos\":%u,\"id\":%u,\"logprob\":", pos, id);
    if (isnan(logprob)) {
        printf("null");
    } else {
        printf("%.9g", (double)logprob);
    }
    printf(",\"top\":[");
    if (n_top > 0) {
        cmi_sampler_top(logits, run->instance->config.vocab_size, n_top, run->top_ids);
    }
    for (uint32_t i = 0; i < n_top; i++) {
        printf("%s[%u,%.9g]", i > 0 ? "," : "", run->top_ids[i], (double)logits[run->top_ids[i]]);
    }
    printf("]");
    if (draft >= 0) {
        printf(",\"mtp_draft\":%lld", (long long)draft);
    }
    printf("}\n");
}

static float logprob_of(const score_run *run, const float *logits, uint32_t id)
{
    uint32_t vocab_size = run->instance->config.vocab_size;
    return logits[id] - cmi_sampler_log_sum_exp(&run->instance->kernels, logits, vocab_size);
}

/* Lines for the n prompt tokens of the step just run, which begin at pos. */
static void print_rows(score_run *run, const uint32_t *ids, uint32_t n_ids, uint32_t pos,
                       uint32_t n)
{
    size_t vocab_size = run->instance->config.vocab_size;
    for (uint32_t row = 0; row < n; row += CMI_FORWARD_MAX_HEAD_ROWS) {
        uint32_t n_head = CMI_MIN(n - row, (uint32_t)CMI_FORWARD_MAX_HEAD_ROWS);
        const float *logits = cmi_instance_logits(run->instance, row, n_head);
        for (uint32_t i = 0; i < n_head; i++, logits += vocab_size) {
            uint32_t at = pos + row + i;
            print_line(run, at, ids[at], run->next_logprob, logits, -1);
            if (at + 1 < n_ids) {
                run->next_logprob = logprob_of(run, logits, ids[at + 1]);
            }
        }
    }
}

/* Runs the prompt and prints it. The greedy token after it is *next_out. */
static cmi_status score_prompt(score_run *run, const uint32_t *ids, uint32_t n_ids,
                               uint32_t *next_out)
{
    cmi_instance *in = run->instance;
    run->next_logprob = NAN;
    for (uint32_t at = 0; at < n_ids;) {
        uint32_t n = CMI_MIN(n_ids - at, in->max_num_batched_tokens);
        cmi_status st = cmi_instance_step(in, &run->sequence, ids + at, n, true);
        if (st != CMI_OK) {
            return st;
        }
        print_rows(run, ids, n_ids, at, n);
        at += n;
        if (at == n_ids) {
            const float *logits = cmi_instance_logits(in, n - 1, 1);
            *next_out = cmi_sampler_arg_max(logits, in->config.vocab_size);
            run->next_logprob = logprob_of(run, logits, *next_out);
        }
        if (run->opt->drafts) {
            st = cmi_instance_mtp_prefill(in, &run->sequence, ids + at - n, n);
            if (st != CMI_OK) {
                return st;
            }
        }
    }
    return CMI_OK;
}

static cmi_status generate(score_run *run, uint32_t n_prompt, uint32_t token)
{
    cmi_instance *in = run->instance;
    for (uint32_t i = 0; i < run->opt->generate; i++) {
        const float *logits;
        int64_t draft = -1;
        if (run->opt->drafts) {
            cmi_status st = cmi_instance_mtp_draft(in, &run->sequence, token, &logits);
            if (st != CMI_OK) {
                return st;
            }
            draft = cmi_sampler_arg_max(logits, in->config.vocab_size);
        }
        cmi_status st = cmi_instance_step(in, &run->sequence, &token, 1, false);
        if (st != CMI_OK) {
            return st;
        }
        logits = cmi_instance_logits(in, 0, 1);
        print_line(run, n_prompt + i, token, run->next_logprob, logits, draft);
        token = cmi_sampler_arg_max(logits, in->config.vocab_size);
        run->next_logprob = logprob_of(run, logits, token);
    }
    return CMI_OK;
}

static cmi_status parse_ids(cmi_ids *ids, const char *text, uint32_t vocab_size, cmi_error *err)
{
    for (const char *at = text;; at++) {
        char *end;
        unsigned long id = strtoul(at, &end, 10);
        if (end == at || *at == '-' || (*end != ',' && *end != '\0')) {
            return cmi_error_set(err, CMI_ERR_INVALID,
                                 "--ids takes numbers with commas, not \"%s\"", at);
        }
        if (id >= vocab_size) {
            return cmi_error_set(err, CMI_ERR_INVALID, "--ids: token %lu, but vocab_size is %u", id,
                                 vocab_size);
        }
        cmi_ids_push(ids, (uint32_t)id);
        if (*end == '\0') {
            return CMI_OK;
        }
        at = end;
    }
}

static cmi_status read_prompt(cmi_ids *ids, const score_options *opt, const cmi_instance *instance,
                              const char *dir, cmi_error *err)
{
    if (opt->ids != NULL) {
        return parse_ids(ids, opt->ids, instance->config.vocab_size, err);
    }
    cmi_tokenizer *tokenizer;
    cmi_status st = cmi_tokenizer_load(&tokenizer, dir, err);
    if (st != CMI_OK) {
        return st;
    }
    st = cmi_tokenizer_encode(tokenizer, opt->text, strlen(opt->text),
                              CMI_ENCODE_ADDED_TOKENS | CMI_ENCODE_BEGIN, ids, err);
    cmi_tokenizer_destroy(tokenizer);
    return st;
}

static cmi_status check_length(const score_options *opt, const cmi_instance *instance, size_t n_ids,
                               cmi_error *err)
{
    if (n_ids == 0) {
        return cmi_error_set(err, CMI_ERR_INVALID, "the prompt has no token");
    }
    if (n_ids + opt->generate > instance->max_model_len) {
        return cmi_error_set(err, CMI_ERR_INVALID,
                             "%zu prompt tokens and %u to generate are more than the context of %u",
                             n_ids, opt->generate, instance->max_model_len);
    }
    if (opt->drafts && instance->weights->mtp == NULL) {
        return cmi_error_set(err, CMI_ERR_INVALID, "--drafts: this model has no MTP layer");
    }
    return CMI_OK;
}

static cmi_status score(const score_options *opt, cmi_instance *instance, const char *dir,
                        cmi_error *err)
{
    cmi_ids ids = {0};
    cmi_status st = read_prompt(&ids, opt, instance, dir, err);
    if (st == CMI_OK) {
        st = check_length(opt, instance, ids.len, err);
    }
    if (st == CMI_OK) {
        score_run run = {.instance = instance, .opt = opt};
        uint32_t next = 0;
        run.top_ids = cmi_alloc(opt->top, sizeof *run.top_ids);
        cmi_sequence_init(&run.sequence, instance);
        st = score_prompt(&run, ids.data, (uint32_t)ids.len, &next);
        if (st == CMI_OK) {
            st = generate(&run, (uint32_t)ids.len, next);
        }
        if (st != CMI_OK) {
            cmi_error_set(err, st, "score: %s", cmi_status_text(st));
        }
        cmi_sequence_deinit(&run.sequence, instance);
        cmi_free(run.top_ids);
    }
    cmi_ids_deinit(&ids);
    return st;
}

/* The first rank scores, the others run their experts for it. */
static cmi_status run(const score_options *opt, cmi_cli_ranks *ranks, cmi_error *err)
{
    const uint64_t patience_ns = 600000000000u;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line is of use when it is there */
    cmi_model_options model = opt->model;
    cmi_instance_options options = cmi_cli_sized_options(&model, opt->drafts);
    cmi_instance *instance = NULL;
    cmi_buf dir = {0};
    cmi_status st = CMI_OK;
    for (uint32_t i = 1; st == CMI_OK && i < ranks->n_local && !ranks->is_started; i++) {
        st = cmi_cli_ranks_start(ranks, ranks->first + i, err);
    }
    if (st == CMI_OK && ranks->n > 1) {
        st = cmi_cli_ranks_join(ranks, &model, true, &options, err);
    }
    st = st == CMI_OK ? cmi_cli_open_instance(&instance, &dir, &options, &model, err) : st;
    if (st == CMI_OK) {
        cmi_team_own(instance->team);
    }
    if (st == CMI_OK && ranks->n > 1) {
        st = cmi_instance_join(instance, patience_ns, err);
    }
    if (st == CMI_OK && ranks->place > 0) {
        st = cmi_instance_serve_first(instance, patience_ns, err);
    } else if (st == CMI_OK) {
        st = score(opt, instance, cmi_buf_cstr(&dir), err);
    }
    cmi_cli_ranks_end_others(ranks);
    cmi_instance_close(instance);
    cmi_buf_deinit(&dir);
    return st;
}

static void print_help(const cmi_option *own, const cmi_option *model)
{
    printf("Usage: cminfer score MODEL (--ids 1,2,3 | --text TEXT) [OPTION]...\n"
           "\n"
           "Prints one JSON line a position: "
           "{\"pos\":i,\"id\":t,\"logprob\":x|null,\"top\":[[id,logit],...]},\n"
           "where logprob is that of this token given those before it, and top holds the largest\n"
           "logits for the next one.\n");
    cmi_options_print("Options:", own);
    cmi_options_print("Model:", model);
    printf("\nExample:\n  cminfer score models/matrix-tiny --text 'ROMEO:' --top 3 --generate 8\n");
}

int cmi_cmd_score(int argc, char **argv)
{
    score_options opt = {.top = 5};
    cmi_option own_table[8 + CMI_CLI_RANK_OPTIONS] = {
        {"ids", "1,2,3", "token ids to score", CMI_OPTION_TEXT, &opt.ids, 0, 0},
        {"text", "TEXT", "text to score; special tokens in it are read as such", CMI_OPTION_TEXT,
         &opt.text, 0, 0},
        {"top", "N", "logits to print at a position (default 5)", CMI_OPTION_UINT, &opt.top, 0,
         65536},
        {"generate", "N", "go on with N greedy tokens", CMI_OPTION_UINT, &opt.generate, 0,
         UINT32_MAX},
        {"drafts", NULL, "with --generate: print the MTP layer's guess of the token after each one",
         CMI_OPTION_FLAG, &opt.drafts, 0, 0},
    };
    int exit_status;
    cmi_cli_ranks_add_options(own_table, &opt.model);
    if (!cmi_cli_parse(own_table, &opt.model, print_help, argc, argv, &exit_status)) {
        return exit_status;
    }
    if ((opt.ids == NULL) == (opt.text == NULL)) {
        return cmi_cli_usage("score needs --ids or --text, one of them");
    }
    cmi_error err = {0};
    cmi_cli_ranks ranks;
    cmi_status st = cmi_cli_ranks_begin(&ranks, &opt.model, &err);
    st = st == CMI_OK ? run(&opt, &ranks, &err) : st;
    cmi_cli_ranks_end(&ranks);
    return st == CMI_OK ? CMI_EXIT_OK : cmi_cli_fail(&err);
}
