#include "server/http_service.h"

#include <string.h>

#include "base/strmap.h"
#include "server/http_error.h"

#define MAX_MS 4000000 /* over an hour; in us it fits 32 bits */

/* Milliseconds as digits, perhaps a point and more digits; what is below 1 us is dropped. */
static bool read_ms(const char *text, uint32_t *us_out)
{
    uint64_t us = 0;
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 10) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        us = 10 * us + (uint64_t)(text[i] - '0');
    }
    us *= 1000;
    if (text[n] == '.') {
        size_t n_digits = strspn(text + n + 1, "0123456789");
        uint64_t unit = 100;
        for (size_t i = 0; i < n_digits; i++, unit /= 10) {
            us += unit * (uint64_t)(text[n + 1 + i] - '0');
        }
        n += n_digits > 0 ? 1 + n_digits : 0;
    }
    *us_out = (uint32_t)CMI_MIN(us, MAX_MS * UINT64_C(1000));
    return text[n] == '\0' && us <= MAX_MS * UINT64_C(1000);
}

/* Leaves *us_out where there is no such header. */
static cmi_status read_header(const char *name, const char *text, uint32_t *us_out,
                              cmi_api_error *err)
{
    if (text == NULL || read_ms(text, us_out)) {
        return CMI_OK;
    }
    cmi_http_error_set(err, 400,
                       "The header %s must be a number of milliseconds, 0 to %d, such as 50 or "
                       "12.5.",
                       name, MAX_MS);
    return CMI_ERR_INVALID;
}

cmi_status cmi_http_service_read(const cmi_http_service_headers *headers, cmi_api_service *service,
                                 cmi_api_error *err)
{
    uint32_t timeout_us = 0;
    cmi_status st = read_header("x-llm-d-slo-ttft-ms", headers->ttft_ms, &service->ttft_us, err);
    if (st == CMI_OK) {
        st = read_header("x-llm-d-slo-tpot-ms", headers->tpot_ms, &service->tpot_us, err);
    }
    if (st == CMI_OK) {
        st = read_header("x-request-timeout-ms", headers->timeout_ms, &timeout_us, err);
    }
    const uint32_t timeout_ms = CMI_DIV_UP(timeout_us, 1000u);
    if (timeout_ms > 0 && (service->timeout_ms == 0 || timeout_ms < service->timeout_ms)) {
        service->timeout_ms = timeout_ms;
    }
    const char *tenant = headers->fairness_id;
    if (tenant == NULL || tenant[0] == '\0') {
        tenant = headers->authorization;
    }
    service->tenant = tenant == NULL ? 0 : cmi_hash_bytes(tenant, strlen(tenant));
    return st;
}
