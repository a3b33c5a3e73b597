#include "tests/test.h"

#include "policy/expert_load.h"

enum { N_LAYERS = 2, N_EXPERTS = 3 };

static uint64_t memory[64];
static cmi_expert_load load;

static void start(uint32_t age_shift)
{
    assert_true(cmi_expert_load_bytes(N_LAYERS, N_EXPERTS) <= sizeof memory);
    memset(memory, 0xff, sizeof memory);
    assert_int_equal(cmi_expert_load_init(&load, memory, N_LAYERS, N_EXPERTS, age_shift), CMI_OK);
}

static void expect(uint32_t layer, float a, float b, float c)
{
    float loads[N_EXPERTS];
    cmi_expert_load_read(&load, layer, loads);
    assert_true(loads[0] == a && loads[1] == b && loads[2] == c);
}

static void a_window_counts_when_it_is_closed(void **state)
{
    (void)state;
    start(0);
    cmi_expert_load_add(&load, 0, 1, 5);
    cmi_expert_load_add(&load, 0, 1, 2);
    cmi_expert_load_add(&load, 1, 2, 9);
    expect(0, 0, 0, 0);
    cmi_expert_load_age(&load);
    expect(0, 0, 7, 0);
    expect(1, 0, 0, 9);
    cmi_expert_load_age(&load); /* shift 0: the last window only */
    expect(0, 0, 0, 0);
}

static void old_windows_fade(void **state)
{
    (void)state;
    start(2);
    cmi_expert_load_add(&load, 0, 0, 64);
    cmi_expert_load_age(&load);
    expect(0, 64, 0, 0);
    cmi_expert_load_add(&load, 0, 2, 10);
    cmi_expert_load_age(&load);
    expect(0, 48, 0, 10);
    cmi_expert_load_age(&load);
    expect(0, 36, 0, 7); /* 10 - ceil(10 / 4) */
    for (int i = 0; i < 40; i++) {
        cmi_expert_load_age(&load);
    }
    expect(0, 0, 0, 0); /* to nothing, not to a rest */
}

static void a_steady_load_comes_to_rest(void **state)
{
    (void)state;
    start(3);
    for (int i = 0; i < 200; i++) {
        cmi_expert_load_add(&load, 1, 0, 100);
        cmi_expert_load_add(&load, 1, 1, 300);
        cmi_expert_load_age(&load);
    }
    expect(1, 793, 2393, 0); /* 2^3 windows' worth, but for the rounding: ceil(793 / 8) is 100 */
}

static void counts_stop_at_their_limit(void **state)
{
    (void)state;
    start(CMI_EXPERT_AGE_SHIFT_MAX);
    for (int i = 0; i < 1000; i++) {
        cmi_expert_load_add(&load, 0, 0, UINT32_MAX);
        cmi_expert_load_add(&load, 0, 0, UINT32_MAX);
        assert_int_equal(load.window[0], UINT32_MAX);
        cmi_expert_load_age(&load);
        assert_true(load.aged[0] < 1ull << 49);
    }
    for (uint32_t i = 1; i < N_LAYERS * N_EXPERTS; i++) {
        assert_int_equal(load.aged[i], 0);
    }
}

static void sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    static const uint32_t bad[][3] = {{0, 1, 0},
                                      {1, 0, 0},
                                      {CMI_EXPERT_LAYERS_MAX + 1, 1, 0},
                                      {1, CMI_EXPERTS_MAX + 1, 0},
                                      {1, 1, CMI_EXPERT_AGE_SHIFT_MAX + 1}};
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        assert_int_equal(cmi_expert_load_init(&load, memory, bad[i][0], bad[i][1], bad[i][2]),
                         CMI_ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_counts_when_it_is_closed),
        cmocka_unit_test(old_windows_fade),
        cmocka_unit_test(a_steady_load_comes_to_rest),
        cmocka_unit_test(counts_stop_at_their_limit),
        cmocka_unit_test(sizes_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
