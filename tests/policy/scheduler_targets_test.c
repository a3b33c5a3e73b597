/* The scheduler on a machine whose steps take time: with targets, tokens come as they should, and
 * prompts and the others still get on. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "policy/scheduler.h"

#define MS UINT64_C(1000000)

enum { N_SLOTS = 64, N_PAGES = 4096 };

typedef struct rig {
    cmi_scheduler_options opt;
    cmi_scheduler *s;
    void *memory[3];
    uint64_t now_ns;
    uint64_t step_ns, row_ns, prefill_row_ns; /* the machine */
    uint64_t seed, n_draws;
    uint32_t n_left[N_SLOTS]; /* tokens to come; 0: free */
    uint32_t max_running, n_prefill_steps;
    uint64_t first_ns[N_SLOTS], last_ns[N_SLOTS];
    uint32_t n_tokens[N_SLOTS];
} rig;

static void start(rig *r, uint32_t max_num_seqs)
{
    *r = (rig){.now_ns = 1, .step_ns = 10 * MS, .row_ns = MS, .prefill_row_ns = MS / 4, .seed = 1};
    r->opt = (cmi_scheduler_options){.n_slots = N_SLOTS,
                                     .max_num_seqs = max_num_seqs,
                                     .max_rows = 2048,
                                     .max_decode_rows = max_num_seqs,
                                     .max_prefill_rows = 256,
                                     .max_span_rows = 4,
                                     .max_tokens = 8192,
                                     .cover = 0.9};
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

static void stop(rig *r)
{
    cmi_prefix_cache_deinit(r->opt.cache);
    cmi_page_pool_deinit(r->opt.pool);
    for (size_t i = 0; i < CMI_LEN(r->memory); i++) {
        cmi_free(r->memory[i]);
    }
}

static uint64_t duration(const rig *r, uint32_t n_decode, uint32_t n_prefill)
{
    return r->step_ns + n_decode * r->row_ns + n_prefill * r->prefill_row_ns;
}

/* As an engine does before it serves. */
static void probe(rig *r)
{
    for (uint32_t i = 0; i < 60; i++) {
        cmi_step_shape shape = {.n_decode_rows = 1 + i % 20, .n_head_rows = 1 + i % 20};
        uint32_t n_prefill = i % 3 == 0 ? 8 * (i % 32) : 0;
        shape.decode_context = 100 * (uint64_t)shape.n_decode_rows;
        cmi_step_shape_add_prefill(&shape, i * 10 % 700, n_prefill, false);
        cmi_step_cost_observe(cmi_scheduler_cost(r->s), &shape,
                              duration(r, shape.n_decode_rows, n_prefill));
    }
    cmi_step_cost_settle(cmi_scheduler_cost(r->s));
}

static void arrive(rig *r, uint32_t slot, uint32_t n_prompt, uint32_t n_output, uint64_t tpot_ns)
{
    cmi_scheduler_request request = {
        .n_prompt = n_prompt, .n_total = n_prompt + n_output, .tpot_ns = tpot_ns};
    cmi_scheduler_arrive(r->s, slot, &request);
    r->n_left[slot] = n_output;
    r->first_ns[slot] = r->n_tokens[slot] = 0;
}

static bool step(rig *r)
{
    cmi_scheduler_plan plan;
    if (!cmi_scheduler_plan_step(r->s, r->now_ns, &plan)) {
        assert_int_equal(cmi_scheduler_n_waiting(r->s) + cmi_scheduler_n_running(r->s), 0);
        return false;
    }
    uint32_t n_prefill = plan.n_rows - plan.n_decode_rows, ended[N_SLOTS], n_ended = 0, n_sealed;
    cmi_scheduler_outcome outcomes[N_SLOTS];
    r->now_ns += duration(r, plan.n_decode_rows, n_prefill);
    r->n_prefill_steps += n_prefill > 0 ? 1 : 0;
    r->max_running = CMI_MAX(r->max_running, cmi_scheduler_n_running(r->s));
    for (uint32_t i = 0; i < plan.n_spans; i++) {
        uint32_t slot = plan.spans[i].slot;
        outcomes[i] = (cmi_scheduler_outcome){1, 0};
        if (plan.spans[i].samples) {
            r->first_ns[slot] = r->n_tokens[slot]++ == 0 ? r->now_ns : r->first_ns[slot];
            r->last_ns[slot] = r->now_ns;
            if (--r->n_left[slot] == 0) {
                ended[n_ended++] = slot;
            }
        }
    }
    (void)cmi_scheduler_step_done(r->s, r->now_ns, outcomes, &n_sealed);
    for (uint32_t i = 0; i < n_ended; i++) {
        cmi_scheduler_finish(r->s, r->now_ns, ended[i]);
    }
    return true;
}

static double tpot_ms(const rig *r, uint32_t slot)
{
    return (double)(r->last_ns[slot] - r->first_ns[slot]) / (r->n_tokens[slot] - 1) / (double)MS;
}

static void without_targets_nothing_is_held_back(void **state)
{
    (void)state;
    rig r;
    start(&r, 32);
    probe(&r);
    for (uint32_t i = 0; i < 40; i++) {
        arrive(&r, i, 64, 50, 0);
    }
    while (step(&r)) {
    }
    assert_int_equal(r.max_running, 32);
    stop(&r);
}

/* 19 of 20 ms are aimed at, and so on, so that nobody is late. */
static void a_target_bounds_how_many_run_together(void **state)
{
    (void)state;
    static const struct {
        uint64_t target_ms;
        uint32_t n_seats;
    } cases[] = {{20, 9}, {30, 18}, {12, 1}, {5, 1}};
    for (size_t k = 0; k < CMI_LEN(cases); k++) {
        rig r;
        start(&r, 32);
        probe(&r);
        for (uint32_t i = 0; i < 40; i++) {
            arrive(&r, i, 8, 100, cases[k].target_ms * MS);
        }
        while (step(&r)) {
        }
        assert_in_range(r.max_running, cases[k].n_seats == 1 ? 1 : cases[k].n_seats - 1,
                        cases[k].n_seats);
        for (uint32_t i = 0; i < 40 && cases[k].n_seats > 1; i++) {
            assert_true(tpot_ms(&r, i) <= (double)cases[k].target_ms);
        }
        stop(&r);
    }
}

/* One tight sequence; prompts of others come all the time. */
static void prompts_beside_a_target_come_in_small_pieces(void **state)
{
    (void)state;
    for (int with_target = 0; with_target < 2; with_target++) {
        rig r;
        start(&r, 8);
        probe(&r);
        arrive(&r, 0, 8, 400, with_target ? 25 * MS : 0);
        for (uint32_t i = 0; r.n_left[0] > 0; i++) {
            uint32_t slot = 1 + i % 4;
            if (r.n_left[slot] == 0) {
                arrive(&r, slot, 2000, 1, 0);
            }
            step(&r);
        }
        if (with_target) {
            assert_true(tpot_ms(&r, 0) < 25 * 1.03);
            assert_true(tpot_ms(&r, 0) > 25 * 0.85); /* and what it allows is used */
        } else {
            assert_true(tpot_ms(&r, 0) > 60);
        }
        assert_true(r.n_prefill_steps > 300);
        while (step(&r)) {
        }
        stop(&r);
    }
}

/* A target that the machine cannot keep at all does not keep prompts from their first token. */
static void an_impossible_target_starves_nobody(void **state)
{
    (void)state;
    rig r;
    start(&r, 8);
    probe(&r);
    arrive(&r, 0, 8, 3000, MS);
    step(&r);
    arrive(&r, 1, 64, 10, 0);
    while (step(&r)) {
    }
    assert_int_equal(r.n_tokens[0], 3000);
    assert_int_equal(r.n_tokens[1], 10);
    stop(&r);
}

/* Seeds: everybody ends, whatever the targets and lengths. */
static void random_loads_end(void **state)
{
    (void)state;
    uint64_t n_seeds = getenv("CMI_FEW") != NULL ? 10 : 200;
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        rig r;
        start(&r, 1 + (uint32_t)(seed % 16));
        r.seed = seed;
        if (seed % 3 > 0) {
            probe(&r);
        }
        uint32_t words[4];
        for (uint32_t i = 0; i < 40; i++) {
            cmi_philox4x32(seed, i, 1, words);
            arrive(&r, i, 1 + words[0] % 3000, 1 + words[1] % 100,
                   words[2] % 3 == 0 ? 0 : words[2] % (60 * MS));
            for (uint32_t k = words[3] % 6; k > 0; k--) {
                step(&r);
            }
        }
        uint32_t n_steps = 0;
        while (step(&r)) {
            assert_true(++n_steps < 200000);
        }
        for (uint32_t i = 0; i < 40; i++) {
            assert_int_equal(r.n_left[i], 0);
        }
        stop(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_targets_nothing_is_held_back),
        cmocka_unit_test(a_target_bounds_how_many_run_together),
        cmocka_unit_test(prompts_beside_a_target_come_in_small_pieces),
        cmocka_unit_test(an_impossible_target_starves_nobody),
        cmocka_unit_test(random_loads_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
