/* Requests with a grammar: what comes is what it allows, the same bits alone or together, with and
 * without drafts, preempted or not; and every way in which such a request can end. */
#include "tests/test.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "engine/instance.h"
#include "grammar/matcher.h"

enum { N_REQUESTS = 24, MAX_PROMPT = 150, MAX_OUTPUT = 48, DEADLINE_MS = 120000 };
enum { END = 1, THINK_CLOSE = 2047, CALLS_BEGIN = 2037, TOOL_SEP = 2041 };

typedef struct answer {
    uint32_t tokens[MAX_OUTPUT];
    float logprobs[MAX_OUTPUT];
    uint32_t top_ids[MAX_OUTPUT];
    uint32_t n_tokens, finish_reason, stop_token_id;
    int32_t status;
    uint32_t n_ends;
} answer;

static const char *const trees[] = {
    "{\"json\":{\"type\":\"object\"}}",
    "{\"json\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":9},"
    "\"n\":{\"type\":\"integer\"},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\"]},"
    "\"maxItems\":3}},\"required\":[\"name\",\"n\",\"tags\"]}}",
    "{\"regex\":\"[0-9]{3}-[a-z]{2,9}(, [A-Z][a-z]*)*\"}",
    "{\"any\":[{\"text\":\"yes, of course\"},{\"text\":\"yes, perhaps\"},{\"text\":\"no\"}]}",
    "{\"sequence\":[{\"any\":[{\"text\":\"\"},{\"text\":\"\\n\\n\"}]},{\"list\":{\"sequence\":["
    "{\"any\":[{\"text\":\"get\"},{\"text\":\"getall\"}]},{\"token\":2041},{\"json\":"
    "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"boolean\"}},\"required\":[\"x\"]}}]},"
    "\"between\":{\"text\":\"\\n\"}}]}",
};

typedef struct world {
    cmi_tokenizer *tokenizer;
    cmi_vocab *vocab;
    char dir[512];
} world;

static world w;

static int open_world(void **state)
{
    (void)state;
    cmi_error err = {0};
    const uint32_t end = END;
    (void)snprintf(w.dir, sizeof w.dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    if (cmi_tokenizer_load(&w.tokenizer, w.dir, &err) != CMI_OK ||
        cmi_vocab_from_tokenizer(&w.vocab, w.tokenizer, 2048, &end, 1, &err) != CMI_OK) {
        print_message("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    cmi_vocab_destroy(w.vocab);
    cmi_tokenizer_destroy(w.tokenizer);
    return 0;
}

/* ---- running
 * --------------------------------------------------------------------------------------- */

typedef struct run_options {
    uint32_t n_threads, max_num_seqs, chunk, max_drafts;
    uint64_t n_kv_tokens; /* 0: plenty */
    bool backwards, must_preempt;
} run_options;

static void start(const run_options *opt, cmi_instance **in, cmi_engine **engine)
{
    cmi_error err = {0};
    cmi_instance_options options = {.model_dir = w.dir,
                                    .dtype = CMI_DTYPE_BF16,
                                    .isa = cmi_isa_best(cmi_cpu_flags()),
                                    .n_threads = opt->n_threads,
                                    .max_num_batched_tokens = opt->chunk,
                                    .max_num_seqs = opt->max_num_seqs,
                                    .n_kv_tokens = opt->n_kv_tokens,
                                    .with_mtp = opt->max_drafts > 0,
                                    .max_drafts = opt->max_drafts,
                                    .max_model_len = 256};
    /* few events: the engine waits for its poller, until when all requests are there */
    cmi_engine_options engine_options = {
        .n_events = 4, .max_drafts = opt->max_drafts, .vocab = w.vocab};
    assert_int_equal(cmi_instance_open(in, &options, &err), CMI_OK);
    assert_int_equal(cmi_engine_start(engine, *in, &engine_options, &err), CMI_OK);
}

static void take(answer *answers, const cmi_event *event)
{
    answer *a = &answers[event->request_id];
    assert_int_equal(a->n_ends, 0);
    if (event->type == CMI_EVENT_TOKEN) {
        a->tokens[a->n_tokens] = event->token_id;
        a->top_ids[a->n_tokens] = event->top[0].token_id;
        a->logprobs[a->n_tokens++] = event->logprob;
    } else if (event->type == CMI_EVENT_FINISHED) {
        a->n_ends++;
        a->finish_reason = event->finish_reason;
        a->stop_token_id = event->stop_token_id;
        a->status = event->status;
        assert_int_equal(event->n_output_tokens, a->n_tokens);
    }
}

static void collect(cmi_engine *engine, answer *answers, uint32_t n)
{
    uint32_t n_ended = 0;
    while (n_ended < n) {
        cmi_event event;
        if (cmi_engine_poll(engine, &event, 1) == 1) {
            take(answers, &event);
            n_ended += event.type == CMI_EVENT_FINISHED ? 1 : 0;
            continue;
        }
        struct pollfd readable = {.fd = cmi_engine_event_fd(engine), .events = POLLIN};
        assert_int_equal(poll(&readable, 1, DEADLINE_MS), 1);
        uint64_t count;
        assert_int_equal(read(readable.fd, &count, sizeof count), sizeof count);
    }
}

static cmi_status submit(cmi_engine *engine, const cmi_request *head, const char *tree,
                         const uint32_t *prompt, uint32_t n_prompt, const cmi_logit_bias *bias,
                         uint32_t n_bias, cmi_error *err)
{
    cmi_request *bare = cmi_request_create(head, prompt, n_prompt, NULL, 0, bias, n_bias);
    cmi_request *request = tree == NULL ? cmi_request_with_grammar(bare, "{}", 2)
                                        : cmi_request_with_grammar(bare, tree, strlen(tree));
    cmi_status st = cmi_engine_submit(engine, tree == NULL ? bare : request, err);
    cmi_free(request);
    cmi_free(bare);
    return st;
}

/* ---- the same bits
 * --------------------------------------------------------------------------------- */

static uint32_t draw(uint64_t request, uint64_t what, uint32_t n)
{
    return (uint32_t)(cmi_philox_uniform(request, what, 7) * (float)n) % n;
}

static uint32_t n_starts(uint32_t i)
{
    return i % 3 == 2 ? 1 + i / 3 % 2 : 0;
}

static void submit_one(cmi_engine *engine, uint32_t i)
{
    /* most soon want a second page of 64 tokens */
    uint32_t prompt[MAX_PROMPT];
    uint32_t n_prompt = i % 4 == 0 ? 1 + draw(i, 0, MAX_PROMPT) : 50 + draw(i, 0, 14);
    const cmi_logit_bias starts[] = {{THINK_CLOSE, 9.0f}, {CALLS_BEGIN, 9.0f}};
    for (uint32_t k = 0; k < n_prompt; k++) {
        prompt[k] = draw(i % 5, 100 + k, 2048);
    }
    cmi_request head = cmi_request_defaults();
    head.request_id = i;
    head.seed = i * 13;
    head.max_tokens = 4 + draw(i, 1, MAX_OUTPUT - 4);
    head.min_tokens = draw(i, 2, 4) == 0 ? 4 : 0;
    head.temperature = (float)draw(i, 3, 4) * 0.5f;
    head.top_k = draw(i, 4, 3) * 20;
    head.top_p = draw(i, 5, 2) == 0 ? 1.0f : 0.9f;
    head.repetition_penalty = draw(i, 6, 3) == 0 ? 1.3f : 1.0f;
    head.flags = CMI_REQUEST_LOGPROBS | (draw(i, 7, 3) == 0 ? CMI_REQUEST_IGNORE_EOS : 0) |
                 (draw(i, 8, 2) == 0 ? CMI_REQUEST_GRAMMAR_MUST_BEGIN : 0);
    head.n_top_logprobs = 2;
    head.n_grammar_start_ids = n_starts(i);
    for (uint32_t k = 0; k < n_starts(i); k++) {
        head.grammar_start_ids[k] = starts[k].token_id;
    }
    cmi_error err = {0};
    cmi_status st = submit(engine, &head, trees[i % CMI_LEN(trees)], prompt, n_prompt, starts,
                           n_starts(i), &err);
    if (st != CMI_OK) {
        fail_msg("request %u: %s", i, err.text);
    }
}

static answer *run(const run_options *opt)
{
    cmi_instance *in;
    cmi_engine *engine;
    start(opt, &in, &engine);
    answer *answers = cmi_alloc(N_REQUESTS, sizeof *answers);
    for (uint32_t k = 0; k < N_REQUESTS; k++) {
        submit_one(engine, opt->backwards ? N_REQUESTS - 1 - k : k);
    }
    collect(engine, answers, N_REQUESTS);
    cmi_engine_stats stats;
    cmi_engine_stats_get(engine, &stats);
    assert_int_equal(stats.n_kv_pages_used, 0);
    assert_true(!opt->must_preempt || stats.n_preemptions > 0);
    assert_int_equal(stats.n_accepted_tokens > 0, opt->max_drafts > 0);
    print_message("%llu steps, %llu preemptions, %llu of %llu drafts right\n",
                  (unsigned long long)stats.n_steps, (unsigned long long)stats.n_preemptions,
                  (unsigned long long)stats.n_accepted_tokens,
                  (unsigned long long)stats.n_draft_tokens);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
    return answers;
}

/* By another matcher than the engine's: the tokens behind the start are a text of the grammar,
 * whole if the answer says stop. Whether the grammar had begun. */
static bool check_text(const answer *a, uint32_t i)
{
    static const uint32_t starts[] = {THINK_CLOSE, CALLS_BEGIN};
    const char *tree = trees[i % CMI_LEN(trees)];
    cmi_grammar_source source = {.kind = CMI_GRAMMAR_TREE, .text = tree, .n_bytes = strlen(tree)};
    cmi_grammar *g;
    cmi_matcher m;
    cmi_error err = {0};
    uint32_t at = 0;
    for (uint32_t k = 0; k < n_starts(i); k++) {
        while (at < a->n_tokens && a->tokens[at++] != starts[k]) {
        }
        if (at == a->n_tokens && (a->n_tokens == 0 || a->tokens[at - 1] != starts[k])) {
            return false;
        }
    }
    assert_int_equal(cmi_grammar_compile(&g, w.vocab, &source, &err), CMI_OK);
    cmi_matcher_init(&m, g);
    for (; at < a->n_tokens; at++) {
        if (!cmi_matcher_accept(&m, a->tokens[at])) {
            fail_msg("request %u: token %u is not allowed", i, at);
        }
    }
    assert_true(a->finish_reason == CMI_FINISH_STOP || a->finish_reason == CMI_FINISH_LENGTH);
    assert_int_equal(m.ended, a->finish_reason == CMI_FINISH_STOP);
    cmi_grammar_destroy(g);
    return true;
}

static void answers_do_not_depend_on_company(void **state)
{
    (void)state;
    static const run_options alone = {.n_threads = 1, .max_num_seqs = 1, .chunk = 512};
    static const run_options variants[] = {
        {.n_threads = 2, .max_num_seqs = 24, .chunk = 256},
        {.n_threads = 1, .max_num_seqs = 5, .chunk = 16, .backwards = true},
        {.n_threads = 2,
         .max_num_seqs = 24,
         .chunk = 128,
         .n_kv_tokens = 256,
         .must_preempt = true},
        {.n_threads = 1, .max_num_seqs = 4, .chunk = 512, .max_drafts = 1},
        {.n_threads = 2, .max_num_seqs = 24, .chunk = 256, .max_drafts = 2},
        {.n_threads = 2,
         .max_num_seqs = 20,
         .chunk = 40,
         .max_drafts = 3,
         .n_kv_tokens = 256,
         .must_preempt = true},
    };
    answer *want = run(&alone);
    uint32_t n_bound = 0, n_whole = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        n_bound += check_text(&want[i], i) ? 1 : 0;
        n_whole += want[i].finish_reason == CMI_FINISH_STOP ? 1 : 0;
    }
    assert_true(n_bound > N_REQUESTS * 3 / 4 && n_whole > N_REQUESTS / 4);
    for (uint32_t v = 0; v < CMI_LEN(variants); v++) {
        answer *got = run(&variants[v]);
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            if (memcmp(&want[i], &got[i], sizeof *got) != 0) {
                fail_msg("variant %u: request %u has another answer", v, i);
            }
        }
        cmi_free(got);
    }
    cmi_free(want);
}

/* ---- one request
 * ----------------------------------------------------------------------------------- */

static const uint32_t hello[] = {0, 2035, 40, 50, 60, 2036};

typedef struct question {
    const char *tree; /* NULL: free */
    uint32_t max_tokens, min_tokens, flags;
    uint32_t start_id; /* 0: none */
    cmi_logit_bias bias;
    float temperature;
    cmi_status status; /* of submit */
    const char *says;
} question;

static answer ask(cmi_engine *engine, const question *q)
{
    cmi_request head = cmi_request_defaults();
    answer a = {0};
    cmi_error err = {0};
    head.max_tokens = q->max_tokens;
    head.min_tokens = q->min_tokens;
    head.flags = q->flags | CMI_REQUEST_LOGPROBS;
    head.temperature = q->temperature;
    head.n_top_logprobs = 1;
    head.n_grammar_start_ids = q->start_id > 0 ? 1 : 0;
    head.grammar_start_ids[0] = q->start_id;
    cmi_status st = submit(engine, &head, q->tree, hello, CMI_LEN(hello), &q->bias,
                           q->bias.token_id > 0 ? 1 : 0, &err);
    assert_int_equal(st, q->status);
    if (st == CMI_OK) {
        collect(engine, &a, 1);
    } else if (strstr(err.text, q->says) == NULL) {
        fail_msg("%s", err.text);
    }
    return a;
}

static void expect_text(const answer *a, const char *text)
{
    char got[512] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        size_t n;
        const char *bytes = cmi_tokenizer_token_bytes(w.tokenizer, a->tokens[i], &n);
        if (a->tokens[i] != END) {
            memcpy(got + at, bytes, n);
            at += n;
        }
    }
    assert_string_equal(got, text);
}

static const run_options one = {.n_threads = 1, .max_num_seqs = 1, .chunk = 64};

static void every_end_is_true(void **state)
{
    (void)state;
    cmi_instance *in;
    cmi_engine *engine;
    start(&one, &in, &engine);

    answer a = ask(engine, &(question){.tree = "{\"text\":\"as told\"}", .max_tokens = 40});
    expect_text(&a, "as told");
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);
    assert_int_equal(a.stop_token_id, END);
    assert_int_equal(a.tokens[a.n_tokens - 1], END);

    a = ask(engine, &(question){.tree = "{\"text\":\"\"}", .max_tokens = 40});
    assert_int_equal(a.n_tokens, 1);
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);

    /* what is over is over, whatever was asked for */
    a = ask(engine, &(question){.tree = "{\"text\":\"as told\"}",
                                .max_tokens = 40,
                                .min_tokens = 30,
                                .flags = CMI_REQUEST_IGNORE_EOS});
    expect_text(&a, "as told");
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);
    assert_int_equal(a.stop_token_id, END);

    /* but what can go on does */
    a = ask(engine, &(question){.tree = "{\"regex\":\"7*\"}",
                                .max_tokens = 40,
                                .min_tokens = 20,
                                .bias = {END, 100.0f}});
    expect_text(&a, "77777777777777777777");
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);
    a = ask(engine, &(question){.tree = "{\"regex\":\"7*\"}",
                                .max_tokens = 30,
                                .flags = CMI_REQUEST_IGNORE_EOS,
                                .bias = {END, 100.0f}});
    expect_text(&a, "777777777777777777777777777777");
    assert_int_equal(a.finish_reason, CMI_FINISH_LENGTH);

    a = ask(engine, &(question){.tree = "{\"text\":\"cut off here\"}", .max_tokens = 2});
    assert_int_equal(a.n_tokens, 2);
    assert_int_equal(a.finish_reason, CMI_FINISH_LENGTH);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

static void a_grammar_begins_behind_its_start(void **state)
{
    (void)state;
    cmi_instance *in;
    cmi_engine *engine;
    start(&one, &in, &engine);
    question q = {.tree = "{\"text\":\"0123456789\"}",
                  .max_tokens = 40,
                  .start_id = TOOL_SEP,
                  .bias = {TOOL_SEP, 100.0f}};
    answer a = ask(engine, &q);
    assert_int_equal(a.tokens[0], TOOL_SEP);
    assert_int_equal(a.n_tokens, 12);
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);

    /* an answer may do without it, unless it must not */
    q.bias = (cmi_logit_bias){END, 100.0f};
    a = ask(engine, &q);
    assert_int_equal(a.n_tokens, 1);
    assert_int_equal(a.finish_reason, CMI_FINISH_STOP);
    q.flags = CMI_REQUEST_GRAMMAR_MUST_BEGIN;
    a = ask(engine, &q);
    assert_int_equal(a.n_tokens, 40);
    assert_int_equal(a.finish_reason, CMI_FINISH_LENGTH);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

static void logprobs_are_those_without_the_grammar(void **state)
{
    (void)state;
    cmi_instance *in;
    cmi_engine *engine;
    start(&one, &in, &engine);
    answer free_one = ask(engine, &(question){.max_tokens = 1});
    answer bound = ask(engine, &(question){.tree = "{\"text\":\"zzz\"}", .max_tokens = 1});
    assert_int_not_equal(bound.tokens[0], free_one.tokens[0]);
    assert_int_equal(bound.top_ids[0], free_one.tokens[0]); /* the model would rather have said */
    assert_true(bound.logprobs[0] < free_one.logprobs[0]);
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

static void what_cannot_be_kept_to_is_refused(void **state)
{
    (void)state;
    cmi_instance *in;
    cmi_engine *engine;
    cmi_error err = {0};
    start(&one, &in, &engine);
    const question bad[] = {
        {.tree = "{", .status = CMI_ERR_BAD_DATA, .says = "not JSON"},
        {.tree = "{\"json\":{\"not\":{}}}", .status = CMI_ERR_BAD_DATA, .says = "not"},
        {.tree = "{\"regex\":\"(?=x)\"}", .status = CMI_ERR_BAD_DATA, .says = "regular"},
        {.tree = "{\"json\":false}", .status = CMI_ERR_BAD_DATA, .says = ""},
        {.tree = "{\"json\":{\"pattern\":\"(a{1000}b{1000}){1000}\"}}",
         .status = CMI_ERR_BAD_DATA,
         .says = ""},
        {.tree = "{\"text\":\"x\"}", .start_id = 2048, .status = CMI_ERR_INVALID, .says = "2048"},
    };
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        question q = bad[i];
        q.max_tokens = 1;
        (void)ask(engine, &q);
    }
    cmi_engine_stop(engine);
    cmi_engine_options no_vocab = {0};
    assert_int_equal(cmi_engine_start(&engine, in, &no_vocab, &err), CMI_OK);
    (void)ask(engine, &(question){.tree = "{\"text\":\"x\"}",
                                  .max_tokens = 1,
                                  .status = CMI_ERR_BAD_DATA,
                                  .says = "cannot be bound"});
    cmi_engine_stop(engine);
    cmi_instance_close(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_do_not_depend_on_company),
        cmocka_unit_test(every_end_is_true),
        cmocka_unit_test(a_grammar_begins_behind_its_start),
        cmocka_unit_test(logprobs_are_those_without_the_grammar),
        cmocka_unit_test(what_cannot_be_kept_to_is_refused),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
