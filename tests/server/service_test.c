#include "tests/test.h"

#include "server/http_service.h"

static cmi_status read(const cmi_http_service_headers *headers, cmi_api_service *service,
                       cmi_api_error *err)
{
    *service = (cmi_api_service){.ttft_us = 9, .tpot_us = 8, .timeout_ms = 700, .tenant = 6};
    return cmi_http_service_read(headers, service, err);
}

static void what_is_not_sent_is_the_default(void **state)
{
    (void)state;
    cmi_api_service s;
    cmi_api_error err;
    assert_int_equal(read(&(cmi_http_service_headers){0}, &s, &err), CMI_OK);
    assert_int_equal(s.ttft_us, 9);
    assert_int_equal(s.tpot_us, 8);
    assert_int_equal(s.timeout_ms, 700);
    assert_int_equal(s.tenant, 0);
}

static void numbers_are_milliseconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t us;
    } good[] = {{"0", 0},
                {"50", 50000},
                {"12.5", 12500},
                {"0.001", 1},
                {"0.0019999", 1},
                {"00050.0", 50000},
                {"0.25", 250},
                {"4000000", 4000000000u},
                {"4000000.0", 4000000000u}};
    static const char *const bad[] = {
        "",      " 5",  "5 ",      "-5",          "+5",          "5ms",
        "5.",    ".5",  "1e3",     "nan",         "0x5",         "5,0",
        "5.0.0", "inf", "4000001", "4000000.001", "99999999999", "18446744073709551616",
        "5\n"};
    cmi_api_service s;
    cmi_api_error err;
    for (size_t i = 0; i < CMI_LEN(good); i++) {
        cmi_http_service_headers h = {.tpot_ms = good[i].text};
        assert_int_equal(read(&h, &s, &err), CMI_OK);
        assert_int_equal(s.tpot_us, good[i].us);
        assert_int_equal(s.ttft_us, 9);
    }
    for (size_t i = 0; i < CMI_LEN(bad); i++) {
        cmi_http_service_headers h = {.ttft_ms = bad[i]};
        assert_int_equal(read(&h, &s, &err), CMI_ERR_INVALID);
        assert_int_equal(err.http_status, 400);
        assert_non_null(strstr(err.message, "x-llm-d-slo-ttft-ms"));
    }
}

static void a_timeout_can_only_become_shorter(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t ms;
    } cases[] = {{"0", 700}, {"699.1", 700}, {"100", 100}, {"0.5", 1}, {"5000", 700}};
    cmi_api_service s;
    cmi_api_error err;
    for (size_t i = 0; i < CMI_LEN(cases); i++) {
        cmi_http_service_headers h = {.timeout_ms = cases[i].text};
        assert_int_equal(read(&h, &s, &err), CMI_OK);
        assert_int_equal(s.timeout_ms, cases[i].ms);
    }
    s.timeout_ms = 0;
    assert_int_equal(
        cmi_http_service_read(&(cmi_http_service_headers){.timeout_ms = "5000"}, &s, &err), CMI_OK);
    assert_int_equal(s.timeout_ms, 5000);
}

static void tenants_are_told_apart(void **state)
{
    (void)state;
    const cmi_http_service_headers tenants[] = {
        {.fairness_id = "a"},
        {.fairness_id = "b"},
        {.authorization = "Bearer a"},
        {.fairness_id = "", .authorization = "Bearer b"},
    };
    cmi_api_service s[CMI_LEN(tenants)];
    cmi_api_error err;
    for (size_t i = 0; i < CMI_LEN(tenants); i++) {
        assert_int_equal(read(&tenants[i], &s[i], &err), CMI_OK);
        for (size_t k = 0; k < i; k++) {
            assert_true(s[k].tenant != s[i].tenant);
        }
    }
    cmi_api_service same;
    assert_int_equal(
        read(&(cmi_http_service_headers){.fairness_id = "a", .authorization = "x"}, &same, &err),
        CMI_OK);
    assert_true(same.tenant == s[0].tenant);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_sent_is_the_default),
        cmocka_unit_test(numbers_are_milliseconds),
        cmocka_unit_test(a_timeout_can_only_become_shorter),
        cmocka_unit_test(tenants_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
