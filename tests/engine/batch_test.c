/* One request, one answer: tokens and logprobs of many requests are the same bits whether they run
 * alone or together, in which order they come, and whether they are preempted on the way. */
#include "tests/engine/mixed_requests.h"
#include "tests/test.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "engine/disaggregation.h"
#include "engine/engine.h"
#include "engine/instance.h"
#include "fabric/fault.h"

enum { N_REQUESTS = 40 };

typedef struct run_options {
    uint32_t n_threads, max_num_seqs, chunk, max_prefill_rows;
    uint64_t n_kv_tokens; /* 0: plenty */
    uint32_t max_drafts;
    bool no_prefix_cache;
    bool backwards; /* the order in which requests come */
    bool must_preempt;
    bool odd;            /* left out where only few are run */
    uint32_t n_prefills; /* instances apart from decode; 0: one instance does both */
    bool by_cost;        /* drafts, with durations measured first */
} run_options;

static const cmi_fault_options *faults; /* of prefill instances; NULL: none */

static void expect_same(const answer *want, const answer *got, const char *when)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        if (memcmp(&want[i], &got[i], sizeof *got) != 0) {
            fail_msg("%s: request %u has another answer: %u tokens, not %u; logprobs of its prompt "
                     "add up to %.9g, not %.9g",
                     when, i, got[i].n_tokens, want[i].n_tokens, (double)got[i].prompt_logprob_sum,
                     (double)want[i].prompt_logprob_sum);
        }
    }
}

/* What is computed with: one instance, or several that hand prompts over. */
typedef struct house {
    cmi_instance *in;
    cmi_engine *engine;
    cmi_disaggregation *apart;
} house;

static house open_house(cmi_instance_options options, const cmi_engine_options *engine,
                        uint32_t n_prefills, uint64_t patience_ns)
{
    house h = {0};
    cmi_error err = {0};
    if (n_prefills == 0) {
        assert_int_equal(cmi_instance_open(&h.in, &options, &err), CMI_OK);
        assert_int_equal(cmi_engine_start(&h.engine, h.in, engine, &err), CMI_OK);
        return h;
    }
    cmi_instance_options prefill = options;
    assert_int_equal(cmi_disaggregation_create(&h.apart, patience_ns, &err), CMI_OK);
    cmi_disaggregation_set_faults(h.apart, faults);
    cmi_disaggregation_decode_options(h.apart, &options);
    assert_int_equal(cmi_instance_open(&h.in, &options, &err), CMI_OK);
    cmi_disaggregation_set_decode(h.apart, h.in);
    for (uint32_t i = 0; i < n_prefills; i++) {
        assert_int_equal(cmi_disaggregation_add_prefill(h.apart, &prefill, engine, &err), CMI_OK);
    }
    assert_int_equal(cmi_disaggregation_start(h.apart, engine, &h.engine, &err), CMI_OK);
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

static answer *run(const run_options *opt)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options options = {.model_dir = dir,
                                    .dtype = CMI_DTYPE_BF16,
                                    .quantization = CMI_QUANTIZATION_W8A8_INT8,
                                    .isa = cmi_isa_best(cmi_cpu_flags()),
                                    .n_threads = opt->n_threads,
                                    .max_num_batched_tokens = opt->chunk,
                                    .max_num_seqs = opt->max_num_seqs,
                                    .n_kv_tokens = opt->n_kv_tokens,
                                    .with_mtp = opt->max_drafts > 0,
                                    .max_drafts = opt->max_drafts,
                                    .max_model_len = 256};
    cmi_engine_options engine_options = {.max_prefill_rows = opt->max_prefill_rows,
                                         .max_drafts = opt->max_drafts,
                                         .drafts_by_cost = opt->by_cost,
                                         .probe_ms = opt->by_cost ? 60000 : 0,
                                         .no_prefix_cache = opt->no_prefix_cache};
    house h = open_house(options, &engine_options, opt->n_prefills, 0);
    const uint32_t vocab_size = h.in->config.vocab_size;
    answer *answers = cmi_alloc(N_REQUESTS, sizeof *answers);
    submit_all(h.engine, N_REQUESTS, vocab_size, opt->backwards);
    collect(h.engine, answers, N_REQUESTS);
    if (!opt->no_prefix_cache) { /* once more, on what is cached now */
        answer *again = cmi_alloc(N_REQUESTS, sizeof *again);
        submit_all(h.engine, N_REQUESTS, vocab_size, !opt->backwards);
        collect(h.engine, again, N_REQUESTS);
        expect_same(answers, again, "the second time");
        cmi_free(again);
    }
    cmi_engine_stats stats;
    cmi_engine_stats_get(h.engine, &stats);
    assert_int_equal(stats.n_kv_pages_used, 0);
    assert_int_equal(stats.n_running + stats.n_waiting, 0);
    assert_true(!opt->must_preempt || stats.n_preemptions > 0);
    assert_true(opt->by_cost || (stats.n_draft_tokens > 0) == (opt->max_drafts > 0));
    assert_true(stats.n_accepted_tokens <= stats.n_draft_tokens);
    bool must_hit = !opt->no_prefix_cache && opt->n_kv_tokens == 0;
    assert_true(!must_hit || stats.n_prefix_hits > 0);
    assert_true(!opt->no_prefix_cache || stats.n_prefix_hits == 0);
    print_message(
        "%llu steps, %llu preemptions, %llu of %llu prompt tokens cached, %llu of %llu "
        "drafts right\n",
        (unsigned long long)stats.n_steps, (unsigned long long)stats.n_preemptions,
        (unsigned long long)stats.n_prefix_hits, (unsigned long long)stats.n_prefix_queried,
        (unsigned long long)stats.n_accepted_tokens, (unsigned long long)stats.n_draft_tokens);
    close_house(&h);
    return answers;
}

static void answers_do_not_depend_on_company(void **state)
{
    (void)state;
    static const run_options alone = {
        .n_threads = 1, .max_num_seqs = 1, .chunk = 512, .no_prefix_cache = true};
    /* Those that are not `odd` go alone where every access is watched: ten times as slow. */
    const bool few = getenv("CMI_FEW") != NULL;
    static const run_options variants[] = {
        {.n_threads = 2, .max_num_seqs = 40, .chunk = 512},
        {.n_threads = 2, .max_num_seqs = 16, .chunk = 64, .backwards = true, .odd = true},
        {.n_threads = 1, .max_num_seqs = 5, .chunk = 7, .max_prefill_rows = 2, .odd = true},
        {.n_threads = 3,
         .max_num_seqs = 40,
         .chunk = 128,
         .n_kv_tokens = 512,
         .must_preempt = true},
        {.n_threads = 2,
         .max_num_seqs = 8,
         .chunk = 16,
         .n_kv_tokens = 256,
         .backwards = true,
         .odd = true},
        {.n_threads = 1, .max_num_seqs = 1, .chunk = 512, .max_drafts = 1, .odd = true},
        {.n_threads = 2, .max_num_seqs = 40, .chunk = 256, .max_drafts = 2, .odd = true},
        {.n_threads = 2,
         .max_num_seqs = 20,
         .chunk = 30,
         .max_drafts = 3,
         .n_kv_tokens = 512,
         .must_preempt = true},
        {.n_threads = 1, .max_num_seqs = 40, .chunk = 512, .n_prefills = 1, .odd = true},
        {.n_threads = 1,
         .max_num_seqs = 16,
         .chunk = 48,
         .max_drafts = 2,
         .n_kv_tokens = 320,
         .must_preempt = true,
         .backwards = true,
         .n_prefills = 2},
        {.n_threads = 2, .max_num_seqs = 20, .chunk = 64, .max_drafts = 3, .by_cost = true},
        {.n_threads = 1,
         .max_num_seqs = 3,
         .chunk = 64,
         .max_drafts = 2,
         .n_kv_tokens = 512,
         .by_cost = true,
         .odd = true},
    };
    answer *want = run(&alone);
    for (uint32_t v = 0; v < CMI_LEN(variants); v++) {
        if (few && variants[v].odd) {
            continue;
        }
        answer *got = run(&variants[v]);
        char name[32];
        (void)snprintf(name, sizeof name, "variant %u", v);
        expect_same(want, got, name);
        cmi_free(got);
    }
    cmi_free(want);
}

static house open_small(uint32_t n_prefills, uint64_t patience_ns)
{
    static char dir[512];
    snprintf(dir, sizeof dir, "%s/matrix-tiny", getenv("CMI_MODELS"));
    cmi_instance_options options = {.model_dir = dir,
                                    .dtype = CMI_DTYPE_BF16,
                                    .quantization = CMI_QUANTIZATION_W8A8_INT8,
                                    .isa = cmi_isa_best(cmi_cpu_flags()),
                                    .n_threads = 1,
                                    .max_num_batched_tokens = 32,
                                    .max_num_seqs = 6,
                                    .n_kv_tokens = 512,
                                    .max_model_len = 256};
    cmi_engine_options engine_options = {0};
    return open_house(options, &engine_options, n_prefills, patience_ns);
}

static void expect_all_pages_back(const house *h)
{
    for (int i = 0; i < DEADLINE_MS; i++) {
        cmi_engine_stats stats;
        cmi_engine_stats_get(h->engine, &stats);
        if (stats.n_kv_pages_used == 0) {
            return; /* those of a hand-over come back after its request has ended */
        }
        (void)poll(NULL, 0, 1);
    }
    fail_msg("pages are still held");
}

/* Cancelled at every step that there is: nothing is lost, everything ends once. */
static void cancelling_leaves_nothing_behind(void **state)
{
    (void)state;
    for (uint32_t n_prefills = 0; n_prefills <= 2; n_prefills++) {
        cmi_error err = {0};
        house h = open_small(n_prefills, 0);
        answer *answers = cmi_alloc(N_REQUESTS, sizeof *answers);
        for (uint32_t i = 0; i < N_REQUESTS; i++) {
            cmi_request *request = make_request(i, h.in->config.vocab_size);
            assert_int_equal(cmi_engine_submit(h.engine, request, &err), CMI_OK);
            cmi_free(request);
            if (i % 2 == 0) {
                cmi_engine_cancel(h.engine, draw(i, 9, i + 1));
            }
        }
        collect(h.engine, answers, N_REQUESTS);
        expect_all_pages_back(&h);
        close_house(&h);
        cmi_free(answers);
    }
}

/* The prompts that a prefill instance had go to the other one, and come out the same. */
static void a_dead_prefill_instance_is_not_missed(void **state)
{
    (void)state;
    house whole = open_small(0, 0), apart = open_small(2, 0);
    answer *want = cmi_alloc(N_REQUESTS, sizeof *want), *got = cmi_alloc(N_REQUESTS, sizeof *got);
    submit_all(whole.engine, N_REQUESTS, whole.in->config.vocab_size, false);
    collect(whole.engine, want, N_REQUESTS);
    submit_all(apart.engine, N_REQUESTS, apart.in->config.vocab_size, false);
    collect(apart.engine, got, 5);
    cmi_disaggregation_stop_prefill(apart.apart, 0);
    collect(apart.engine, got, N_REQUESTS - 5);
    expect_same(want, got, "after a death");
    cmi_handover_stats stats;
    cmi_disaggregation_handover_stats(apart.apart, &stats);
    print_message("%llu asked, %llu arrived, %llu lost, %llu ended\n",
                  (unsigned long long)stats.n_asked, (unsigned long long)stats.n_arrived,
                  (unsigned long long)stats.n_lost, (unsigned long long)stats.n_ended);
    assert_true(stats.n_arrived >= N_REQUESTS && stats.n_damaged == 0);
    expect_all_pages_back(&apart);
    close_house(&whole);
    close_house(&apart);
    cmi_free(want);
    cmi_free(got);
}

static answer ask_one(house *h, uint32_t i)
{
    cmi_error err = {0};
    answer *answers = cmi_alloc(N_REQUESTS, sizeof *answers);
    cmi_request *request = make_request(i, h->in->config.vocab_size);
    assert_int_equal(cmi_engine_submit(h->engine, request, &err), CMI_OK);
    collect(h->engine, answers, 1);
    answer one = answers[i];
    cmi_free(request);
    cmi_free(answers);
    return one;
}

/* A bit flips in each operation of a transfer in turn: slices, checksums, the record. The prompt
 * comes again, and the answer is the same. */
static void a_flipped_bit_is_never_served(void **state)
{
    (void)state;
    enum { FIRST_PUT = 3 }; /* behind WELCOME and the fetch of the request */
    uint32_t request = 0;   /* logprobs of prompts come as messages between the puts */
    while (draw(request, 8, 4) == 0 || draw(request, 0, MAX_PROMPT) < 70) {
        request++;
    }
    house whole = open_small(0, 0);
    const uint32_t n_prompt = 1 + draw(request, 0, MAX_PROMPT);
    const uint32_t n_slices =
        cmi_kv_pages_for(n_prompt) * whole.in->kv_pool.layout.n_layers; /* a put each */
    const answer want = ask_one(&whole, request);
    close_house(&whole);
    for (uint32_t nth = FIRST_PUT; nth < FIRST_PUT + n_slices + 2; nth++) {
        const cmi_fault_options one_bit = {.seed = nth, .n_ops = 4096, .corrupt_nth = nth};
        faults = &one_bit;
        house h = open_small(1, 0);
        faults = NULL;
        const answer got = ask_one(&h, request);
        cmi_handover_stats stats;
        cmi_disaggregation_handover_stats(h.apart, &stats);
        if (stats.n_damaged != 1 || memcmp(&want, &got, sizeof got) != 0) {
            fail_msg("operation %u of %u: %llu damaged", nth, FIRST_PUT + n_slices + 1,
                     (unsigned long long)stats.n_damaged);
        }
        close_house(&h);
    }
}

/* Nobody is left to run prompts: the truth in bounded time, and nothing is kept. */
static void without_prefill_instances_requests_end_with_an_error(void **state)
{
    (void)state;
    house h = open_small(1, 50000000);
    cmi_disaggregation_stop_prefill(h.apart, 0);
    answer *answers = cmi_alloc(N_REQUESTS, sizeof *answers);
    submit_all(h.engine, N_REQUESTS, h.in->config.vocab_size, false);
    collect(h.engine, answers, N_REQUESTS);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        assert_int_equal(answers[i].finish_reason, CMI_FINISH_ERROR);
        assert_int_equal(answers[i].n_tokens, 0);
    }
    expect_all_pages_back(&h);
    close_house(&h);
    cmi_free(answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_do_not_depend_on_company),
        cmocka_unit_test(cancelling_leaves_nothing_behind),
        cmocka_unit_test(a_dead_prefill_instance_is_not_missed),
        cmocka_unit_test(a_flipped_bit_is_never_served),
        cmocka_unit_test(without_prefill_instances_requests_end_with_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
