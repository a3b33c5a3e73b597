/* One request, one answer, also if the engine that began it is gone: another one that gets the
 * request with the tokens so far goes on with the same bits, and says nothing twice. */
#include "tests/engine/mixed_requests.h"
#include "tests/test.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/disaggregation.h"
#include "engine/instance.h"
#include "grammar/vocab.h"
#include "policy/event_replay.h"

enum { N_REQUESTS = 20, N_CUTS = 5, VOCAB_SIZE = 2048, END = 1, THINK_CLOSE = 2047 };

static struct {
    cmi_tokenizer *tokenizer;
    cmi_vocab *vocab;
    char dir[512];
} w;

static int open_world(void **state)
{
    (void)state;
    cmi_error err = {0};
    const uint32_t end = END;
    (void)snprintf(w.dir, sizeof w.dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    if (cmi_tokenizer_load(&w.tokenizer, w.dir, &err) != CMI_OK ||
        cmi_vocab_from_tokenizer(&w.vocab, w.tokenizer, VOCAB_SIZE, &end, 1, &err) != CMI_OK) {
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

/* ---- engines ---- */

typedef struct run_options {
    uint32_t max_num_seqs, chunk, max_drafts;
    uint64_t n_kv_tokens; /* 0: plenty */
    bool no_prefix_cache, must_hit, must_preempt, is_recorded;
    uint32_t n_prefills; /* instances apart from decode; 0: one instance does both */
    bool odd;            /* left out where only few are run */
} run_options;

typedef struct house {
    cmi_instance *in;
    cmi_engine *engine;
    cmi_disaggregation *apart;
} house;

static house open_house(const run_options *opt, const char *record)
{
    cmi_instance_options in = {.model_dir = w.dir,
                               .dtype = CMI_DTYPE_BF16,
                               .isa = cmi_isa_best(cmi_cpu_flags()),
                               .n_threads = 1,
                               .max_num_batched_tokens = opt->chunk,
                               .max_num_seqs = opt->max_num_seqs,
                               .n_kv_tokens = opt->n_kv_tokens,
                               .with_mtp = opt->max_drafts > 0,
                               .max_drafts = opt->max_drafts,
                               .max_model_len = 256};
    const cmi_engine_options engine = {.max_drafts = opt->max_drafts,
                                       .no_prefix_cache = opt->no_prefix_cache,
                                       .record_events = record,
                                       .vocab = w.vocab};
    house h = {0};
    cmi_error err = {0};
    if (opt->n_prefills == 0) {
        assert_int_equal(cmi_instance_open(&h.in, &in, &err), CMI_OK);
        assert_int_equal(cmi_engine_start(&h.engine, h.in, &engine, &err), CMI_OK);
        return h;
    }
    cmi_instance_options prefill = in;
    assert_int_equal(cmi_disaggregation_create(&h.apart, 0, &err), CMI_OK);
    cmi_disaggregation_decode_options(h.apart, &in);
    assert_int_equal(cmi_instance_open(&h.in, &in, &err), CMI_OK);
    cmi_disaggregation_set_decode(h.apart, h.in);
    for (uint32_t i = 0; i < opt->n_prefills; i++) {
        assert_int_equal(cmi_disaggregation_add_prefill(h.apart, &prefill, &engine, &err), CMI_OK);
    }
    assert_int_equal(cmi_disaggregation_start(h.apart, &engine, &h.engine, &err), CMI_OK);
    return h;
}

static void close_house(house *h)
{
    if (h->apart != NULL) {
        cmi_disaggregation_destroy(h->apart);
    } else {
        cmi_engine_stop(h->engine);
        cmi_instance_close(h->in);
    }
}

/* ---- the same bits ---- */

/* Every third one has a grammar, some of them behind a start; and most soon want a second page. */
static cmi_request *request_of(uint32_t i)
{
    static const char *const trees[] = {
        "{\"json\":{\"type\":\"object\"}}",
        "{\"regex\":\"[0-9]{3}-[a-z]{2,9}(, [A-Z][a-z]*)*\"}",
        "{\"any\":[{\"text\":\"yes, of course\"},{\"text\":\"yes, perhaps\"},{\"text\":\"no\"}]}",
    };
    static const cmi_logit_bias start = {THINK_CLOSE, 9.0f};
    cmi_request *mixed = make_request(i, VOCAB_SIZE);
    cmi_request head = *mixed;
    const bool is_long = mixed->n_prompt_tokens > CMI_CONTENT_BLOCK_TOKENS; /* a block is cached */
    const uint32_t n =
        is_long ? mixed->n_prompt_tokens : CMI_MIN(mixed->n_prompt_tokens, 50 + draw(i, 22, 14));
    const bool is_late = i % 6 == 0;
    head.min_tokens = draw(i, 20, 2) == 0 ? CMI_MIN(head.max_tokens, 6u) : 0;
    head.presence_penalty = draw(i, 21, 3) == 0 ? 0.5f : 0.0f;
    head.n_grammar_start_ids = is_late ? 1 : 0;
    head.grammar_start_ids[0] = is_late ? THINK_CLOSE : 0;
    head.flags |= is_late ? CMI_REQUEST_GRAMMAR_MUST_BEGIN : 0;
    cmi_request *request =
        cmi_request_create(&head, cmi_request_prompt(mixed), n, NULL, 0, &start, is_late ? 1 : 0);
    cmi_free(mixed);
    if (i % 3 != 0) {
        return request;
    }
    const char *tree = trees[i / 3 % CMI_LEN(trees)];
    cmi_request *bound = cmi_request_with_grammar(request, tree, strlen(tree));
    cmi_free(request);
    return bound;
}

/* The request behind the first n tokens of its answer. */
static cmi_request *rest_of(const cmi_request *request, const answer *want, uint32_t n)
{
    const bool with_events = n > 0 && (request->flags & CMI_REQUEST_PROMPT_LOGPROBS) != 0;
    return cmi_request_with_output(request, want->tokens, n,
                                   with_events ? request->n_prompt_tokens : 0);
}

/* What somebody has who heard the first n tokens. */
static answer heard_of(const answer *want, uint32_t n)
{
    answer a = {.n_tokens = n, .prompt_logprob_sum = n > 0 ? want->prompt_logprob_sum : 0};
    memcpy(a.tokens, want->tokens, n * sizeof *a.tokens);
    memcpy(a.logprobs, want->logprobs, n * sizeof *a.logprobs);
    memcpy(a.top_ids, want->top_ids, n * sizeof *a.top_ids);
    return a;
}

static uint32_t cut_of(const answer *want, uint32_t cut)
{
    const uint32_t n = want->n_tokens;
    const uint32_t cuts[N_CUTS] = {0, 1, n / 2, n - 1, n};
    return cuts[cut];
}

static void submit(cmi_engine *engine, const cmi_request *request)
{
    cmi_error err = {0};
    if (cmi_engine_submit(engine, request, &err) != CMI_OK) {
        fail_msg("request %llu: %s", (unsigned long long)request->request_id, err.text);
    }
}

static answer *run_whole(void)
{
    static const run_options alone = {.max_num_seqs = 1, .chunk = 512, .no_prefix_cache = true};
    house h = open_house(&alone, NULL);
    answer *want = cmi_alloc(N_REQUESTS, sizeof *want);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        cmi_request *r = request_of(i);
        submit(h.engine, r);
        cmi_free(r);
    }
    collect(h.engine, want, N_REQUESTS);
    uint32_t n_stopped = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        n_stopped += want[i].finish_reason == CMI_FINISH_STOP ? 1 : 0;
        assert_true(want[i].n_tokens > 0);
    }
    assert_true(n_stopped > 2 && n_stopped < N_REQUESTS - 2);
    close_house(&h);
    return want;
}

/* Of all cuts; request cut * N_REQUESTS + i is number i, cut. */
static uint64_t submit_rests(cmi_engine *engine, const answer *want, answer *got)
{
    uint64_t n_left = 0;
    for (uint32_t id = 0; id < N_CUTS * N_REQUESTS; id++) {
        const uint32_t i = id % N_REQUESTS, n = cut_of(&want[i], id / N_REQUESTS);
        cmi_request *whole = request_of(i), *rest = rest_of(whole, &want[i], n);
        rest->request_id = id;
        got[id] = heard_of(&want[i], n);
        n_left += want[i].n_tokens - n;
        submit(engine, rest);
        cmi_free(rest);
        cmi_free(whole);
    }
    return n_left;
}

static void run_rests(const run_options *opt, const answer *want, const char *record)
{
    house h = open_house(opt, record);
    answer *got = cmi_alloc((size_t)N_CUTS * N_REQUESTS, sizeof *got);
    const uint64_t n_left = submit_rests(h.engine, want, got);
    collect(h.engine, got, N_CUTS * N_REQUESTS);
    for (uint32_t id = 0; id < N_CUTS * N_REQUESTS; id++) {
        const uint32_t i = id % N_REQUESTS;
        if (memcmp(&want[i], &got[id], sizeof *got) != 0) {
            fail_msg("request %u, cut after %u: %u tokens, not %u; reason %u, not %u", i,
                     cut_of(&want[i], id / N_REQUESTS), got[id].n_tokens, want[i].n_tokens,
                     got[id].finish_reason, want[i].finish_reason);
        }
    }
    cmi_engine_stats stats;
    cmi_engine_stats_get(h.engine, &stats);
    print_message("%llu tokens, %llu preemptions, %llu prompt tokens cached, %llu drafts right\n",
                  (unsigned long long)stats.n_generation_tokens,
                  (unsigned long long)stats.n_preemptions, (unsigned long long)stats.n_prefix_hits,
                  (unsigned long long)stats.n_accepted_tokens);
    assert_int_equal(stats.n_running + stats.n_waiting, 0);
    assert_true(opt->n_prefills > 0 || stats.n_kv_pages_used == 0);
    assert_true(opt->n_prefills > 0 || stats.n_generation_tokens == n_left);
    assert_true(!opt->must_preempt || stats.n_preemptions > 0);
    assert_int_equal(stats.n_accepted_tokens > 0, opt->max_drafts > 0);
    assert_true(!opt->must_hit || stats.n_prefix_hits > 0);
    assert_true(!opt->no_prefix_cache || stats.n_prefix_hits == 0);
    close_house(&h);
    cmi_free(got);
}

/* What the scheduler was told of such requests makes the same plans again. */
static void replay_record(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const size_t n = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = cmi_alloc(1, n);
    assert_int_equal(fread(bytes, 1, n, file), n);
    (void)fclose(file);
    cmi_policy_log_info info;
    assert_int_equal(cmi_policy_log_check(bytes, n, &info), CMI_OK);
    assert_int_equal(info.ending, CMI_POLICY_LOG_WHOLE);
    void *memory = cmi_alloc_aligned(cmi_policy_replay_bytes(&info), CMI_CACHE_LINE);
    cmi_policy_replay *replay = cmi_policy_replay_init(memory, &info, bytes, n);
    cmi_replay_status st;
    do {
        st = cmi_policy_replay_next(replay);
    } while (st == CMI_REPLAY_SAME);
    const cmi_replay_state *state = cmi_policy_replay_state(replay);
    if (st != CMI_REPLAY_END) {
        fail_msg("record %llu: %s %s", (unsigned long long)state->n_records,
                 state->why ? state->why : "", state->what ? state->what : "");
    }
    assert_int_equal(state->n_requests, N_CUTS * N_REQUESTS);
    cmi_free(memory);
    cmi_free(bytes);
}

static void another_engine_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    const bool few = getenv("CMI_FEW") != NULL;
    static const run_options variants[] = {
        {.max_num_seqs = 16, .chunk = 128, .no_prefix_cache = true, .odd = true},
        {.max_num_seqs = 1, .chunk = 512, .n_kv_tokens = 4096, .must_hit = true, .odd = true},
        {.max_num_seqs = 24, .chunk = 64, .must_hit = true},
        {.max_num_seqs = 16, .chunk = 128, .max_drafts = 1, .odd = true},
        {.max_num_seqs = 40,
         .chunk = 128,
         .max_drafts = 3,
         .n_kv_tokens = 256,
         .must_preempt = true,
         .is_recorded = true},
        {.max_num_seqs = 16, .chunk = 64, .n_prefills = 1, .odd = true},
        {.max_num_seqs = 16,
         .chunk = 64,
         .max_drafts = 2,
         .n_kv_tokens = 320,
         .must_preempt = true,
         .n_prefills = 2},
    };
    answer *want = run_whole();
    for (uint32_t v = 0; v < CMI_LEN(variants); v++) {
        char path[] = "/tmp/cminfer_resume_XXXXXX";
        if (few && variants[v].odd) {
            continue;
        }
        if (!variants[v].is_recorded) {
            run_rests(&variants[v], want, NULL);
            continue;
        }
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        run_rests(&variants[v], want, path);
        replay_record(path);
        assert_int_equal(unlink(path), 0);
    }
    cmi_free(want);
}

/* ---- one request ---- */

static const run_options one = {.max_num_seqs = 2, .chunk = 64};
static const uint32_t prompt[] = {0, 2035, 40, 50, 60, 2036};

static cmi_event next_event(cmi_engine *engine)
{
    cmi_event event;
    while (cmi_engine_poll(engine, &event, 1) == 0) {
        struct pollfd readable = {.fd = cmi_engine_event_fd(engine), .events = POLLIN};
        uint64_t count;
        assert_int_equal(poll(&readable, 1, DEADLINE_MS), 1);
        assert_int_equal(read(readable.fd, &count, sizeof count), sizeof count);
    }
    return event;
}

typedef struct given {
    cmi_request head;
    const char *tree; /* NULL: none */
    uint32_t output[8], n_output, n_prompt_events;
    uint32_t stop_id; /* 0: none */
} given;

static cmi_status give(cmi_engine *engine, const given *g, cmi_error *err)
{
    cmi_request *bare = cmi_request_create(&g->head, prompt, CMI_LEN(prompt), &g->stop_id,
                                           g->stop_id > 0 ? 1 : 0, NULL, 0);
    cmi_request *rest = cmi_request_with_output(bare, g->output, g->n_output, g->n_prompt_events);
    cmi_request *bound =
        g->tree != NULL ? cmi_request_with_grammar(rest, g->tree, strlen(g->tree)) : NULL;
    cmi_status st = cmi_engine_submit(engine, bound != NULL ? bound : rest, err);
    cmi_free(bound);
    cmi_free(rest);
    cmi_free(bare);
    return st;
}

static cmi_request head_of(uint32_t max_tokens, uint32_t flags)
{
    cmi_request head = cmi_request_defaults();
    head.max_tokens = max_tokens;
    head.flags = flags;
    return head;
}

static void what_has_ended_already_ends_at_once(void **state)
{
    (void)state;
    const struct {
        given given;
        uint32_t reason, stop_id;
        cmi_status status;
    } cases[] = {
        {.given = {.head = head_of(3, CMI_REQUEST_IGNORE_EOS),
                   .output = {5, END, 7},
                   .n_output = 3},
         .reason = CMI_FINISH_LENGTH},
        {.given = {.head = head_of(9, 0), .output = {5, END}, .n_output = 2},
         .reason = CMI_FINISH_STOP,
         .stop_id = END},
        {.given = {.head = head_of(2, 0), .output = {5, END}, .n_output = 2},
         .reason = CMI_FINISH_STOP,
         .stop_id = END},
        {.given = {.head = head_of(9, 0), .output = {5, 6}, .n_output = 2, .stop_id = 6},
         .reason = CMI_FINISH_STOP,
         .stop_id = 6},
        {.given = {.head = head_of(9, CMI_REQUEST_IGNORE_EOS),
                   .output = {END},
                   .n_output = 1,
                   .tree = "{\"text\":\"\"}"},
         .reason = CMI_FINISH_STOP,
         .stop_id = END},
        {.given = {.head = head_of(9, 0),
                   .output = {THINK_CLOSE},
                   .n_output = 1,
                   .tree = "{\"text\":\"\"}"},
         .reason = CMI_FINISH_ERROR,
         .status = CMI_ERR_UNSUPPORTED},
    };
    house h = open_house(&one, NULL);
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_error err = {0};
        assert_int_equal(give(h.engine, &cases[i].given, &err), CMI_OK);
        const cmi_event event = next_event(h.engine);
        assert_int_equal(event.type, CMI_EVENT_FINISHED);
        assert_int_equal(event.finish_reason, cases[i].reason);
        assert_int_equal(event.stop_token_id, cases[i].stop_id);
        assert_int_equal(event.status, cases[i].status);
        assert_int_equal(event.n_output_tokens, cases[i].given.n_output);
        assert_int_equal(event.started_ns, 0);
    }
    close_house(&h);
}

static void what_cannot_have_been_said_is_refused(void **state)
{
    (void)state;
    const struct {
        given given;
        const char *says;
    } cases[] = {
        {{.head = head_of(9, 0), .output = {5, VOCAB_SIZE}, .n_output = 2}, "output token 1"},
        {{.head = head_of(9, 0), .output = {5, END, 7}, .n_output = 3}, "behind the end"},
        {{.head = head_of(9, 0), .output = {5, 7}, .n_output = 2, .tree = "{\"text\":\"\"}"},
         "behind the end"},
        {{.head = head_of(9, 0), .output = {5}, .n_output = 1, .n_prompt_events = 1},
         "n_prompt_events"},
    };
    static const uint32_t zeros[256];
    house h = open_house(&one, NULL);
    cmi_error err = {0};
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        assert_int_equal(give(h.engine, &cases[i].given, &err), CMI_ERR_INVALID);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    const cmi_request head = head_of(1000, 0);
    cmi_request *bare = cmi_request_create(&head, prompt, CMI_LEN(prompt), NULL, 0, NULL, 0);
    cmi_request *full = cmi_request_with_output(bare, zeros, 256 - CMI_LEN(prompt), 0);
    cmi_request *more = cmi_request_with_output(bare, zeros, 257 - CMI_LEN(prompt), 0);
    assert_int_equal(cmi_engine_submit(h.engine, more, &err), CMI_ERR_INVALID);
    assert_non_null(strstr(err.text, "the context holds"));
    submit(h.engine, full);
    assert_int_equal(next_event(h.engine).finish_reason, CMI_FINISH_LENGTH);
    cmi_engine_stats stats;
    cmi_engine_stats_get(h.engine, &stats);
    assert_int_equal(stats.n_waiting + stats.n_waiting_tokens, 0); /* no place is kept */
    close_house(&h);
    cmi_free(more);
    cmi_free(full);
    cmi_free(bare);
}

/* Those that were not sent come, with the logprobs that they have in the whole answer. */
static void prompt_events_go_on_too(void **state)
{
    (void)state;
    house h = open_house(&one, NULL);
    const uint32_t n_prompt = CMI_LEN(prompt);
    cmi_event whole[CMI_LEN(prompt)];
    for (uint32_t n = 0; n <= n_prompt; n++) {
        const given g = {.head = head_of(1, CMI_REQUEST_PROMPT_LOGPROBS), .n_prompt_events = n};
        cmi_error err = {0};
        assert_int_equal(give(h.engine, &g, &err), CMI_OK);
        for (uint32_t i = n; i < n_prompt; i++) {
            const cmi_event event = next_event(h.engine);
            whole[i] = n == 0 ? event : whole[i];
            assert_int_equal(event.type, CMI_EVENT_PROMPT_TOKEN);
            assert_int_equal(event.index, i);
            assert_int_equal(event.token_id, prompt[i]);
            assert_memory_equal(&event.logprob, &whole[i].logprob, sizeof event.logprob);
        }
        assert_int_equal(next_event(h.engine).type, CMI_EVENT_TOKEN);
        assert_int_equal(next_event(h.engine).type, CMI_EVENT_FINISHED);
    }
    close_house(&h);
}

/* It had its first token, whenever that was: nobody gives it up for a target that is past. */
static void its_ttft_target_counts_no_more(void **state)
{
    (void)state;
    given g = {.head = head_of(3, CMI_REQUEST_IGNORE_EOS), .output = {5}, .n_output = 1};
    g.head.ttft_target_us = 1;
    g.head.age_us = 60000000;
    house h = open_house(&one, NULL);
    cmi_error err = {0};
    assert_int_equal(give(h.engine, &g, &err), CMI_OK);
    for (uint32_t i = 1; i < 3; i++) {
        const cmi_event event = next_event(h.engine);
        assert_int_equal(event.type, CMI_EVENT_TOKEN);
        assert_int_equal(event.index, i);
        assert_true(event.first_token_ns >= event.submitted_ns);
    }
    assert_int_equal(next_event(h.engine).finish_reason, CMI_FINISH_LENGTH);
    cmi_engine_stats stats;
    cmi_engine_stats_get(h.engine, &stats);
    assert_int_equal(stats.n_ttft_targets + stats.n_given_up, 0);
    close_house(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_engine_goes_on_with_the_same_bits),
        cmocka_unit_test(what_has_ended_already_ends_at_once),
        cmocka_unit_test(what_cannot_have_been_said_is_refused),
        cmocka_unit_test(prompt_events_go_on_too),
        cmocka_unit_test(its_ttft_target_counts_no_more),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
