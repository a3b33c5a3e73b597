/* The predictor of steps on machines that are made up: memory-bound, compute-bound, with noise,
 * hiccups and changes of speed. The machines are no sums of the predictor's terms. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "policy/step_cost.h"

enum { N_EXPERTS = 64, N_PER_TOK = 6, N_STEPS = 600, N_SEEDS = 40 };

typedef struct machine {
    double fixed_ns, expert_ns; /* reading: what every step reads, and one expert */
    double row_ns;              /* computing */
    double key_ns;              /* a position that a decode span reads */
    double pair_ns;             /* a prefill row times a position */
    double noise;               /* relative, uniform around 0 */
    double hiccup_share;        /* of the steps take 20 times as long */
    uint64_t seed, n_draws;
} machine;

static double draw(machine *m)
{
    return (double)cmi_philox_uniform(m->seed, m->n_draws++, 0);
}

static uint32_t draw_below(machine *m, uint32_t n)
{
    return (uint32_t)(draw(m) * n) % n;
}

static cmi_step_shape draw_shape(machine *m)
{
    cmi_step_shape s = {.n_decode_rows = draw_below(m, 65)};
    s.n_prefill_rows = draw_below(m, 3) == 0 ? 1 + draw_below(m, 256) : 0;
    s.n_decode_rows += s.n_decode_rows + s.n_prefill_rows == 0 ? 1 : 0;
    s.n_head_rows = s.n_decode_rows;
    s.decode_context = (uint64_t)s.n_decode_rows * (100 + draw_below(m, 4000));
    s.prefill_context = (uint64_t)s.n_prefill_rows * (s.n_prefill_rows + draw_below(m, 4000));
    return s;
}

/* Reading and computing overlap. */
static double true_ns(const machine *m, const cmi_step_shape *s)
{
    uint32_t n_rows = s->n_decode_rows + s->n_prefill_rows;
    double n_experts = N_EXPERTS * (1 - pow(1 - (double)N_PER_TOK / N_EXPERTS, n_rows));
    double read = m->fixed_ns + m->expert_ns * n_experts;
    return fmax(read, m->row_ns * n_rows) + m->key_ns * (double)s->decode_context +
           m->pair_ns * (double)s->prefill_context;
}

static uint64_t measure(machine *m, const cmi_step_shape *s)
{
    double t = true_ns(m, s) * (1 + m->noise * (2 * draw(m) - 1));
    return (uint64_t)(draw(m) < m->hiccup_share ? 20 * t : t) + 1;
}

static void observe(cmi_step_cost *cost, machine *m, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        cmi_step_shape s = draw_shape(m);
        cmi_step_cost_observe(cost, &s, measure(m, &s));
    }
}

/* The mean of |predicted / true - 1| over steps that were not observed. */
static double mean_error(const cmi_step_cost *cost, machine *m)
{
    double error = 0;
    for (uint32_t i = 0; i < 200; i++) {
        cmi_step_shape s = draw_shape(m);
        error += fabs(cmi_step_predict_ns(&cost->rates, &s) / true_ns(m, &s) - 1) / 200;
    }
    return error;
}

static const machine memory_bound = {
    .fixed_ns = 2e7, .expert_ns = 1e6, .row_ns = 1e4, .key_ns = 20, .pair_ns = 5};
static const machine compute_bound = {
    .fixed_ns = 1e5, .expert_ns = 1e4, .row_ns = 1e6, .key_ns = 200, .pair_ns = 100};
static const machine mixed = {
    .fixed_ns = 2e7, .expert_ns = 1e6, .row_ns = 6e5, .key_ns = 20, .pair_ns = 50};

static void converges(const machine *kind, double noise, double hiccup_share, double limit)
{
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        machine m = *kind;
        m.seed = seed;
        m.noise = noise;
        m.hiccup_share = hiccup_share;
        cmi_step_cost cost;
        cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
        assert_false(cmi_step_cost_is_known(&cost));
        observe(&cost, &m, N_STEPS);
        assert_true(cmi_step_cost_is_known(&cost));
        double error = mean_error(&cost, &m);
        if (!(error < limit)) {
            fail_msg("seed %llu: off by %.3f, not %.3f", (unsigned long long)seed, error, limit);
        }
    }
}

static void it_converges_on_every_machine(void **state)
{
    (void)state;
    converges(&memory_bound, 0, 0, 0.02);
    converges(&memory_bound, 0.2, 0, 0.08);
    converges(&compute_bound, 0, 0, 0.03);
    converges(&compute_bound, 0.2, 0, 0.08);
    converges(&mixed, 0.1, 0, 0.15);
}

static void hiccups_do_not_pull_it_away(void **state)
{
    (void)state;
    converges(&memory_bound, 0.05, 0.03, 0.15);
    converges(&compute_bound, 0.05, 0.03, 0.15);
}

static void it_follows_a_change_of_speed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        machine m = memory_bound;
        m.seed = seed;
        m.noise = 0.1;
        cmi_step_cost cost;
        cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
        observe(&cost, &m, N_STEPS);
        m.fixed_ns *= 2.5; /* somebody else uses the memory */
        m.expert_ns *= 2.5;
        assert_true(mean_error(&cost, &m) > 0.3);
        observe(&cost, &m, N_STEPS);
        assert_true(mean_error(&cost, &m) < 0.1);
        m.fixed_ns = memory_bound.fixed_ns;
        m.expert_ns = memory_bound.expert_ns;
        observe(&cost, &m, N_STEPS);
        assert_true(mean_error(&cost, &m) < 0.1);
    }
}

/* What prompts cost is not forgotten while nobody brings one. */
static void what_is_not_seen_stays_as_it_was(void **state)
{
    (void)state;
    machine m = memory_bound;
    m.seed = 5;
    cmi_step_cost cost;
    cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
    observe(&cost, &m, N_STEPS);
    for (uint32_t i = 0; i < 20000; i++) {
        cmi_step_shape s = draw_shape(&m);
        s.n_prefill_rows = 0;
        s.prefill_context = 0;
        s.n_decode_rows = CMI_MAX(s.n_decode_rows, 1u);
        cmi_step_cost_observe(&cost, &s, measure(&m, &s));
    }
    assert_true(mean_error(&cost, &m) < 0.05);
}

static void the_factor_covers_its_share(void **state)
{
    (void)state;
    cmi_step_cost cost;
    cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
    assert_true(cmi_step_cost_factor(&cost, 0.99) == 1);
    machine m = memory_bound;
    m.seed = 7;
    m.noise = 0.3;
    observe(&cost, &m, N_STEPS);
    uint32_t n_covered = 0, n = 2000;
    double factor = cmi_step_cost_factor(&cost, 0.99);
    assert_true(factor > 1.1 && factor < 1.6);
    assert_true(cmi_step_cost_factor(&cost, 0.5) < factor);
    assert_true(cmi_step_cost_factor(&cost, 1) >= factor);
    for (uint32_t i = 0; i < n; i++) {
        cmi_step_shape s = draw_shape(&m);
        double covered = factor * cmi_step_predict_ns(&cost.rates, &s);
        n_covered += (double)measure(&m, &s) <= covered ? 1 : 0;
    }
    assert_true(n_covered >= 0.95 * n);
}

/* The fit keeps hiccups off; who adds up many steps must not. */
static void the_mean_counts_hiccups(void **state)
{
    (void)state;
    machine m = memory_bound;
    m.seed = 11;
    cmi_step_cost cost;
    cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
    assert_true(cmi_step_cost_mean_factor(&cost) == 1);
    observe(&cost, &m, N_STEPS);
    assert_true(fabs(cmi_step_cost_mean_factor(&cost) - 1) < 0.02);
    m.hiccup_share = 0.05;
    observe(&cost, &m, N_STEPS);
    double factor = cmi_step_cost_mean_factor(&cost); /* 1.95 in the mean of windows */
    assert_true(factor > 1.3 && factor < 2.6);
    assert_true(cmi_step_cost_factor(&cost, 0.8) < 1.2);
}

static uint64_t draw_any(machine *m, uint64_t max)
{
    uint64_t bits = (uint64_t)draw_below(m, 1 << 24) << 40 | (uint64_t)draw_below(m, 1 << 24) << 16;
    return (bits >> draw_below(m, 64)) % max;
}

static cmi_step_shape draw_wild(machine *m)
{
    return (cmi_step_shape){.n_decode_rows = (uint32_t)draw_any(m, UINT32_MAX / 2),
                            .n_prefill_rows = (uint32_t)draw_any(m, UINT32_MAX / 2),
                            .n_head_rows = (uint32_t)draw_any(m, UINT32_MAX),
                            .n_mtp_passes = (uint32_t)draw_any(m, UINT32_MAX),
                            .n_mtp_rows = (uint32_t)draw_any(m, UINT32_MAX),
                            .decode_context = draw_any(m, UINT64_MAX),
                            .prefill_context = draw_any(m, UINT64_MAX)};
}

/* Whatever is measured: predictions are numbers, not negative, and grow with the shape. */
static void nonsense_stays_finite(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        machine m = {.seed = seed};
        cmi_step_cost cost;
        cmi_step_cost_init(&cost, draw_below(&m, 3) * 8, draw_below(&m, 20));
        for (uint32_t i = 0; i < 300; i++) {
            cmi_step_shape s = draw_wild(&m), more = s;
            cmi_step_cost_observe(&cost, &s, draw_any(&m, UINT64_MAX));
            double t = cmi_step_predict_ns(&cost.rates, &s);
            assert_true(t >= 0 && isfinite(t));
            more.n_prefill_rows++;
            more.decode_context += more.decode_context < UINT64_MAX / 2 ? 1000 : 0;
            assert_true(cmi_step_predict_ns(&cost.rates, &more) >= t);
            double factor = cmi_step_cost_factor(&cost, 0.99);
            assert_true(factor >= 0 && isfinite(factor));
        }
        cmi_step_cost_settle(&cost);
        cmi_step_shape s = draw_wild(&m);
        assert_true(isfinite(cmi_step_predict_ns(&cost.rates, &s)));
    }
}

static void equal_steps_give_equal_bits(void **state)
{
    (void)state;
    static cmi_step_cost costs[2];
    for (int k = 0; k < 2; k++) {
        machine m = mixed;
        m.seed = 3;
        m.noise = 0.3;
        cmi_step_cost_init(&costs[k], N_EXPERTS, N_PER_TOK);
        observe(&costs[k], &m, N_STEPS);
    }
    assert_memory_equal(&costs[0], &costs[1], sizeof costs[0]);
}

/* As an engine measures at its start: each kind of step a few times. */
static void a_handful_of_steps_is_enough_to_begin(void **state)
{
    (void)state;
    static const cmi_step_shape probes[] = {
        {.n_decode_rows = 1, .n_head_rows = 1, .decode_context = 64},
        {.n_decode_rows = 16, .n_head_rows = 16, .decode_context = 1024},
        {.n_decode_rows = 64, .n_head_rows = 64, .decode_context = 4096},
        {.n_decode_rows = 16, .n_head_rows = 16, .decode_context = 65536},
        {.n_prefill_rows = 64, .n_head_rows = 1, .prefill_context = 64 * 32},
        {.n_prefill_rows = 256, .n_head_rows = 1, .prefill_context = 256 * 128},
        {.n_prefill_rows = 256, .n_head_rows = 1, .prefill_context = 256 * 4096},
    };
    machine m = memory_bound;
    cmi_step_cost cost;
    cmi_step_cost_init(&cost, N_EXPERTS, N_PER_TOK);
    for (uint32_t i = 0; i < 3 * CMI_LEN(probes); i++) {
        const cmi_step_shape *s = &probes[i % CMI_LEN(probes)];
        cmi_step_cost_observe(&cost, s, measure(&m, s));
    }
    cmi_step_cost_settle(&cost);
    assert_true(mean_error(&cost, &m) < 0.15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_converges_on_every_machine),
        cmocka_unit_test(hiccups_do_not_pull_it_away),
        cmocka_unit_test(it_follows_a_change_of_speed),
        cmocka_unit_test(what_is_not_seen_stays_as_it_was),
        cmocka_unit_test(the_factor_covers_its_share),
        cmocka_unit_test(the_mean_counts_hiccups),
        cmocka_unit_test(nonsense_stays_finite),
        cmocka_unit_test(equal_steps_give_equal_bits),
        cmocka_unit_test(a_handful_of_steps_is_enough_to_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
