/* Speculation on machines of which all is known: it pays where it can and costs next to nothing
 * where it cannot. */
#include "tests/test.h"

#include <stdlib.h>

#include "base/rng.h"
#include "policy/speculation.h"

enum { MAX_SEQS = 64, N_STEPS = 1000 };

/* ns: fixed, experts, 64 decode rows, -, 64 head rows, an MTP pass, 64 MTP rows, - */
static const cmi_step_rates memory_bound = {.term_ns = {20e6, 40e6, 4e6, 0, 2e6, 1e6, 0.2e6, 1e6},
                                            .idle_share = 1 - 8.0 / 256};
static const cmi_step_rates compute_bound = {.term_ns = {1e6, 0, 64e6, 0, 8e6, 0.2e6, 10e6, 1e6},
                                             .idle_share = 1};
static const cmi_step_rates dear_layer = {.term_ns = {10e6, 0, 1e6, 0, 1e6, 9e6, 2e6, 0},
                                          .idle_share = 1};

typedef struct run {
    const cmi_step_rates *rates;
    uint32_t n, max_drafts;
    double acceptance; /* the truth */
    uint64_t seed;
} run;

static double draw(const run *r, uint64_t *n_draws)
{
    return (double)cmi_philox_uniform(r->seed, (*n_draws)++, 0);
}

static cmi_step_shape steady_step(const run *r)
{
    return (cmi_step_shape){
        .n_decode_rows = r->n, .n_head_rows = r->n, .decode_context = r->n * UINT64_C(1000)};
}

/* Tokens a second with the policy over those without drafts. */
static double gain(const run *r)
{
    cmi_speculation spec = {0};
    cmi_acceptance all = {0}, each[MAX_SEQS] = {{0}};
    cmi_speculation_seq seqs[MAX_SEQS];
    double time_ns = 0, n_tokens = 0;
    uint64_t n_draws = 0;
    bool keeps_up = true;
    const cmi_step_shape steady = steady_step(r);
    for (uint32_t step = 0; step < N_STEPS; step++) {
        for (uint32_t i = 0; i < r->n; i++) {
            double prior = cmi_acceptance_rate(&all, 0.7);
            seqs[i] = (cmi_speculation_seq){.acceptance = cmi_acceptance_rate(&each[i], prior),
                                            .max_drafts = keeps_up ? r->max_drafts : 0};
        }
        keeps_up = cmi_speculation_decide(&spec, r->rates, &steady, seqs, r->n, 1000) && keeps_up;
        cmi_step_shape s = steady;
        for (uint32_t i = 0; i < r->n; i++) {
            uint32_t n_right = 0, n_drafts = seqs[i].n_drafts;
            assert_true(n_drafts <= r->max_drafts);
            while (n_right < n_drafts && draw(r, &n_draws) < r->acceptance) {
                n_right++;
            }
            if (n_drafts > 0) {
                cmi_acceptance_count(&each[i], n_drafts, n_right);
                cmi_acceptance_count(&all, n_drafts, n_right);
            }
            n_tokens += 1 + n_right;
            s.n_decode_rows += n_drafts;
            s.n_head_rows += 2 * n_drafts;
            s.n_mtp_rows += keeps_up ? CMI_MAX(n_drafts, 1u) : 0;
            s.n_mtp_passes = CMI_MAX(s.n_mtp_passes, CMI_MAX(n_drafts, keeps_up ? 1u : 0u));
        }
        time_ns += cmi_step_predict_ns(r->rates, &s);
    }
    return n_tokens / time_ns / (r->n / cmi_step_predict_ns(r->rates, &steady));
}

static void it_never_costs_more_than_it_may(void **state)
{
    (void)state;
    static const cmi_step_rates *const machines[] = {&memory_bound, &compute_bound, &dear_layer};
    static const uint32_t sizes[] = {1, 2, 8, 32, 64};
    for (size_t m = 0; m < CMI_LEN(machines); m++) {
        for (size_t k = 0; k < CMI_LEN(sizes); k++) {
            for (uint32_t max_drafts = 1; max_drafts <= 4; max_drafts++) {
                for (double p = 0; p < 1; p += 0.1) {
                    run r = {machines[m], sizes[k], max_drafts, p, 1 + k};
                    double g = gain(&r);
                    if (!(g >= 0.97)) {
                        fail_msg("machine %zu, %u sequences, %u drafts, %.1f right: %.3f", m,
                                 sizes[k], max_drafts, p, g);
                    }
                }
            }
        }
    }
}

static void it_pays_where_it_can(void **state)
{
    (void)state;
    assert_true(gain(&(run){&memory_bound, 8, 1, 0.8, 1}) > 1.3);
    assert_true(gain(&(run){&memory_bound, 1, 3, 0.9, 1}) > 1.5);
    assert_true(gain(&(run){&dear_layer, 1, 1, 0.95, 1}) > 0.97);
    assert_true(gain(&(run){&compute_bound, 64, 2, 0.9, 1}) < 1.1); /* nobody could */
}

static cmi_speculation_seq seq(double acceptance, uint32_t max_drafts)
{
    return (cmi_speculation_seq){.acceptance = acceptance, .max_drafts = max_drafts};
}

static void sequences_get_what_each_is_worth(void **state)
{
    (void)state;
    cmi_speculation spec = {0};
    cmi_speculation_seq seqs[] = {seq(0.95, 4), seq(0.01, 4), seq(0.95, 0), seq(0.6, 4)};
    const cmi_step_shape steady = {.n_decode_rows = 4, .n_head_rows = 4};
    assert_true(cmi_speculation_decide(&spec, &memory_bound, &steady, seqs, CMI_LEN(seqs), 1000));
    assert_true(spec.is_on);
    assert_true(seqs[0].n_drafts >= 2 && seqs[0].n_drafts >= seqs[3].n_drafts);
    assert_int_equal(seqs[1].n_drafts, 0);
    assert_int_equal(seqs[2].n_drafts, 0);
    uint32_t n = seqs[0].n_drafts + seqs[3].n_drafts;
    cmi_speculation_decide(&spec, &memory_bound, &steady, seqs, CMI_LEN(seqs), n - 1);
    assert_int_equal(seqs[0].n_drafts + seqs[3].n_drafts, n - 1);
    cmi_speculation_decide(&spec, &memory_bound, &steady, seqs, CMI_LEN(seqs), 0);
    assert_false(spec.is_on);
    cmi_speculation_decide(&spec, &memory_bound, &(cmi_step_shape){0}, NULL, 0, 10);
}

static void the_layer_stops_only_after_a_while(void **state)
{
    (void)state;
    cmi_speculation spec = {0};
    const cmi_step_shape steady = {.n_decode_rows = 1, .n_head_rows = 1};
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < 100; i++) {
        cmi_speculation_seq one = seq(0.05, 2);
        n_kept += cmi_speculation_decide(&spec, &dear_layer, &steady, &one, 1, 10) ? 1 : 0;
    }
    assert_in_range(n_kept, 1, 16);
    cmi_step_rates cheap = dear_layer;
    cheap.term_ns[5] = 1e3;
    for (uint32_t i = 0; i < 100; i++) {
        cmi_speculation_seq one = seq(0.001, 2);
        one.acceptance = 0;
        assert_true(cmi_speculation_decide(&spec, &cheap, &steady, &one, 1, 10));
        assert_int_equal(one.n_drafts, 0);
    }
}

static void acceptance_is_what_was_tested(void **state)
{
    (void)state;
    cmi_acceptance a = {0};
    assert_true(cmi_acceptance_rate(&a, 0.5) == 0.5);
    cmi_acceptance_count(&a, 4, 2); /* the fourth was not tested */
    assert_true(a.n_tested == 3 && a.n_right == 2);
    cmi_acceptance_count(&a, 2, 2);
    assert_true(a.n_tested == 5 && a.n_right == 4);
    for (uint32_t i = 0; i < 5000; i++) {
        cmi_acceptance_count(&a, 1, i % 4 < 3 ? 1 : 0);
    }
    assert_true(cmi_acceptance_rate(&a, 0) > 0.66 && cmi_acceptance_rate(&a, 1) < 0.82);
    for (uint32_t i = 0; i < 1000; i++) {
        cmi_acceptance_count(&a, 1, 0);
    }
    assert_true(cmi_acceptance_rate(&a, 0) < 0.01 && cmi_acceptance_rate(&a, 0) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_never_costs_more_than_it_may),
        cmocka_unit_test(it_pays_where_it_can),
        cmocka_unit_test(sequences_get_what_each_is_worth),
        cmocka_unit_test(the_layer_stops_only_after_a_while),
        cmocka_unit_test(acceptance_is_what_was_tested),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
