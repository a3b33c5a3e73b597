/* Allowances of sequences with targets, and what they leave to others. */
#include "tests/test.h"

#include "policy/step_budget.h"

#define MS 1000000

static cmi_pace at_pace(uint64_t target_ns, uint32_t n_tokens, uint64_t each_ns)
{
    cmi_pace pace = {.target_ns = target_ns};
    for (uint32_t i = 0; i < n_tokens; i++) {
        cmi_pace_count(&pace, 1000 + i * each_ns, 1);
    }
    return pace;
}

static void a_sequence_on_time_allows_its_target(void **state)
{
    (void)state;
    cmi_pace pace = at_pace(50 * MS, 1, 0);
    assert_true(cmi_pace_allowance_ns(&pace, pace.last_ns) == 50 * MS);
    assert_true(cmi_pace_allowance_ns(&pace, pace.last_ns + 20 * MS) == 30 * MS);
    assert_true(cmi_pace_allowance_ns(&pace, pace.last_ns + 70 * MS) == -20 * MS);
    pace = at_pace(50 * MS, 30, 50 * MS);
    assert_true(cmi_pace_allowance_ns(&pace, pace.last_ns) == 50 * MS);
}

static void a_lead_is_lent_with_care(void **state)
{
    (void)state;
    cmi_pace ahead = at_pace(50 * MS, 3, 40 * MS); /* 20 ms ahead */
    assert_true(cmi_pace_allowance_ns(&ahead, ahead.last_ns) == 55 * MS);
    ahead = at_pace(50 * MS, 1000, 1 * MS);
    assert_true(cmi_pace_allowance_ns(&ahead, ahead.last_ns) == 75 * MS);
    cmi_pace behind = at_pace(50 * MS, 3, 60 * MS);
    assert_true(cmi_pace_allowance_ns(&behind, behind.last_ns) == 45 * MS);
    behind = at_pace(50 * MS, 1000, 500 * MS);
    assert_true(cmi_pace_allowance_ns(&behind, behind.last_ns) == 37.5 * MS);
}

static void drafts_that_hold_lengthen_a_step(void **state)
{
    (void)state;
    cmi_pace pace = {.target_ns = 50 * MS};
    for (uint32_t i = 0; i < 200; i++) {
        cmi_pace_count(&pace, 1000 + i * 100 * (uint64_t)MS, i == 0 ? 1 : 2);
    }
    assert_true(pace.tokens_per_step > 1.99 && pace.tokens_per_step <= 2);
    double allowance = cmi_pace_allowance_ns(&pace, pace.last_ns);
    assert_true(allowance > 99 * MS && allowance < 101 * MS);
}

/* 10 ms, 1 ms a decode row, 0.25 ms a prefill row. */
static const cmi_step_rates rates = {.term_ns = {10.0 * MS, 0, 64.0 * MS, 64.0 * MS},
                                     .idle_share = 1};

static void seats_are_as_many_as_the_tightest_target_allows(void **state)
{
    (void)state;
    const cmi_pace none = {0}, loose = {.target_ns = 40 * MS}, tight = {.target_ns = 20 * MS};
    cmi_step_budget b = cmi_step_budget_begin(&rates, 1);
    for (uint32_t n = 0; n < 100; n++) {
        assert_true(cmi_step_budget_has_seat(&b, &none, 10));
        assert_int_equal(cmi_step_budget_has_seat(&b, &loose, 10), n + 1 <= 30);
        assert_int_equal(cmi_step_budget_has_seat(&b, &tight, 10), n + 1 <= 10);
        cmi_step_budget_add(&b, &none, 0, 10, true);
    }
    b = cmi_step_budget_begin(&rates, 1);
    cmi_step_budget_add(&b, &tight, 0, 10, false); /* holds its place before it decodes */
    for (uint32_t n = 1; n < 20; n++) {
        assert_int_equal(cmi_step_budget_has_seat(&b, &none, 10), n + 1 <= 10);
        cmi_step_budget_add(&b, &none, 0, 10, true);
    }
    b = cmi_step_budget_begin(&rates, 2);
    assert_true(cmi_step_budget_has_seat(&b, &loose, 10));
    assert_false(cmi_step_budget_has_seat(&b, &tight, 10));
    b = cmi_step_budget_begin(NULL, 1);
    assert_true(cmi_step_budget_has_seat(&b, &tight, 10));
}

static void prompts_get_the_rows_that_are_left(void **state)
{
    (void)state;
    const cmi_pace pace = at_pace(50 * MS, 1, 0);
    cmi_step_budget b = cmi_step_budget_begin(&rates, 1);
    cmi_step_shape shape = {.n_decode_rows = 8};
    assert_int_equal(cmi_step_budget_prefill_rows(&b, &shape, 0, 4096, false), 4096);
    cmi_step_budget_add(&b, &pace, pace.last_ns, 10, true);
    assert_int_equal(cmi_step_budget_prefill_rows(&b, &shape, 0, 4096, false), (50 - 18) * 4);
    for (uint32_t n = 0; n < 140; n++) {
        assert_int_equal(cmi_step_budget_prefill_rows(&b, &shape, 0, n, false),
                         CMI_MIN(n, (50u - 18) * 4));
    }
    shape.n_decode_rows = 45;
    assert_int_equal(cmi_step_budget_prefill_rows(&b, &shape, 0, 4096, false), 0);
    b.rates = NULL;
    assert_int_equal(cmi_step_budget_prefill_rows(&b, &shape, 0, 4096, false), 4096);
}

static void a_prefill_row_reads_what_is_before_it(void **state)
{
    (void)state;
    cmi_step_shape shape = {0};
    cmi_step_shape_add_prefill(&shape, 0, 3, false);
    assert_int_equal(shape.prefill_context, 1 + 2 + 3);
    cmi_step_shape_add_prefill(&shape, 100, 2, true);
    assert_int_equal(shape.prefill_context, 6 + 101 + 102);
    assert_int_equal(shape.n_prefill_rows, 5);
    assert_int_equal(shape.n_mtp_rows, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_on_time_allows_its_target),
        cmocka_unit_test(a_lead_is_lent_with_care),
        cmocka_unit_test(drafts_that_hold_lengthen_a_step),
        cmocka_unit_test(seats_are_as_many_as_the_tightest_target_allows),
        cmocka_unit_test(prompts_get_the_rows_that_are_left),
        cmocka_unit_test(a_prefill_row_reads_what_is_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
