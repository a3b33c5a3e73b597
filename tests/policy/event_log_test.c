/* Logs of random loads replay to the same plans; what was changed in them is noticed and named. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/rng.h"
#include "policy/event_replay.h"

enum {
    N_SLOTS = 12,
    BLOCK = CMI_CONTENT_BLOCK_TOKENS,
    MAX_BLOCKS = 8,
    N_SEEDS = 400,
    LOG_BYTES_MAX = 16 << 20,
    HEAD_BYTES = 8,
};

typedef struct load {
    cmi_policy_options opt;
    cmi_scheduler *s;
    void *memory[4];
    cmi_policy_log log;
    cmi_buf bytes;
    cmi_content_key keys[N_SLOTS][MAX_BLOCKS];
    uint32_t n_left[N_SLOTS]; /* tokens until the request ends; 0: the slot is free */
    uint64_t seed, n_draws, now_ns, n_preempted, n_sealed;
    uint32_t n_to_come, n_arrived;
} load;

static uint32_t draw(load *l, uint32_t n)
{
    return (uint32_t)(cmi_philox_uniform(l->seed, l->n_draws++, 0) * (float)n) % n;
}

static void keep(load *l, size_t n_bytes)
{
    assert_true(n_bytes > 0 && cmi_buf_append(&l->bytes, l->log.out, n_bytes));
}

static cmi_policy_options draw_options(load *l)
{
    cmi_policy_options o = {.pool = {.n_pages = 8 + draw(l, 20), .lease_max_ns = 1},
                            .cache = {.n_blocks = draw(l, 4) == 0 ? 0 : draw(l, 10)}};
    cmi_scheduler_options *s = &o.scheduler;
    s->n_slots = N_SLOTS;
    s->max_num_seqs = 1 + draw(l, 6);
    s->max_decode_rows = s->max_num_seqs + draw(l, 6);
    s->max_rows = s->max_decode_rows + draw(l, 300);
    s->max_prefill_rows = 1 + draw(l, s->max_rows);
    s->max_span_rows = 1 + draw(l, 8);
    s->max_drafts = draw(l, 4);
    s->max_tokens = CMI_MIN(o.pool.n_pages * CMI_PAGE_TOKENS, (uint32_t)MAX_BLOCKS * BLOCK);
    return o;
}

static void load_init(load *l, uint64_t seed, cmi_instance_role role)
{
    *l = (load){.seed = seed, .n_to_come = 20};
    l->opt = draw_options(l);
    l->opt.scheduler.role = role;
    cmi_scheduler_options *s = &l->opt.scheduler;
    size_t n = cmi_page_pool_bytes(&l->opt.pool);
    l->memory[0] = cmi_alloc_aligned(n, 64);
    assert_int_equal(cmi_page_pool_init(&s->pool, l->memory[0], n, &l->opt.pool), CMI_OK);
    n = cmi_prefix_cache_bytes(&l->opt.cache);
    l->memory[1] = cmi_alloc_aligned(n, 64);
    assert_int_equal(cmi_prefix_cache_init(&s->cache, l->memory[1], n, s->pool, &l->opt.cache),
                     CMI_OK);
    l->memory[2] = cmi_alloc(1, cmi_scheduler_bytes(s));
    l->s = cmi_scheduler_init(l->memory[2], s);
    n = cmi_policy_log_bytes_max(&l->opt);
    l->memory[3] = cmi_alloc(1, n);
    cmi_policy_log_init(&l->log, l->memory[3], n);
    cmi_buf_init(&l->bytes, LOG_BYTES_MAX);
    keep(l, cmi_policy_log_begin(&l->log, &l->opt));
}

static void load_deinit(load *l)
{
    for (size_t i = 0; i < CMI_LEN(l->memory); i++) {
        cmi_free(l->memory[i]);
    }
    cmi_buf_deinit(&l->bytes);
}

static void arrive(load *l, uint32_t slot, const cmi_scheduler_request *request)
{
    cmi_scheduler_arrive(l->s, slot, request);
    keep(l, cmi_policy_log_arrive(&l->log, slot, request));
    l->n_left[slot] = request->n_total - request->n_prompt - request->n_generated;
}

/* Prompts of a family begin alike. */
static void arrive_drawn(load *l, uint32_t slot)
{
    uint32_t family = draw(l, 3), n_alike = draw(l, 5);
    cmi_scheduler_request q = {.priority = (int32_t)draw(l, 3) - 1,
                               .keys = l->keys[slot],
                               .space_tag = family,
                               .skips_cache = draw(l, 8) == 0,
                               .skip_reason = CMI_PREFIX_LOSS_PROMPT_LOGITS};
    q.n_prompt = 1 + draw(l, l->opt.scheduler.max_tokens - 1);
    q.n_total = q.n_prompt + 1 + draw(l, CMI_MIN(l->opt.scheduler.max_tokens - q.n_prompt, 99u));
    q.n_generated = draw(l, 3) == 0 ? draw(l, q.n_total - q.n_prompt) : 0;
    q.n_keys = q.n_prompt / BLOCK;
    l->n_arrived++;
    for (uint32_t i = 0; i < q.n_keys; i++) {
        uint64_t words[2] = {i < n_alike ? family : 100 + l->n_arrived, i + 1};
        memcpy(l->keys[slot][i].bytes, words, sizeof words);
    }
    arrive(l, slot, &q);
    l->n_to_come--;
}

static void finish(load *l, uint32_t slot)
{
    cmi_scheduler_finish(l->s, ++l->now_ns, slot);
    keep(l, cmi_policy_log_finish(&l->log, l->now_ns, slot));
    l->n_left[slot] = 0;
}

static void step(load *l)
{
    cmi_scheduler_plan plan;
    cmi_scheduler_outcome outcomes[N_SLOTS];
    bool any = cmi_scheduler_plan_step(l->s, ++l->now_ns, &plan);
    keep(l, cmi_policy_log_plan(&l->log, l->now_ns, &plan));
    l->n_preempted += plan.n_preempted;
    if (!any) {
        return;
    }
    for (uint32_t i = 0; i < plan.n_spans; i++) {
        const cmi_scheduler_span *span = &plan.spans[i];
        outcomes[i] = (cmi_scheduler_outcome){1 + draw(l, span->n_drafts + 1),
                                              draw(l, l->opt.scheduler.max_drafts + 1)};
        l->n_left[span->slot] -= span->samples ? outcomes[i].n_new : 0;
    }
    keep(l, cmi_policy_log_done(&l->log, ++l->now_ns, &plan, outcomes));
    uint32_t ended[N_SLOTS], n_ended = 0, n_sealed;
    for (uint32_t i = 0; i < plan.n_spans; i++) {
        if (l->n_left[plan.spans[i].slot] == 0) {
            ended[n_ended++] = plan.spans[i].slot;
        }
    }
    const cmi_scheduler_sealed *sealed =
        cmi_scheduler_step_done(l->s, l->now_ns, outcomes, &n_sealed);
    keep(l, cmi_policy_log_sealed(&l->log, sealed, n_sealed));
    l->n_sealed += n_sealed;
    for (uint32_t i = 0; i < n_ended; i++) {
        finish(l, ended[i]);
    }
}

static void run_load(load *l)
{
    bool is_busy = true;
    while (l->n_to_come > 0 || is_busy) {
        uint32_t slot = draw(l, N_SLOTS);
        if (l->n_to_come > 0 && l->n_left[slot] == 0 && draw(l, 3) == 0) {
            arrive_drawn(l, slot);
        } else if (l->n_left[slot] > 0 && draw(l, 20) == 0) {
            finish(l, slot);
        }
        step(l);
        is_busy = cmi_scheduler_n_running(l->s) + cmi_scheduler_n_waiting(l->s) > 0;
    }
    keep(l, cmi_policy_log_end(&l->log, false));
}

/* Checks and replays; the state is of the last record. */
static cmi_replay_status replay(const void *bytes, size_t n_bytes, cmi_policy_log_info *info,
                                cmi_replay_state *state)
{
    *state = (cmi_replay_state){0};
    if (cmi_policy_log_check(bytes, n_bytes, info) != CMI_OK) {
        assert_non_null(info->why);
        return CMI_REPLAY_BAD;
    }
    void *memory = cmi_alloc_aligned(cmi_policy_replay_bytes(info), 64);
    cmi_policy_replay *r = cmi_policy_replay_init(memory, info, bytes, n_bytes);
    cmi_replay_status st;
    do {
        st = cmi_policy_replay_next(r);
    } while (st == CMI_REPLAY_SAME);
    *state = *cmi_policy_replay_state(r);
    cmi_free(memory);
    return st;
}

static void random_loads_replay_to_the_same_plans(void **unused)
{
    (void)unused;
    uint64_t n_seeds = getenv("CMI_FEW") != NULL ? N_SEEDS / 20 : N_SEEDS;
    uint64_t n_preempted = 0, n_sealed = 0;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        load l;
        cmi_policy_log_info info;
        cmi_replay_state state;
        load_init(&l, seed, CMI_ROLE_BOTH);
        run_load(&l);
        cmi_replay_status st = replay(l.bytes.data, l.bytes.len, &info, &state);
        if (st != CMI_REPLAY_END || info.ending != CMI_POLICY_LOG_WHOLE) {
            fail_msg("seed %llu: record %llu: %s %s", (unsigned long long)seed,
                     (unsigned long long)state.n_records, state.why ? state.why : "",
                     state.what ? state.what : "");
        }
        assert_int_equal(state.n_requests, 20);
        assert_int_equal(state.n_records, info.n_records + 1); /* the options, too */
        assert_int_equal(state.n_steps, info.n_steps);
        assert_int_equal(state.n_preempted, l.n_preempted);
        n_preempted += l.n_preempted;
        n_sealed += l.n_sealed;
        load_deinit(&l);
    }
    assert_true(n_preempted > 0 && n_sealed > 0);
}

/* Everywhere: in lengths, checksums, times, and in what decides nothing. */
static void every_flipped_bit_is_noticed(void **unused)
{
    (void)unused;
    load l;
    cmi_policy_log_info info;
    load_init(&l, 3, CMI_ROLE_BOTH);
    l.n_to_come = 2;
    run_load(&l);
    for (size_t bit = 0; bit < l.bytes.len * 8; bit++) {
        l.bytes.data[bit / 8] ^= (char)(1 << bit % 8);
        cmi_status st = cmi_policy_log_check(l.bytes.data, l.bytes.len, &info);
        if (st == CMI_OK && info.ending != CMI_POLICY_LOG_BROKEN) {
            fail_msg("nobody noticed bit %zu", bit);
        }
        l.bytes.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_int_equal(cmi_policy_log_check(l.bytes.data, l.bytes.len, &info), CMI_OK);
    load_deinit(&l);
}

/* Whoever wrote it was killed: what is there replays, and is known not to be all. */
static void a_log_may_end_anywhere(void **unused)
{
    (void)unused;
    load l;
    load_init(&l, 3, CMI_ROLE_BOTH);
    l.n_to_come = 2;
    run_load(&l);
    const size_t n_first = 8 + HEAD_BYTES;
    for (size_t n = 0; n < l.bytes.len; n++) {
        cmi_policy_log_info info;
        cmi_replay_state state;
        cmi_replay_status st = replay(l.bytes.data, n, &info, &state);
        assert_true(st == CMI_REPLAY_END || (st == CMI_REPLAY_BAD && n < n_first + 64));
        assert_int_equal(info.ending, CMI_POLICY_LOG_BROKEN);
    }
    load_deinit(&l);
}

static void what_stands_behind_the_end_is_noticed(void **unused)
{
    (void)unused;
    load l;
    cmi_policy_log_info info;
    load_init(&l, 3, CMI_ROLE_BOTH);
    run_load(&l);
    cmi_buf_char(&l.bytes, 0);
    assert_int_equal(cmi_policy_log_check(l.bytes.data, l.bytes.len, &info), CMI_ERR_BAD_DATA);
    cmi_buf_truncate(&l.bytes, l.bytes.len - 1);
    keep(&l, cmi_policy_log_finish(&l.log, l.now_ns, 0));
    assert_int_equal(cmi_policy_log_check(l.bytes.data, l.bytes.len, &info), CMI_ERR_BAD_DATA);
    load_deinit(&l);
}

/* ---- small logs ---- */

static void make_small(load *l)
{
    *l = (load){.seed = 1};
    l->opt = (cmi_policy_options){.pool = {.n_pages = 20, .lease_max_ns = 1},
                                  .cache = {.n_blocks = 4},
                                  .scheduler = {.n_slots = N_SLOTS,
                                                .max_num_seqs = 4,
                                                .max_rows = 256,
                                                .max_decode_rows = 8,
                                                .max_prefill_rows = 64,
                                                .max_span_rows = 4,
                                                .max_drafts = 1,
                                                .max_tokens = 1024}};
    size_t n = cmi_policy_log_bytes_max(&l->opt);
    l->memory[3] = cmi_alloc(1, n);
    cmi_policy_log_init(&l->log, l->memory[3], n);
    cmi_buf_init(&l->bytes, LOG_BYTES_MAX);
    keep(l, cmi_policy_log_begin(&l->log, &l->opt));
}

static const cmi_page_id three_pages[] = {{0, 1}, {1, 1}, {2, 1}}; /* one for drafts */
static const cmi_content_key a_key = {{7}};

static void log_arrival(load *l, uint32_t slot, uint32_t n_prompt)
{
    cmi_scheduler_request q = {
        .n_prompt = n_prompt, .n_total = n_prompt + 4, .keys = &a_key, .n_keys = n_prompt / BLOCK};
    keep(l, cmi_policy_log_arrive(&l->log, slot, &q));
}

/* What a prompt of 128 tokens in slot 0 gives as the first thing. */
static cmi_scheduler_span first_span(void)
{
    return (cmi_scheduler_span){.slot = 0,
                                .n_rows = 128,
                                .pages = three_pages,
                                .n_pages = 3,
                                .is_prefill = true,
                                .samples = true};
}

static void log_plan(load *l, cmi_scheduler_span span)
{
    static const uint32_t slot_0[] = {0};
    cmi_scheduler_plan plan = {
        .admitted = slot_0, .n_admitted = 1, .spans = &span, .n_spans = 1, .n_rows = 128};
    keep(l, cmi_policy_log_plan(&l->log, 1, &plan));
}

static cmi_replay_state expect(load *l, cmi_replay_status want)
{
    cmi_policy_log_info info;
    cmi_replay_state state;
    assert_int_equal(replay(l->bytes.data, l->bytes.len, &info, &state), want);
    load_deinit(l);
    return state;
}

static void another_answer_is_named(void **unused)
{
    (void)unused;
    load l;
    cmi_scheduler_span span = first_span();
    make_small(&l);
    log_arrival(&l, 0, 128);
    log_plan(&l, span);
    (void)expect(&l, CMI_REPLAY_END);

    make_small(&l);
    log_arrival(&l, 0, 128);
    span.n_rows = 127;
    log_plan(&l, span);
    cmi_replay_state state = expect(&l, CMI_REPLAY_DIFFERS);
    assert_string_equal(state.what, "span");
    assert_string_equal(state.field, "n_rows");
    assert_int_equal(state.recorded, 127);
    assert_int_equal(state.replayed, 128);

    make_small(&l);
    log_arrival(&l, 0, 128);
    span = first_span();
    span.n_pages = 2;
    log_plan(&l, span);
    state = expect(&l, CMI_REPLAY_DIFFERS);
    assert_string_equal(state.field, "n_pages");
}

static void other_pages_and_blocks_are_named(void **unused)
{
    (void)unused;
    static const cmi_page_id others[] = {{0, 1}, {1, 1}, {3, 1}};
    static const cmi_scheduler_outcome one = {1, 0};
    load l;
    cmi_scheduler_span span = first_span();
    make_small(&l);
    log_arrival(&l, 0, 128);
    span.pages = others;
    log_plan(&l, span);
    cmi_replay_state state = expect(&l, CMI_REPLAY_DIFFERS);
    assert_string_equal(state.what, "pages of the spans");

    span = first_span();
    cmi_scheduler_sealed sealed = {.slot = 0, .cache_idx = 2};
    cmi_scheduler_plan plan = {.spans = &span, .n_spans = 1};
    make_small(&l);
    log_arrival(&l, 0, 128);
    log_plan(&l, span);
    keep(&l, cmi_policy_log_done(&l.log, 2, &plan, &one));
    keep(&l, cmi_policy_log_sealed(&l.log, &sealed, 1));
    state = expect(&l, CMI_REPLAY_DIFFERS);
    assert_string_equal(state.what, "sealed block");
    assert_string_equal(state.field, "cache_idx");
}

static void what_cannot_have_happened_is_refused(void **unused)
{
    (void)unused;
    load l;
    const cmi_content_key twice[2] = {{{7}}, {{7}}};
    const cmi_scheduler_request wrong[] = {
        {.n_prompt = 0, .n_total = 4},
        {.n_prompt = 4, .n_total = 4},
        {.n_prompt = 4, .n_total = 1025},
        {.n_prompt = 129, .n_total = 130},                             /* without its key */
        {.n_prompt = 127, .n_total = 128, .keys = twice, .n_keys = 1}, /* of no full block */
        {.n_prompt = 300, .n_total = 301, .keys = twice, .n_keys = 2}, /* two parents */
        {.n_prompt = 4, .n_total = 5, .skip_reason = CMI_PREFIX_N_LOSSES},
        {.n_prompt = 4, .n_total = 8, .n_generated = 4},
        {.n_prompt = 4, .n_total = 8, .n_generated = UINT32_MAX},
    };
    for (size_t i = 0; i < CMI_LEN(wrong); i++) {
        make_small(&l);
        keep(&l, cmi_policy_log_arrive(&l.log, 0, &wrong[i]));
        assert_non_null(expect(&l, CMI_REPLAY_BAD).why);
    }
    make_small(&l);
    log_arrival(&l, N_SLOTS, 4);
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    log_arrival(&l, 1, 4);
    log_arrival(&l, 1, 4); /* the slot is not free */
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    keep(&l, cmi_policy_log_finish(&l.log, 1, 1)); /* it is free */
    (void)expect(&l, CMI_REPLAY_BAD);
}

static void steps_keep_their_order(void **unused)
{
    (void)unused;
    static const cmi_scheduler_outcome outcomes[] = {{0, 0}, {2, 0}, {1, 2}};
    load l;
    cmi_scheduler_span span = first_span();
    cmi_scheduler_plan plan = {.spans = &span, .n_spans = 1};
    for (size_t i = 0; i < CMI_LEN(outcomes); i++) {
        make_small(&l);
        log_arrival(&l, 0, 128);
        log_plan(&l, span);
        keep(&l, cmi_policy_log_done(&l.log, 2, &plan, &outcomes[i]));
        (void)expect(&l, CMI_REPLAY_BAD);
    }
    make_small(&l);
    log_arrival(&l, 0, 128);
    log_plan(&l, span);
    log_arrival(&l, 1, 4);
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    keep(&l, cmi_policy_log_sealed(&l.log, NULL, 0));
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    log_arrival(&l, 0, 128);
    log_plan(&l, span);
    keep(&l, cmi_policy_log_done(&l.log, 0, &plan, &outcomes[0])); /* time goes back */
    (void)expect(&l, CMI_REPLAY_BAD);
}

/* A decode instance: a request is reserved for, received with its token, and decodes; another one
 * leaves and drains. */
static void hand_overs_replay(void **unused)
{
    (void)unused;
    static const cmi_scheduler_request request = {.n_prompt = 70, .n_total = 80};
    static const cmi_scheduler_outcome one = {1, 0};
    load l;
    uint32_t n_sealed;
    cmi_scheduler_plan plan;
    load_init(&l, 1, CMI_ROLE_DECODE);
    arrive(&l, 0, &request);
    arrive(&l, 1, &request);
    assert_false(cmi_scheduler_plan_step(l.s, ++l.now_ns, &plan));
    assert_int_equal(plan.n_admitted, 2);
    keep(&l, cmi_policy_log_plan(&l.log, l.now_ns, &plan));
    cmi_scheduler_leave(l.s, 0);
    keep(&l, cmi_policy_log_leave(&l.log, 0));
    cmi_scheduler_received(l.s, ++l.now_ns, 1, 1, 0);
    keep(&l, cmi_policy_log_received(&l.log, l.now_ns, 1, 1, 0));
    cmi_scheduler_drained(l.s, ++l.now_ns, 0);
    keep(&l, cmi_policy_log_drained(&l.log, l.now_ns, 0));
    assert_true(cmi_scheduler_plan_step(l.s, ++l.now_ns, &plan));
    keep(&l, cmi_policy_log_plan(&l.log, l.now_ns, &plan));
    keep(&l, cmi_policy_log_done(&l.log, ++l.now_ns, &plan, &one));
    const cmi_scheduler_sealed *sealed = cmi_scheduler_step_done(l.s, l.now_ns, &one, &n_sealed);
    keep(&l, cmi_policy_log_sealed(&l.log, sealed, n_sealed));
    finish(&l, 1);
    keep(&l, cmi_policy_log_end(&l.log, false));
    const cmi_replay_state state = expect(&l, CMI_REPLAY_END);
    assert_int_equal(state.n_steps, 1);
    assert_int_equal(state.n_records, 12);
}

static void a_hand_over_in_another_state_is_refused(void **unused)
{
    (void)unused;
    load l;
    make_small(&l);
    keep(&l, cmi_policy_log_received(&l.log, l.now_ns, 0, 1, 0));
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    log_arrival(&l, 0, 4);
    keep(&l, cmi_policy_log_leave(&l.log, 0));
    (void)expect(&l, CMI_REPLAY_BAD);
    make_small(&l);
    log_arrival(&l, 0, 4);
    keep(&l, cmi_policy_log_drained(&l.log, 1, 0));
    (void)expect(&l, CMI_REPLAY_BAD);
}

static void sizes_are_known_before_memory_is_taken(void **unused)
{
    (void)unused;
    cmi_policy_log_info info = {0};
    load l;
    make_small(&l);
    info.options = l.opt;
    assert_true(cmi_policy_replay_bytes(&info) > 0);
    info.options.pool.n_pages = UINT32_MAX;
    assert_int_equal(cmi_policy_replay_bytes(&info), 0);
    info.options = l.opt;
    info.options.scheduler.n_slots = UINT32_MAX;
    assert_int_equal(cmi_policy_replay_bytes(&info), 0);
    info.options = l.opt;
    info.options.scheduler.max_decode_rows = 257;
    assert_int_equal(cmi_policy_replay_bytes(&info), 0);
    load_deinit(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_loads_replay_to_the_same_plans),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(a_log_may_end_anywhere),
        cmocka_unit_test(what_stands_behind_the_end_is_noticed),
        cmocka_unit_test(another_answer_is_named),
        cmocka_unit_test(other_pages_and_blocks_are_named),
        cmocka_unit_test(what_cannot_have_happened_is_refused),
        cmocka_unit_test(steps_keep_their_order),
        cmocka_unit_test(hand_overs_replay),
        cmocka_unit_test(a_hand_over_in_another_state_is_refused),
        cmocka_unit_test(sizes_are_known_before_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
