/* The scheduler against what it promises, on random loads: no page lost or owned twice, no row
 * twice or left out, limits kept, everybody ends, the oldest is never preempted. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "policy/scheduler.h"

enum {
    N_SLOTS = 24,
    PAGE = CMI_PAGE_TOKENS,
    BLOCK = CMI_CONTENT_BLOCK_TOKENS,
    MAX_BLOCKS = 32,
    N_FAMILIES = 4, /* prompts of one begin alike */
    N_SEEDS = 2000,
    MAX_STEPS = 20000,
};

/* What a request should have had so far. */
typedef struct model_request {
    bool is_alive;
    uint32_t n_prompt, n_output; /* to generate */
    uint32_t n_generated, n_stored, n_pages, n_drafts;
    int32_t priority;
    uint64_t order;
    cmi_content_key keys[MAX_BLOCKS];
} model_request;

typedef struct model {
    cmi_scheduler *s;
    void *memory[3];
    uint32_t n_pages, n_blocks;
    cmi_scheduler_options opt;
    model_request requests[N_SLOTS];
    uint64_t seed, n_draws, n_arrived, now_ns;
    uint32_t n_to_come;
} model;

static uint32_t draw(model *m, uint32_t n)
{
    return (uint32_t)(cmi_philox_uniform(m->seed, m->n_draws++, 0) * (float)n) % n;
}

static void draw_options(model *m)
{
    cmi_scheduler_options *o = &m->opt;
    o->n_slots = N_SLOTS;
    o->max_num_seqs = 1 + draw(m, 8);
    o->max_decode_rows = o->max_num_seqs + draw(m, 6);
    o->max_rows = o->max_decode_rows + draw(m, 600);
    o->max_prefill_rows = 1 + draw(m, o->max_rows);
    o->max_span_rows = 1 + draw(m, 8);
    o->max_drafts = draw(m, 4);
    m->n_pages = 8 + draw(m, 40);
    m->n_blocks = draw(m, 4) == 0 ? 0 : draw(m, 20);
    o->max_tokens = CMI_MIN(m->n_pages * PAGE, (uint32_t)MAX_BLOCKS * BLOCK);
}

static void make_scheduler(model *m)
{
    cmi_page_pool_options pool = {.n_pages = m->n_pages, .lease_max_ns = 1};
    cmi_prefix_cache_options cache = {.n_blocks = m->n_blocks};
    size_t n_bytes = cmi_page_pool_bytes(&pool);
    m->memory[0] = cmi_alloc_aligned(n_bytes, 64);
    assert_int_equal(cmi_page_pool_init(&m->opt.pool, m->memory[0], n_bytes, &pool), CMI_OK);
    n_bytes = cmi_prefix_cache_bytes(&cache);
    m->memory[1] = cmi_alloc_aligned(n_bytes, 64);
    assert_int_equal(
        cmi_prefix_cache_init(&m->opt.cache, m->memory[1], n_bytes, m->opt.pool, &cache), CMI_OK);
    m->memory[2] = cmi_alloc(1, cmi_scheduler_bytes(&m->opt));
    m->s = cmi_scheduler_init(m->memory[2], &m->opt);
}

/* Nothing may be held any more. */
static void destroy_scheduler(model *m)
{
    assert_int_equal(cmi_prefix_cache_room(m->opt.cache), m->n_pages);
    cmi_prefix_cache_deinit(m->opt.cache);
    assert_int_equal(cmi_page_pool_count(m->opt.pool, CMI_PAGE_FREE), m->n_pages);
    cmi_page_pool_deinit(m->opt.pool);
    for (size_t i = 0; i < CMI_LEN(m->memory); i++) {
        cmi_free(m->memory[i]);
    }
}

/* Blocks below n_alike are those of all prompts of the family. */
static void draw_keys(model *m, model_request *r)
{
    uint32_t family = draw(m, N_FAMILIES), n_alike = draw(m, 8);
    for (uint32_t i = 0; i < r->n_prompt / BLOCK; i++) {
        uint64_t words[2] = {i < n_alike ? family : 100 + m->n_arrived, i + 1};
        memcpy(r->keys[i].bytes, words, sizeof words);
    }
}

static void arrive(model *m)
{
    uint32_t slot = draw(m, N_SLOTS);
    while (m->requests[slot].is_alive) {
        slot = (slot + 1) % N_SLOTS;
    }
    model_request *r = &m->requests[slot];
    uint32_t n_max = m->opt.max_tokens;
    *r = (model_request){.is_alive = true, .priority = (int32_t)draw(m, 3) - 1};
    r->n_prompt = 1 + draw(m, n_max - 1);
    r->n_output = 1 + draw(m, CMI_MIN(n_max - r->n_prompt, 200u));
    r->n_generated = draw(m, 4) == 0 ? draw(m, r->n_output) : 0; /* elsewhere */
    r->order = m->n_arrived++;
    draw_keys(m, r);
    cmi_scheduler_request request = {.n_prompt = r->n_prompt,
                                     .n_total = r->n_prompt + r->n_output,
                                     .n_generated = r->n_generated,
                                     .priority = r->priority,
                                     .keys = r->keys,
                                     .n_keys = r->n_prompt / BLOCK,
                                     .skips_cache = draw(m, 8) == 0,
                                     .skip_reason = CMI_PREFIX_LOSS_PROMPT_LOGITS};
    cmi_scheduler_arrive(m->s, slot, &request);
    m->n_to_come--;
}

static uint32_t n_alive(const model *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        n += m->requests[i].is_alive ? 1 : 0;
    }
    return n;
}

static bool is_first(const model *m, uint32_t slot)
{
    const model_request *a = &m->requests[slot];
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        const model_request *b = &m->requests[i];
        if (b->is_alive &&
            (b->priority < a->priority || (b->priority == a->priority && b->order < a->order))) {
            return false;
        }
    }
    return true;
}

static void check_span(model *m, const cmi_scheduler_span *span)
{
    model_request *r = &m->requests[span->slot];
    uint32_t n_known = r->n_prompt + r->n_generated;
    assert_true(r->is_alive && span->n_rows >= 1);
    assert_int_equal(span->position, r->n_stored);
    assert_int_equal(span->is_prefill, r->n_stored < r->n_prompt);
    uint32_t end = span->position + span->n_rows - span->n_drafts;
    assert_true(span->n_drafts <= r->n_drafts && span->n_drafts < span->n_rows);
    assert_true(span->n_drafts == 0 || span->samples);
    assert_true(end + span->n_drafts < r->n_prompt + r->n_output);
    assert_true(span->n_pages * PAGE >=
                CMI_MIN(end + span->n_drafts + m->opt.max_drafts, r->n_prompt + r->n_output));
    assert_true(end <= (span->is_prefill ? r->n_prompt : n_known));
    assert_int_equal(span->samples, end == n_known);
    assert_true(span->n_pages * PAGE >= end && span->n_pages >= r->n_pages);
    assert_true(span->is_prefill || span->n_rows - span->n_drafts <= m->opt.max_span_rows);
    r->n_pages = span->n_pages;
}

/* The plan's own numbers, and the pages as its reader counts them. */
static void check_plan(model *m, const cmi_scheduler_plan *plan)
{
    uint32_t n_rows = 0, n_prefill = 0, n_decode_spans = 0;
    for (uint32_t i = 0; i < plan->n_preempted; i++) {
        model_request *r = &m->requests[plan->preempted[i]];
        assert_true(r->is_alive && !is_first(m, plan->preempted[i]));
        r->n_pages = r->n_stored = r->n_drafts = 0;
    }
    for (uint32_t i = 0; i < plan->n_admitted; i++) {
        model_request *r = &m->requests[plan->admitted[i]];
        r->n_stored = cmi_scheduler_slot_get(m->s, plan->admitted[i])->n_cached;
        assert_true(r->n_stored % BLOCK == 0 && r->n_stored < r->n_prompt);
    }
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        check_span(m, span);
        n_rows += span->n_rows;
        n_prefill += span->is_prefill ? span->n_rows : 0;
        assert_true(span->is_prefill || n_prefill == 0); /* those that decode come first */
        n_decode_spans += span->is_prefill ? 0 : 1;
    }
    assert_int_equal(n_rows, plan->n_rows);
    assert_int_equal(n_rows - n_prefill, plan->n_decode_rows);
    assert_true(n_rows <= m->opt.max_rows && plan->n_decode_rows <= m->opt.max_decode_rows);
    assert_true(n_decode_spans == 0 || n_prefill <= m->opt.max_prefill_rows);
    for (uint32_t i = 0; i < N_SLOTS; i++) {
        const cmi_scheduler_slot *slot = cmi_scheduler_slot_get(m->s, i);
        bool holds = slot->state == CMI_REQUEST_PREFILL || slot->state == CMI_REQUEST_DECODE;
        assert_true(holds || slot->n_pages == 0);
    }
    assert_true(cmi_page_pool_check(m->opt.pool) && cmi_prefix_cache_check(m->opt.cache));
    assert_true(cmi_scheduler_n_running(m->s) <= m->opt.max_num_seqs);
    assert_int_equal(cmi_scheduler_n_running(m->s) + cmi_scheduler_n_waiting(m->s), n_alive(m));
}

static void finish(model *m, uint32_t slot)
{
    cmi_scheduler_finish(m->s, ++m->now_ns, slot);
    m->requests[slot].is_alive = false;
}

static void apply(model *m, const cmi_scheduler_plan *plan)
{
    uint32_t ended[N_SLOTS], n_ended = 0;
    cmi_scheduler_outcome outcomes[N_SLOTS];
    for (uint32_t i = 0; i < plan->n_spans; i++) {
        const cmi_scheduler_span *span = &plan->spans[i];
        model_request *r = &m->requests[span->slot];
        r->n_stored += span->n_rows - span->n_drafts;
        if (span->samples) {
            outcomes[i].n_new = 1 + draw(m, span->n_drafts + 1);
            outcomes[i].n_drafts = draw(m, m->opt.max_drafts + 1);
            r->n_stored += outcomes[i].n_new - 1;
            r->n_generated += outcomes[i].n_new;
            r->n_drafts = outcomes[i].n_drafts;
        }
        if (r->n_generated == r->n_output) {
            ended[n_ended++] = span->slot;
        }
    }
    uint32_t n_sealed;
    (void)cmi_scheduler_step_done(m->s, ++m->now_ns, outcomes, &n_sealed);
    for (uint32_t i = 0; i < n_ended; i++) {
        finish(m, ended[i]);
    }
}

static void cancel_somebody(model *m)
{
    uint32_t slot = draw(m, N_SLOTS);
    if (m->requests[slot].is_alive) {
        finish(m, slot);
    }
}

static void run_seed(uint64_t seed, uint32_t cancel_every, uint64_t *n_used)
{
    model m = {.seed = seed, .n_to_come = 30};
    draw_options(&m);
    make_scheduler(&m);
    uint32_t n_steps = 0;
    while (m.n_to_come > 0 || n_alive(&m) > 0) {
        while (m.n_to_come > 0 && n_alive(&m) < N_SLOTS && draw(&m, 3) == 0) {
            arrive(&m);
        }
        if (cancel_every > 0 && draw(&m, cancel_every) == 0) {
            cancel_somebody(&m);
        }
        cmi_scheduler_plan plan;
        bool any = cmi_scheduler_plan_step(m.s, ++m.now_ns, &plan);
        assert_int_equal(any, n_alive(&m) > 0); /* whoever is there is never left idle */
        check_plan(&m, &plan);
        apply(&m, &plan);
        if (++n_steps > MAX_STEPS) {
            fail_msg("seed %llu does not end", (unsigned long long)seed);
        }
    }
    const cmi_prefix_account *a = cmi_scheduler_prefix_account(m.s);
    uint64_t n_lost = 0;
    for (int i = 0; i < CMI_PREFIX_N_LOSSES; i++) {
        n_lost += a->lost[i];
    }
    assert_int_equal(a->prompt, a->used + n_lost);
    *n_used += a->used;
    destroy_scheduler(&m);
}

static void random_loads_keep_the_promises(void **state)
{
    (void)state;
    uint64_t n_seeds = getenv("CMI_FEW") != NULL ? N_SEEDS / 20 : N_SEEDS, n_used = 0;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        run_seed(seed, seed % 2 == 0 ? 0 : 5, &n_used);
    }
    assert_true(n_used > 0);
}

static void only_the_drawn_transitions_exist(void **state)
{
    (void)state;
    enum { NO = CMI_REQUEST_N_STATES };
    /* arrive, admit, prompt_done, hand_over, reserve, received, leave, drained, preempt, finish */
    static const int to[CMI_REQUEST_N_STATES][CMI_REQUEST_N_EVENTS] = {
        [CMI_REQUEST_FREE] = {CMI_REQUEST_QUEUED, NO, NO, NO, NO, NO, NO, NO, NO, NO},
        [CMI_REQUEST_QUEUED] = {NO, CMI_REQUEST_PREFILL, NO, NO, CMI_REQUEST_RECEIVE, NO, NO, NO,
                                NO, CMI_REQUEST_FREE},
        [CMI_REQUEST_PREFILL] = {NO, NO, CMI_REQUEST_DECODE, CMI_REQUEST_SEND, NO, NO, NO, NO,
                                 CMI_REQUEST_QUEUED, CMI_REQUEST_FREE},
        [CMI_REQUEST_DECODE] = {NO, NO, NO, NO, NO, NO, NO, NO, CMI_REQUEST_QUEUED,
                                CMI_REQUEST_FREE},
        [CMI_REQUEST_SEND] = {NO, NO, NO, NO, NO, NO, NO, NO, NO, CMI_REQUEST_FREE},
        [CMI_REQUEST_RECEIVE] = {NO, NO, NO, NO, NO, CMI_REQUEST_DECODE, CMI_REQUEST_DRAIN, NO, NO,
                                 NO},
        [CMI_REQUEST_DRAIN] = {NO, NO, NO, NO, NO, NO, NO, CMI_REQUEST_FREE, NO, NO},
    };
    for (int s = 0; s < CMI_REQUEST_N_STATES; s++) {
        for (int e = 0; e < CMI_REQUEST_N_EVENTS; e++) {
            assert_int_equal(cmi_request_next_state(s, e), to[s][e]);
        }
    }
}

static const cmi_scheduler_outcome one_token_each[] = {{1, 0}, {1, 0}, {1, 0}, {1, 0}};

static void make_small(model *m, uint32_t n_pages, uint32_t n_blocks)
{
    *m = (model){.n_pages = n_pages, .n_blocks = n_blocks};
    m->opt = (cmi_scheduler_options){.n_slots = 8,
                                     .max_num_seqs = 4,
                                     .max_rows = 256,
                                     .max_decode_rows = 8,
                                     .max_prefill_rows = 64,
                                     .max_span_rows = 4,
                                     .max_tokens = n_pages * PAGE};
    make_scheduler(m);
}

static void arrive_small(model *m, uint32_t slot, uint32_t n_prompt, uint32_t n_total)
{
    cmi_scheduler_request request = {.n_prompt = n_prompt,
                                     .n_total = n_total,
                                     .keys = m->requests[slot].keys,
                                     .n_keys = m->n_blocks > 0 ? n_prompt / BLOCK : 0};
    for (uint32_t i = 0; i < request.n_keys; i++) {
        m->requests[slot].keys[i].bytes[0] = (uint8_t)(i + 1);
    }
    cmi_scheduler_arrive(m->s, slot, &request);
}

static cmi_scheduler_plan next_plan(model *m)
{
    cmi_scheduler_plan plan;
    assert_true(cmi_scheduler_plan_step(m->s, ++m->now_ns, &plan));
    return plan;
}

static void step_done(model *m)
{
    uint32_t n_sealed;
    (void)cmi_scheduler_step_done(m->s, ++m->now_ns, one_token_each, &n_sealed);
}

/* A prompt takes the whole step while nobody decodes, and 64 rows of one beside others. */
static void prompts_are_chunked_and_yield_to_those_that_decode(void **state)
{
    (void)state;
    model m;
    make_small(&m, 100, 0);
    arrive_small(&m, 0, 300, 400);
    cmi_scheduler_plan plan = next_plan(&m);
    assert_int_equal(plan.spans[0].n_rows, 256);
    assert_false(plan.spans[0].samples);
    step_done(&m);
    plan = next_plan(&m);
    assert_int_equal(plan.spans[0].n_rows, 44);
    assert_true(plan.spans[0].samples);
    step_done(&m);
    arrive_small(&m, 1, 300, 400);
    plan = next_plan(&m);
    assert_int_equal(plan.n_spans, 2);
    assert_int_equal(plan.spans[0].slot, 0);
    assert_int_equal(plan.spans[0].n_rows, 1);
    assert_int_equal(plan.spans[1].n_rows, 64);
    step_done(&m);
    cmi_scheduler_finish(m.s, 1000, 0);
    cmi_scheduler_finish(m.s, 1000, 1);
    destroy_scheduler(&m);
}

/* Two sequences fill the pages; the younger gives way and comes back with its tokens. */
static void the_younger_is_preempted_and_replays(void **state)
{
    (void)state;
    model m;
    make_small(&m, 5, 0);
    arrive_small(&m, 0, 120, 300);
    arrive_small(&m, 1, 100, 300);
    uint32_t n_steps = 0;
    cmi_scheduler_plan plan = next_plan(&m);
    for (; plan.n_preempted == 0; plan = next_plan(&m)) {
        step_done(&m);
        assert_true(++n_steps < 200);
    }
    assert_int_equal(plan.n_preempted, 1);
    assert_int_equal(plan.preempted[0], 1);
    step_done(&m);
    const cmi_scheduler_slot *slot = cmi_scheduler_slot_get(m.s, 1);
    assert_int_equal(slot->state, CMI_REQUEST_QUEUED);
    assert_true(slot->n_generated > 4);
    cmi_scheduler_finish(m.s, ++m.now_ns, 0);
    plan = next_plan(&m); /* its prompt */
    assert_true(plan.spans[0].is_prefill && !plan.spans[0].samples);
    assert_int_equal(plan.spans[0].n_rows, 100);
    step_done(&m);
    plan = next_plan(&m); /* what it had generated, together */
    assert_false(plan.spans[0].is_prefill);
    assert_int_equal(plan.spans[0].position, 100);
    assert_int_equal(plan.spans[0].n_rows, 4);
    step_done(&m);
    cmi_scheduler_finish(m.s, ++m.now_ns, 1);
    destroy_scheduler(&m);
}

/* The second request of a prompt computes what is behind the last full block. */
static void a_cached_prompt_is_not_computed_again(void **state)
{
    (void)state;
    model m;
    make_small(&m, 40, 10);
    for (uint32_t slot = 0; slot < 2; slot++) {
        arrive_small(&m, slot, 2 * BLOCK, 3 * BLOCK);
        cmi_scheduler_plan plan = next_plan(&m);
        assert_int_equal(plan.spans[0].position, slot * BLOCK);
        assert_int_equal(plan.spans[0].n_rows, 2 * BLOCK - slot * BLOCK);
        step_done(&m);
        cmi_scheduler_finish(m.s, ++m.now_ns, slot);
    }
    const cmi_prefix_account *a = cmi_scheduler_prefix_account(m.s);
    assert_int_equal(a->used, BLOCK);
    assert_int_equal(a->lost[CMI_PREFIX_LOSS_LAST_TOKEN], 2 * BLOCK);
    destroy_scheduler(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_drawn_transitions_exist),
        cmocka_unit_test(prompts_are_chunked_and_yield_to_those_that_decode),
        cmocka_unit_test(the_younger_is_preempted_and_replays),
        cmocka_unit_test(a_cached_prompt_is_not_computed_again),
        cmocka_unit_test(random_loads_keep_the_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
