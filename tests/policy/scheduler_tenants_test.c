/* Tenants and priorities on random loads: shares within their bound, nobody starves, equal runs are
 * equal. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "policy/scheduler.h"

enum { N_SLOTS = 64, N_PAGES = 256, MAX_SEQS = 6, MAX_PROMPT = 300, MAX_OUTPUT = 40 };

typedef struct rig {
    cmi_scheduler_options opt;
    cmi_scheduler *s;
    void *memory[3];
    uint64_t now_ns, seed, n_draws;
    bool is_alive[N_SLOTS];
    uint32_t tenants[N_SLOTS], n_prompt[N_SLOTS], n_left[N_SLOTS];
    int32_t priorities[N_SLOTS];
    uint64_t n_served[4], n_ended[4];
    uint64_t trace; /* a digest of all plans */
    uint32_t admitted[4096], n_admitted;
} rig;

static uint32_t draw(rig *r, uint32_t n)
{
    uint32_t w[4];
    cmi_philox4x32(r->seed, r->n_draws++, 0, w);
    return w[0] % n;
}

static void start_as(rig *r, uint64_t seed, cmi_instance_role role)
{
    *r = (rig){.seed = seed, .now_ns = 1};
    r->opt = (cmi_scheduler_options){.role = role,
                                     .n_slots = N_SLOTS,
                                     .max_num_seqs = MAX_SEQS,
                                     .max_rows = 128,
                                     .max_decode_rows = MAX_SEQS,
                                     .max_prefill_rows = 64,
                                     .max_span_rows = 4,
                                     .max_tokens = 1024};
    cmi_page_pool_options pool = {.n_pages = N_PAGES, .lease_max_ns = 1};
    cmi_prefix_cache_options cache = {.n_blocks = 0};
    size_t n = cmi_page_pool_bytes(&pool);
    r->memory[0] = cmi_alloc_aligned(n, 64);
    assert_int_equal(cmi_page_pool_init(&r->opt.pool, r->memory[0], n, &pool), CMI_OK);
    n = cmi_prefix_cache_bytes(&cache);
    r->memory[1] = cmi_alloc_aligned(n, 64);
    assert_int_equal(cmi_prefix_cache_init(&r->opt.cache, r->memory[1], n, r->opt.pool, &cache),
                     CMI_OK);
    r->memory[2] = cmi_alloc(1, cmi_scheduler_bytes(&r->opt));
    r->s = cmi_scheduler_init(r->memory[2], &r->opt);
}

static void start(rig *r, uint64_t seed)
{
    start_as(r, seed, CMI_ROLE_BOTH);
}

static void stop(rig *r)
{
    cmi_prefix_cache_deinit(r->opt.cache);
    cmi_page_pool_deinit(r->opt.pool);
    for (size_t i = 0; i < CMI_LEN(r->memory); i++) {
        cmi_free(r->memory[i]);
    }
}

static void arrive(rig *r, uint32_t slot, uint32_t tenant, int32_t priority)
{
    r->is_alive[slot] = true;
    r->tenants[slot] = tenant;
    r->priorities[slot] = priority;
    r->n_prompt[slot] = 1 + draw(r, MAX_PROMPT);
    r->n_left[slot] = 1 + draw(r, MAX_OUTPUT);
    cmi_scheduler_request request = {.n_prompt = r->n_prompt[slot],
                                     .n_total = r->n_prompt[slot] + r->n_left[slot],
                                     .priority = priority,
                                     .tenant = tenant};
    cmi_scheduler_arrive(r->s, slot, &request);
}

static void step(rig *r)
{
    cmi_scheduler_plan plan;
    cmi_scheduler_outcome outcomes[MAX_SEQS];
    uint32_t ended[MAX_SEQS], n_ended = 0, n_sealed;
    if (!cmi_scheduler_plan_step(r->s, ++r->now_ns, &plan)) {
        return;
    }
    for (uint32_t i = 0; i < plan.n_admitted; i++) {
        uint32_t slot = plan.admitted[i];
        r->n_served[r->tenants[slot]] += r->n_prompt[slot];
        r->admitted[r->n_admitted++ % 4096] = slot;
        r->trace = r->trace * 31 + slot;
    }
    for (uint32_t i = 0; i < plan.n_spans; i++) {
        uint32_t slot = plan.spans[i].slot;
        r->trace = r->trace * 31 + plan.spans[i].n_rows;
        outcomes[i] = (cmi_scheduler_outcome){1, 0};
        if (plan.spans[i].samples) {
            r->n_served[r->tenants[slot]] += CMI_FAIRNESS_ANSWER_WEIGHT;
            if (--r->n_left[slot] == 0) {
                ended[n_ended++] = slot;
            }
        }
    }
    (void)cmi_scheduler_step_done(r->s, ++r->now_ns, outcomes, &n_sealed);
    for (uint32_t i = 0; i < n_ended; i++) {
        cmi_scheduler_finish(r->s, ++r->now_ns, ended[i]);
        r->is_alive[ended[i]] = false;
        r->n_ended[r->tenants[ended[i]]]++;
    }
}

/* Tenant t has slots 16 t ..; all of them always busy. */
static void refill(rig *r, uint32_t n_tenants, const uint32_t *n_slots)
{
    for (uint32_t t = 0; t < n_tenants; t++) {
        for (uint32_t i = 0; i < n_slots[t]; i++) {
            if (!r->is_alive[16 * t + i]) {
                arrive(r, 16 * t + i, t, 0);
            }
        }
    }
}

static void backlogged_tenants_have_equal_shares(void **state)
{
    (void)state;
    /* One may send four times as many requests: it has no more of the machine. */
    static const uint32_t n_slots[] = {16, 12, 8};
    const uint64_t bound = MAX_PROMPT + CMI_FAIRNESS_ANSWER_WEIGHT * MAX_SEQS * MAX_OUTPUT;
    for (uint64_t seed = 1; seed <= (getenv("CMI_FEW") != NULL ? 3 : 20); seed++) {
        rig r;
        start(&r, seed);
        for (uint32_t i = 0; i < 3000; i++) {
            refill(&r, 3, n_slots);
            step(&r);
            for (uint32_t a = 0; a < 3; a++) {
                for (uint32_t b = 0; b < a; b++) {
                    uint64_t x = r.n_served[a], y = r.n_served[b];
                    assert_true((x > y ? x - y : y - x) <= 2 * bound);
                }
            }
        }
        assert_true(r.n_served[0] > 20 * bound);
        for (uint32_t i = 0; i < 20000 && n_slots[0] > 0; i++) {
            step(&r);
        }
        stop(&r);
    }
}

/* A lone tenant is not held back, and one that comes late waits for no more than its turn. */
static void a_newcomer_is_next(void **state)
{
    (void)state;
    rig r;
    static const uint32_t n_slots[] = {16};
    start(&r, 9);
    for (uint32_t i = 0; i < 500; i++) {
        refill(&r, 1, n_slots);
        step(&r);
    }
    arrive(&r, 60, 3, 0);
    const uint32_t n_before = r.n_admitted;
    while (r.is_alive[60]) {
        refill(&r, 1, n_slots);
        step(&r);
    }
    uint32_t place = n_before;
    while (r.admitted[place % 4096] != 60) {
        place++;
    }
    assert_true(place - n_before <= 1);
    for (uint32_t i = 0; i < 20000; i++) {
        step(&r);
    }
    stop(&r);
}

static void priorities_come_before_shares(void **state)
{
    (void)state;
    rig r;
    start(&r, 4);
    for (uint32_t i = 0; i < 12; i++) {
        arrive(&r, i, 0, 5);
    }
    for (uint32_t i = 12; i < 24; i++) {
        arrive(&r, i, 0, -5);
    }
    arrive(&r, 24, 2, 5); /* the least served tenant, and not urgent */
    while (cmi_scheduler_n_waiting(r.s) + cmi_scheduler_n_running(r.s) > 0) {
        step(&r);
    }
    assert_int_equal(r.n_admitted, 25);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(r.admitted[i], 12 + i);
    }
    assert_int_equal(r.admitted[12], 24);
    stop(&r);
}

static uint64_t run_random(uint64_t seed)
{
    rig r;
    start(&r, seed);
    uint32_t n_to_come = 150, n_steps = 0;
    while (n_to_come > 0 || cmi_scheduler_n_waiting(r.s) + cmi_scheduler_n_running(r.s) > 0) {
        uint32_t slot = draw(&r, N_SLOTS);
        if (n_to_come > 0 && !r.is_alive[slot] && draw(&r, 4) == 0) {
            arrive(&r, slot, draw(&r, 4), (int32_t)draw(&r, 3) - 1);
            n_to_come--;
        }
        if (draw(&r, 40) == 0 && r.is_alive[slot]) {
            cmi_scheduler_finish(r.s, ++r.now_ns, slot);
            r.is_alive[slot] = false;
        }
        step(&r);
        assert_true(++n_steps < 100000);
    }
    stop(&r);
    return r.trace;
}

static void everybody_ends_and_runs_repeat(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (getenv("CMI_FEW") != NULL ? 5 : 60); seed++) {
        assert_true(run_random(seed) == run_random(seed));
    }
}

static uint32_t admit_one(rig *r)
{
    cmi_scheduler_plan plan;
    assert_false(cmi_scheduler_plan_step(r->s, ++r->now_ns, &plan)); /* prompts run elsewhere */
    assert_int_equal(plan.n_admitted, 1);
    return plan.admitted[0];
}

static void leave(rig *r, uint32_t slot)
{
    cmi_scheduler_leave(r->s, slot);
    cmi_scheduler_drained(r->s, ++r->now_ns, slot);
}

/* Those who leave while their prompt is at a prefill instance make room in the table of tenants:
 * a newcomer behind more of them than it holds still has his own turn. */
static void who_leaves_during_a_hand_over_is_forgotten(void **state)
{
    (void)state;
    rig r;
    start_as(&r, 1, CMI_ROLE_DECODE);
    for (uint32_t i = 0; i < 2 * CMI_FAIRNESS_TENANTS; i++) {
        arrive(&r, 0, 1000 + i, 0);
        assert_int_equal(admit_one(&r), 0);
        leave(&r, 0);
    }
    cmi_scheduler_plan plan;
    for (uint32_t i = 0; i < MAX_SEQS; i++) {
        arrive(&r, i, 3, 0);
    }
    (void)cmi_scheduler_plan_step(r.s, ++r.now_ns, &plan);
    assert_int_equal(plan.n_admitted, MAX_SEQS);
    arrive(&r, 10, 1, 0);
    arrive(&r, 11, 2, 0);
    arrive(&r, 12, 1, -1);
    leave(&r, 0);
    assert_int_equal(admit_one(&r), 12); /* tenant 1 is charged for a prompt */
    leave(&r, 1);
    assert_int_equal(admit_one(&r), 11);
    cmi_scheduler_finish(r.s, ++r.now_ns, 10);
    for (uint32_t i = 2; i < MAX_SEQS; i++) {
        leave(&r, i);
    }
    leave(&r, 11);
    leave(&r, 12);
    stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backlogged_tenants_have_equal_shares),
        cmocka_unit_test(a_newcomer_is_next),
        cmocka_unit_test(priorities_come_before_shares),
        cmocka_unit_test(everybody_ends_and_runs_repeat),
        cmocka_unit_test(who_leaves_during_a_hand_over_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
