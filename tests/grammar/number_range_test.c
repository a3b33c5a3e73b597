#include "tests/grammar/fixture.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

static void integers_between_bounds_are_exact(void **state)
{
    static const int bounds[][2] = {{0, 0},     {0, 9},       {1, 10},    {-1, 1},
                                    {-12, -7},  {5, 123},     {-99, 100}, {99, 101},
                                    {250, 333}, {-305, -299}, {-1000, 7}, {1000, 1000}};
    for (size_t i = 0; i < CMI_LEN(bounds); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"type\": \"integer\", \"minimum\": %d, \"maximum\": %d}",
                 bounds[i][0], bounds[i][1]);
        cmi_grammar *g = compile_schema(*state, text);
        for (int value = -1100; value <= 1100; value++) {
            char number[16];
            snprintf(number, sizeof number, "%d", value);
            if (fits(g, number) != (value >= bounds[i][0] && value <= bounds[i][1])) {
                fail_msg("%s: %d", text, value);
            }
        }
        assert_false(fits(g, "00") || fits(g, "-") || fits(g, "1.0") || fits(g, "-0"));
        cmi_grammar_destroy(g);
    }
}

static double random_bound(uint64_t seed, uint64_t which)
{
    static const double steps[] = {1, 0.5, 0.25, 0.01, 0.001};
    double step = steps[(int)(cmi_philox_uniform(seed, which, 1) * 5)];
    double wide = cmi_philox_uniform(seed, which, 2) < 0.5 ? 3 : 300;
    double value = ((double)cmi_philox_uniform(seed, which, 3) * 2 - 1) * wide;
    return strtod("0", NULL) + floor(value / step) * step;
}

/* Compared as the double nearest to each text, like anybody who checks the answer does. */
static void numbers_between_bounds_are_exact(void **state)
{
    for (uint64_t seed = 0; seed < 60; seed++) {
        char text[200], number[64], low_text[32], high_text[32];
        snprintf(low_text, sizeof low_text, "%.3f", random_bound(seed, 0));
        snprintf(high_text, sizeof high_text, "%.3f", random_bound(seed, 1));
        bool swap = strtod(low_text, NULL) > strtod(high_text, NULL);
        bool open = cmi_philox_uniform(seed, 2, 0) < 0.5f;
        const char *low = swap ? high_text : low_text, *high = swap ? low_text : high_text;
        snprintf(text, sizeof text, "{\"type\": \"number\", \"%s\": %s, \"%s\": %s}",
                 open ? "exclusiveMinimum" : "minimum", low, open ? "exclusiveMaximum" : "maximum",
                 high);
        cmi_error err;
        if (try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, text, &err) != CMI_OK) {
            assert_true(open && strtod(low, NULL) == strtod(high, NULL));
            continue;
        }
        cmi_grammar *g = compile_schema(*state, text);
        for (uint64_t k = 0; k < 600; k++) {
            double near = strtod(k % 2 == 0 ? low : high, NULL);
            double value =
                near + ((double)cmi_philox_uniform(seed, k, 7) - 0.5) * (k % 3 == 0 ? 0.01 : 4);
            snprintf(number, sizeof number, "%.*f", (int)(k % 5), value);
            value = strtod(number, NULL);
            bool in = open ? value > strtod(low, NULL) && value < strtod(high, NULL)
                           : value >= strtod(low, NULL) && value <= strtod(high, NULL);
            bool minus_zero = number[0] == '-' && value == 0;
            if (fits(g, number) != (in && !minus_zero)) {
                fail_msg("%s: %s", text, number);
            }
        }
        cmi_grammar_destroy(g);
    }
}

static void bounds_beyond_every_number_are_none_or_refuse_all(void **state)
{
    cmi_error err;
    static const char *const empty[] = {
        "{\"type\": \"integer\", \"minimum\": 2, \"maximum\": 1}",
        "{\"type\": \"integer\", \"exclusiveMinimum\": 1, \"exclusiveMaximum\": 2}",
        "{\"type\": \"integer\", \"minimum\": 1, \"exclusiveMinimum\": true, \"maximum\": 1}",
        "{\"type\": \"number\", \"minimum\": 1e30}",
        "{\"type\": \"number\", \"maximum\": -1e30}",
        "{\"type\": \"integer\", \"minimum\": 0.25, \"maximum\": 0.75}",
    };
    for (size_t i = 0; i < CMI_LEN(empty); i++) {
        assert_int_equal(try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA, empty[i], &err),
                         CMI_ERR_BAD_DATA);
    }
    cmi_grammar *g =
        compile_schema(*state, "{\"type\": \"number\", \"minimum\": -1e30, \"maximum\": 1e300}");
    assert_true(fits(g, "-123456789012345678") && fits(g, "1.5e10"));
    cmi_grammar_destroy(g);
    g = compile_schema(*state, "{\"type\": \"integer\", \"minimum\": 0.5, \"maximum\": 2.5}");
    assert_true(fits(g, "1") && fits(g, "2") && !fits(g, "0") && !fits(g, "3"));
    cmi_grammar_destroy(g);
    assert_int_equal(try_compile(*state, CMI_GRAMMAR_JSON_SCHEMA,
                                 "{\"type\": \"number\", \"minimum\": 1e-30}", &err),
                     CMI_ERR_UNSUPPORTED);
}

static int set_up(void **state)
{
    *state = small_vocab();
    return 0;
}

static int tear_down(void **state)
{
    cmi_vocab_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_between_bounds_are_exact),
        cmocka_unit_test(numbers_between_bounds_are_exact),
        cmocka_unit_test(bounds_beyond_every_number_are_none_or_refuse_all),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
